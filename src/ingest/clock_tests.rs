//! Ticks on a simulated clock that is stepped, slewed and suspended under them.

use std::sync::mpsc::channel;

use super::*;
use crate::clock::testing::FakeClock;
use crate::clock::{Anchor, Clock};
use crate::tick::{Framerate, UnixTime};

const START: UnixTime = UnixTime::from_secs(1_800_000_000);
const BACKFILL: Duration = Duration::from_secs(5);

/// Runs a stream of `seconds` without a producer, calling `meddle` with each tick's place, and returns the ticks with the wall clock's
/// and the published time at each.
fn ticks(
    seconds: u64,
    mut meddle: impl FnMut(u64, &FakeClock),
) -> (Grid, Vec<(Tick, UnixTime, UnixTime)>) {
    let rate = Framerate::new(30_000, 1001).unwrap();
    let grid = Grid::new(rate, Duration::from_secs(2), Duration::from_millis(333));
    let clock = FakeClock::at(START);
    let anchor = Anchor::new(Arc::new(clock.clone()));
    let (commands, obeyed) = channel();
    let plan = IngestPlan {
        stream: "cam".to_owned(),
        grid,
        slack: 1,
        pace: Pace::Tick,
        stale_after: Duration::from_secs(2),
        backfill: BACKFILL,
        remembered: Some((PictureFormat::I420, Size::new(16, 16))),
        tick_log: None,
    };
    let mut seen = Vec::new();
    let published = anchor.clone();
    let sink = |made: TickPicture| {
        seen.push((made.tick, clock.wall(), published.now()));
        meddle(seen.len() as u64, &clock);
        if published.now() >= START.saturating_add(Duration::from_secs(seconds)) {
            commands.send(Command::Stop).unwrap();
        }
    };
    let (counters, newest) = (Arc::default(), watch::Sender::new(None));
    Ingest::new(plan, anchor, obeyed, counters, newest, sink).run();
    (grid, seen)
}

/// Each tick follows the one before and is made when the published time, which PROGRAM-DATE-TIME and `/time` tell, has reached it.
#[track_caller]
fn on_the_grid(grid: &Grid, seen: &[(Tick, UnixTime, UnixTime)]) {
    for pair in seen.windows(2) {
        assert_eq!(pair[1].0, pair[0].0.next());
    }
    for (tick, _, published) in seen {
        assert_eq!(grid.tick_at(*published), *tick);
    }
}

#[test]
fn a_step_of_the_wall_clock_by_an_hour_moves_no_tick() {
    for hour in [3600, -3600] {
        let (grid, seen) = ticks(120, |at, clock| {
            if at == 1000 {
                clock.step(hour);
            }
        });
        assert!(seen.len() > 3590, "{}", seen.len());
        on_the_grid(&grid, &seen);
        let (_, wall, published) = seen.last().unwrap();
        assert!(wall.as_secs_f64() - published.as_secs_f64() - hour as f64 == 0.0);
    }
}

#[test]
fn a_slewed_wall_clock_moves_no_tick() {
    let (grid, seen) = ticks(3600, |at, clock| {
        clock.slew(if at % 2 == 0 { 500 } else { -400 })
    });
    assert!(seen.len() > 107_800, "{}", seen.len());
    on_the_grid(&grid, &seen);
}

#[test]
fn after_a_suspension_ticks_go_on_at_the_clock_s_time_not_where_they_stopped() {
    let (grid, seen) = ticks(1000, |at, clock| {
        if at == 300 {
            clock.suspend(Duration::from_secs(600));
        }
    });
    let (before, after) = seen.split_at(300);
    on_the_grid(&grid, before);
    on_the_grid(&grid, after);
    let away = grid.framerate.duration_of(after[0].0.since(before[299].0));
    let slept = Duration::from_secs(600);
    let tick = grid.framerate.duration_of(1);
    assert!(away + tick > slept && away < slept + tick, "{away:?}");
}

#[test]
fn a_suspension_shorter_than_the_backfill_costs_no_tick() {
    let (_, seen) = ticks(60, |at, clock| {
        if at == 300 {
            clock.suspend(BACKFILL - Duration::from_secs(1));
        }
    });
    for pair in seen.windows(2) {
        assert_eq!(pair[1].0, pair[0].0.next());
    }
}
