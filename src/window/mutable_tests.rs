use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::picture::Size;
use crate::sample::TrackDescription;
use crate::tick::Framerate;

const START: Tick = Tick(54_000_000_000);

fn grid() -> Grid {
    Grid::new(
        Framerate::new(30, 1).unwrap(),
        Duration::from_secs(2),
        Duration::from_millis(500),
    )
}

fn settings(tracks: usize) -> WindowSettings {
    WindowSettings {
        stream: "door".to_owned(),
        mode: Mode::Live,
        tracks: (0..tracks).map(|track| format!("r{track}")).collect(),
        window: Duration::from_secs(14),
        target_duration: 2,
    }
}

fn inits(tracks: usize, version: &str) -> Vec<TrackInit> {
    let init = TrackInit {
        description: TrackDescription {
            sample_entry: Bytes::from_static(b"avc1"),
            codecs: "avc1.64001f".to_owned(),
            size: Size::new(1280, 720),
            framerate: grid().framerate,
            audio: None,
        },
        version: version.to_owned(),
        init: Bytes::from_static(b"init"),
    };
    vec![init; tracks]
}

/// The part of `grid` that starts at `tick`.
fn part_at(grid: &Grid, tick: Tick) -> Part {
    let mut ticks = 1;
    while !grid.ends_part(tick.plus(u64::from(ticks) - 1)) {
        ticks += 1;
    }
    Part {
        segment: grid.segment_of(tick),
        number: grid.part_of(tick),
        first_tick: tick,
        ticks,
        independent: grid.starts_segment(tick),
        last: grid.starts_segment(tick.plus(u64::from(ticks))),
        captured: grid.time_of(tick),
        bytes: Bytes::from(vec![7; 1000]),
    }
}

fn time(tick: Tick) -> UnixTime {
    grid().time_of(tick)
}

/// Pushes whole parts to `track` until its next tick is `to`.
fn feed(window: &mut Window, track: TrackIndex, to: Tick) {
    while let Some(tick) = window.next_tick(track).filter(|tick| *tick < to) {
        let part = part_at(&window.period().unwrap().grid, tick);
        window.push(track, part, time(tick)).unwrap();
    }
}

fn started(tracks: usize) -> Window {
    let mut window = Window::new(settings(tracks), None);
    window.begin_period(grid(), START, inits(tracks, "a"), false, time(START));
    window
}

fn numbers(segments: &[Arc<Segment>]) -> Vec<u64> {
    let first = grid().segment_of(START).0;
    segments
        .iter()
        .map(|segment| segment.number.0 - first)
        .collect()
}

#[test]
fn a_segment_leaves_all_playlists_at_once_when_every_track_has_enough_newer_ones() {
    let mut window = started(2);
    feed(&mut window, 0, START.plus(60 * 8));
    feed(&mut window, 1, START.plus(60 * 7));
    let snapshot = window.snapshot(time(START));
    assert_eq!(
        numbers(&snapshot.tracks[0].listed),
        (0..8).collect::<Vec<_>>()
    );
    feed(&mut window, 1, START.plus(60 * 8));
    let snapshot = window.snapshot(time(START));
    assert_eq!(snapshot.media_sequence, grid().segment_of(START).next());
    for track in &snapshot.tracks {
        assert_eq!(numbers(&track.listed), (1..8).collect::<Vec<_>>());
        assert_eq!(numbers(&track.retained), [0]);
    }
}

#[test]
fn what_left_stays_for_its_own_duration_and_the_longest_playlist_that_listed_it() {
    let mut window = started(1);
    feed(&mut window, 0, START.plus(60 * 8));
    let left = time(START.plus(60 * 8 - 15));
    // And for a second in which that playlist may still be seen.
    let gone = left.saturating_add(Duration::from_secs(2 + 14 + 1));
    let expires = window.snapshot(left).tracks[0].retained[0].expires;
    assert_eq!(expires, Some(gone));
    window.expire(gone.saturating_sub(Duration::from_nanos(1)));
    let number = grid().segment_of(START);
    assert!(window.snapshot(left).tracks[0].segment(number).is_some());
    window.expire(gone);
    assert!(window.snapshot(left).tracks[0].segment(number).is_none());
}

#[test]
fn a_gap_in_one_track_alone_begins_a_new_period_in_all() {
    let mut window = started(2);
    feed(&mut window, 0, START.plus(60 * 3));
    feed(&mut window, 1, START.plus(60 * 2 + 15));
    let resume = START.plus(60 * 3);
    window.mark_missing(START.plus(60 * 2 + 15), resume, time(resume));
    feed(&mut window, 0, START.plus(60 * 4));
    feed(&mut window, 1, START.plus(60 * 4));
    let snapshot = window.snapshot(time(resume));
    for track in &snapshot.tracks {
        let periods: Vec<Tick> = track.listed.iter().map(|s| s.period.first_tick).collect();
        assert_eq!(periods, [START, START, START, resume]);
        assert!(!track.listed[3].gap && !track.listed[3].period.discontinuity);
    }
    assert!(snapshot.tracks[1].listed[2].gap && !snapshot.tracks[0].listed[2].gap);
}

#[test]
fn missing_ticks_become_gaps_in_every_track_and_the_next_period_starts_after_them() {
    let mut window = started(2);
    feed(&mut window, 0, START.plus(60 * 3 + 30));
    feed(&mut window, 1, START.plus(60 * 2 + 15));
    let resume = START.plus(60 * 5);
    window.mark_missing(START.plus(60 * 3 + 30), resume, time(resume));
    window.begin_period(grid(), resume, inits(2, "a"), false, time(resume));
    feed(&mut window, 0, START.plus(60 * 6));
    feed(&mut window, 1, START.plus(60 * 6));
    let snapshot = window.snapshot(time(resume));
    let gaps = |track: usize| -> Vec<bool> {
        snapshot.tracks[track]
            .listed
            .iter()
            .map(|segment| segment.gap)
            .collect()
    };
    assert_eq!(gaps(0), [false, false, false, true, true, false]);
    assert_eq!(
        gaps(1),
        [false, false, true, true, true, false],
        "a finished segment stays"
    );
    let last = snapshot.tracks[0].listed.last().unwrap();
    assert_eq!(last.period.first_tick, resume);
    assert!(!last.starts_discontinuity());
    assert_eq!(
        snapshot.tracks[1].listed[3].period.first_tick, START,
        "a gap is of the period before it"
    );
}

#[test]
fn a_part_after_a_gap_begins_a_period_by_itself() {
    let mut window = started(1);
    feed(&mut window, 0, START.plus(60));
    window.mark_missing(START.plus(60), START.plus(120), time(START));
    feed(&mut window, 0, START.plus(180));
    assert_eq!(window.period().unwrap().first_tick, START.plus(120));
}

#[test]
fn a_period_that_never_got_media_hands_its_discontinuity_on() {
    let mut window = started(1);
    feed(&mut window, 0, START.plus(60));
    let (second, third) = (START.plus(60), START.plus(180));
    window.begin_period(grid(), second, inits(1, "b"), true, time(second));
    window.begin_period(grid(), third, inits(1, "b"), false, time(third));
    feed(&mut window, 0, START.plus(240));
    let snapshot = window.snapshot(time(third));
    assert_eq!(discontinuities(&snapshot), [false, false, false, true]);
}

#[test]
fn a_discontinuity_that_a_part_has_shown_stays_where_it_is() {
    let mut window = started(1);
    feed(&mut window, 0, START.plus(60));
    let (second, third) = (START.plus(60), START.plus(180));
    window.begin_period(grid(), second, inits(1, "b"), true, time(second));
    let part = part_at(&grid(), second);
    window.push(0, part, time(second)).unwrap();
    window.begin_period(grid(), third, inits(1, "b"), false, time(third));
    feed(&mut window, 0, START.plus(240));
    let snapshot = window.snapshot(time(third));
    assert_eq!(discontinuities(&snapshot), [false, true, false, false]);
    let given_up = &snapshot.tracks[0].listed[1];
    assert_eq!((given_up.gap, given_up.remains.len()), (true, 1));
}

/// Which segments of the first track start a discontinuity.
fn discontinuities(snapshot: &Snapshot) -> Vec<bool> {
    let listed = snapshot.tracks[0].listed.iter();
    listed
        .map(|segment| segment.starts_discontinuity())
        .collect()
}

#[test]
fn a_long_absence_lists_only_what_the_window_covers() {
    let mut window = started(2);
    feed(&mut window, 0, START.plus(60 * 4));
    let resume = START.plus(60 * 1_000_000);
    window.mark_missing(START.plus(60 * 4), resume, time(resume));
    let snapshot = window.snapshot(time(resume));
    assert_eq!(
        numbers(&snapshot.tracks[1].listed),
        (999_993..1_000_000).collect::<Vec<_>>()
    );
    assert_eq!(numbers(&snapshot.tracks[0].retained), [0, 1, 2, 3]);
}

#[test]
fn a_stalled_track_is_left_behind_and_takes_up_again_at_an_edge() {
    let mut window = started(2);
    feed(&mut window, 1, START.plus(15));
    feed(&mut window, 0, START.plus(60 * 500));
    let snapshot = window.snapshot(time(START));
    assert!(snapshot.tracks[0].listed.len() <= 7 + MAX_LEAD);
    let late = window.push(1, part_at(&grid(), START.plus(15)), time(START));
    assert!(matches!(late, Err(PushError::Past { .. })));
    feed(&mut window, 1, START.plus(60 * 500));
    assert_eq!(window.snapshot(time(START)).tracks[1].listed.len(), 7);
}

#[test]
fn numbers_that_jump_with_a_new_grid_empty_the_playlists_but_retain_the_media() {
    let mut window = started(1);
    feed(&mut window, 0, START.plus(60 * 3));
    let new = Grid::new(
        Framerate::new(60, 1).unwrap(),
        Duration::from_secs(2),
        Duration::from_millis(500),
    );
    let first = Tick(START.0 * 4);
    window.begin_period(new, first, inits(1, "b"), true, time(START));
    let snapshot = window.snapshot(time(START));
    assert!(snapshot.tracks[0].listed.is_empty());
    assert_eq!(snapshot.tracks[0].retained.len(), 3);
    assert_eq!(snapshot.media_sequence, new.segment_of(first));
}

#[test]
fn the_end_closes_what_is_open_and_keeps_what_is_listed() {
    let mut window = started(1);
    feed(&mut window, 0, START.plus(75));
    window.end(time(START));
    let snapshot = window.snapshot(time(START));
    assert!(snapshot.ended);
    let ticks: Vec<_> = snapshot.tracks[0]
        .listed
        .iter()
        .map(|segment| segment.ticks)
        .collect();
    assert_eq!(ticks, [60, 15]);
    assert_eq!(
        window.push(0, part_at(&grid(), START.plus(75)), time(START)),
        Err(PushError::Ended)
    );
}

#[test]
fn bandwidth_is_measured_over_what_is_listed() {
    let mut window = started(1);
    feed(&mut window, 0, START.plus(60 * 4));
    let track = window.snapshot(time(START)).tracks[0].clone();
    assert_eq!(track.average_bandwidth, 4 * 1000 * 8 / 2);
    assert_eq!(track.peak_bandwidth, 4 * 1000 * 8 / 2);
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Lose(u64),
    Change { skip: u64, discontinuity: bool },
    End,
    Restart,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        60 => (0..3_usize).prop_map(Step::Push),
        2 => (1..2000_u64).prop_map(Step::Lose),
        1 => (0..300_u64, any::<bool>()).prop_map(|(skip, discontinuity)| Step::Change { skip, discontinuity }),
        1 => Just(Step::End),
        1 => Just(Step::Restart),
        3 => (1..100_u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..400)
}

/// What was ever listed, and until when it has to be there at least and at most.
#[derive(Default)]
struct Seen {
    longest: Duration,
    own: Duration,
    left: Option<UnixTime>,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]
    #[test]
    fn the_rules_hold_whatever_happens(steps in steps()) {
        let mut window = started(3);
        let mut now = time(START);
        let mut before = window.snapshot(now);
        let mut seen: BTreeMap<(usize, SegmentNumber), Seen> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Push(track) => {
                    let tick = window.next_tick(track).unwrap();
                    let _ = window.push(track, part_at(&grid(), tick), now);
                    now = now.saturating_add(Duration::from_millis(170));
                }
                Step::Lose(ticks) => {
                    let from = window.resume_tick().unwrap();
                    let to = grid().segment_end(from.plus(ticks));
                    window.mark_missing(from, to, now);
                    now = now.saturating_add(grid().framerate.duration_of(ticks));
                }
                Step::Change { skip, discontinuity } => {
                    let from = window.resume_tick().unwrap().plus(skip);
                    window.begin_period(grid(), from, inits(3, "b"), discontinuity, now);
                }
                Step::End => {
                    window.end(now);
                    let from = window.resume_tick().unwrap();
                    prop_assert!(window.snapshot(now).ended);
                    window.begin_period(grid(), from, inits(3, "a"), false, now);
                }
                Step::Restart => {
                    let snapshot = window.snapshot(now);
                    window = Window::new(settings(3), Some(&snapshot));
                    let again = window.snapshot(now);
                    prop_assert_eq!(&again.tracks, &snapshot.tracks);
                    prop_assert_eq!(again.media_sequence, snapshot.media_sequence);
                    prop_assert_eq!(again.discontinuity_sequence, snapshot.discontinuity_sequence);
                    if window.period().is_none() {
                        let first = grid().tick_at(now);
                        window.begin_period(grid(), first, inits(3, "a"), false, now);
                    }
                }
                Step::Wait(ticks) => now = now.saturating_add(grid().framerate.duration_of(ticks)),
            }
            window.expire(now);
            let snapshot = window.snapshot(now);
            check(&snapshot, &before, &mut seen, now)?;
            before = snapshot;
        }
    }
}

fn check(
    snapshot: &Snapshot,
    before: &Snapshot,
    seen: &mut BTreeMap<(usize, SegmentNumber), Seen>,
    now: UnixTime,
) -> Result<(), TestCaseError> {
    prop_assert!(snapshot.media_sequence >= before.media_sequence);
    prop_assert!(snapshot.discontinuity_sequence >= before.discontinuity_sequence);
    for (track, view) in snapshot.tracks.iter().enumerate() {
        for (at, segment) in view.listed.iter().enumerate() {
            prop_assert_eq!(segment.number.0, snapshot.media_sequence.0 + at as u64);
        }
        prop_assert!(view.listed.len() <= 2 * 7 + MAX_LEAD);
        prop_assert!(view.retained.len() <= 4 * 7 + 2 * MAX_LEAD);
        for pair in view.listed.windows(2) {
            if Arc::ptr_eq(&pair[0].period, &pair[1].period) && !pair[0].gap && !pair[1].gap {
                prop_assert_eq!(
                    pair[0].end_tick(),
                    pair[1].first_tick,
                    "nothing is missing inside a period"
                );
            }
        }
        let playlist: Duration = view.listed.iter().map(|segment| segment.duration()).sum();
        for segment in view.listed.iter().filter(|segment| !segment.gap) {
            let entry = seen.entry((track, segment.number)).or_default();
            entry.longest = entry.longest.max(playlist);
            entry.own = segment.duration();
        }
        for segment in before.tracks[track]
            .listed
            .iter()
            .filter(|segment| !segment.gap)
        {
            if segment.number < snapshot.media_sequence {
                seen.entry((track, segment.number))
                    .or_default()
                    .left
                    .get_or_insert(before.updated);
            } else {
                let same = view.segment(segment.number);
                prop_assert_eq!(same, Some(segment), "what was listed never changes");
            }
        }
    }
    let last = before.updated;
    for (before, view) in before.tracks.iter().zip(&snapshot.tracks) {
        let open = before.open.iter().flat_map(|open| &open.parts);
        let listed = before.listed.iter();
        let listed = listed.flat_map(|segment| segment.parts.iter().chain(&segment.remains));
        for part in open.chain(listed) {
            match view.part(part.segment, part.number) {
                Some((again, _)) => prop_assert!(
                    again.first_tick == part.first_tick && again.bytes == part.bytes,
                    "what was listed never changes"
                ),
                // It was listed at `last` and has left since.
                None => prop_assert!(
                    now >= last.saturating_add(Duration::from_secs(6)),
                    "a part stays fetchable for three target durations"
                ),
            }
        }
    }
    let left: u64 = (before.media_sequence.0..snapshot.media_sequence.0)
        .filter(|number| {
            before.tracks.iter().any(|view| {
                view.listed
                    .iter()
                    .any(|s| s.number.0 == *number && s.starts_discontinuity())
            })
        })
        .count() as u64;
    prop_assert!(snapshot.discontinuity_sequence >= before.discontinuity_sequence + left);
    for ((track, number), seen) in seen.iter() {
        let found = snapshot.tracks[*track].segment(*number).is_some();
        match seen.left {
            None => prop_assert!(found),
            // Left between `before` and now; its playlist may have been one step longer in between, or longer in another track.
            Some(left) => {
                if now < left.saturating_add(seen.longest + seen.own) {
                    prop_assert!(
                        found,
                        "segment {} of {} left at {}, now {}, own {:?} longest {:?}",
                        number,
                        track,
                        left,
                        now,
                        seen.own,
                        seen.longest
                    );
                }
                if now > left.saturating_add(Duration::from_secs(120 + 80)) {
                    prop_assert!(!found);
                }
            }
        }
    }
    Ok(())
}

/// A window of one track that is given parts of 1000 bytes, four in each segment of 2 s, within a budget of so many bytes.
fn within(memory: &Arc<Budget>) -> Window {
    let mut window = Window::new(settings(1), None).within(memory);
    window.begin_period(grid(), START, inits(1, "a"), false, time(START));
    window
}

/// The bytes that `window` holds by its own snapshot.
fn held(window: &Window) -> u64 {
    let columns = window.retained.iter().chain(&window.columns);
    columns.map(Column::bytes).sum()
}

/// Pushes parts until the first tick of the `segments`th segment, whatever becomes of them.
fn offer(window: &mut Window, from: &mut Tick, segments: u64) {
    while *from < START.plus(60 * segments) {
        let part = part_at(&grid(), *from);
        *from = from.plus(u64::from(part.ticks));
        let now = time(*from);
        window.expire(now);
        match window.push(0, part, now) {
            Ok(()) | Err(PushError::Memory { .. } | PushError::Past { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert_eq!(window.account.own(), held(window), "the account is right");
    }
}

#[test]
fn where_memory_is_short_what_left_the_playlists_goes_first_and_then_the_oldest_listed() {
    // The playlists list seven whole segments, and about as many stay for players with old ones.
    let memory = Budget::new(40_000);
    let mut window = within(&memory);
    let mut tick = START;
    offer(&mut window, &mut tick, 30);
    let now = time(tick);
    let snapshot = window.snapshot(now);
    assert_eq!(memory.used(), held(&window));
    assert!(memory.used() <= 40_000 && memory.used() > 35_000);
    assert_eq!(snapshot.tracks[0].listed.len(), 7);
    let shortage = window.shortage(now).unwrap();
    assert_eq!(shortage.given_up, GivenUp::Retained);
    assert_eq!(snapshot.window_ticks, 14 * 30);

    let memory = Budget::new(20_000);
    let mut window = within(&memory);
    let mut tick = START;
    offer(&mut window, &mut tick, 30);
    let now = time(tick);
    let snapshot = window.snapshot(now);
    assert!(memory.used() <= 20_000);
    let track = &snapshot.tracks[0];
    assert_eq!((track.listed.len(), track.retained.len()), (5, 0));
    assert!(track.listed.iter().all(|segment| !segment.gap));
    assert_eq!(snapshot.media_sequence, track.listed[0].number);
    assert_eq!(snapshot.window_ticks, 5 * 60, "as long as it is");
    let shortage = window.shortage(now).unwrap();
    assert_eq!(shortage.given_up, GivenUp::Listed);
    assert!(shortage.to_string().contains("[limits] window_memory"));
    // It is told of for a minute.
    let later = now.saturating_add(Duration::from_secs(60));
    assert_eq!(window.shortage(later), None);
}

#[test]
fn where_not_even_three_target_durations_fit_segments_become_gaps_and_numbers_go_on() {
    let memory = Budget::new(11_000);
    let mut window = within(&memory);
    let mut tick = START;
    offer(&mut window, &mut tick, 40);
    let now = time(tick);
    let snapshot = window.snapshot(now);
    assert!(memory.used() <= 11_000);
    let listed = &snapshot.tracks[0].listed;
    assert!(listed.iter().any(|segment| segment.gap) && listed.iter().any(|segment| !segment.gap));
    let listed = numbers(listed);
    assert_eq!(listed, (listed[0]..40).collect::<Vec<_>>());
    assert_eq!(window.shortage(now).unwrap().given_up, GivenUp::New);
}

#[test]
fn a_window_that_needs_little_is_spared_by_one_that_needs_much() {
    let memory = Budget::new(160_000);
    let mut small = within(&memory);
    let mut large = Window::new(settings(3), None).within(&memory);
    large.begin_period(grid(), START, inits(3, "a"), false, time(START));
    for segments in 1..40 {
        let end = START.plus(60 * segments);
        for track in 0..3 {
            feed(&mut large, track, end);
        }
        large.expire(time(end));
        feed(&mut small, 0, end);
        // What the large one has beyond its share, it gives back at its next look.
        large.expire(time(end));
        small.expire(time(end));
        assert!(memory.used() <= 160_000);
    }
    let now = time(START.plus(60 * 39));
    assert_eq!(small.shortage(now), None);
    assert_eq!(small.snapshot(now).tracks[0].listed.len(), 7);
    assert!(large.shortage(now).is_some());
    assert_eq!(large.account.own(), held(&large));
    drop((small, large));
    assert_eq!(memory.used(), 0);
}
