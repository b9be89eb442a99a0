//! What `push` and `pattern` share: a session that reconnects, said once on stderr; pacing by absolute deadlines; a clean end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringgear_producer::{
    AudioProducer, AudioProducerOptions, FrameFormat, LinkEvent, ProducerError, ProducerOptions,
    SoundFormat, SteadyProducer,
};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::CliError;
use crate::clock::{Clock, MonotonicTime, SystemClock};
use crate::tick::Framerate;

/// Who falls behind by more than this starts counting anew, instead of catching up in a burst.
const LOST_CAUSE: Duration = Duration::from_secs(1);

impl From<ProducerError> for CliError {
    fn from(error: ProducerError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Set when SIGINT or SIGTERM asks for a clean end; a second one ends the process at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens for both signals from now on.
    pub(super) fn on_signals() -> Result<Self, CliError> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset, so only the second one ends the process.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop.0))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop.0)))
                .map_err(|error| CliError::Failed(format!("can't listen for signals: {error}")))?;
        }
        Ok(stop)
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// What a signal does.
    #[cfg(test)]
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Opens the session.
pub(super) fn open(
    socket: &Path,
    stream: &str,
    format: FrameFormat,
    take_over: bool,
    client: &str,
) -> Result<SteadyProducer, CliError> {
    let options = ProducerOptions {
        socket: socket.to_owned(),
        take_over,
        client: format!("{client}/{}", env!("CARGO_PKG_VERSION")),
        ..ProducerOptions::new(stream, format)
    };
    Ok(SteadyProducer::open(options, |event| {
        tell(event, "frames")
    })?)
}

/// Opens a session of sound.
pub(super) fn open_sound(
    socket: &Path,
    stream: &str,
    format: SoundFormat,
    take_over: bool,
    client: &str,
) -> Result<AudioProducer, CliError> {
    let options = AudioProducerOptions {
        socket: socket.to_owned(),
        take_over,
        client: format!("{client}/{}", env!("CARGO_PKG_VERSION")),
        ..AudioProducerOptions::new(stream, format)
    };
    Ok(AudioProducer::open(options, |event| {
        tell(event, "samples");
    })?)
}

fn tell(event: LinkEvent, what: &str) {
    match event {
        LinkEvent::Waiting { cause } => {
            eprintln!("ringgear: {cause}; waiting for the daemon to come back");
        }
        LinkEvent::Back { dropped, away } => {
            let away = away.as_secs_f64();
            eprintln!("ringgear: the daemon is back after {away:.1} s; {dropped} {what} dropped");
        }
    }
}

/// Ends this process by SIGTERM when `parent`, which started it, ends, however that dies.
pub(super) fn end_with(parent: i32) -> Result<(), CliError> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM)).map_err(
        |error| CliError::Failed(format!("can't end with the process {parent}: {error}")),
    )?;
    // It may have died before the wish was noted.
    let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    match now == Some(parent) {
        true => Ok(()),
        false => Err(CliError::Failed(format!(
            "the process {parent}, which this one was to end with, has ended"
        ))),
    }
}

/// The stream's framerate, as the daemon told it.
pub(super) fn stream_framerate(producer: &SteadyProducer) -> Result<Framerate, CliError> {
    let opened = producer.opened();
    Framerate::new(opened.framerate_num.get(), opened.framerate_den.get())
        .map_err(|error| CliError::Failed(format!("the daemon's answer makes no sense: {error}")))
}

/// Ends the session in good order and says what became of the frames. A daemon that left in the same moment is no error: all was sent.
pub(super) fn close(producer: SteadyProducer) {
    let dropped = producer.dropped();
    let sent = producer.committed() + dropped;
    match producer.close() {
        Ok(Some(counts)) => eprintln!(
            "ringgear: {sent} frames: in the last session {} used, {} superseded, {} late; {dropped} dropped without a daemon",
            counts.used, counts.superseded, counts.late
        ),
        Ok(None) => {
            eprintln!("ringgear: {sent} frames, {dropped} of them dropped without a daemon")
        }
        Err(error) => eprintln!("ringgear: {sent} frames; closing the session failed: {error}"),
    }
}

/// Ends a session of sound likewise.
pub(super) fn close_sound(producer: AudioProducer) {
    let (samples, dropped) = (producer.samples(), producer.dropped());
    match producer.close() {
        Ok(Some(counts)) => eprintln!(
            "ringgear: {samples} samples: in the last session {} blocks used, {} superseded, {} late; {dropped} samples dropped without a daemon",
            counts.used, counts.superseded, counts.late
        ),
        Ok(None) => {
            eprintln!("ringgear: {samples} samples, {dropped} of them dropped without a daemon");
        }
        Err(error) => {
            eprintln!("ringgear: {samples} samples; closing the session failed: {error}");
        }
    }
}

/// Deadlines of frames at a framerate: each is the first one plus a whole count of frames, so that no error adds up.
#[derive(Debug)]
pub(super) struct Pacer {
    framerate: Framerate,
    first: MonotonicTime,
    frames: u64,
}

impl Pacer {
    /// The first deadline is `now`.
    pub(super) fn new(framerate: Framerate, now: MonotonicTime) -> Self {
        Self {
            framerate,
            first: now,
            frames: 0,
        }
    }

    /// The next frame's deadline. Who asks at `now`, far too late, gets `now`, and later deadlines count from there.
    pub(super) fn next_deadline(&mut self, now: MonotonicTime) -> MonotonicTime {
        let after = self.framerate.duration_of(self.frames);
        let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        let deadline = MonotonicTime(self.first.0.saturating_add(nanos));
        self.frames += 1;
        if now.saturating_since(deadline) <= LOST_CAUSE {
            return deadline;
        }
        (self.first, self.frames) = (now, 1);
        now
    }

    /// Sleeps until the next frame's deadline.
    pub(super) fn wait(&mut self) {
        let deadline = self.next_deadline(SystemClock.monotonic());
        SystemClock.sleep_until(deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_do_not_drift() {
        let rate = Framerate::new(30_000, 1001).unwrap();
        let mut pacer = Pacer::new(rate, MonotonicTime(5));
        let last = (0..=30_000)
            .map(|_| pacer.next_deadline(MonotonicTime(5)))
            .last();
        assert_eq!(last, Some(MonotonicTime(5 + 1_001_000_000_000)));
    }

    #[test]
    fn a_long_stall_is_not_made_up_for_and_a_short_one_is() {
        let mut pacer = Pacer::new(Framerate::new(10, 1).unwrap(), MonotonicTime(0));
        assert_eq!(pacer.next_deadline(MonotonicTime(0)), MonotonicTime(0));
        let short = MonotonicTime(900_000_000);
        assert_eq!(pacer.next_deadline(short), MonotonicTime(100_000_000));
        let long = MonotonicTime(5_000_000_000);
        assert_eq!(pacer.next_deadline(long), long);
        assert_eq!(pacer.next_deadline(long), MonotonicTime(5_100_000_000));
    }
}
