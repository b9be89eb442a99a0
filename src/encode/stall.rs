//! When an encoder that returns nothing is as good as dead. Silence alone says little on a busy machine: an encoder that
//! waits for a processor is slow, and killing it would make it slower still. So after the silence that it is allowed, its
//! processes are looked at. `docs/design/encoder-failures.md` has the reasons. Pure: time and looks are arguments.

use std::time::Duration;

use super::Vitals;
use crate::clock::MonotonicTime;

/// An encoder that works but returns nothing is given this much longer.
pub(crate) const WORKING: Duration = Duration::from_secs(10);
/// One that has returned nothing since its start, or has only its end to come, is given this long on top.
pub(crate) const START_ALLOWANCE: Duration = Duration::from_secs(10);
/// A killed process that has not ended after so long is left alone.
pub(crate) const UNKILLABLE: Duration = Duration::from_secs(3);
/// Between two looks at its processes.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// When the owner itself was not run for longer, the rest of that time is not held against the encoder.
const OWN_PAUSE: Duration = Duration::from_millis(300);

/// Why an encoder is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stall {
    /// Its process was stopped.
    Stopped,
    /// It neither returns anything nor does anything.
    Idle,
    /// It uses the processor, or waits for it, and has returned nothing for very long.
    Fruitless,
}

impl std::fmt::Display for Stall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stopped => "it was stopped",
            Self::Idle => "it does nothing",
            Self::Fruitless => "it works, but returns nothing",
        })
    }
}

/// How long an encoder may return nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// `encoder_timeout`.
    pub(crate) timeout: Duration,
    /// How long what it returns usually takes.
    pub(crate) delay: Duration,
    /// Whether it has returned something, and has more to return than its end.
    pub(crate) under_way: bool,
}

impl Patience {
    /// With one that was stopped.
    fn with_stopped(self) -> Duration {
        self.timeout + self.delay
    }

    /// With one that does nothing.
    fn with_idle(self) -> Duration {
        match self.under_way {
            true => self.with_stopped(),
            false => self.timeout + START_ALLOWANCE,
        }
    }
}

/// Watches one encoder.
#[derive(Clone, Debug)]
pub(crate) struct StallWatch {
    /// When it last returned something, or was first given something to return.
    quiet_since: MonotonicTime,
    /// When it last showed any sign of life.
    alive: MonotonicTime,
    /// When the owner last asked.
    asked: MonotonicTime,
    /// The look that the next one is compared with, and when it was.
    before: Option<(MonotonicTime, Vitals)>,
}

impl StallWatch {
    pub(crate) fn new(now: MonotonicTime) -> Self {
        Self {
            quiet_since: now,
            alive: now,
            asked: now,
            before: None,
        }
    }

    /// It returned something, or nothing is awaited from it.
    pub(crate) fn progress(&mut self, now: MonotonicTime) {
        *self = Self::new(now);
    }

    /// Since when it has returned nothing.
    pub(crate) fn quiet_since(&self) -> MonotonicTime {
        self.quiet_since
    }

    /// Asks whether it is dead. `look` looks at its processes: none if they are gone, whose exit is told elsewhere.
    pub(crate) fn ask(
        &mut self,
        now: MonotonicTime,
        patience: Patience,
        look: impl FnOnce() -> Option<Vitals>,
    ) -> Option<Stall> {
        let (allowed, stopped_allowed) = (patience.with_idle(), patience.with_stopped());
        let own_pause = now.saturating_since(self.asked);
        self.asked = now;
        if own_pause > OWN_PAUSE {
            let forgiven = own_pause.checked_sub(OWN_PAUSE).unwrap_or_default();
            self.quiet_since = later(self.quiet_since, forgiven);
            self.alive = later(self.alive, forgiven);
        }
        let quiet = now.saturating_since(self.quiet_since);
        let shorter = allowed.min(stopped_allowed);
        if quiet < shorter / 2 {
            return None;
        }
        if self
            .before
            .is_some_and(|(at, _)| now.saturating_since(at) < BETWEEN_LOOKS)
        {
            return None;
        }
        let vitals = look()?;
        let before = self.before.replace((now, vitals));
        if vitals.stopped {
            return (quiet > stopped_allowed).then_some(Stall::Stopped);
        }
        if vitals.runnable || before.is_some_and(|(_, before)| vitals.moved_since(&before)) {
            self.alive = now;
        }
        if quiet > allowed + WORKING {
            return Some(Stall::Fruitless);
        }
        (now.saturating_since(self.alive) > allowed).then_some(Stall::Idle)
    }
}

fn later(time: MonotonicTime, by: Duration) -> MonotonicTime {
    MonotonicTime(
        time.0
            .saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        timeout: Duration::from_millis(400),
        delay: Duration::from_millis(100),
        under_way: true,
    };

    fn at(millis: u64) -> MonotonicTime {
        MonotonicTime(millis * 1_000_000)
    }

    /// Asks every 50 ms from `from`; says when it was given up, and why.
    fn given_up(
        watch: &mut StallWatch,
        from: u64,
        until: u64,
        vitals: impl Fn(u64) -> Vitals,
    ) -> Option<(u64, Stall)> {
        (from..until).step_by(50).find_map(|millis| {
            let stall = watch.ask(at(millis), PATIENCE, || Some(vitals(millis)))?;
            Some((millis, stall))
        })
    }

    #[test]
    fn an_idle_or_stopped_encoder_is_given_up_after_what_it_is_allowed() {
        let idle = given_up(&mut StallWatch::new(at(0)), 0, 5_000, |_| Vitals::default());
        assert!(matches!(idle, Some((550..=650, Stall::Idle))), "{idle:?}");
        let stopped = |_| Vitals {
            stopped: true,
            ..Vitals::default()
        };
        let stopped = given_up(&mut StallWatch::new(at(0)), 0, 5_000, stopped);
        assert!(
            matches!(stopped, Some((550..=650, Stall::Stopped))),
            "{stopped:?}"
        );
    }

    #[test]
    fn an_encoder_that_works_or_waits_for_a_processor_is_slow_but_not_for_ever() {
        let starved = |_| Vitals {
            runnable: true,
            ..Vitals::default()
        };
        let working = |millis| Vitals {
            processor_ticks: millis / 100,
            ..Vitals::default()
        };
        let reading = |millis| Vitals {
            bytes_taken: millis / 300,
            ..Vitals::default()
        };
        let looks: [fn(u64) -> Vitals; 3] = [starved, working, reading];
        for look in looks {
            let mut watch = StallWatch::new(at(0));
            assert_eq!(given_up(&mut watch, 0, 10_000, look), None);
            let end = given_up(&mut watch, 10_000, 20_000, look);
            assert!(
                matches!(end, Some((10_550..=10_700, Stall::Fruitless))),
                "{end:?}"
            );
        }
    }

    #[test]
    fn a_sample_in_time_is_all_that_is_asked_for() {
        let mut watch = StallWatch::new(at(0));
        for millis in (0..60_000).step_by(50) {
            if millis % 400 == 0 {
                watch.progress(at(millis));
            }
            let stall = watch.ask(at(millis), PATIENCE, || Some(Vitals::default()));
            assert_eq!(stall, None);
        }
    }

    #[test]
    fn time_in_which_the_owner_did_not_run_is_not_counted() {
        let mut watch = StallWatch::new(at(0));
        assert_eq!(given_up(&mut watch, 0, 200, |_| Vitals::default()), None);
        // The machine slept.
        assert_eq!(
            given_up(&mut watch, 60_000, 60_001, |_| Vitals::default()),
            None
        );
        let stall = given_up(&mut watch, 60_050, 65_000, |_| Vitals::default());
        assert!(
            matches!(stall, Some((60_050..=60_300, Stall::Idle))),
            "{stall:?}"
        );
    }
}
