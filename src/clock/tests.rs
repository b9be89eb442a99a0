use std::sync::Arc;
use std::time::Duration;

use super::testing::FakeClock;
use super::{Anchor, Clock, StepWatch, SystemClock};
use crate::tick::UnixTime;

const START: UnixTime = UnixTime::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn fake() -> (FakeClock, Anchor) {
    let clock = FakeClock::at(START);
    let anchor = Anchor::new(Arc::new(clock.clone()));
    (clock, anchor)
}

#[test]
fn published_time_passes_with_the_monotonic_clock_whatever_the_wall_clock_is_set_to() {
    let (clock, anchor) = fake();
    for step in [3600, -3600, -7200] {
        clock.step(step);
        let before = anchor.now();
        clock.advance(Duration::from_secs(1));
        assert_eq!(
            anchor.now(),
            before.saturating_add(Duration::from_secs(1)),
            "{step}"
        );
    }
}

#[test]
fn a_step_is_told_once_with_its_size_and_where_the_clock_is_now() {
    let (clock, anchor) = fake();
    let mut watch = StepWatch::new(&anchor);
    assert_eq!(watch.look(&anchor), None);
    clock.step(3600);
    let step = watch.look(&anchor).unwrap();
    assert_eq!((step.by_seconds, step.ahead_seconds), (3600.0, 3600.0));
    assert_eq!(watch.look(&anchor), None);
    clock.step(-7200);
    let step = watch.look(&anchor).unwrap();
    assert_eq!((step.by_seconds, step.ahead_seconds), (-7200.0, -3600.0));
}

#[test]
fn a_slewed_clock_is_not_stepped_however_far_it_gets() {
    let (clock, anchor) = fake();
    let mut watch = StepWatch::new(&anchor);
    for ppm in [500, -500] {
        // What NTP slews by at most, for a day, looked at every second.
        clock.slew(ppm);
        for _ in 0..86_400 {
            clock.advance(Duration::from_secs(1));
            assert_eq!(watch.look(&anchor), None);
        }
    }
    assert_eq!(anchor.now(), START.saturating_add(48 * HOUR));
}

#[test]
fn time_passes_while_the_machine_is_suspended_and_that_is_no_step() {
    let (clock, anchor) = fake();
    let mut watch = StepWatch::new(&anchor);
    clock.suspend(HOUR);
    assert_eq!(anchor.now(), START.saturating_add(HOUR));
    assert_eq!(anchor.suspended(), HOUR);
    assert_eq!(watch.look(&anchor), None);
}

#[test]
fn an_anchor_behind_what_was_published_goes_on_from_there_and_another_stays() {
    let (clock, anchor) = fake();
    let ahead = START.saturating_add(HOUR);
    let moved = anchor.clone().not_before(ahead);
    assert_eq!(moved.now(), ahead);
    let mut watch = StepWatch::new(&moved);
    clock.advance(HOUR);
    assert_eq!(moved.now(), ahead.saturating_add(HOUR));
    assert_eq!(moved.to_unix(moved.to_monotonic(ahead)), ahead);
    assert_eq!(watch.look(&moved), None, "the move is no step");
    let now = anchor.now();
    assert_eq!(anchor.not_before(START).now(), now);
}

#[test]
fn the_machine_s_clocks_agree() {
    let clock = SystemClock;
    let running = u64::try_from(clock.suspended().as_nanos()).unwrap() + ringgear_producer::now().0;
    let boot = clock.monotonic();
    assert!(running <= boot.0, "{running} {boot:?}");
    assert!(
        boot.0 - running < 1_000_000_000,
        "the two were read within a second"
    );
    let anchor = Anchor::new(Arc::new(clock));
    let deadline = anchor.now().saturating_add(Duration::from_millis(20));
    anchor.sleep_until(deadline);
    assert!(anchor.now() >= deadline);
}
