//! Whether an encoder keeps up with its ticks, and what is done when it doesn't: it is given every second picture, or every
//! fourth, until it can do more again. `docs/design/encoder-failures.md` has the reasons. Pure: time and load are arguments.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::clock::MonotonicTime;
use crate::config::Degrade;
use crate::tick::{Framerate, Tick};

/// An encoder this far behind its usual delay, and not catching up, is too slow.
const BEHIND: Duration = Duration::from_secs(1);
/// How long it has to be busy until its rate can be told.
const MEASURED: Duration = Duration::from_millis(1500);
/// Both are shorter while a higher rate is on trial.
const ON_TRIAL: u32 = 2;
/// A measurement begins anew after so long, so that it tells of the present.
const RENEWED: Duration = Duration::from_secs(3);
/// An encoder that is no further behind has room.
const CLOSE: Duration = Duration::from_millis(300);
/// How long a lower rate is kept before a higher one is tried; doubled each time that one did not fit.
const FIRST_TRIAL: Duration = Duration::from_secs(15);
const LAST_TRIAL: Duration = Duration::from_secs(600);
/// A rate that has held for so long fits.
const PROVEN: Duration = Duration::from_secs(30);
/// What counts as the full rate, so that clocks and rounding don't.
const ENOUGH: f64 = 0.98;

/// What an encoder's owner sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) now: MonotonicTime,
    /// Whether it is offered more pictures than it takes.
    pub(super) busy: bool,
    /// The first tick that it has not returned.
    pub(super) returned: Tick,
    /// How far that is behind the newest tick, beyond its usual delay.
    pub(super) behind: Duration,
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change {
    /// It is too slow: so many ticks a second instead of the framerate's. If the step was made longer, it has to be started
    /// again with it.
    TooSlow { reached: f64, longer_step: bool },
    /// A shorter step is to be tried.
    Try,
}

/// One stream's pace.
#[derive(Debug)]
pub(super) struct Pace {
    policy: Degrade,
    framerate: Framerate,
    step: u32,
    longest_step: u32,
    /// Since when it is busy, and what it had returned then.
    measured: Option<(MonotonicTime, Tick)>,
    /// Since when it has room.
    close: Option<MonotonicTime>,
    /// How long it has to have room until a higher rate is tried.
    patience: Duration,
    /// When the present rate was tried, while it is not proven.
    trial: Option<MonotonicTime>,
    told: bool,
}

impl Pace {
    /// Of a stream whose parts have `ticks_per_part` ticks: a sample can't be longer.
    pub(super) fn new(policy: Degrade, framerate: Framerate, ticks_per_part: NonZeroU32) -> Self {
        Self {
            policy,
            framerate,
            step: 1,
            longest_step: match ticks_per_part.get() {
                1 => 1,
                // Four would be shown as three, which two nearly are.
                2 | 3 => 2,
                _ => 4,
            },
            measured: None,
            close: None,
            patience: FIRST_TRIAL,
            trial: None,
            told: false,
        }
    }

    /// Every how many ticks a picture is encoded.
    pub(super) fn step(&self) -> NonZeroU32 {
        NonZeroU32::new(self.step).unwrap_or(NonZeroU32::MIN)
    }

    /// An encoder was started: it is measured anew.
    pub(super) fn started(&mut self) {
        self.measured = None;
        self.close = None;
    }

    /// Looks at a running encoder that has returned something.
    pub(super) fn look(&mut self, load: Load) -> Option<Change> {
        if self
            .trial
            .is_some_and(|since| load.now.saturating_since(since) > PROVEN)
        {
            self.trial = None;
            self.patience = FIRST_TRIAL;
        }
        if !load.busy {
            self.measured = None;
            return self.look_for_room(load);
        }
        self.close = None;
        let (since, from) = *self.measured.get_or_insert((load.now, load.returned));
        let took = load.now.saturating_since(since);
        let hurry = if self.trial.is_some() { ON_TRIAL } else { 1 };
        if took < MEASURED / hurry || load.behind < BEHIND / hurry {
            return None;
        }
        let ticks = u32::try_from(load.returned.since(from)).unwrap_or(u32::MAX);
        let reached = f64::from(ticks) / took.as_secs_f64();
        if reached < self.framerate.as_f64() * ENOUGH {
            return self.slow_down(reached);
        }
        if took > RENEWED {
            self.measured = Some((load.now, load.returned));
        }
        None
    }

    fn slow_down(&mut self, reached: f64) -> Option<Change> {
        self.measured = None;
        if self.lengthen_step() {
            return Some(Change::TooSlow {
                reached,
                longer_step: true,
            });
        }
        // Nothing more can be done; once is enough to say it.
        let first = !std::mem::replace(&mut self.told, true);
        first.then_some(Change::TooSlow {
            reached,
            longer_step: false,
        })
    }

    /// Has fewer pictures encoded from the next start on; false if that is not wanted or would be too few.
    pub(super) fn lengthen_step(&mut self) -> bool {
        if self.policy == Degrade::Off || self.step >= self.longest_step {
            return false;
        }
        if self.trial.take().is_some() {
            self.patience = (self.patience * 2).min(LAST_TRIAL);
        }
        self.step *= 2;
        self.told = false;
        true
    }

    fn look_for_room(&mut self, load: Load) -> Option<Change> {
        if load.behind > CLOSE {
            self.close = None;
            return None;
        }
        let since = *self.close.get_or_insert(load.now);
        if load.now.saturating_since(since) < self.patience {
            return None;
        }
        self.told = false;
        if self.step == 1 {
            return None;
        }
        self.step /= 2;
        self.close = None;
        self.trial = Some(load.now);
        Some(Change::Try)
    }

    /// Whether it is known to be too slow for what it is given.
    pub(super) fn is_overwhelmed(&self) -> bool {
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(seconds: f64) -> u64 {
        u64::try_from(Duration::from_secs_f64(seconds).as_nanos()).unwrap()
    }

    /// An encoder that makes `fps` pictures a second, and a stream of 30 ticks a second.
    struct Machine {
        pace: Pace,
        fps: f64,
        now: f64,
        /// Ticks returned.
        returned: f64,
        changes: Vec<(f64, u32)>,
        most_behind: f64,
    }

    impl Machine {
        fn new(policy: Degrade, fps: f64, ticks_per_part: u32) -> Self {
            let rate = Framerate::new(30, 1).unwrap();
            Self {
                pace: Pace::new(policy, rate, NonZeroU32::new(ticks_per_part).unwrap()),
                fps,
                now: 0.0,
                returned: 0.0,
                changes: Vec::new(),
                most_behind: 0.0,
            }
        }

        fn run(&mut self, seconds: f64) {
            const STEP: f64 = 0.02;
            let end = self.now + seconds;
            while self.now < end {
                self.now += STEP;
                let newest = self.now * 30.0;
                self.returned += self.fps * f64::from(self.pace.step) * STEP;
                // A tick is behind after some milliseconds at most.
                let busy = self.returned < newest - 4.0;
                self.returned = self.returned.min(newest);
                let behind = (newest - self.returned) / 30.0;
                self.most_behind = self.most_behind.max(behind);
                let change = self.pace.look(Load {
                    now: MonotonicTime(nanos(self.now)),
                    busy,
                    returned: Tick(Duration::from_secs_f64(self.returned).as_secs()),
                    behind: Duration::from_secs_f64(behind),
                });
                if change.is_some() {
                    self.changes.push((self.now, self.pace.step));
                    self.pace.started();
                }
            }
        }
    }

    #[test]
    fn an_encoder_that_keeps_up_is_left_alone() {
        let mut machine = Machine::new(Degrade::Skip, 31.0, 10);
        // It was away for three seconds, and catches up.
        machine.now = 3.0;
        machine.run(200.0);
        assert_eq!(machine.changes, []);
    }

    #[test]
    fn one_that_is_too_slow_gets_every_second_picture_and_latency_stays_bounded() {
        let mut machine = Machine::new(Degrade::Skip, 21.0, 10);
        machine.run(14.0);
        assert_eq!(machine.changes.len(), 1, "{:?}", machine.changes);
        assert_eq!(machine.pace.step().get(), 2);
        assert!(machine.most_behind < 1.6, "{}", machine.most_behind);
        let mut slower = Machine::new(Degrade::Skip, 9.0, 10);
        slower.run(14.0);
        let steps: Vec<u32> = slower.changes.iter().map(|change| change.1).collect();
        assert_eq!(steps, [2, 4]);
    }

    #[test]
    fn the_full_rate_is_tried_again_ever_more_seldom_and_kept_when_it_fits() {
        let mut machine = Machine::new(Degrade::Skip, 21.0, 10);
        machine.run(600.0);
        let trials: Vec<f64> = machine
            .changes
            .iter()
            .filter(|change| change.1 == 1)
            .map(|change| change.0)
            .collect();
        assert!(trials.len() >= 4, "{:?}", machine.changes);
        for gaps in trials.windows(3) {
            assert!(gaps[2] - gaps[1] > 1.5 * (gaps[1] - gaps[0]), "{trials:?}");
        }
        for pair in machine.changes.windows(2).filter(|pair| pair[0].1 == 1) {
            assert!(pair[1].0 - pair[0].0 < 3.0, "back at once: {pair:?}");
        }
        machine.fps = 60.0;
        machine.run(600.0);
        let so_far = machine.changes.len();
        machine.run(600.0);
        assert_eq!(
            (machine.pace.step().get(), machine.changes.len()),
            (1, so_far)
        );
    }

    #[test]
    fn one_that_never_came_so_far_as_to_be_measured_gets_fewer_pictures_and_later_all_of_them_again()
     {
        let mut machine = Machine::new(Degrade::Skip, 100.0, 10);
        assert!(machine.pace.lengthen_step() && machine.pace.lengthen_step());
        assert!(!machine.pace.lengthen_step(), "every fourth is the least");
        assert_eq!(machine.pace.step().get(), 4);
        machine.run(40.0);
        assert_eq!(machine.pace.step().get(), 1, "{:?}", machine.changes);
        assert!(!Machine::new(Degrade::Off, 100.0, 10).pace.lengthen_step());
    }

    #[test]
    fn switched_off_or_with_parts_of_one_tick_it_is_only_told_once() {
        for (policy, part) in [(Degrade::Off, 10), (Degrade::Skip, 1)] {
            let mut machine = Machine::new(policy, 21.0, part);
            machine.run(30.0);
            assert_eq!(machine.changes.len(), 1);
            assert!(machine.pace.is_overwhelmed() && machine.pace.step().get() == 1);
        }
    }
}
