//! Viewers who wait for a part. One task watches the window for all of a stream's, as long as there are any, and wakes each of them once: when
//! what it waits for is there. A thousand viewers of the next part cost one look at the window.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::sample::TrackIndex;
use crate::window::{Place, Snapshot};

/// How a wait ended.
pub(super) enum Waited {
    /// What was waited for is there, or the stream has ended.
    Reached(Arc<Snapshot>),
    /// Not by the deadline.
    TooLong,
    /// The stream is served no longer.
    Over,
}

/// The viewers of one stream who wait.
#[derive(Default)]
pub(super) struct Waiting {
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// Whether a task watches the window.
    watched: bool,
    /// What each track has to have reached for whom. Requests for places far ahead are refused before they come here, so there are
    /// only as many as there are parts in a few segments.
    by_place: BTreeMap<(TrackIndex, Place), Arc<Notify>>,
}

impl Waiting {
    /// Waits until the next place of `track` is `place` or a later one.
    pub(super) async fn until(
        self: &Arc<Self>,
        window: &watch::Receiver<Arc<Snapshot>>,
        track: TrackIndex,
        place: Place,
        deadline: Instant,
    ) -> Waited {
        let notify = self.register(window, track, place);
        let told = notify.notified();
        // Looked at only now: whatever changes from here on is told.
        let snapshot = Arc::clone(&window.borrow());
        if has_reached(&snapshot, track, place) {
            return Waited::Reached(snapshot);
        }
        drop(snapshot);
        if window.has_changed().is_err() {
            return Waited::Over;
        }
        if tokio::time::timeout_at(deadline, told).await.is_err() {
            return Waited::TooLong;
        }
        let snapshot = Arc::clone(&window.borrow());
        match has_reached(&snapshot, track, place) {
            true => Waited::Reached(snapshot),
            false => Waited::Over,
        }
    }

    fn register(
        self: &Arc<Self>,
        window: &watch::Receiver<Arc<Snapshot>>,
        track: TrackIndex,
        place: Place,
    ) -> Arc<Notify> {
        let mut places = self.lock();
        let notify = Arc::clone(places.by_place.entry((track, place)).or_default());
        if !std::mem::replace(&mut places.watched, true) {
            tokio::spawn(watch_for(Arc::clone(self), window.clone()));
        }
        notify
    }

    /// Takes out who waited for what `snapshot` has; none: everybody. Says whether anybody is left.
    fn take(&self, snapshot: Option<&Snapshot>) -> (Vec<Arc<Notify>>, bool) {
        let mut places = self.lock();
        let due = |track, place| snapshot.is_none_or(|shown| has_reached(shown, track, place));
        let mut told = Vec::new();
        places.by_place.retain(|(track, place), notify| {
            let due = due(*track, *place);
            if due {
                told.push(Arc::clone(notify));
            }
            !due
        });
        places.watched = !places.by_place.is_empty();
        (told, places.watched)
    }

    /// How many viewers wait.
    #[cfg(test)]
    pub(super) fn viewers(&self) -> usize {
        let places = self.lock();
        // One more of each is the map's own.
        let waiting = places.by_place.values().map(|n| Arc::strong_count(n) - 1);
        waiting.sum()
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn watch_for(waiting: Arc<Waiting>, mut window: watch::Receiver<Arc<Snapshot>>) {
    loop {
        let snapshot = Arc::clone(&window.borrow_and_update());
        let (told, more) = waiting.take(Some(&snapshot));
        drop(snapshot);
        told.iter().for_each(|notify| notify.notify_waiters());
        if !more {
            return;
        }
        if window.changed().await.is_err() {
            let (told, _) = waiting.take(None);
            told.iter().for_each(|notify| notify.notify_waiters());
            return;
        }
    }
}

fn has_reached(snapshot: &Snapshot, track: TrackIndex, place: Place) -> bool {
    let view = snapshot.tracks.get(track);
    snapshot.ended || view.and_then(|view| view.next_place()) >= Some(place)
}
