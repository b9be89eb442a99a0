//! An FFmpeg that reads a file, a URL or a device for its sound alone, and fills an inlet with it. While that has no room, FFmpeg waits, which is how a file
//! comes at the speed at which it is heard.

use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStdout, ExitStatus};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Pcm;
use super::inlet::{Capture, Filler, Inlet, Moment, inlet};
use crate::clock::{Anchor, MonotonicTime};
use crate::config::{self, AudioSource};
use crate::encode::process::{self, LastLines, Output};
use crate::threads;
use crate::tick::SAMPLE_RATE;

/// How many samples wait at most: a second.
const ROOM: usize = 48_000;
/// What has filled the queue so soon after it was emptied comes faster than it is heard.
const REFILL: Duration = Duration::from_millis(500);
/// How long a process that has closed its output may take to end.
const GRACE: Duration = Duration::from_millis(100);
/// A killed one ends at once, or hangs in a device: nobody may have to wait for that.
const REAPED: Duration = Duration::from_millis(500);

/// One run of the process. Dropping it kills it.
pub(super) struct Reader {
    /// Until its end.
    child: Option<Child>,
    words: Option<JoinHandle<Vec<String>>>,
}

/// FFmpeg's command line: `source` as stereo in single precision at 48 kHz on stdout.
fn arguments(source: &AudioSource) -> Vec<String> {
    let mut line: Vec<String> = [
        "-hide_banner",
        "-nostats",
        "-nostdin",
        "-loglevel",
        "level+warning",
    ]
    .map(str::to_owned)
    .into();
    if source.repeat && source.is_file() {
        line.extend(["-stream_loop", "-1"].map(str::to_owned));
    }
    line.extend(source.input_args.iter().cloned());
    line.extend(["-i", &source.input, "-map", "0:a:0", "-vn", "-sn", "-dn"].map(str::to_owned));
    line.extend(["-ac", "2", "-ar", "48000", "-c:a", "pcm_f32le"].map(str::to_owned));
    line.extend(["-flush_packets", "1", "-f", "f32le", "pipe:1"].map(str::to_owned));
    line
}

impl Reader {
    /// Starts `ffmpeg` on `source`, whose sound comes out of the inlet. One that `waits` for room loses nothing where it has none.
    pub(super) fn start(
        ffmpeg: &Path,
        source: &AudioSource,
        anchor: &Anchor,
        waits: bool,
    ) -> std::io::Result<(Self, Inlet)> {
        let line = arguments(source);
        let secrets = source.secrets();
        let shown = config::without(&secrets, &line.join(" "));
        tracing::debug!("{} {shown}", ffmpeg.display());
        let mut child = process::spawn(ffmpeg, &line, &Output::Piped, Vec::new())?;
        drop(child.stdin.take());
        let pipes = (child.stdout.take(), child.stderr.take());
        let mut reader = Self {
            child: Some(child),
            words: None,
        };
        let (Some(stdout), Some(stderr)) = pipes else {
            unreachable!("both were asked for")
        };
        let words = threads::spawn("audio-log", move || {
            LastLines::read_without(&secrets, stderr)
        })?;
        reader.words = Some(words);
        let anchor = anchor.clone();
        let pace = match waits {
            true => Pace::Ours,
            false => Pace::Unknown,
        };
        let (filler, inlet) = inlet(SAMPLE_RATE, ROOM);
        threads::spawn("audio-in", move || read(stdout, &filler, &anchor, pace))?;
        Ok((reader, inlet))
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Ends it: whether it ended well, and how, with its last words; or gives it back if it hangs in what it reads, though it was killed.
    /// One whose inlet is `over` is given the moment that its own end takes.
    pub(super) fn end(mut self, over: bool) -> Result<(bool, String), Self> {
        self.close(if over { GRACE } else { Duration::ZERO });
        let Some(status) = self.has_ended_within(REAPED) else {
            return Err(self);
        };
        self.child = None;
        let words = self.words.take().map(JoinHandle::join);
        let words = words.and_then(Result::ok).unwrap_or_default();
        let words = process::last_words(&words);
        Ok((status.success(), format!("{status}: {words}")))
    }

    /// Whether its process has ended.
    pub(super) fn is_gone(&mut self) -> bool {
        self.child.is_none() || self.has_ended_within(Duration::ZERO).is_some()
    }

    fn close(&mut self, patience: Duration) {
        if self.has_ended_within(patience).is_none()
            && let Some(group) = self.child.as_ref().and_then(process::group_of)
        {
            process::kill_group(group);
        }
    }

    /// How it has ended, if it has or does so in time.
    fn has_ended_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let until = Instant::now() + patience;
        loop {
            let status = child.try_wait().ok().flatten();
            if status.is_some() || Instant::now() >= until {
                return status;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
        if let Some(mut child) = self.child.take() {
            let reap = move || drop(child.wait());
            drop(threads::spawn("audio-reap", reap));
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
fn read(mut pipe: ChildStdout, filler: &Filler, anchor: &Anchor, mut pace: Pace) {
    let mut buffer = vec![0; 2048 * SAMPLE];
    let mut kept = 0;
    loop {
        match pipe.read(&mut buffer[kept..]) {
            Ok(0) => break,
            Ok(count) => kept += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        }
        let came = anchor.monotonic();
        let whole = kept / SAMPLE * SAMPLE;
        if filler.is_full() && pace.lets_go(came) {
            filler.clear();
        }
        let moment = Moment {
            captured: Capture::Unknown,
            came,
        };
        if !filler.put(samples(&buffer[..whole]), moment, || anchor.monotonic()) {
            break;
        }
        buffer.copy_within(whole..kept, 0);
        kept -= whole;
    }
}

/// The bytes of a sample of both channels.
pub(crate) const SAMPLE: usize = 8;

/// Samples in single precision, little-endian, left and right in turn; what is none, or beyond all loudness, is silence or the loudest. What is
/// left at the end that is no whole sample is left out.
pub(crate) fn samples(bytes: &[u8]) -> impl Iterator<Item = Pcm> {
    let both = bytes.chunks_exact(SAMPLE);
    both.map(|bytes| [value(&bytes[..4]), value(&bytes[4..])])
}

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
        let of = |value: f32| samples(&[value.to_le_bytes(); 2].concat()).next();
        assert_eq!(of(0.5), Some([0.5; 2]));
        assert_eq!(of(f32::NAN), Some([0.0; 2]));
        assert_eq!(of(1e30), Some([4.0; 2]));
    }
}
