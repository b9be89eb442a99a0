//! What viewers see of the window. A finished segment is shown once the publisher is through with it: then a daemon that is
//! killed and started again goes on behind what anybody has seen, and no list steps back. A disk that takes long is not waited for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::tick::UnixTime;
use crate::window::Snapshot;

/// The longest that a disk is waited for.
const PATIENCE: Duration = Duration::from_millis(50);

/// The window's newest snapshot, and the one that viewers see.
#[derive(Clone)]
pub(super) struct Curtain {
    newest: watch::Sender<Arc<Snapshot>>,
    shown: watch::Sender<Arc<Snapshot>>,
    held: Arc<Mutex<Option<Held>>>,
}

/// A snapshot that viewers don't see yet.
#[derive(Clone, Copy)]
struct Held {
    updated: UnixTime,
    since: Instant,
}

impl Curtain {
    /// One behind which `first` stands; and what viewers see.
    pub(super) fn new(first: Arc<Snapshot>) -> (Self, watch::Receiver<Arc<Snapshot>>) {
        let (newest, _) = watch::channel(Arc::clone(&first));
        let (shown, seen) = watch::channel(first);
        let held = Arc::default();
        let curtain = Self {
            newest,
            shown,
            held,
        };
        (curtain, seen)
    }

    /// The newest snapshots, for the publisher.
    pub(super) fn behind(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.newest.subscribe()
    }

    /// The newest snapshot.
    pub(super) fn newest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.newest.borrow())
    }

    /// Takes the next snapshot: at once for the publisher, and for viewers too unless a segment has been finished.
    pub(super) fn show(&self, next: Arc<Snapshot>, now: Instant) {
        let mut held = self.held();
        let finished = !next.ended && newest_number(&next) > newest_number(&self.shown.borrow());
        self.newest.send_replace(Arc::clone(&next));
        match *held {
            None if finished => {
                *held = Some(Held {
                    updated: next.updated,
                    since: now,
                });
            }
            Some(waiting) if finished && now.duration_since(waiting.since) < PATIENCE => {}
            _ => {
                *held = None;
                self.shown.send_replace(next);
            }
        }
    }

    /// The publisher is through with a snapshot of `updated`, whether it succeeded or not.
    pub(super) fn passed(&self, updated: UnixTime) {
        let mut held = self.held();
        if held.is_some_and(|held| held.updated <= updated) {
            *held = None;
            self.shown.send_replace(self.newest());
        }
    }

    /// How long until viewers are not kept waiting any more, if they are now.
    pub(super) fn lift_when_late(&self, now: Instant) -> Option<Duration> {
        let mut held = self.held();
        let left = PATIENCE.saturating_sub(now.duration_since((*held)?.since));
        if left.is_zero() {
            *held = None;
            self.shown.send_replace(self.newest());
            return None;
        }
        Some(left)
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of the newest segment that all tracks list.
fn newest_number(snapshot: &Snapshot) -> Option<u64> {
    let last = snapshot.tracks.iter().map(|track| track.listed.last());
    last.map(|segment| segment.map(|segment| segment.number.0))
        .max()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::snapshot;

    /// The number that viewers see as the newest.
    fn seen(viewers: &watch::Receiver<Arc<Snapshot>>) -> Option<u64> {
        newest_number(&viewers.borrow())
    }

    fn at(millis: u64, first: usize) -> Arc<Snapshot> {
        let mut snapshot = Arc::into_inner(snapshot("door", first, 4, 6)).unwrap();
        snapshot.updated = UnixTime::from_secs(1).saturating_add(Duration::from_millis(millis));
        Arc::new(snapshot)
    }

    #[test]
    fn a_finished_segment_is_seen_when_the_publisher_is_through_with_it() {
        let (curtain, viewers) = Curtain::new(at(0, 7));
        let (now, before) = (Instant::now(), seen(&viewers));
        curtain.show(at(1000, 8), now);
        assert_eq!(newest_number(&curtain.newest()), before.map(|n| n + 1));
        assert_eq!(seen(&viewers), before);
        // A pass that began before the segment was finished says nothing of it.
        curtain.passed(at(999, 8).updated);
        assert_eq!(seen(&viewers), before);
        curtain.passed(at(1000, 8).updated);
        assert_eq!(seen(&viewers), before.map(|n| n + 1));
        // What finishes no segment is seen at once.
        curtain.show(at(1200, 8), now);
        assert_eq!(viewers.borrow().updated, at(1200, 8).updated);
    }

    #[test]
    fn a_disk_that_takes_long_is_not_waited_for() {
        let (curtain, viewers) = Curtain::new(at(0, 7));
        let (now, before) = (Instant::now(), seen(&viewers));
        curtain.show(at(1000, 8), now);
        let late = now + PATIENCE;
        assert!(
            curtain
                .lift_when_late(late - Duration::from_millis(1))
                .is_some()
        );
        assert_eq!(seen(&viewers), before);
        assert_eq!(curtain.lift_when_late(late), None);
        assert_eq!(seen(&viewers), before.map(|n| n + 1));
        curtain.show(at(2000, 9), late);
        curtain.show(at(2200, 9), late + PATIENCE);
        assert_eq!(seen(&viewers), before.map(|n| n + 2));
    }
}
