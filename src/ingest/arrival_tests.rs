//! Frames that are taken as they arrive, from a real ring: on a simulated clock, and woken by the machine's.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::session::tests::begun;
use super::*;
use crate::clock::testing::FakeClock;
use crate::clock::{Clock, MonotonicTime, SystemClock};
use crate::tick::Framerate;

const TICKS: u64 = 40;
/// 50 ms.
const RATE: u32 = 20;
const INTERVAL: Duration = Duration::from_millis(50);
const START: UnixTime = UnixTime::from_secs(1_800_000_000);

/// What happens at its moment.
type Event = (MonotonicTime, Box<dyn FnOnce() + Send>);

/// A clock that stands still but for who sleeps or waits: then what happens in that time happens, each at its moment, on the same thread.
struct EventfulClock {
    clock: FakeClock,
    /// By their times.
    to_come: Arc<Mutex<VecDeque<Event>>>,
}

impl EventfulClock {
    /// Goes to the next event, if that comes by `deadline`; says whether it did.
    fn go_to_next(&self, deadline: MonotonicTime) -> bool {
        let mut to_come = self.to_come.lock().unwrap();
        let due = to_come.front().is_some_and(|(time, _)| *time <= deadline);
        let Some((time, event)) = due.then(|| to_come.pop_front()).flatten() else {
            return false;
        };
        self.clock.sleep_until(time);
        event();
        true
    }
}

impl Clock for EventfulClock {
    fn wall(&self) -> UnixTime {
        self.clock.wall()
    }

    fn monotonic(&self) -> MonotonicTime {
        self.clock.monotonic()
    }

    fn suspended(&self) -> Duration {
        self.clock.suspended()
    }

    fn sleep_until(&self, deadline: MonotonicTime) {
        while self.go_to_next(deadline) {}
        self.clock.sleep_until(deadline);
    }

    fn wait(&self, pause: Duration, wait: &mut dyn FnMut(Duration) -> bool) -> bool {
        let pause = u64::try_from(pause.as_nanos()).unwrap();
        let deadline = MonotonicTime(self.monotonic().0 + pause);
        while !wait(Duration::ZERO) {
            if !self.go_to_next(deadline) {
                self.clock.sleep_until(deadline);
                return false;
            }
        }
        true
    }
}

/// A tick as it was made, and how long before its deadline.
#[derive(Debug)]
struct Made {
    tick: Tick,
    kind: TickKind,
    early: Duration,
}

fn grid() -> Grid {
    Grid::new(
        Framerate::new(RATE, 1).unwrap(),
        Duration::from_secs(2),
        Duration::from_millis(200),
    )
}

/// Makes ticks until it is told to stop.
fn run(pace: Pace, anchor: &Anchor, obeyed: Receiver<Command>, made: Sender<Made>) {
    let plan = IngestPlan {
        stream: "cam".to_owned(),
        grid: grid(),
        slack: 1,
        pace,
        stale_after: Duration::from_secs(2),
        backfill: Duration::from_secs(5),
        remembered: None,
        tick_log: None,
    };
    let sink = |tick: TickPicture| {
        let early = grid().time_of(tick.tick).saturating_since(anchor.now());
        let (tick, kind) = (tick.tick, tick.kind);
        made.send(Made { tick, kind, early }).unwrap();
    };
    let (counters, newest) = (Arc::default(), watch::Sender::new(None));
    Ingest::new(plan, anchor.clone(), obeyed, counters, newest, sink).run();
}

/// Runs a stream on a simulated clock. From one tick's deadline to the next its producer commits a frame after each of the times that `commits`
/// gives for the place of the tick whose deadline that was. Returns the ticks, which follow one another, and the account.
fn made(
    pace: Pace,
    ticks: u64,
    commits: impl Fn(u64) -> Vec<Duration>,
) -> (Vec<Made>, FrameCounts) {
    let to_come = Arc::default();
    let clock = EventfulClock {
        clock: FakeClock::at(START),
        to_come: Arc::clone(&to_come),
    };
    let anchor = Anchor::new(Arc::new(clock));
    let first = grid().tick_at(anchor.now()).plus(2);
    let deadline = |place| grid().time_of(first.plus(place));
    let (new, writer) = begun(6);
    let (commands, obeyed) = channel();
    commands.send(Command::Begin(Box::new(new))).unwrap();
    let mut events: Vec<Event> = Vec::new();
    let writer = Arc::new(Mutex::new(writer));
    for place in 0..ticks {
        for after in commits(place) {
            let (writer, number) = (Arc::clone(&writer), events.len() as u64);
            let commit = move || {
                let mut writer = writer.lock().unwrap();
                writer.begin().unwrap().commit(number, None);
            };
            let time = anchor.to_monotonic(deadline(place).saturating_add(after));
            events.push((time, Box::new(commit)));
        }
    }
    let (done, mut account) = oneshot::channel();
    let close = Command::Close {
        session: 1,
        done: Some(done),
    };
    let last = commands.clone();
    let close = move || last.send(close).unwrap();
    let time = anchor.to_monotonic(deadline(ticks + 2));
    events.push((time, Box::new(close)));
    let (counted, counts) = channel();
    let stop = move || {
        let counts = account.try_recv().expect("what waited is shown by then");
        counted.send(counts).unwrap();
        commands.send(Command::Stop).unwrap();
    };
    let time = anchor.to_monotonic(deadline(ticks + 10));
    events.push((time, Box::new(stop)));
    events.sort_by_key(|(time, _)| *time);
    to_come.lock().unwrap().extend(events);
    let (sink, made) = channel();
    run(pace, &anchor, obeyed, sink);
    let made: Vec<Made> = made.into_iter().collect();
    for pair in made.windows(2) {
        assert_eq!(pair[1].tick, pair[0].tick.next());
    }
    (made, counts.try_recv().unwrap())
}

fn after_ten_milliseconds(_: u64) -> Vec<Duration> {
    vec![Duration::from_millis(10)]
}

/// How long before their deadlines the ticks of `kind` were made.
fn early(made: &[Made], kind: TickKind) -> Vec<Duration> {
    let of_kind = made.iter().filter(|made| made.kind == kind);
    of_kind.map(|made| made.early).collect()
}

#[test]
fn a_frame_is_taken_as_it_arrives_and_each_tick_has_one_picture() {
    let (made, counts) = made(Pace::Arrival, TICKS, |place| match place {
        // One is missing.
        20 => Vec::new(),
        _ => after_ten_milliseconds(place),
    });
    assert_eq!(
        (counts.used, counts.superseded, counts.late),
        (TICKS - 1, 0, 0)
    );
    let fresh = early(&made, TickKind::Fresh);
    assert_eq!(fresh.len() as u64, TICKS - 1);
    assert!(
        fresh.iter().all(|early| *early == INTERVAL * 4 / 5),
        "{fresh:?}"
    );
    let last = made.iter().rposition(|made| made.kind == TickKind::Fresh);
    let repeated = early(&made[..last.unwrap()], TickKind::Repeated);
    assert_eq!(
        repeated,
        [Duration::ZERO],
        "the deadline remains for what is missing"
    );
}

#[test]
fn at_the_pace_of_ticks_no_frame_is_taken_before_its_deadline() {
    let (made, counts) = made(Pace::Tick, TICKS, after_ten_milliseconds);
    assert!(made.iter().all(|made| made.early.is_zero()), "{made:?}");
    assert_eq!((counts.used, counts.superseded, counts.late), (TICKS, 0, 0));
}

#[test]
fn after_a_frame_that_came_late_one_is_passed_over_and_the_next_are_shown_in_time_again() {
    // Long enough for a second in which each waits for its tick, and for as long again.
    let ticks = 3 * TICKS;
    let (made, counts) = made(Pace::Arrival, ticks, |place| match place {
        // Into the next interval, whose own frame then waits for the one after.
        5 => vec![INTERVAL + Duration::from_millis(10)],
        _ => after_ten_milliseconds(place),
    });
    assert_eq!(
        (counts.used, counts.superseded, counts.late),
        (ticks - 1, 1, 0)
    );
    let fresh = early(&made, TickKind::Fresh);
    let in_time = |early: &&Duration| **early == INTERVAL * 4 / 5;
    let waited = fresh.iter().filter(|early| **early == INTERVAL).count();
    let at_first = fresh.iter().take_while(in_time).count();
    let at_last = fresh.iter().rev().take_while(in_time).count();
    assert_eq!(at_first + waited + at_last, fresh.len(), "{fresh:?}");
    assert!((20..=21).contains(&waited), "{fresh:?}");
}

#[test]
fn of_two_frames_in_each_tick_one_is_passed_over_and_no_tick_is_made_twice() {
    // One is taken before its deadline, the other waits, and the older is passed over at last.
    let (made, counts) = made(Pace::Arrival, TICKS, |_| vec![Duration::from_millis(10); 2]);
    assert!(made.len() as u64 <= TICKS + 10, "{} ticks", made.len());
    assert_eq!(counts.used + counts.superseded, 2 * TICKS);
    assert!(counts.superseded >= TICKS - 2, "{counts:?}");
}

#[test]
fn by_the_machine_s_clock_a_frame_wakes_its_stream() {
    let anchor = Anchor::new(Arc::new(SystemClock));
    let (new, mut writer) = begun(6);
    let (commands, obeyed) = channel();
    commands.send(Command::Begin(Box::new(new))).unwrap();
    let (sink, made) = channel();
    let stream = {
        let anchor = anchor.clone();
        thread::spawn(move || run(Pace::Arrival, &anchor, obeyed, sink))
    };
    // Without being woken it takes none before its deadline; on a busy machine it may take few.
    let woken = (0..10 * TICKS).any(|number| {
        let next = grid().tick_at(anchor.now()).next();
        anchor.sleep_until(grid().time_of(next).saturating_add(INTERVAL / 5));
        writer.begin().unwrap().commit(number, None);
        made.try_iter().any(|made| !made.early.is_zero())
    });
    commands.send(Command::Stop).unwrap();
    stream.join().unwrap();
    assert!(woken);
}
