//! Where sound comes in: a short queue of samples between whoever has some, on any thread, and the thread that publishes it. With each block stands
//! when it was captured, as far as that is known, and when it came: from these follows its place beside the picture.
//!
//! An inlet is for one run of sound without a hole: a source that is opened again begins another. Its two ends are a [`Filler`] and an [`Inlet`];
//! dropping one tells the other.

use std::collections::VecDeque;
use std::collections::vec_deque::Drain;
use std::num::NonZeroU32;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Pcm;
use crate::clock::MonotonicTime;

/// Blocks that nobody has looked at yet.
const ARRIVALS: usize = 1024;
/// What was full so lately is held back, and not at its own pace.
const HELD_BACK: Duration = Duration::from_secs(3);
/// How often who waits for room notes that it still does.
const LOOK_UP: Duration = Duration::from_millis(500);

/// When a block of sound was captured, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capture {
    /// Nobody knows: it is learnt from when blocks come.
    Unknown,
    /// Who captured it says so, as exactly as a program can.
    Told(MonotonicTime),
    /// It is what the pictures beside it make of it.
    Known(MonotonicTime),
}

impl Capture {
    /// When it was, if anybody says.
    pub(crate) fn time(self) -> Option<MonotonicTime> {
        match self {
            Self::Unknown => None,
            Self::Told(at) | Self::Known(at) => Some(at),
        }
    }
}

/// When a block of sound was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// When its end was captured.
    pub(crate) captured: Capture,
    /// When it came here.
    pub(crate) came: MonotonicTime,
}

/// A block has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// How many samples the inlet had received with it.
    pub(crate) received: u64,
    pub(crate) moment: Moment,
}

#[derive(Debug, Default)]
struct Queue {
    /// How many samples wait at most, with those of the block that found room.
    most: usize,
    samples: VecDeque<Pcm>,
    received: u64,
    arrivals: VecDeque<Arrival>,
    /// When there was no room, the last time.
    full: Option<MonotonicTime>,
    /// Nothing more comes.
    ended: bool,
    /// Nobody takes any more.
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    /// Samples a second.
    rate: NonZeroU32,
    queue: Mutex<Queue>,
    room: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both ends of a new one for `rate` samples a second, in which up to `most` of them wait.
pub(crate) fn inlet(rate: NonZeroU32, most: usize) -> (Filler, Inlet) {
    let queue = Queue {
        most,
        ..Queue::default()
    };
    let shared = Arc::new(Shared {
        rate,
        queue: Mutex::new(queue),
        room: Condvar::new(),
    });
    (Filler(Arc::clone(&shared)), Inlet(shared))
}

/// The end of who has sound: stereo at the inlet's rate. Dropping it says that nothing more comes.
#[derive(Debug)]
pub(crate) struct Filler(Arc<Shared>);

impl Filler {
    /// Adds a block, waiting for room with the clock `now`; false once nobody takes any more.
    pub(crate) fn put(
        &self,
        samples: impl IntoIterator<Item = Pcm>,
        moment: Moment,
        now: impl Fn() -> MonotonicTime,
    ) -> bool {
        let mut queue = self.0.queue();
        while queue.is_full() && !queue.closed {
            queue.full = Some(now());
            let waited = self.0.room.wait_timeout(queue, LOOK_UP);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.add(samples, moment)
    }

    /// Adds a block if there is room for it, without waiting; whether there was. What is left out leaves a hole, whose place the moments of the
    /// next block show.
    pub(crate) fn offer(&self, samples: &[Pcm], moment: Moment) -> bool {
        let mut queue = self.0.queue();
        queue.samples.len() + samples.len() <= queue.most
            && queue.add(samples.iter().copied(), moment)
    }

    /// Whether there is no room.
    pub(crate) fn is_full(&self) -> bool {
        self.0.queue().is_full()
    }

    /// Whether nobody takes any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.queue().closed
    }

    /// Lets go of what waits, as if it had never come.
    pub(crate) fn clear(&self) {
        let mut queue = self.0.queue();
        queue.received -= queue.samples.len() as u64;
        queue.samples.clear();
        queue.arrivals.clear();
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.0.queue().ended = true;
    }
}

impl Queue {
    fn is_full(&self) -> bool {
        self.samples.len() >= self.most
    }

    fn add(&mut self, samples: impl IntoIterator<Item = Pcm>, moment: Moment) -> bool {
        if self.closed {
            return false;
        }
        let before = self.samples.len();
        self.samples.extend(samples);
        self.received += (self.samples.len() - before) as u64;
        let received = self.received;
        self.arrivals.push_back(Arrival { received, moment });
        if self.arrivals.len() > ARRIVALS {
            self.arrivals.pop_front();
        }
        true
    }
}

/// The end of who publishes it. Dropping it says that nobody takes any more.
#[derive(Debug)]
pub(crate) struct Inlet(Arc<Shared>);

impl Inlet {
    /// Samples a second.
    pub(super) fn rate(&self) -> NonZeroU32 {
        self.0.rate
    }

    /// Whether more was there lately than is taken, asked `now`.
    pub(crate) fn is_held_back(&self, now: MonotonicTime) -> bool {
        let full = self.0.queue().full;
        full.is_some_and(|full| now.saturating_since(full) < HELD_BACK)
    }

    /// The blocks that have come since.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.0.queue().arrivals.drain(..).collect()
    }

    /// Gives up to `most` samples to `to`; says how many there were.
    pub(crate) fn take(&self, most: usize, to: impl FnOnce(Drain<'_, Pcm>)) -> usize {
        let mut queue = self.0.queue();
        let count = queue.samples.len().min(most);
        to(queue.samples.drain(..count));
        drop(queue);
        self.0.room.notify_one();
        count
    }

    /// Whether all that has come was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.queue().samples.is_empty()
    }

    /// Whether nothing more will come, and all was taken.
    pub(crate) fn is_over(&self) -> bool {
        let queue = self.0.queue();
        queue.ended && queue.samples.is_empty()
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.0.queue().closed = true;
        self.0.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tick::SAMPLE_RATE;

    const ROOM: usize = 48_000;

    fn inlet() -> (Filler, Inlet) {
        super::inlet(SAMPLE_RATE, ROOM)
    }

    fn at(millis: u64) -> MonotonicTime {
        MonotonicTime(millis * 1_000_000)
    }

    fn moment(millis: u64) -> Moment {
        Moment {
            captured: Capture::Unknown,
            came: at(millis),
        }
    }

    #[test]
    fn what_has_come_is_taken_in_order_with_the_times_of_its_coming() {
        let (filler, inlet) = inlet();
        assert!(filler.put([[0.1; 2]; 3], moment(1), || at(1)));
        assert!(filler.put([[0.2; 2]; 2], moment(2), || at(2)));
        let received: Vec<u64> = inlet.arrivals().iter().map(|a| a.received).collect();
        assert_eq!(received, [3, 5]);
        let mut taken = Vec::new();
        assert_eq!(inlet.take(4, |samples| taken.extend(samples)), 4);
        assert_eq!(taken, [[0.1; 2], [0.1; 2], [0.1; 2], [0.2; 2]]);
        drop(filler);
        assert!(!inlet.is_over());
        inlet.take(9, |_| ());
        assert!(inlet.is_over());
    }

    #[test]
    fn who_finds_no_room_waits_until_there_is_some_or_nobody_takes_any_more() {
        let (filler, inlet) = inlet();
        assert!(filler.put(vec![[0.0; 2]; ROOM], moment(1), || at(1)));
        assert!(filler.is_full() && !inlet.is_held_back(at(1)));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| filler.put([[0.5; 2]], moment(2), || at(2)));
            while !inlet.is_held_back(at(2)) {
                std::thread::yield_now();
            }
            inlet.take(100, |_| ());
            assert!(waits.join().unwrap());
            let waits = scope.spawn(|| filler.put(vec![[0.0; 2]; ROOM], moment(3), || at(3)));
            assert!(waits.join().unwrap());
            let waits = scope.spawn(|| filler.put([[0.5; 2]], moment(4), || at(4)));
            drop(inlet);
            assert!(!waits.join().unwrap());
        });
    }

    #[test]
    fn who_does_not_wait_is_told_when_there_is_no_room_or_nobody_takes_any_more() {
        let (filler, inlet) = inlet();
        assert!(filler.offer(&[[0.1; 2]; ROOM - 1], moment(1)));
        assert!(!filler.offer(&[[0.2; 2]; 2], moment(2)));
        assert!(filler.offer(&[[0.3; 2]; 1], moment(3)));
        assert_eq!(inlet.take(ROOM, |_| ()), ROOM);
        drop(inlet);
        assert!(!filler.offer(&[[0.3; 2]; 1], moment(4)));
    }

    #[test]
    fn what_is_let_go_has_never_come() {
        let (filler, inlet) = inlet();
        filler.put([[0.1; 2]; 3], moment(1), || at(1));
        inlet.take(1, |_| ());
        filler.clear();
        filler.put([[0.2; 2]; 2], moment(2), || at(2));
        let received: Vec<u64> = inlet.arrivals().iter().map(|a| a.received).collect();
        assert_eq!(received, [3]);
        assert_eq!(inlet.take(9, |_| ()), 2);
    }
}
