//! Frames that are taken as they arrive, from a real ring by the machine's clock.

use std::sync::mpsc::channel;
use std::thread;

use ringgear_ring::Writer;

use super::session::tests::begun;
use super::*;
use crate::clock::SystemClock;
use crate::tick::Framerate;

const TICKS: u64 = 40;
/// 50 ms.
const RATE: u32 = 20;

/// A tick as it was made, and how long before its deadline.
struct Made {
    tick: Tick,
    kind: TickKind,
    early: Duration,
}

/// Runs a stream whose producer does what `produce` says between one tick's deadline and the next; it is given the place of the tick
/// whose deadline comes.
fn made(
    pace: Pace,
    ticks: u64,
    produce: impl Fn(u64, &mut Writer) + Send + 'static,
) -> (Vec<Made>, FrameCounts) {
    let grid = Grid::new(
        Framerate::new(RATE, 1).unwrap(),
        Duration::from_secs(2),
        Duration::from_millis(200),
    );
    let anchor = Anchor::new(Arc::new(SystemClock));
    let (new, mut writer) = begun(6);
    let (commands, obeyed) = channel();
    commands.send(Command::Begin(Box::new(new))).unwrap();
    let plan = IngestPlan {
        stream: "cam".to_owned(),
        grid,
        slack: 1,
        pace,
        stale_after: Duration::from_secs(2),
        backfill: Duration::from_secs(5),
        remembered: None,
        tick_log: None,
    };
    let (sink, made) = channel();
    let sink = {
        let anchor = anchor.clone();
        move |made: TickPicture| {
            let early = grid.time_of(made.tick).saturating_since(anchor.now());
            let (tick, kind) = (made.tick, made.kind);
            sink.send(Made { tick, kind, early }).unwrap();
        }
    };
    let camera = {
        let anchor = anchor.clone();
        thread::spawn(move || {
            let first = grid.tick_at(anchor.now()).plus(2);
            for place in 0..ticks {
                anchor.sleep_until(grid.time_of(first.plus(place)));
                produce(place, &mut writer);
            }
            anchor.sleep_until(grid.time_of(first.plus(ticks + 2)));
            let (done, account) = oneshot::channel();
            commands
                .send(Command::Close {
                    session: 1,
                    done: Some(done),
                })
                .unwrap();
            let counts = account.blocking_recv().unwrap();
            commands.send(Command::Stop).unwrap();
            counts
        })
    };
    let (counters, newest) = (Arc::default(), watch::Sender::new(None));
    Ingest::new(plan, anchor, obeyed, counters, newest, sink).run();
    (made.into_iter().collect(), camera.join().unwrap())
}

fn after_ten_milliseconds(place: u64, writer: &mut Writer) {
    thread::sleep(Duration::from_millis(10));
    writer.begin().unwrap().commit(place, None);
}

#[test]
fn a_frame_is_taken_as_it_arrives_and_each_tick_has_one_picture() {
    let (made, counts) = made(Pace::Arrival, TICKS, |place, writer| {
        // One is missing.
        if place != 20 {
            after_ten_milliseconds(place, writer);
        }
    });
    for pair in made.windows(2) {
        assert_eq!(pair[1].tick, pair[0].tick.next());
    }
    assert_eq!(
        (counts.used, counts.superseded, counts.late),
        (TICKS - 1, 0, 0)
    );
    let fresh = |made: &&Made| made.kind == TickKind::Fresh;
    // A machine that stands still for a moment makes some of them late.
    let early = made
        .iter()
        .filter(fresh)
        .filter(|made| made.early >= Duration::from_millis(20))
        .count();
    assert!(
        early as u64 > TICKS / 2,
        "{early} of {TICKS} frames were taken before their tick's deadline"
    );
    let repeated: Vec<&Made> = made
        .iter()
        .filter(|made| made.kind == TickKind::Repeated)
        .collect();
    assert!(!repeated.is_empty());
    for made in repeated {
        assert_eq!(
            made.early,
            Duration::ZERO,
            "the deadline remains for what is missing"
        );
    }
}

#[test]
fn at_the_pace_of_ticks_no_frame_is_taken_before_its_deadline() {
    let (made, counts) = made(Pace::Tick, TICKS, after_ten_milliseconds);
    assert!(made.iter().all(|made| made.early.is_zero()));
    assert_eq!((counts.used, counts.late), (TICKS, 0));
}

#[test]
fn after_a_frame_that_came_late_one_is_passed_over_and_the_next_are_shown_in_time_again() {
    // Long enough for a second without any trouble of the machine's own.
    let ticks = 3 * TICKS;
    let (made, counts) = made(Pace::Arrival, ticks, |place, writer| {
        if place == 5 {
            // Into the next interval, whose own frame then waits for the one after.
            thread::sleep(Duration::from_millis(50));
        }
        after_ten_milliseconds(place, writer);
    });
    for pair in made.windows(2) {
        assert_eq!(pair[1].tick, pair[0].tick.next());
    }
    assert_eq!(counts.used + counts.superseded, ticks);
    assert!(counts.superseded >= 1, "{counts:?}");
}

#[test]
fn of_two_frames_in_each_tick_one_is_passed_over_and_no_tick_is_made_twice() {
    // Two frames in each tick: one is taken before its deadline, the other waits, and the older is passed over at last.
    let (made, counts) = made(Pace::Arrival, TICKS, |place, writer| {
        for number in 0..2 {
            writer.begin().unwrap().commit(2 * place + number, None);
        }
    });
    assert!(made.len() as u64 <= TICKS + 10, "{} ticks", made.len());
    for pair in made.windows(2) {
        assert_eq!(pair[1].tick, pair[0].tick.next());
    }
    assert_eq!(counts.used + counts.superseded + counts.late, 2 * TICKS);
    assert!(counts.superseded >= TICKS / 2, "{counts:?}");
}
