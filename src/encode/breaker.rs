//! When an encoder that fails is started again: at once, then after pauses that grow, and once it has failed too often only now
//! and then. Pure: time is an argument, and the pauses' jitter follows from a seed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::MonotonicTime;
use crate::config::BreakerPlan;

/// One stream's breaker. It opens when the encoder has failed too often, and closes when one works.
#[derive(Debug)]
pub(crate) struct Breaker {
    plan: BreakerPlan,
    /// When the last failures were; at most as many as the plan counts.
    failures: VecDeque<MonotonicTime>,
    in_a_row: u32,
    open: bool,
    random: u64,
}

impl Breaker {
    /// A closed one. Streams with other seeds pause for other times, so that they don't all start at once.
    pub(crate) fn new(plan: BreakerPlan, seed: &str) -> Self {
        let random = seed.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        Self {
            plan,
            failures: VecDeque::new(),
            in_a_row: 0,
            open: false,
            random,
        }
    }

    /// The encoder failed at `now`; says how long to wait for the next start.
    pub(crate) fn failed(&mut self, now: MonotonicTime) -> Duration {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.failures.push_back(now);
        let within = self.plan.within;
        self.failures
            .retain(|failure| now.saturating_since(*failure) <= within);
        let counted = self.plan.failures as usize;
        while self.failures.len() > counted {
            self.failures.pop_front();
        }
        self.open |= self.failures.len() >= counted;
        if self.open {
            return self.plan.retry_every;
        }
        match self.plan.pause(self.in_a_row) {
            Duration::ZERO => Duration::ZERO,
            pause => self.jittered(pause),
        }
    }

    /// The encoder has published something: what was before does not count any more.
    pub(crate) fn worked(&mut self) {
        self.failures.clear();
        self.in_a_row = 0;
        self.open = false;
    }

    /// Whether it has failed so often that it is tried only now and then.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// How often it has failed since it last worked.
    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// `cause`, why it does not run, as people are told it: with how often it is tried again, once that is seldom.
    pub(crate) fn told(&self, cause: String) -> String {
        if !self.open {
            return cause;
        }
        let (failures, every) = (self.in_a_row, self.plan.retry_every);
        let every = humantime::format_duration(every);
        format!("{cause}; it has failed {failures} times in a row and is tried again every {every}")
    }

    /// Up to a quarter more or less.
    fn jittered(&mut self, pause: Duration) -> Duration {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^= mixed >> 31;
        let share = u32::try_from(mixed % 501).unwrap_or(0);
        pause * (750 + share) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: BreakerPlan = BreakerPlan {
        failures: 5,
        within: Duration::from_secs(60),
        retry_every: Duration::from_secs(30),
    };

    fn at(seconds: u64) -> MonotonicTime {
        MonotonicTime(seconds * 1_000_000_000)
    }

    #[test]
    fn the_first_restart_is_at_once_and_the_next_ones_wait_longer() {
        let mut breaker = Breaker::new(PLAN, "door");
        let pauses: Vec<Duration> = (0..4).map(|second| breaker.failed(at(second))).collect();
        assert_eq!(pauses[0], Duration::ZERO);
        for (pause, nominal) in pauses[1..].iter().zip([250, 500, 1000]) {
            let nominal = Duration::from_millis(nominal);
            assert!(
                *pause >= nominal * 3 / 4 && *pause <= nominal * 5 / 4,
                "{pauses:?}"
            );
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn after_so_many_failures_it_opens_and_one_success_closes_it() {
        let mut breaker = Breaker::new(PLAN, "door");
        for second in 0..4 {
            breaker.failed(at(second));
        }
        assert_eq!(breaker.failed(at(5)), PLAN.retry_every);
        assert!(breaker.is_open());
        // It stays open however long ago the others were.
        assert_eq!(breaker.failed(at(1000)), PLAN.retry_every);
        assert!(breaker.is_open() && breaker.in_a_row() == 6);
        breaker.worked();
        assert!(!breaker.is_open() && breaker.in_a_row() == 0);
        assert_eq!(breaker.failed(at(1001)), Duration::ZERO);
    }

    #[test]
    fn failures_that_are_far_apart_never_open_it_and_pauses_are_bounded() {
        let mut breaker = Breaker::new(PLAN, "door");
        for failure in 0..100 {
            let pause = breaker.failed(at(failure * 16));
            assert!(pause <= BreakerPlan::LONGEST_PAUSE * 5 / 4, "{pause:?}");
        }
        assert!(!breaker.is_open());
        assert!(breaker.failures.len() <= 5);
    }

    #[test]
    fn streams_dont_all_start_at_once_and_the_pauses_are_the_same_in_every_run() {
        let pauses = |name: &str| {
            let mut breaker = Breaker::new(PLAN, name);
            [0, 1, 2, 3].map(|second| breaker.failed(at(second)))
        };
        assert_eq!(pauses("door"), pauses("door"));
        assert_ne!(pauses("door"), pauses("yard"));
    }
}
