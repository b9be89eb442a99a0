//! What is different about a recording: no tick is ever left out or filled in, nothing is too late, and what can't be encoded or written
//! yet holds its producer back.

use std::sync::Arc;
use std::time::Duration;

use super::encoding::State;
use super::{LOOKAHEAD, Owner};
use crate::budget::Budget;
use crate::clock::MonotonicTime;
use crate::picture::Picture;
use crate::stream::backlog::Backlog;
use crate::stream::gate::Gate;
use crate::stream::shelf::{MOST_HELD, MOST_SEGMENTS, Shelf};
use crate::tick::Tick;

/// How long the encoder may return nothing at the end; then the recording ends without what it holds.
pub(super) const DRAIN: Duration = Duration::from_secs(60);
/// How soon the encoder's queue is looked at again while pictures wait for it: nothing tells of room in it.
const SOON: Duration = Duration::from_millis(2);

/// What the owner of a recording knows.
pub(super) struct Recording {
    gate: Arc<Gate>,
    /// The ticks before this one have left the gate.
    left: Tick,
    /// What waits for the publish folder.
    pub(super) shelf: Shelf,
    /// Whether more waits for the disk than may.
    held_back: bool,
    /// Since when none of what is committed has got to the encoder, nor anything back from it, once no more is.
    stuck: Option<MonotonicTime>,
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Ingest would wait for ever for an owner that has panicked.
        self.gate.die();
    }
}

impl Recording {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self {
            gate,
            left: Tick(0),
            shelf: Shelf::default(),
            held_back: false,
            stuck: None,
        }
    }

    /// Whether more waits for the disk than may.
    pub(super) fn is_held_back(&self) -> bool {
        self.held_back
    }

    /// The picture of `tick` was given to the encoder.
    pub(super) fn note_fed(&mut self, tick: Tick) {
        if tick >= self.left {
            self.left = tick.next();
            self.stuck = None;
            self.gate.leave();
        }
    }

    /// The encoder has returned something, whether for the first time or not.
    pub(super) fn note_returned(&mut self) {
        self.stuck = None;
    }
}

impl Owner {
    /// Takes the next frame of a recording.
    pub(super) fn record(&mut self, tick: Tick, picture: Picture) {
        let kept = self.kept();
        // What it holds is bounded by its gate; no picture of it may give way to others'.
        let unbounded = Budget::new(u64::MAX);
        let first = self.parts.resume.take().unwrap_or(tick);
        let backlog = self
            .backlog
            .get_or_insert_with(|| Backlog::new(first, kept, &unbounded));
        backlog.push(picture, true);
    }

    /// How long the owner sleeps when nothing happens.
    pub(super) fn nap(&self) -> Duration {
        let waits = self.recording.is_some()
            && matches!(self.state, State::Running(_))
            && self
                .backlog
                .as_ref()
                .is_some_and(|backlog| backlog.next_unfed().is_some());
        match waits {
            true => SOON,
            false => Duration::from_millis(100),
        }
    }

    /// Whether the encoder has to wait for the disk.
    pub(super) fn is_held_back(&mut self) -> bool {
        let held = self.parts.window.held_bytes();
        let Some(recording) = &mut self.recording else {
            return false;
        };
        recording.held_back = held > MOST_HELD;
        recording.held_back
    }

    /// Whether the recording is to end, and what was committed can't get to an encoder: none works, or none has taken anything for too long. The
    /// stop itself comes behind it, and would be waited for for ever.
    pub(super) fn is_stuck(&mut self, now: MonotonicTime) -> bool {
        let lost = matches!(self.state, State::Resting { .. }) && !self.may_work_yet();
        let Some(recording) = self.recording.as_mut().filter(|one| one.gate.is_stopped()) else {
            return false;
        };
        let since = *recording.stuck.get_or_insert(now);
        lost || now.saturating_since(since) > DRAIN
    }

    /// Whether the encoder owes something: it may hold what it needs for its lookahead, for as long as no more comes.
    pub(super) fn owes(&self) -> bool {
        let Some(backlog) = &self.backlog else {
            return false;
        };
        match &self.recording {
            None => backlog.pending() > 0,
            Some(recording) => {
                let full = backlog.next_unfed().is_some() && !recording.held_back;
                full || backlog.pending() > self.held.unwrap_or(LOOKAHEAD)
            }
        }
    }

    /// What the publish folder has by now needs no memory.
    pub(super) fn let_go_of_stored(&mut self) {
        let Some(recording) = &mut self.recording else {
            return;
        };
        let Some(published) = self.parts.disk.status().published else {
            return;
        };
        if let Some(newest) = recording.shelf.stored(published) {
            if self.parts.window.segments() >= MOST_SEGMENTS {
                recording.gate.shut();
            }
            self.parts.window.keep_in_folder(newest);
            self.dirty = true;
        }
    }
}
