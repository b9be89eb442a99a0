//! A stream's source: one FFmpeg opens a file, a camera or a URL, once, and decodes it; its pictures go into a ring through the same
//! seat as any producer's, with capture times. A source that fails, falls silent or ends is opened anew for ever, after growing pauses;
//! the stream meanwhile does what it does without a producer.

mod arguments;
mod copying;
mod cutter;
mod ffmpeg;
mod fragments;
mod heard;
mod inflow;
mod input;
mod parting;
mod placing;
mod session;
mod sound;
mod soundtrack;
mod timing;
mod trouble;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringgear_producer::messages::{Open, Refused};
use ringgear_ring::layout::Policy;

use crate::audio::Entrance;
use crate::clock::{Anchor, MonotonicTime};
use crate::config::SourcePlan;
use crate::control::Granted;
use crate::picture::Size;
use crate::status::{SourceState, SourceStatus};
use crate::tick::{Framerate, Tick};
use arguments::{Filter, Tempo};
use copying::Copying;
pub(crate) use copying::{Copied, CopiedPart, CopyDesk};
pub(crate) use heard::Found;
use session::Outcome;
pub(crate) use session::{BROKEN_OFF, look};

/// The pause after a first failure; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What has given pictures for so long is well: its next failure is a first one.
const HEALTHY: Duration = Duration::from_secs(10);
/// What ends sooner is no recording to begin again at once.
const SHORTEST_ROUND: Duration = Duration::from_secs(1);
/// How often a source is opened anew at once because of what its pictures are, before that counts as a failure.
const MOST_AT_ONCE: u32 = 4;

/// Tells a source to stop, from another thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    pub(crate) fn set(&self) {
        let (set, changed) = &*self.0;
        *set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for at most `pause`: whether it was set.
    fn wait(&self, pause: Duration) -> bool {
        let (set, changed) = &*self.0;
        let set = set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(set, pause, |set| !*set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until it is set.
    fn wait_for_ever(&self) {
        while !self.wait(LONGEST_PAUSE) {}
    }
}

/// Takes the stream's seat for the process of this number.
type Seat = dyn Fn(&Open, i32) -> Result<Granted, Refused> + Send;

/// What a source is made of.
pub(crate) struct SourceParts {
    pub(crate) stream: String,
    pub(crate) plan: SourcePlan,
    /// The stream's.
    pub(crate) framerate: Framerate,
    /// Of a recording: the tick of the next picture. A file's pictures before it are recorded already.
    pub(crate) first_tick: Tick,
    /// The same of its sound, as time from the recording's beginning.
    pub(crate) first_sound: MonotonicTime,
    /// Where its sound goes, if that is wanted.
    pub(crate) sound: Option<Entrance>,
    /// The ring's: a lossless one takes a file as fast as FFmpeg decodes it, each picture once.
    pub(crate) policy: Policy,
    pub(crate) ffmpeg: PathBuf,
    /// For the times that people are told.
    pub(crate) anchor: Anchor,
    /// The stream's.
    pub(crate) seat: Box<Seat>,
    /// Where its state is told.
    pub(crate) tell: Box<dyn Fn(&SourceStatus) + Send>,
    pub(crate) stop: Stop,
    /// If its samples are copied: where they go, past the seat.
    pub(crate) copy: Option<CopyDesk>,
}

/// A running source.
pub(crate) struct Source {
    parts: SourceParts,
    status: SourceStatus,
    filter: Filter,
    /// The size that a file began with.
    first_size: Option<Size>,
    /// How many pictures there were, over all openings; in a recording that goes on, with those from before.
    pictures: u64,
    /// How many of them belong to rounds that are over.
    rounds: u64,
    /// How many of the next pictures are recorded already.
    known: u64,
    /// The trouble that was logged last.
    logged: Option<String>,
}

impl Source {
    pub(crate) fn new(parts: SourceParts) -> Self {
        let status = SourceStatus {
            source: parts.plan.input.shown(),
            ..SourceStatus::default()
        };
        // Of a camera with sound no second opening is needed to learn so.
        let filter = Filter {
            sound: parts.sound.is_some(),
            ..Filter::default()
        };
        let recorded = match parts.policy {
            Policy::Lossless => parts.first_tick.0,
            Policy::Latest => 0,
        };
        Self {
            pictures: recorded,
            rounds: 0,
            known: 0,
            parts,
            status,
            filter,
            first_size: None,
            logged: None,
        }
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        let (mut failures, mut at_once) = (0, 0);
        let mut copying = self.parts.copy.take().map(Copying::new);
        while !self.parts.stop.is_set() {
            self.tell(|status| {
                status.state = SourceState::Connecting;
                status.next_try = None;
            });
            let before = self.pictures;
            let begun = Instant::now();
            let outcome = match &mut copying {
                Some(copying) => self.copy(copying),
                None => self.open(),
            };
            self.tell(|status| status.pid = None);
            if self.pictures > before && begun.elapsed() >= HEALTHY {
                (failures, at_once) = (0, 0);
            }
            let shown = &self.status.source;
            let cause = match outcome {
                Outcome::Stopped => return,
                Outcome::Ended if !self.parts.plan.repeat => return self.stay_ended(),
                Outcome::Ended if begun.elapsed() >= SHORTEST_ROUND => continue,
                Outcome::Ended => format!("{shown} ends as soon as it has begun"),
                Outcome::Learnt | Outcome::Resized(_) if at_once < MOST_AT_ONCE => {
                    at_once += 1;
                    continue;
                }
                Outcome::Learnt => format!("{shown} is something else each time"),
                Outcome::Resized(size) => {
                    format!(
                        "{shown} changes the size of its pictures, from {size} this time, again and again"
                    )
                }
                Outcome::Failed(cause) => cause,
                Outcome::BrokenOff(cause) => return self.stay_broken_off(cause),
            };
            at_once = 0;
            if self.rest(cause, failures) {
                return;
            }
            failures = failures.saturating_add(1);
        }
    }

    /// Says that the source has ended, and stays so.
    fn stay_ended(&mut self) {
        tracing::info!(
            stream = %self.parts.stream, source = %self.status.source,
            "the source has ended; source_loop = true would begin it again"
        );
        self.tell(|status| {
            status.state = SourceState::Ended;
            status.error = None;
        });
        self.parts.stop.wait_for_ever();
    }

    /// Says that the source has failed amid its recording, and leaves it at that.
    fn stay_broken_off(&mut self, cause: String) {
        tracing::error!(stream = %self.parts.stream, "the recording of the source ends early: {cause}");
        self.tell(|status| {
            status.state = SourceState::Ended;
            status.failures += 1;
            status.error = Some(cause);
        });
        self.parts.stop.wait_for_ever();
    }

    /// Rests after a failure: whether it was told to stop meanwhile.
    fn rest(&mut self, cause: String, failures: u32) -> bool {
        let pause = jittered(pause_after(failures), ringgear_producer::now().0);
        // A camera that is away for a night is told of once.
        if self.logged.as_ref() != Some(&cause) {
            tracing::warn!(
                stream = %self.parts.stream, retry_in = ?pause,
                "the source gives no pictures and is opened again and again: {cause}"
            );
            self.logged = Some(cause.clone());
        }
        let next = self.parts.anchor.now().saturating_add(pause).rfc3339();
        self.tell(|status| {
            status.state = SourceState::Waiting;
            status.failures += 1;
            status.next_try = Some(next);
            status.error = Some(cause);
        });
        self.parts.stop.wait(pause)
    }

    fn tell(&mut self, change: impl FnOnce(&mut SourceStatus)) {
        change(&mut self.status);
        (self.parts.tell)(&self.status);
    }
}

/// Whether what `plan` opens is the same each time, so that a recording of it can go on where it was: no camera.
pub(crate) fn is_repeatable(plan: &SourcePlan) -> bool {
    Tempo::of(plan) != Tempo::Own
}

/// How long to rest after so many failures in a row before this one.
fn pause_after(failures: u32) -> Duration {
    (FIRST_PAUSE * (1 << failures.min(10))).min(LONGEST_PAUSE)
}

/// Three quarters to five quarters of `pause`, so that a house's cameras are not all asked at one instant after a power cut. `seed` is any
/// number whose low bits nobody knows.
fn jittered(pause: Duration, seed: u64) -> Duration {
    let share = u32::try_from(seed % 1024).unwrap_or(0);
    pause * 3 / 4 + pause / 2 * share / 1024
}

#[cfg(test)]
mod tests;
