//! One running FFmpeg: pictures go in through a bounded queue, samples come out as events, tick by tick.
//!
//! A thread writes pictures, one reads each rendition's samples, one reads stderr, and one waits for the end; they all end
//! with the process. The last event is always [`EncoderEvent::Exited`], after every sample.

use std::collections::VecDeque;
use std::io::PipeReader;
use std::num::{NonZeroU32, NonZeroUsize};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::{Child, ChildStdin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::picture_pipe::{Lent, PicturePipe};
use super::process::{self, LastLines, Left, Output, Reaped};
use super::track_reader::TrackReader;
use super::{Cadence, EncodeError, EncodePlan, Vitals, arguments};
use crate::picture::{Picture, PictureFormat, Size};
use crate::sample::{Sample, TrackDescription, TrackIndex};
use crate::threads;
use crate::tick::{Grid, Tick, common_multiple};

/// Where an encoder begins.
#[derive(Clone, Debug)]
pub struct EncoderStart {
    /// The tick of the first picture.
    pub first_tick: Tick,
    /// For each rendition, one more tick to have a keyframe at: where its samples are resumed.
    pub keyframes_at: Vec<Option<Tick>>,
    /// It is fed every `step`th tick's picture, each of which lasts until the next one: 1 unless it is too slow for all.
    pub step: NonZeroU32,
    /// How many pictures may wait to be written.
    pub queue: NonZeroUsize,
    /// Whether its pipe takes as much of what the user may have for pipes as makes it quick: not where nobody waits for it.
    pub large_pipe: bool,
}

impl EncoderStart {
    /// Which ticks it has to be fed.
    pub fn cadence(&self, grid: Grid) -> Cadence {
        let resumed = self.keyframes_at.iter().copied().flatten();
        Cadence::new(grid, self.first_tick, self.step, resumed)
    }

    /// Which of them rendition `track` of `plan` shows.
    pub(super) fn track_cadence(&self, plan: &EncodePlan, track: TrackIndex) -> Cadence {
        let every = plan.renditions[track].every;
        if every == NonZeroU32::MIN {
            return self.cadence(plan.grid);
        }
        let step = common_multiple(self.step, every);
        Cadence::new(plan.grid, self.first_tick, step, self.keyframes_at[track])
    }

    /// FFmpeg's expression for the pictures that rendition `track` shows, of those that are fed; none if all.
    pub(super) fn picks(&self, plan: &EncodePlan, track: TrackIndex) -> Option<String> {
        let fed = self.cadence(plan.grid);
        fed.picks(&self.track_cadence(plan, track))
    }
}

/// What an encoder says. Events of one rendition come in order, from its own thread.
#[derive(Debug)]
pub enum EncoderEvent {
    /// A rendition's next sample.
    Sample(Sample),
    /// A rendition's output can't be used; it has no more samples. The process still runs: kill it.
    Failed {
        /// Whose output.
        track: TrackIndex,
        /// Why.
        error: EncodeError,
    },
    /// The process has ended. Always the last event.
    Exited(ExitReport),
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitReport {
    /// `exit status: 0`, `signal: 9 (SIGKILL)`...
    pub status: String,
    /// It was asked to finish, did so without an error, and every picture came back in every rendition that shows it.
    pub expected: bool,
    /// How many pictures were written whole.
    pub pictures: u64,
    /// How many samples each rendition yielded.
    pub samples: Vec<u64>,
    /// The end of what FFmpeg said, oldest first.
    pub last_lines: Vec<String>,
}

impl ExitReport {
    /// What FFmpeg said last as one line: its errors, if there are any among it.
    pub fn last_words(&self) -> String {
        process::last_words(&self.last_lines)
    }
}

/// Why a picture was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The encoder is behind; the picture may be offered again.
    #[error("the encoder's queue of {0} pictures is full")]
    Full(usize),
    /// The process has ended, or was told to finish.
    #[error("the encoder takes no more pictures")]
    Gone,
    /// The picture is not of the plan's format or size.
    #[error("the encoder takes pictures of another format or size")]
    Unfit,
}

/// One running FFmpeg process. Dropping it kills the process.
pub struct Encoder {
    shared: Arc<Shared>,
    pid: u32,
    format: PictureFormat,
    size: Size,
    bound: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// The process group while it can be killed: none once the process is about to be reaped, since its number may then
    /// become another's.
    group: Mutex<Option<Pid>>,
    finishing: AtomicBool,
    /// Set once nobody waits for its end any more; it counts until its threads are gone.
    left: Mutex<Option<Left>>,
    /// Bytes of pictures that the pipe has taken. A statistic: nothing else is read by it.
    taken: AtomicU64,
}

#[derive(Default)]
struct Queue {
    pictures: VecDeque<Picture>,
    /// No more will come.
    closed: bool,
    /// What is being written is of no use any more.
    abandoned: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn group(&self) -> MutexGuard<'_, Option<Pid>> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more pictures, and forgets those that wait if `forget`.
    fn close(&self, forget: bool) {
        let mut queue = self.queue();
        queue.closed = true;
        if forget {
            queue.abandoned = true;
            queue.pictures.clear();
        }
        drop(queue);
        self.changed.notify_all();
    }

    fn kill(&self) {
        self.close(true);
        if let Some(group) = *self.group() {
            process::kill_group(group);
        }
    }

    /// The next picture, waited for; none when no more will come.
    fn next_picture(&self) -> Option<Picture> {
        let mut queue = self.queue();
        loop {
            if let Some(picture) = queue.pictures.pop_front() {
                return Some(picture);
            }
            if queue.closed {
                return None;
            }
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Encoder {
    /// Starts FFmpeg for `plan`, whose probe yielded `descriptions`. `events` is called from several threads; while it blocks,
    /// a rendition stands still, and with it the encoder.
    pub fn start<F>(
        plan: &EncodePlan,
        descriptions: &[TrackDescription],
        start: &EncoderStart,
        events: F,
    ) -> Result<Self, EncodeError>
    where
        F: Fn(EncoderEvent) + Send + Sync + Clone + 'static,
    {
        let renditions = plan.renditions.len();
        for (what, given) in [
            ("track descriptions", descriptions.len()),
            ("keyframe wishes", start.keyframes_at.len()),
        ] {
            if given != renditions {
                return Err(EncodeError::Mismatch {
                    renditions,
                    what,
                    given,
                });
            }
        }
        let mut readers = Vec::with_capacity(renditions);
        let mut writers: Vec<OwnedFd> = Vec::with_capacity(renditions);
        for (track, description) in descriptions.iter().enumerate() {
            let (reader, writer) = std::io::pipe().map_err(failed_to("make a pipe"))?;
            writers.push(writer.into());
            readers.push((reader, TrackReader::new(plan, start, track, description)?));
        }
        let pipes: Vec<RawFd> = writers.iter().map(AsRawFd::as_raw_fd).collect();
        let cadences = Cadences {
            fed: start.cadence(plan.grid),
            next: start.first_tick,
            tracks: (0..renditions)
                .map(|track| (start.track_cadence(plan, track), 0))
                .collect(),
        };
        let line = arguments::live(plan, start, &pipes);
        tracing::debug!("{} {}", plan.ffmpeg.path.display(), line.join(" "));
        let child = process::spawn(&plan.ffmpeg.path, &line, &Output::Discarded, writers)
            .map_err(failed_to("start its program"))?;
        let encoder = Self {
            pid: child.id(),
            shared: Arc::new(Shared {
                queue: Mutex::default(),
                changed: Condvar::new(),
                group: Mutex::new(process::group_of(&child)),
                finishing: AtomicBool::new(false),
                left: Mutex::new(None),
                taken: AtomicU64::new(0),
            }),
            format: plan.input_format,
            size: plan.input_size,
            bound: start.queue.get(),
        };
        encoder.start_threads(child, start.large_pipe, cadences, readers, events)?;
        Ok(encoder)
    }

    /// When a thread can't be had, the encoder is dropped, which kills the process; those that run then end with it.
    fn start_threads<F>(
        &self,
        child: Child,
        large_pipe: bool,
        cadences: Cadences,
        readers: Vec<(PipeReader, TrackReader)>,
        events: F,
    ) -> Result<(), EncodeError>
    where
        F: Fn(EncoderEvent) + Send + Sync + Clone + 'static,
    {
        let mut child = Reaped(child);
        let (Some(stdin), Some(stderr)) = (child.0.stdin.take(), child.0.stderr.take()) else {
            unreachable!("both were asked for")
        };
        if large_pipe {
            process::enlarge_pipe(&stdin);
        }
        // Only this end: FFmpeg's own goes on waiting for pictures.
        fcntl_getfl(&stdin)
            .and_then(|flags| fcntl_setfl(&stdin, flags | OFlags::NONBLOCK))
            .map_err(|error| failed_to("prepare its pipe")(error.into()))?;
        // The thread that waits is made first, so that the process is reaped whatever happens next.
        let (threads, ready) = std::sync::mpsc::channel::<Threads>();
        let shared = self.shared.clone();
        let last = events.clone();
        threads::spawn("ffmpeg-wait", move || {
            let status = wait(&mut child.0, &shared);
            if let Ok(threads) = ready.recv() {
                last(EncoderEvent::Exited(threads.join(status, &shared)));
            }
        })
        .map_err(failed_to("make a thread"))?;
        let shared = self.shared.clone();
        let writer = threads::spawn("ffmpeg-feed", move || {
            write_pictures(stdin, &shared, cadences)
        })
        .map_err(failed_to("make a thread"))?;
        let lines = threads::spawn("ffmpeg-log", move || LastLines::read_to_end(stderr))
            .map_err(failed_to("make a thread"))?;
        let mut tracks = Vec::with_capacity(readers.len());
        for (pipe, reader) in readers {
            let events = events.clone();
            tracks.push(
                threads::spawn(format!("ffmpeg-out{}", reader.track), move || {
                    reader.run(pipe, events)
                })
                .map_err(failed_to("make a thread"))?,
            );
        }
        // The receiver lives until it has received.
        let _ = threads.send(Threads {
            writer,
            lines,
            tracks,
        });
        Ok(())
    }

    /// Gives it the picture of the next tick of its [`Cadence`]; never blocks.
    pub fn feed(&self, picture: Picture) -> Result<(), FeedError> {
        if picture.format != self.format || picture.size != self.size {
            return Err(FeedError::Unfit);
        }
        let mut queue = self.shared.queue();
        if queue.closed {
            return Err(FeedError::Gone);
        }
        if queue.pictures.len() >= self.bound {
            return Err(FeedError::Full(self.bound));
        }
        queue.pictures.push_back(picture);
        drop(queue);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// How many pictures wait to be written.
    pub fn queued(&self) -> usize {
        self.shared.queue().pictures.len()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Looks at what its processes do; none when they are gone. Takes a millisecond: for an encoder that returns nothing.
    pub fn vitals(&self) -> Option<Vitals> {
        let group = (*self.shared.group())?;
        let vitals = Vitals::of(group)?;
        Some(Vitals {
            bytes_taken: self.shared.taken.load(Ordering::Relaxed),
            ..vitals
        })
    }

    /// No more pictures: FFmpeg encodes what it was given and ends; every sample comes before [`EncoderEvent::Exited`].
    pub fn finish(&self) {
        // Read by the thread that waits, which synchronises through the queue's mutex and the process's end.
        self.shared.finishing.store(true, Ordering::Relaxed);
        self.shared.close(false);
    }

    /// Kills the process at once; [`EncoderEvent::Exited`] follows.
    pub fn kill(&self) {
        self.shared.kill();
    }

    /// It was killed and has not ended: nobody waits for that any more.
    pub fn leave_behind(&self) {
        let mut left = self
            .shared
            .left
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        left.get_or_insert_with(|| Left::behind(self.pid));
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("pid", &self.pid)
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.shared.kill();
    }
}

fn failed_to(what: &'static str) -> impl FnOnce(std::io::Error) -> EncodeError {
    move |source| EncodeError::Start { what, source }
}

/// The threads beside the one that waits.
struct Threads {
    writer: JoinHandle<Written>,
    lines: JoinHandle<Vec<String>>,
    tracks: Vec<JoinHandle<u64>>,
}

impl Threads {
    fn join(self, status: Result<std::process::ExitStatus, String>, shared: &Shared) -> ExitReport {
        // The process has ended, so what its pipe was lent is read or never will be.
        let Written {
            pictures, wanted, ..
        } = self.writer.join().unwrap_or_default();
        let samples: Vec<u64> = self
            .tracks
            .into_iter()
            .map(|track| track.join().unwrap_or_default())
            .collect();
        let finished = shared.finishing.load(Ordering::Relaxed);
        let success = status.as_ref().is_ok_and(std::process::ExitStatus::success);
        ExitReport {
            expected: finished && success && samples == wanted,
            status: status.map_or_else(|error| error, |status| status.to_string()),
            pictures,
            samples,
            last_lines: self.lines.join().unwrap_or_default(),
        }
    }
}

fn wait(child: &mut Child, shared: &Shared) -> Result<std::process::ExitStatus, String> {
    let pid = process::group_of(child).ok_or("it has no process id")?;
    // Ended but not reaped, its number is still its own: only then is killing switched off.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while matches!(waitid(WaitId::Pid(pid), options), Err(Errno::INTR)) {}
    if let Some(group) = shared.group().take() {
        // What it has started itself must not outlive it: it would hold the pipes open.
        process::kill_group(group);
    }
    let status = child.wait().map_err(|error| error.to_string());
    shared.close(true);
    status
}

/// Which ticks are fed, and which of them each rendition shows.
struct Cadences {
    fed: Cadence,
    /// The tick of the next picture.
    next: Tick,
    /// Each rendition's, and how many pictures it was given.
    tracks: Vec<(Cadence, u64)>,
}

impl Cadences {
    /// A picture was written.
    fn advance(&mut self) {
        for (cadence, given) in &mut self.tracks {
            *given += u64::from(cadence.feeds(self.next));
        }
        self.next = self.fed.after(self.next);
    }
}

/// What the thread that writes pictures leaves.
#[derive(Default)]
struct Written {
    /// How many were written whole.
    pictures: u64,
    /// Of how many of them each rendition makes a sample.
    wanted: Vec<u64>,
    /// What the process may still read: to be kept until it has ended.
    _lent: Lent,
}

/// Writes pictures until none will come or the pipe breaks. The pipe never blocks, so that the thread ends with the encoder even if a process that
/// it has started keeps the pipe open.
fn write_pictures(stdin: ChildStdin, shared: &Shared, mut cadences: Cadences) -> Written {
    let mut pipe = PicturePipe::new(stdin);
    let mut pictures = 0;
    while let Some(picture) = shared.next_picture() {
        let written = pipe.write(&picture, |bytes| {
            shared.taken.fetch_add(bytes, Ordering::Relaxed);
            !shared.queue().abandoned
        });
        if written.is_err() {
            shared.close(true);
            break;
        }
        pictures += 1;
        cadences.advance();
    }
    let given = cadences.tracks.iter().map(|(_, given)| *given);
    Written {
        pictures,
        wanted: given.collect(),
        _lent: pipe.close(),
    }
}

#[cfg(test)]
#[path = "encoder_tests.rs"]
mod tests;
