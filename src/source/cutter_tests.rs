use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const SECOND: u64 = 90_000;

fn cutter(segment: Duration) -> Cutter {
    Cutter::new(&Grid::copied(segment, None), false, false)
}

fn taken(millis: u64, idr: bool) -> Taken {
    Taken {
        packet: Packet {
            decode_time: millis * 90,
            duration: 3600,
            composition_offset: 0,
            keyframe: idr,
            data: Bytes::from_static(b"picture"),
        },
        idr,
        came: Tick(millis * 90),
    }
}

/// The segments that end among `steps`.
fn ended(steps: Vec<Step>) -> Vec<Segment> {
    let (mut whole, mut open) = (Vec::new(), None);
    for step in steps {
        match step {
            Step::Begin => assert_eq!(open.replace(Vec::new()), None),
            Step::Sample { taken, .. } => open.as_mut().unwrap().push(taken),
            Step::End => whole.extend(open.take()),
        }
    }
    assert_eq!(open, None);
    whole
}

/// The lengths in milliseconds of what 25 pictures a second with keyframes at these are cut into, until `end`.
fn lengths(segment: u64, keyframes: &[u64], end: u64) -> Result<Vec<u64>, Uncut> {
    let mut cutter = cutter(Duration::from_millis(segment));
    let mut lengths = Vec::new();
    let length = |segment: &Segment| {
        assert!(segment[0].idr);
        let ticks: u64 = segment
            .iter()
            .map(|taken| u64::from(taken.packet.duration))
            .sum();
        ticks / 90
    };
    for millis in (0..end).step_by(40) {
        let whole = ended(cutter.push(taken(millis, keyframes.contains(&millis)))?);
        lengths.extend(whole.iter().map(length));
    }
    lengths.extend(ended(cutter.finish()).iter().map(length));
    Ok(lengths)
}

#[test]
fn a_segment_ends_at_the_first_keyframe_after_its_nominal_length() {
    let every = |step: u64| (0..60_000).step_by(usize::try_from(step).unwrap());
    let of = |segment, step| lengths(segment, &every(step).collect::<Vec<_>>(), 10_000);
    assert_eq!(of(2000, 1000).unwrap(), [2000; 5]);
    assert_eq!(of(2000, 400).unwrap(), [2000; 5]);
    assert_eq!(of(2000, 2000).unwrap(), [2000; 5]);
    // A little early is not too early, and late not too late.
    assert_eq!(of(2000, 1920).unwrap()[..5], [1920; 5]);
    assert_eq!(of(2000, 2400).unwrap()[..4], [2400; 4]);
    // Two of these would be too long together.
    assert_eq!(of(2000, 1400).unwrap()[..6], [1400; 6]);
    assert_eq!(of(6000, 3200).unwrap(), [6400, 3600]);
}

#[test]
fn an_uneven_source_is_cut_where_it_can_be() {
    // After 1 s there would be time, were the next one not so late.
    let cut = lengths(2000, &[0, 1000, 3000, 5000, 5400, 7600], 8000).unwrap();
    assert_eq!(cut, [1000, 2000, 2000, 400, 2200, 400][..cut.len()]);
    assert_eq!(cut.iter().sum::<u64>(), 8000);
}

#[test]
fn keyframes_that_are_too_far_apart_are_an_error_that_says_how_far() {
    let error = lengths(2000, &[0, 2000, 7000], 60_000).unwrap_err();
    let sparse = |distance, beyond| Uncut::Sparse {
        distance,
        beyond,
        needs: distance,
        open: false,
    };
    assert_eq!(error, sparse(Duration::from_secs(5), false));
    let told = error.told("rtsp://cam/1", "door");
    assert_eq!(
        told,
        "the keyframes of rtsp://cam/1 are 5 s apart: segments of stream 'door' would be too long; set segment = \"5000ms\" in [streams.door], or a shorter keyframe interval (GOP) at the source, or write an encoder instead of codec = \"copy\""
    );
    let mut heard = Cutter::new(&Grid::copied(Duration::from_secs(2), None), false, true);
    let mut far = (0..4000).step_by(40).filter_map(|millis| {
        let pushed = heard.push(taken(millis, millis % 2440 == 0));
        pushed.err()
    });
    let far = far.next().unwrap().told("cam", "door");
    assert!(
        far.contains("2.44 s apart") && far.contains("\"2590ms\""),
        "{far}"
    );
    let large = Uncut::Large(300 << 20).told("cam", "door");
    assert!(large.contains("300 MiB") && large.ends_with("codec = \"copy\""));
    let never = lengths(2000, &[0], 80_000).unwrap_err();
    assert_eq!(never, sparse(Duration::from_millis(60_040), true));
    assert_eq!(lengths(10_000, &[0], 9000), Ok(vec![9000]));
    let mut cutter = cutter(Duration::from_secs(2));
    for millis in (0..4000).step_by(40) {
        assert_eq!(cutter.push(taken(millis, millis == 0)), Ok(Vec::new()));
    }
    assert_eq!(cutter.finish(), Vec::new());
    let over = sparse(Duration::from_millis(3960), true);
    assert_eq!(cutter.uncut(), Some(over));
}

#[test]
fn a_keyframe_that_a_camera_loses_costs_its_segment_and_no_more_if_it_is_alone() {
    let run = |keyframes: &[u64]| {
        let mut cutter = Cutter::new(&Grid::copied(Duration::from_secs(1), None), true, false);
        let mut begun = Vec::new();
        for millis in (0..8000).step_by(40) {
            let whole = ended(cutter.push(taken(millis, keyframes.contains(&millis)))?);
            begun.extend(whole.iter().map(|one| one[0].packet.decode_time / 90));
        }
        Ok(begun)
    };
    let lost = run(&[0, 1000, 3000, 4000, 5000, 7000]);
    assert_eq!(lost, Ok(vec![0, 3000, 4000]));
    let sparse: Result<_, Uncut> = run(&[0, 2000, 4000, 6000]);
    assert!(sparse.is_err());
}

#[test]
fn what_comes_before_the_first_keyframe_is_left_out_and_a_leap_is_seen() {
    let mut cutter = cutter(Duration::from_secs(2));
    assert_eq!(cutter.push(taken(0, false)), Ok(Vec::new()));
    assert_eq!(cutter.finish(), Vec::new());
    assert_eq!(cutter.push(taken(40, true)), Ok(Vec::new()));
    assert_eq!(cutter.push(taken(80, false)), Ok(Vec::new()));
    assert!(!cutter.leaps_to(&taken(120, false).packet));
    assert!(cutter.leaps_to(&taken(80, false).packet));
    assert!(cutter.leaps_to(&taken(20_000, false).packet));
    // The last sample's duration reached over the leap.
    let mut far = taken(120, false);
    far.packet.duration = u32::try_from(20 * SECOND).unwrap();
    assert_eq!(cutter.push(far), Ok(Vec::new()));
    let last = ended(cutter.finish()).remove(0);
    let durations: Vec<_> = last.iter().map(|taken| taken.packet.duration).collect();
    assert_eq!(durations, [3600; 3]);
    assert_eq!(cutter.keyframe_distance(), None);
}

/// 25 pictures a second, each of which says how long it lasts, with keyframes at these, cut for parts of 200 ms: when each segment begins and
/// ends in milliseconds.
fn in_parts(cutter: &mut Cutter, keyframes: &[u64], end: u64) -> Result<Vec<(u64, u64)>, Uncut> {
    let (mut segments, mut open) = (Vec::new(), None);
    let mut steps = Vec::new();
    for millis in (0..end).step_by(40) {
        let next = taken(millis, keyframes.contains(&millis));
        assert!(!cutter.leaps_to(&next.packet), "{millis}");
        steps.extend(cutter.push(next)?);
    }
    steps.extend(cutter.finish());
    for step in steps {
        match step {
            Step::Begin => assert_eq!(open.replace(None), None),
            Step::Sample { taken, .. } => {
                let at = taken.packet.decode_time;
                let open = open.as_mut().unwrap();
                let (begin, before) = open.unwrap_or((at, at));
                assert!(before == at && (begin < at || taken.idr));
                *open = Some((begin, at + u64::from(taken.packet.duration)));
            }
            Step::End => segments.extend(open.take().unwrap()),
        }
    }
    assert_eq!(open, None);
    Ok(segments
        .iter()
        .map(|(begin, end)| (begin / 90, end / 90))
        .collect())
}

fn parts_cutter(segment: u64, lossy: bool) -> Cutter {
    let (segment, part) = (Duration::from_millis(segment), Duration::from_millis(200));
    Cutter::new(&Grid::copied(segment, Some(part)), lossy, false)
}

#[test]
fn what_is_in_parts_ends_where_the_next_keyframe_might_come_too_late() {
    let every = |step: u64| (0..60_000).step_by(usize::try_from(step).unwrap());
    let of = |segment, step| {
        let keyframes = every(step).collect::<Vec<_>>();
        let cut = in_parts(&mut parts_cutter(segment, false), &keyframes, 12_000).unwrap();
        cut.iter()
            .map(|(begin, end)| end - begin)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(2000, 1000), [2000; 6]);
    assert_eq!(of(2000, 400), [2000; 6]);
    assert_eq!(of(2000, 2000), [2000; 6]);
    assert_eq!(of(2000, 2400), [2400; 5]);
    assert_eq!(of(2000, 1400)[..8], [1400; 8]);
    assert_eq!(of(6000, 3000), [6000, 6000]);
}

#[test]
fn each_sample_is_passed_on_with_the_next_one_once_the_first_segment_was_whole() {
    let mut cutter = parts_cutter(2000, true);
    let mut passed = 0;
    for millis in (0..6000).step_by(40) {
        let steps = cutter.push(taken(millis, millis % 1000 == 0)).unwrap();
        let samples = steps
            .iter()
            .filter(|step| matches!(step, Step::Sample { .. }));
        passed += samples.count() as u64;
        let held = if millis < 2000 { millis / 40 + 1 } else { 0 };
        assert_eq!(passed + held, millis / 40 + 1, "{millis}");
        let closing = |step: &Step| matches!(step, Step::Sample { closing: true, .. });
        let expected = millis > 2000 && millis % 2000 == 1960;
        if millis > 2000 {
            assert_eq!(steps.iter().any(closing), expected, "{millis}");
        }
    }
    // One that says nothing of how long it lasts waits for the next one.
    let mut last = taken(6000, true);
    last.packet.duration = 0;
    assert_eq!(cutter.push(last).unwrap(), Vec::new());
    assert!(cutter.leaps_to(&taken(6000, false).packet));
    let steps = cutter.push(taken(6100, false)).unwrap();
    assert!(
        matches!(&steps[..], [Step::End, Step::Begin, Step::Sample { taken, .. }, Step::Sample { .. }]
        if taken.packet.duration == 9000)
    );
    // A leap is one even if it is short.
    assert!(cutter.leaps_to(&taken(6180, false).packet));
    assert!(!cutter.leaps_to(&taken(6140, false).packet));
}

#[test]
fn where_the_decision_was_wrong_pictures_are_left_out_once() {
    let mut cutter = parts_cutter(2000, false);
    let keyframes = [0, 400, 800, 1200, 1600, 2000, 2400, 4400, 6400, 7400, 9400];
    let cut = in_parts(&mut cutter, &keyframes, 11_000).unwrap();
    assert_eq!(
        cut,
        [
            (0, 2000),
            (2000, 4400),
            (4400, 6400),
            (6400, 7400),
            (7400, 9400),
            (9400, 11_000)
        ]
    );
    assert_eq!(cutter.take_late(), None);
    let keyframes = [
        0, 400, 800, 1200, 1600, 2000, 2400, 2800, 4800, 6800, 7800, 9800,
    ];
    let mut cutter = parts_cutter(2000, false);
    let cut = in_parts(&mut cutter, &keyframes, 11_000).unwrap();
    assert_eq!(
        cut,
        [
            (0, 2000),
            (2000, 4480),
            (4800, 6800),
            (6800, 7800),
            (7800, 9800),
            (9800, 11_000)
        ]
    );
    assert_eq!(cutter.take_late(), Some(Duration::from_secs(2)));
    // It ends while the next one is looked for: that is no fault.
    let mut cutter = parts_cutter(2000, false);
    let cut = in_parts(&mut cutter, &keyframes[..8], 4600).unwrap();
    assert_eq!((cut.last(), cutter.uncut()), (Some(&(2000, 4480)), None));
}

#[test]
fn keyframes_that_get_too_far_apart_are_an_error_or_lost_once() {
    let run = |lossy| {
        let keyframes = [0, 1000, 2000, 3000, 4000, 7000, 8000, 11_000, 14_000];
        in_parts(&mut parts_cutter(2000, lossy), &keyframes, 16_000)
    };
    let error = run(false).unwrap_err().told("cam", "door");
    assert!(
        error.contains("3 s apart") && error.contains("\"3000ms\""),
        "{error}"
    );
    // Between the two that are lost a segment has ended at a keyframe, but not between the last two.
    let error = run(true).unwrap_err().told("cam", "door");
    assert!(error.contains("3 s apart"), "{error}");
    let once = in_parts(
        &mut parts_cutter(1000, true),
        &[0, 1000, 2000, 4000, 5000, 6000, 8000, 9000],
        10_000,
    );
    let begins: Vec<u64> = once.unwrap().iter().map(|(begin, _)| *begin).collect();
    assert_eq!(begins, [0, 1000, 2000, 4000, 5000, 6000, 8000, 9000]);
}

#[test]
fn a_keyframe_that_a_camera_with_a_fixed_interval_loses_is_not_taken_for_a_late_one() {
    let mut cutter = parts_cutter(2000, true);
    let keyframes: Vec<u64> = (0..12_000).step_by(1000).filter(|at| *at != 6000).collect();
    let cut = in_parts(&mut cutter, &keyframes, 11_000).unwrap();
    let expected = [
        (0, 2000),
        (2000, 4000),
        (4000, 6480),
        (7000, 9000),
        (9000, 11_000),
    ];
    assert_eq!(cut, expected);
    assert_eq!((cutter.take_late(), cutter.latest()), (None, 0));
}

#[test]
fn the_length_that_is_asked_for_has_room_for_what_placing_adds() {
    let distance = 2490 * 90;
    let cutter = parts_cutter(2490, true);
    assert!(cutter.longest < distance);
    let told = cutter.too_sparse(distance, false).told("cam", "door");
    assert!(told.contains("\"2503ms\""), "{told}");
    assert!(parts_cutter(2503, true).longest >= distance);
    // What is not placed by the clock is not stretched.
    assert!(parts_cutter(2490, false).longest >= distance);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn however_keyframes_and_samples_come_no_segment_is_too_long_and_none_has_a_hole(
        samples in proptest::collection::vec((1_u32..40_000, 0_u32..40), 1..600),
        lossy in any::<bool>(),
        leaps in proptest::collection::vec(0_usize..600, 0..3),
    ) {
        let mut cutter = parts_cutter(2000, lossy);
        let (mut at, mut steps) = (1000, Vec::new());
        for (index, (duration, key)) in samples.iter().enumerate() {
            if leaps.contains(&index) {
                at += 5_000_000;
            }
            let mut next = taken(0, *key < 2);
            next.packet.decode_time = at;
            next.packet.duration = *duration;
            if cutter.leaps_to(&next.packet) {
                steps.extend(cutter.finish());
                cutter.leap();
            }
            match cutter.push(next) {
                Ok(more) => steps.extend(more),
                Err(_) => break,
            }
            at += u64::from(*duration);
        }
        steps.extend(cutter.finish());
        let mut open: Option<(u64, u64)> = None;
        let mut before = 0;
        for step in &steps {
            match step {
                Step::Begin => prop_assert!(open.is_none()),
                Step::Sample { taken, .. } => {
                    let at = taken.packet.decode_time;
                    let (begin, end) = open.unwrap_or((at, at));
                    prop_assert!(end == at && at >= before && (open.is_some() || taken.idr));
                    before = at + u64::from(taken.packet.duration);
                    prop_assert!(before > at);
                    open = Some((begin, before));
                }
                Step::End => {
                    let (begin, end) = open.take().unwrap();
                    prop_assert!(end - begin <= 224_999, "{}", end - begin);
                }
            }
        }
    }
}
