//! What waits for the thread that makes a stream's sound. Of orders only the newest counts, and mostly of inlets, too, so no more than that one is
//! kept, however long the thread is busy. Where producers' sound is recorded, each inlet counts, and a few are kept. What the encoder returns waits in a queue:
//! once that is full, who reads the encoder waits, and the encoder behind it.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Order;
use super::inlet::Inlet;
use super::supply::follow;
use crate::encode::audio::AudioEvent;

/// How many of the encoder's events wait: a second of frames, of as many renditions as there may be.
const RETURNED: usize = 256;

/// What has come since the last time.
#[derive(Debug, Default)]
pub(super) struct Mail {
    pub(super) order: Option<Order>,
    /// The recording ends before this sample.
    pub(super) end: Option<u64>,
    /// Why there is no sound, if that came last.
    pub(super) without: Option<String>,
    /// The newest, or all that are to be heard, in the order in which they came.
    pub(super) inlets: VecDeque<Inlet>,
    /// How many there was no room for.
    pub(super) left_out: usize,
    /// What encoders say, each with its run.
    pub(super) returned: VecDeque<(u64, AudioEvent)>,
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.order.is_none()
            && self.end.is_none()
            && self.without.is_none()
            && self.inlets.is_empty()
            && self.returned.is_empty()
    }
}

#[derive(Debug, Default)]
struct State {
    mail: Mail,
    /// The thread has to end.
    stopped: bool,
    /// It has.
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    /// Whether what comes in is heard one after the other, as in recordings.
    in_order: bool,
    state: Mutex<State>,
    come: Condvar,
    room: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to the thread. A thread that has ended takes nothing: what is put then is dropped.
#[derive(Clone, Debug)]
pub(super) struct Slot(Arc<Shared>);

impl Slot {
    /// The sound goes on as `order` says, whatever one before it said.
    pub(super) fn order(&self, order: Order) {
        self.put(|mail| mail.order = Some(order));
    }

    /// The recording ends before sample `end`.
    pub(super) fn end(&self, end: u64) {
        self.put(|mail| mail.end = Some(end));
    }

    /// The sound is what comes out of `inlet` from here on: at once, or after what came before it.
    pub(super) fn inlet(&self, inlet: Inlet) {
        let in_order = self.0.in_order;
        self.put(|mail| {
            mail.without = None;
            if !in_order {
                mail.inlets.clear();
            }
            mail.left_out += usize::from(follow(&mut mail.inlets, inlet));
        });
    }

    /// There is no sound from here on, for this reason.
    pub(super) fn without(&self, why: String) {
        self.put(|mail| {
            mail.inlets.clear();
            mail.without = Some(why);
        });
    }

    /// The encoder of this run says so; waits for room.
    pub(super) fn returned(&self, run: u64, event: AudioEvent) {
        let full = |state: &mut State| state.mail.returned.len() >= RETURNED && !state.closed;
        let state = self.0.room.wait_while(self.0.state(), full);
        drop(state.unwrap_or_else(PoisonError::into_inner));
        self.put(|mail| mail.returned.push_back((run, event)));
    }

    /// The thread has to end.
    pub(super) fn stop(&self) {
        self.0.state().stopped = true;
        self.0.come.notify_one();
    }

    fn put(&self, how: impl FnOnce(&mut Mail)) {
        let mut state = self.0.state();
        if !state.closed {
            how(&mut state.mail);
            self.0.come.notify_one();
        }
    }
}

/// The thread's end.
pub(crate) struct AudioPost(Arc<Shared>);

/// Both ends. `in_order` says whether what comes in is heard one after the other, as in recordings.
pub(super) fn post(in_order: bool) -> (Slot, AudioPost) {
    let shared = Arc::new(Shared {
        in_order,
        ..Shared::default()
    });
    (Slot(Arc::clone(&shared)), AudioPost(shared))
}

impl AudioPost {
    /// Another way to the thread.
    pub(super) fn slot(&self) -> Slot {
        Slot(Arc::clone(&self.0))
    }

    /// What has come, waited for for so long; none if the thread has to end.
    pub(super) fn collect(&self, within: Duration) -> Option<Mail> {
        let nothing = |state: &mut State| state.mail.is_empty() && !state.stopped;
        let mut state = self.wait(within, nothing);
        if state.stopped {
            return None;
        }
        let mail = std::mem::take(&mut state.mail);
        self.0.room.notify_all();
        Some(mail)
    }

    /// Rests for so long, whatever comes; false if the thread has to end.
    pub(super) fn rest(&self, time: Duration) -> bool {
        !self.wait(time, |state| !state.stopped).stopped
    }

    fn wait(
        &self,
        within: Duration,
        lasts: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'_, State> {
        let waited = self
            .0
            .come
            .wait_timeout_while(self.0.state(), within, lasts);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for AudioPost {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closed = true;
        let mail = std::mem::take(&mut state.mail);
        drop(state);
        // Who fills an inlet learns that nobody takes any more.
        drop(mail);
        self.0.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::Moment;
    use super::super::inlet::{Capture, Filler, inlet};
    use super::*;
    use crate::clock::MonotonicTime;
    use crate::tick::SAMPLE_RATE;

    const SOON: Duration = Duration::from_secs(20);

    fn order(generation: u64) -> Order {
        Order {
            generation,
            tracks: Vec::new(),
        }
    }

    fn is_heard(filler: &Filler) -> bool {
        let moment = Moment {
            captured: Capture::Unknown,
            came: MonotonicTime(0),
        };
        filler.offer(&[[0.0; 2]], moment)
    }

    #[test]
    fn of_what_replaces_what_came_before_only_the_newest_is_kept() {
        let (slot, post) = post(false);
        let fillers: Vec<Filler> = (0..1000)
            .map(|generation| {
                let (filler, inlet) = inlet(SAMPLE_RATE, 9);
                slot.order(order(generation));
                slot.without("no source".to_owned());
                slot.inlet(inlet);
                filler
            })
            .collect();
        let heard = fillers.iter().filter(|filler| is_heard(filler));
        assert_eq!(heard.count(), 1);
        slot.end(7);
        let mail = post.collect(SOON).unwrap();
        assert_eq!((mail.order.unwrap().generation, mail.end), (999, Some(7)));
        assert!(is_heard(&fillers[999]));
        assert_eq!((mail.inlets.len(), mail.without), (1, None));
        assert!(post.collect(Duration::ZERO).unwrap().is_empty());
    }

    #[test]
    fn where_sound_is_recorded_the_last_few_are_kept_in_their_order() {
        let (slot, post) = post(true);
        let (closed, empty) = inlet(SAMPLE_RATE, 9);
        drop(closed);
        slot.inlet(empty);
        let fillers: Vec<Filler> = (0..5)
            .map(|_| {
                let (filler, inlet) = inlet(SAMPLE_RATE, 9);
                slot.inlet(inlet);
                filler
            })
            .collect();
        let heard: Vec<bool> = fillers.iter().map(is_heard).collect();
        assert_eq!(heard, [false, true, true, true, true]);
        assert!(is_heard(&fillers[4]));
        let mail = post.collect(SOON).unwrap();
        let samples = mail.inlets.iter().map(|inlet| inlet.take(9, |_| ()));
        assert_eq!(samples.collect::<Vec<_>>(), [1, 1, 1, 2]);
        assert_eq!(mail.left_out, 1);
    }

    #[test]
    fn what_comes_ends_no_rest_and_is_there_after_it() {
        let (slot, post) = post(false);
        slot.order(order(1));
        let began = std::time::Instant::now();
        let rest = Duration::from_millis(60);
        thread::scope(|scope| {
            scope.spawn(|| (2..20).for_each(|generation| slot.order(order(generation))));
            assert!(post.rest(rest));
        });
        assert!(began.elapsed() >= rest);
        assert_eq!(post.collect(SOON).unwrap().order.unwrap().generation, 19);
        slot.stop();
        assert!(!post.rest(SOON) && post.collect(SOON).is_none());
    }

    #[test]
    fn who_reads_an_encoder_waits_while_what_it_returned_is_not_taken() {
        let (slot, post) = post(false);
        let say = |run: usize| slot.returned(run as u64, AudioEvent::Exited(String::new()));
        (0..RETURNED).for_each(say);
        thread::scope(|scope| {
            let waits = scope.spawn(|| say(RETURNED));
            let taken = post.collect(SOON).unwrap().returned;
            assert_eq!(taken.len(), RETURNED, "no more than is allowed");
            waits.join().unwrap();
            let last = post.collect(SOON).unwrap().returned;
            assert_eq!(last[0].0, RETURNED as u64);
            (0..RETURNED).for_each(say);
            let waits = scope.spawn(|| say(RETURNED));
            drop(post);
            waits.join().unwrap();
        });
        let (filler, inlet) = inlet(SAMPLE_RATE, 9);
        slot.inlet(inlet);
        assert!(!is_heard(&filler), "nobody takes it any more");
    }
}
