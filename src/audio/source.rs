//! Where a stream's sound comes from: an FFmpeg of its own that reads a file, a URL or a device, started again when it ends. What it gives is kept
//! in a short queue with the times of its arrival; while that is full, FFmpeg waits, which is how a file comes at the speed at which it is heard.

use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Pcm;
use crate::clock::{Anchor, MonotonicTime};
use crate::config::AudioPlan;
use crate::encode::process::{self, LastLines, Output};

/// How many samples wait at most.
const QUEUE: usize = 48_000;
/// Arrivals that nobody has looked at yet.
const ARRIVALS: usize = 1024;
/// A source that was full so lately is held back, and not at its own pace.
const HELD_BACK: Duration = Duration::from_secs(3);
/// What has filled the queue so soon after it was emptied comes faster than it is heard.
const REFILL: Duration = Duration::from_millis(500);
/// How long a process that has closed its output may take to end.
const GRACE: Duration = Duration::from_millis(100);

/// One run of the FFmpeg that reads a source. Dropping it kills the process.
pub(super) struct Source {
    shared: Arc<Shared>,
    /// Until its end.
    child: Option<Child>,
    words: Option<JoinHandle<Vec<String>>>,
}

struct Shared {
    queue: Mutex<Queue>,
    room: Condvar,
}

#[derive(Default)]
struct Queue {
    samples: VecDeque<Pcm>,
    /// How many samples have come.
    received: u64,
    /// After which of them the queue was read, and when.
    arrivals: VecDeque<(u64, MonotonicTime)>,
    /// When it was full.
    full: Option<MonotonicTime>,
    ended: bool,
    /// Nobody takes any more.
    closed: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// FFmpeg's command line: `plan`'s source as stereo in single precision at 48 kHz on stdout.
fn arguments(source: &str, plan: &AudioPlan) -> Vec<String> {
    let mut line: Vec<String> = [
        "-hide_banner",
        "-nostats",
        "-nostdin",
        "-loglevel",
        "level+warning",
    ]
    .map(str::to_owned)
    .into();
    if plan.repeat && Path::new(source).is_file() {
        line.extend(["-stream_loop", "-1"].map(str::to_owned));
    }
    line.extend(plan.input_args.iter().cloned());
    line.extend(["-i", source, "-map", "0:a:0", "-vn", "-sn", "-dn"].map(str::to_owned));
    line.extend(["-ac", "2", "-ar", "48000", "-c:a", "pcm_f32le"].map(str::to_owned));
    line.extend(["-flush_packets", "1", "-f", "f32le", "pipe:1"].map(str::to_owned));
    line
}

impl Source {
    /// Starts `ffmpeg` on `source`.
    pub(super) fn start(
        ffmpeg: &Path,
        source: &str,
        plan: &AudioPlan,
        anchor: &Anchor,
    ) -> std::io::Result<Self> {
        let is_file = Path::new(source).is_file();
        let line = arguments(source, plan);
        tracing::debug!("{} {}", ffmpeg.display(), line.join(" "));
        let mut child = process::spawn(ffmpeg, &line, &Output::Piped, Vec::new())?;
        drop(child.stdin.take());
        let pipes = (child.stdout.take(), child.stderr.take());
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            room: Condvar::new(),
        });
        let mut source = Self {
            shared: Arc::clone(&shared),
            child: Some(child),
            words: None,
        };
        let (Some(stdout), Some(stderr)) = pipes else {
            unreachable!("both were asked for")
        };
        let words = thread::Builder::new()
            .name("audio-log".into())
            .spawn(move || LastLines::read_to_end(stderr))?;
        source.words = Some(words);
        let anchor = anchor.clone();
        let pace = match is_file {
            true => Pace::Ours,
            false => Pace::Unknown,
        };
        thread::Builder::new()
            .name("audio-in".into())
            .spawn(move || read(stdout, &shared, &anchor, pace))?;
        Ok(source)
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it gives more than is taken at `now`.
    pub(super) fn is_held_back(&self, now: MonotonicTime) -> bool {
        let full = self.shared.queue().full;
        full.is_some_and(|full| now.saturating_since(full) < HELD_BACK)
    }

    /// What has arrived since: after how many samples, and when.
    pub(super) fn arrivals(&self) -> Vec<(u64, MonotonicTime)> {
        self.shared.queue().arrivals.drain(..).collect()
    }

    /// Gives up to `most` samples to `to`; says how many there were.
    pub(super) fn take(
        &self,
        most: usize,
        to: impl FnOnce(std::collections::vec_deque::Drain<'_, Pcm>),
    ) -> usize {
        let mut queue = self.shared.queue();
        let count = queue.samples.len().min(most);
        to(queue.samples.drain(..count));
        drop(queue);
        self.shared.room.notify_one();
        count
    }

    /// Whether nothing more will come, and all was taken.
    pub(super) fn is_over(&self) -> bool {
        let queue = self.shared.queue();
        queue.ended && queue.samples.is_empty()
    }

    /// Ends it: whether it ended well, and how, with its last words.
    pub(super) fn end(mut self) -> (bool, String) {
        self.close();
        let Some(mut child) = self.child.take() else {
            return (false, String::new());
        };
        let status = child.wait();
        let words = self.words.take().map(JoinHandle::join);
        let words = words.and_then(Result::ok).unwrap_or_default();
        let well = status.as_ref().is_ok_and(std::process::ExitStatus::success);
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        (well, format!("{status}: {}", process::last_words(&words)))
    }

    /// Takes no more, and ends the process.
    fn close(&mut self) {
        let mut queue = self.shared.queue();
        queue.closed = true;
        let ended = queue.ended;
        drop(queue);
        self.shared.room.notify_one();
        let Some(child) = &mut self.child else { return };
        // One that has closed its output is given the moment that its own end takes.
        let patience = if ended { GRACE } else { Duration::ZERO };
        let until = Instant::now() + patience;
        while Instant::now() < until && matches!(child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(2));
        }
        if matches!(child.try_wait(), Ok(None))
            && let Some(group) = process::group_of(child)
        {
            process::kill_group(group);
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.close();
        if let Some(mut child) = self.child.take() {
            // It was killed, and ends at once, or hangs in a device: nobody may have to wait for that.
            let reap = move || drop(child.wait());
            drop(thread::Builder::new().name("audio-reap".into()).spawn(reap));
        }
    }
}

/// Whose pace a source has that has filled the queue.
enum Pace {
    /// Either it would give all that it has at once, or it is live, and what it has gathered while FFmpeg started would make it late for ever.
    Unknown,
    /// What was gathered was let go at this time. What fills the queue again at once is no live source.
    Tried(MonotonicTime),
    /// It waits for us.
    Ours,
}

impl Pace {
    /// The queue is full at `now`: whether what is in it is to be let go.
    fn lets_go(&mut self, now: MonotonicTime) -> bool {
        let ours = match self {
            Self::Unknown => false,
            Self::Tried(at) => now.saturating_since(*at) < REFILL,
            Self::Ours => true,
        };
        *self = if ours { Self::Ours } else { Self::Tried(now) };
        !ours
    }
}

/// Reads until the pipe's end or until nobody takes any more.
fn read(mut pipe: ChildStdout, shared: &Shared, anchor: &Anchor, mut pace: Pace) {
    const SAMPLE: usize = 8;
    let mut buffer = vec![0; 2048 * SAMPLE];
    let mut kept = 0;
    loop {
        match pipe.read(&mut buffer[kept..]) {
            Ok(0) => break,
            Ok(count) => kept += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        }
        let now = anchor.monotonic();
        let whole = kept / SAMPLE * SAMPLE;
        let samples = buffer[..whole]
            .chunks_exact(SAMPLE)
            .map(|bytes| [value(&bytes[..4]), value(&bytes[4..])]);
        let mut queue = shared.queue();
        if queue.samples.len() >= QUEUE && pace.lets_go(now) {
            queue.received -= queue.samples.len() as u64;
            queue.samples.clear();
            queue.arrivals.clear();
        }
        while queue.samples.len() >= QUEUE && !queue.closed {
            queue.full = Some(anchor.monotonic());
            // Told again and again that it is full.
            let waited = shared.room.wait_timeout(queue, Duration::from_millis(500));
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if queue.closed {
            break;
        }
        queue.samples.extend(samples);
        queue.received += (whole / SAMPLE) as u64;
        let arrival = (queue.received, now);
        queue.arrivals.push_back(arrival);
        if queue.arrivals.len() > ARRIVALS {
            queue.arrivals.pop_front();
        }
        drop(queue);
        buffer.copy_within(whole..kept, 0);
        kept -= whole;
    }
    shared.queue().ended = true;
}

/// A sample in single precision; what is none, or beyond all loudness, is silence or the loudest.
fn value(bytes: &[u8]) -> f32 {
    let value = bytes
        .first_chunk()
        .map_or(0.0, |bytes| f32::from_le_bytes(*bytes));
    if value.is_finite() {
        value.clamp(-4.0, 4.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_live_source_has_gathered_is_let_go_and_a_fast_one_waits() {
        let at = |millis: u64| MonotonicTime(millis * 1_000_000);
        let mut live = Pace::Unknown;
        assert!(live.lets_go(at(1000)));
        assert!(
            live.lets_go(at(60_000)),
            "it was not taken from for a while"
        );
        let mut fast = Pace::Unknown;
        assert!(fast.lets_go(at(1000)));
        assert!(!fast.lets_go(at(1100)) && !fast.lets_go(at(60_000)));
        assert!(!Pace::Ours.lets_go(at(0)));
    }

    #[test]
    fn sound_is_finite_and_bounded() {
        assert_eq!(value(&0.5_f32.to_le_bytes()), 0.5);
        assert_eq!(value(&f32::NAN.to_le_bytes()), 0.0);
        assert_eq!(value(&1e30_f32.to_le_bytes()), 4.0);
    }
}
