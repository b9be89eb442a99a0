//! Whose turn it is to start its encoder. Where many streams begin together, as when a machine boots, each would get so little of the processors that its
//! encoder is given up before it returns anything, again and again. So few start at once, the others after them in the order in which they came, those first
//! that go on with what is published.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::MonotonicTime;

/// An encoder that takes longer than this to start keeps nobody waiting any more.
const LONGEST: Duration = Duration::from_secs(3);
/// Who has not asked for so long waits no more. Owners ask at each tick, and ten times a second without; on a machine that is so busy, less often.
const FORGOTTEN: Duration = Duration::from_secs(3);

/// The line of all streams.
pub(crate) struct Turns {
    at_once: usize,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    tickets: u64,
    /// In the order in which they came.
    places: Vec<Place>,
}

struct Place {
    ticket: u64,
    /// Whether it has viewers, who wait.
    watched: bool,
    /// When it asked last.
    asked: MonotonicTime,
    /// Since when it is its turn.
    begun: Option<MonotonicTime>,
}

impl Turns {
    /// As many at once as there are processors, and two at least.
    pub(crate) fn new() -> Arc<Self> {
        let processors = std::thread::available_parallelism();
        Self::of(processors.map_or(1, usize::from).max(2))
    }

    fn of(at_once: usize) -> Arc<Self> {
        let line = Mutex::default();
        Arc::new(Self { at_once, line })
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream's place in the line. Dropping it leaves the line.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    ticket: u64,
}

impl Turn {
    /// One that stands in no line yet.
    pub(crate) fn new(turns: &Arc<Turns>) -> Self {
        let mut line = turns.line();
        line.tickets += 1;
        Self {
            turns: Arc::clone(turns),
            ticket: line.tickets,
        }
    }

    /// Whether it is its turn, which it then is until it is [given back](Self::give_back). One that has to wait asks again soon, or loses its place.
    pub(crate) fn take(&self, now: MonotonicTime, watched: bool) -> bool {
        let mut line = self.turns.line();
        let places = &mut line.places;
        places.retain(|place| {
            let (since, most) = match place.begun {
                Some(begun) => (begun, LONGEST),
                None => (place.asked, FORGOTTEN),
            };
            place.ticket == self.ticket || now.saturating_since(since) < most
        });
        let found = places.iter().position(|place| place.ticket == self.ticket);
        let own = found.unwrap_or_else(|| {
            places.push(Place {
                ticket: self.ticket,
                watched,
                asked: now,
                begun: None,
            });
            places.len() - 1
        });
        (places[own].asked, places[own].watched) = (now, watched);
        let starting = places.iter().filter(|place| place.begun.is_some()).count();
        let ahead = places.iter().enumerate().filter(|(at, place)| {
            let earlier = place.watched == watched && *at < own;
            place.begun.is_none() && (earlier || place.watched && !watched)
        });
        if starting + ahead.count() < self.turns.at_once {
            places[own].begun.get_or_insert(now);
        }
        places[own].begun.is_some()
    }

    /// Lets the next one start.
    pub(crate) fn give_back(&self) {
        let mut line = self.turns.line();
        line.places.retain(|place| place.ticket != self.ticket);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> MonotonicTime {
        MonotonicTime(milliseconds * 1_000_000)
    }

    #[test]
    fn so_many_start_at_once_and_the_others_in_the_order_in_which_they_came() {
        let turns = Turns::of(2);
        let [a, b, c, d] = [(); 4].map(|()| Turn::new(&turns));
        assert!(a.take(at(0), false) && b.take(at(0), false));
        assert!(!c.take(at(0), false) && !d.take(at(0), false));
        assert!(a.take(at(10), false), "it still is its turn");
        a.give_back();
        assert!(!d.take(at(20), false), "another one came before it");
        assert!(c.take(at(20), false));
        drop(b);
        assert!(d.take(at(30), false));
    }

    #[test]
    fn who_has_viewers_goes_first() {
        let turns = Turns::of(1);
        let [a, b, c, d] = [(); 4].map(|()| Turn::new(&turns));
        assert!(a.take(at(0), false));
        assert!(!b.take(at(0), false) && !c.take(at(0), true) && !d.take(at(0), true));
        a.give_back();
        assert!(!b.take(at(10), false) && !d.take(at(10), true));
        assert!(c.take(at(10), true));
        drop(c);
        assert!(d.take(at(20), true));
        drop(d);
        assert!(b.take(at(30), false));
    }

    #[test]
    fn who_does_not_ask_again_or_never_gets_done_keeps_nobody_waiting() {
        let turns = Turns::of(1);
        let [a, b, c] = [(); 3].map(|()| Turn::new(&turns));
        assert!(a.take(at(0), false));
        assert!(!b.take(at(0), false) && !c.take(at(0), false));
        for now in (100..3000).step_by(100) {
            assert!(!c.take(at(now), false));
        }
        assert!(
            c.take(at(3000), false),
            "`b` is gone, and `a` took too long"
        );
        assert!(!b.take(at(3000), false));
    }
}
