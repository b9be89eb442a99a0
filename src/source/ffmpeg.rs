//! One FFmpeg that has a source open: its process, from its start to its end, and what it says meanwhile.

use std::io::{self, PipeReader};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process_group};

use super::heard::{Found, Heard};
use crate::config;
use crate::encode::ends_before;
use crate::encode::process::{self, Left, for_each_line};
use crate::threads;

/// How long one that is asked to end may take: to take leave of a camera, which else keeps its connection for a minute.
const LEAVE: Duration = Duration::from_millis(400);
/// How long a killed process is waited for.
const GRACE: Duration = Duration::from_secs(3);
/// How long it may take to say the rest, once it has begun to give pictures.
const LAST_FACTS: Duration = Duration::from_secs(1);

/// A running FFmpeg. Dropping it kills it.
pub(super) struct Ffmpeg {
    /// Until its end is waited for.
    child: Option<Child>,
    words: Arc<Words>,
    /// Told when it has said its last word.
    silent: Receiver<()>,
    /// The thread that has started it lives as long as this, for it would take FFmpeg with it.
    bound: Sender<()>,
}

/// What comes out of it.
pub(super) struct Pipes {
    pub(super) pictures: PipeReader,
    pub(super) sounds: Vec<PipeReader>,
}

/// What it has said so far, in two threads' hands.
#[derive(Debug, Default)]
pub(super) struct Words {
    heard: Mutex<Heard>,
    changed: Condvar,
}

impl Words {
    pub(super) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, line: String) {
        self.heard().hear(line);
        self.changed.notify_all();
    }

    /// What it has found, once it has told all that it tells before the first picture; waited for a moment.
    pub(super) fn found(&self) -> Option<Found> {
        let heard = self.heard();
        let told = self
            .changed
            .wait_timeout_while(heard, LAST_FACTS, |heard| !heard.opened);
        let (heard, _) = told.unwrap_or_else(PoisonError::into_inner);
        heard.found.clone()
    }
}

/// How it ended.
pub(super) struct Exit {
    /// None if it could not be ended, or not be asked.
    status: Option<ExitStatus>,
    /// The end of what it complained of, oldest first.
    pub(super) complaints: Vec<String>,
}

impl Exit {
    /// Whether it came to the source's end and found nothing wrong with it.
    pub(super) fn is_good(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// Its last words in one line.
    pub(super) fn last_words(&self) -> String {
        match self.status {
            Some(status) if self.complaints.is_empty() => {
                format!("nothing, and ends with {status}")
            }
            None if self.complaints.is_empty() => "nothing, and does not end".to_owned(),
            _ => process::last_words(&self.complaints),
        }
    }
}

impl Ffmpeg {
    /// Starts `program` with the line that goes with the pipes to which it is to write pictures and so many tracks of sound; what it says is kept
    /// without `secrets`.
    pub(super) fn start(
        program: PathBuf,
        sounds: usize,
        line: impl FnOnce(RawFd, &[RawFd]) -> Vec<String>,
        secrets: Vec<(String, &'static str)>,
    ) -> io::Result<(Self, Pipes)> {
        let (pictures, writer) = io::pipe()?;
        process::enlarge_pipe(&pictures);
        let sounds: Vec<_> = (0..sounds).map(|_| io::pipe()).collect::<Result<_, _>>()?;
        let (sounds, sound_writers): (Vec<_>, Vec<_>) = sounds.into_iter().unzip();
        let places: Vec<RawFd> = sound_writers.iter().map(AsRawFd::as_raw_fd).collect();
        let line = line(writer.as_raw_fd(), &places);
        let writers = std::iter::once(writer).chain(sound_writers);
        let writers: Vec<OwnedFd> = writers.map(OwnedFd::from).collect();
        let words = Arc::new(Words::default());
        let (born, birth) = sync_channel(1);
        let (last_word, silent) = sync_channel(1);
        let (bound, released) = channel();
        let ears = Arc::clone(&words);
        // Its niceness stays with this thread, and with what it starts.
        threads::spawn("ffmpeg-source", move || {
            let stderr = match process::spawn_bound(&program, &line, writers) {
                Ok(mut child) => {
                    let stderr = child.stderr.take();
                    let _ = born.send(Ok(child));
                    stderr
                }
                Err(error) => {
                    let _ = born.send(Err(error));
                    None
                }
            };
            let Some(stderr) = stderr else { return };
            for_each_line(stderr, |line| {
                let line = config::without(&secrets, &line);
                tracing::debug!("ffmpeg: {line}");
                ears.hear(line);
            });
            let _ = last_word.send(());
            // Ends with an error once the other end is dropped, which is what is waited for.
            let _ = released.recv();
        })?;
        let gone = || io::Error::other("its thread has ended");
        let child = birth.recv().map_err(|_| gone())??;
        let ffmpeg = Self {
            child: Some(child),
            words,
            silent,
            bound,
        };
        Ok((ffmpeg, Pipes { pictures, sounds }))
    }

    pub(super) fn words(&self) -> &Arc<Words> {
        &self.words
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Waits for its end, which it is asked for after `patience`, and then not only asked. Its pipe has to be closed.
    pub(super) fn end(mut self, patience: Duration) -> Exit {
        let status = self
            .child
            .take()
            .and_then(|child| self.reap(child, patience));
        let complaints = self.words.heard().complaints.to_vec();
        Exit { status, complaints }
    }

    fn reap(&mut self, mut child: Child, patience: Duration) -> Option<ExitStatus> {
        let group = process::group_of(&child);
        let within = |time| ends_before(group, Instant::now() + time);
        if !within(patience)
            && let Some(group) = group
        {
            // One that is gone already is fine.
            let _ = kill_process_group(group, Signal::TERM);
            within(LEAVE);
        }
        if let Some(group) = group {
            // Also what it has started itself.
            process::kill_group(group);
        }
        if within(GRACE) {
            // What it has said is in the pipe already.
            let _ = self.silent.recv_timeout(GRACE);
            return child.wait().ok();
        }
        let left = Left::behind(child.id());
        let bound = self.bound.clone();
        // Without a thread it is not reaped, which is the least of that machine's troubles.
        let _ = threads::spawn("ffmpeg-wait", move || {
            let _ = child.wait();
            drop((left, bound));
        });
        None
    }
}

impl Drop for Ffmpeg {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            self.reap(child, Duration::ZERO);
        }
    }
}
