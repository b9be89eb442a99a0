//! How a copied source's segments are divided into parts: as long as is configured, as far as its samples allow that. No part is longer than its target
//! unless a single sample is, and none but a segment's last is shorter than 85 % of it (draft rfc8216bis, 4.4.4.9) unless the source's distances
//! change within the segment. Pure; times are ticks of 90 kHz.

use std::num::NonZeroU32;

use super::cutter::{Step, Taken};

/// Placing stretches by at most one part in so many.
const STRETCH: u64 = 200;
/// A target that is made for a source's samples is so many hundredths of their length: as long as it can be, but for a little unevenness.
const ROOM: u64 = 115;
/// So many targets are tried at most.
const MOST_TRIED: u32 = 64;
/// A target is changed once it has not suited so many segments in a row: a picture that was lost is no reason.
const UNSUITED: u32 = 2;
/// One that is longer than is configured is changed once so many segments in a row needed none so long.
const SHORTER: u32 = 8;

/// The next of what is published: samples that belong together, with where they are in their segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// None only if the segment has ended without another part.
    pub(super) samples: Vec<Taken>,
    /// Whether a segment begins with it.
    pub(super) begins: bool,
    /// Whether the segment ends with it.
    pub(super) ends: bool,
    /// The longest that parts of its segment are to be.
    pub(super) target: NonZeroU32,
    /// How long most samples last.
    pub(super) usual: u32,
}

/// Divides one stream's segments, over all openings of its source.
#[derive(Debug)]
pub(super) struct Parting {
    /// What is configured; none if segments are whole.
    wanted: Option<NonZeroU32>,
    /// A segment's longest.
    longest: NonZeroU32,
    target: Option<NonZeroU32>,
    held: Vec<Taken>,
    /// How long those last together.
    length: u64,
    begins: bool,
    /// How long the samples of the segment under way last, and of the one before.
    durations: Vec<u32>,
    before: Vec<u32>,
    /// How many segments in a row the target has not suited, and how many a shorter one would have.
    unsuited: u32,
    shorter: u32,
    /// How long most samples last.
    usual: u32,
}

impl Parting {
    /// For parts of `wanted` ticks, in segments of at most `longest`.
    pub(super) fn new(wanted: Option<NonZeroU32>, longest: NonZeroU32) -> Self {
        Self {
            wanted,
            longest,
            target: None,
            held: Vec::new(),
            length: 0,
            begins: false,
            durations: Vec::new(),
            before: Vec::new(),
            unsuited: 0,
            shorter: 0,
            usual: 3600,
        }
    }

    /// The source is opened anew.
    pub(super) fn begin_anew(&mut self) {
        self.held.clear();
        self.length = 0;
        self.begins = false;
    }

    /// Takes what the source is cut into; returns what is whole with it.
    pub(super) fn take(&mut self, steps: Vec<Step>) -> Vec<Piece> {
        if self.target.is_none() {
            let samples = steps.iter().filter_map(|step| match step {
                Step::Sample { taken, .. } => Some(taken.packet.duration),
                Step::Begin | Step::End => None,
            });
            self.before = samples.collect();
        }
        let mut pieces = Vec::new();
        for step in steps {
            match step {
                Step::Begin => self.begin(),
                Step::Sample { taken, closing } => self.sample(taken, closing, &mut pieces),
                Step::End => pieces.push(self.piece(true)),
            }
        }
        pieces
    }

    fn begin(&mut self) {
        let mut last = self.before.clone();
        if !self.durations.is_empty() {
            last = std::mem::take(&mut self.durations);
        }
        self.begins = true;
        self.usual = usual(&last);
        let Some(wanted) = self.wanted else {
            (self.target, self.before) = (Some(self.longest), last);
            return;
        };
        let Some(target) = self.target else {
            self.target = Some(target_for(wanted, self.longest, &last));
            self.before = last;
            return;
        };
        let suits = unsuitable(target.get().into(), &last) == 0;
        self.unsuited = if suits { 0 } else { self.unsuited + 1 };
        let could_be_shorter = target > wanted && target_for(wanted, self.longest, &last) <= wanted;
        self.shorter = if could_be_shorter {
            self.shorter + 1
        } else {
            0
        };
        if self.unsuited >= UNSUITED || self.shorter >= SHORTER {
            // Of a source that no target suits the one that is there is as good as any.
            let better = target_for(wanted, self.longest, &last);
            let both: Vec<u32> = self.before.iter().chain(&last).copied().collect();
            let count = |target: NonZeroU32| unsuitable(target.get().into(), &both);
            if self.shorter >= SHORTER || 2 * count(better) < count(target) {
                self.target = Some(better);
            }
            (self.unsuited, self.shorter) = (0, 0);
        }
        self.before = last;
    }

    fn sample(&mut self, taken: Taken, closing: bool, pieces: &mut Vec<Piece>) {
        let lasts = u64::from(taken.packet.duration);
        let target = u64::from(self.target().get());
        self.durations.push(taken.packet.duration);
        if self.wanted.is_some() && self.length > 0 && ends_before(self.length, lasts, target) {
            pieces.push(self.piece(false));
        }
        self.held.push(taken);
        self.length += lasts;
        if self.wanted.is_some() && !closing && is_whole(self.length, target) {
            pieces.push(self.piece(false));
        }
    }

    fn piece(&mut self, ends: bool) -> Piece {
        self.length = 0;
        Piece {
            samples: std::mem::take(&mut self.held),
            begins: std::mem::take(&mut self.begins),
            ends,
            target: self.target(),
            usual: self.usual,
        }
    }

    fn target(&self) -> NonZeroU32 {
        self.target.unwrap_or(self.longest)
    }
}

/// Whether a part is long enough for `target`, even if it is pressed.
fn is_whole(length: u64, target: u64) -> bool {
    length * 100 * (STRETCH - 1) >= target * 85 * STRETCH
}

/// Whether a part would be too long for `target` with a sample that lasts so long, if it is stretched, or is long enough without it.
fn ends_before(length: u64, lasts: u64, target: u64) -> bool {
    is_whole(length, target) || (length + lasts) * (STRETCH + 1) > target * STRETCH
}

/// How long most of these samples last.
fn usual(durations: &[u32]) -> u32 {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let usual = sorted.get(sorted.len() / 2).copied();
    usual.unwrap_or(3600).max(1)
}

/// How many parts of samples that last so long are longer or shorter than `target` allows. A sample that lasts more than twice as long as most is the source's
/// hiccup: no target is made for it.
fn unsuitable(target: u64, durations: &[u32]) -> usize {
    let (mut length, mut count) = (0, 0);
    let most = u64::from(usual(durations)) * 2;
    let too_long = |length: u64| length * (STRETCH + 1) > target * STRETCH;
    for lasts in durations.iter().map(|lasts| u64::from(*lasts)) {
        if lasts > most {
            length = 0;
            continue;
        }
        if length > 0 && ends_before(length, lasts, target) {
            count += usize::from(!is_whole(length, target));
            length = 0;
        }
        length += lasts;
        count += usize::from(too_long(length));
    }
    count
}

/// The target for samples that last so long: what is `wanted`, if there is room in it for one sample that lasts twice as long; else that which leaves most room, of a few
/// whole samples, the nearest that is not longer, or of one. If samples are uneven, the first that suits them, or suits them best.
fn target_for(wanted: NonZeroU32, longest: NonZeroU32, durations: &[u32]) -> NonZeroU32 {
    let usual = usual(durations);
    let of = |count: u32| {
        let samples = u64::from(count) * u64::from(usual);
        let target = u32::try_from(samples * ROOM / 100);
        let target = target.ok().and_then(NonZeroU32::new);
        target.unwrap_or(longest).min(longest)
    };
    // None is much shorter than what is wanted: parts cost something, whatever a source pretends.
    let least = (wanted.get() / 2).div_ceil(usual).max(1);
    let most = (wanted.get() / usual).max(least);
    let step = ((most - least) / MOST_TRIED + 1) as usize;
    let shorter = (least..=most).rev().step_by(step).map(of);
    let shorter = shorter.filter(|target| *target <= wanted);
    let (wanted, ticks) = (wanted.min(longest), u64::from(usual));
    let whole = u64::from(wanted.get()) * 85 * STRETCH;
    let whole = whole.div_ceil(100 * (STRETCH - 1)).div_ceil(ticks) * ticks;
    let roomy = !ends_before(0, whole + ticks, wanted.get().into());
    let targets = roomy.then_some(wanted).into_iter().chain(shorter);
    let best = targets.min_by_key(|target| unsuitable(target.get().into(), durations));
    best.unwrap_or_else(|| of(least))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::fragments::Packet;
    use super::*;
    use crate::tick::Tick;

    const LONGEST: u32 = 224_999;

    fn ticks(millis: u32) -> NonZeroU32 {
        NonZeroU32::new(millis * 90).unwrap()
    }

    fn parting(millis: u32) -> Parting {
        Parting::new(Some(ticks(millis)), NonZeroU32::new(LONGEST).unwrap())
    }

    /// The steps of a segment whose samples last so long.
    fn segment(durations: &[u32]) -> Vec<Step> {
        let mut end = 0;
        let sample = |(index, duration): (usize, &u32)| Step::Sample {
            taken: Taken {
                packet: Packet {
                    decode_time: {
                        end += u64::from(*duration);
                        end - u64::from(*duration)
                    },
                    duration: *duration,
                    composition_offset: 0,
                    keyframe: index == 0,
                    data: Bytes::from_static(b"picture"),
                },
                idr: index == 0,
                came: Tick(0),
            },
            closing: index + 1 == durations.len(),
        };
        let mut steps = vec![Step::Begin];
        steps.extend(durations.iter().enumerate().map(sample));
        steps.push(Step::End);
        steps
    }

    fn length(piece: &Piece) -> u64 {
        let durations = piece.samples.iter();
        durations
            .map(|taken| u64::from(taken.packet.duration))
            .sum()
    }

    /// The lengths in milliseconds of a segment's parts, and their target.
    fn parts(parting: &mut Parting, durations: &[u32]) -> (Vec<u64>, u32) {
        let pieces = parting.take(segment(durations));
        assert!(pieces[0].begins && pieces.iter().skip(1).all(|piece| !piece.begins));
        let (last, before) = pieces.split_last().unwrap();
        assert!(last.ends && before.iter().all(|piece| !piece.ends));
        let lengths = pieces.iter().map(|piece| length(piece) / 90).collect();
        (lengths, last.target.get() / 90)
    }

    #[test]
    fn parts_are_as_long_as_is_configured_where_whole_pictures_allow_that() {
        for (wanted, picture, count, expected, target) in [
            // 25, 30 and 50 pictures a second.
            (333, 3600, 50, vec![280; 7], 322),
            (333, 3000, 60, vec![266; 7], 306),
            (333, 1800, 100, vec![300; 6], 333),
            (200, 3600, 50, vec![160; 12], 184),
            (500, 3600, 50, vec![440; 4], 500),
            // Slow cameras: 12.5, 5 and 2 of them.
            (200, 7200, 25, vec![160; 12], 184),
            (200, 18_000, 10, vec![200; 10], 230),
            (333, 18_000, 10, vec![200; 10], 230),
            (200, 45_000, 4, vec![500; 4], 575),
        ] {
            let durations = vec![picture; count];
            let (mut lengths, got) = parts(&mut parting(wanted), &durations);
            assert!(lengths.iter().sum::<u64>().abs_diff(2000) < 10);
            lengths.truncate(expected.len());
            assert_eq!((lengths, got), (expected, target), "{wanted} {picture}");
        }
        // A recording's segments are whole.
        let longest = NonZeroU32::new(LONGEST).unwrap();
        let (lengths, _) = parts(&mut Parting::new(None, longest), &[3600; 50]);
        assert_eq!(lengths, [2000]);
    }

    #[test]
    fn a_camera_that_gets_slower_for_good_gets_longer_parts_and_one_lost_picture_changes_nothing() {
        let mut parting = parting(200);
        assert_eq!(parts(&mut parting, &[3600; 50]).1, 184);
        let mut lost = [3600; 49];
        lost[20] = 7200;
        let (lengths, target) = parts(&mut parting, &lost);
        assert!(lengths.iter().all(|part| *part <= 184), "{lengths:?}");
        for _ in 0..2 {
            assert_eq!(parts(&mut parting, &[3600; 50]).1, target);
        }
        // At 10 a second one picture is too short and two are too long: for two segments.
        let targets: Vec<u32> = (0..4).map(|_| parts(&mut parting, &[9000; 20]).1).collect();
        assert_eq!(targets, [184, 184, 115, 115]);
        // One that stands still for a second is a part by itself.
        let (lengths, _) = parts(&mut parting, &[9000, 9000, 90_000, 9000]);
        assert_eq!(lengths, [100, 100, 1000, 100]);
    }

    #[test]
    fn a_part_behind_which_its_segment_may_end_waits_for_the_next_sample() {
        let mut parting = parting(200);
        parting.take(segment(&[3600; 50]));
        let mut steps = segment(&[3600; 4]);
        steps.pop();
        assert_eq!(parting.take(steps), Vec::new());
        let over = parting.take(vec![Step::End]);
        assert!(over[0].ends && over[0].begins && over[0].samples.len() == 4);
        // It goes on after all.
        let mut steps = segment(&[3600; 4]);
        steps.pop();
        parting.take(steps);
        let Step::Sample { mut taken, .. } = segment(&[3600]).remove(1) else {
            panic!("it is a sample");
        };
        taken.idr = false;
        let more = parting.take(vec![Step::Sample {
            taken,
            closing: false,
        }]);
        assert!(!more[0].ends && more[0].samples.len() == 4);
        // And ends without another part, if nobody could know.
        let more = parting.take(vec![Step::End]);
        assert!(more[0].ends && more[0].samples.len() == 1);
    }

    #[test]
    fn a_target_is_not_made_for_a_hiccup_and_comes_back_when_the_camera_does() {
        let mut stalled = [3600; 50];
        stalled[20] = 90_000;
        let mut first = parting(333);
        assert_eq!(parts(&mut first, &stalled).1, 322);
        for _ in 0..3 {
            assert_eq!(parts(&mut first, &stalled).1, 322);
        }
        // One picture a second at night.
        let mut camera = parting(200);
        parts(&mut camera, &[3600; 50]);
        let night: Vec<u32> = (0..4).map(|_| parts(&mut camera, &[90_000; 2]).1).collect();
        assert_eq!(night, [184, 184, 1150, 1150]);
        let day: Vec<u32> = (0..10).map(|_| parts(&mut camera, &[3600; 50]).1).collect();
        assert_eq!((day[0], day[7], day[9]), (1150, 1150, 184));
        // Of uneven pictures no target is better than another: it stays.
        let mut uneven = parting(200);
        let lasts = |index: u32| 2700 + (index * 7919 + index * index * 31) % 1800;
        let targets = (0..20).map(|number| {
            let durations: Vec<u32> = (number * 50..number * 50 + 50).map(lasts).collect();
            parts(&mut uneven, &durations).1
        });
        let mut targets: Vec<u32> = targets.collect();
        targets.dedup();
        assert!(targets.len() <= 3, "{targets:?}");
    }

    #[test]
    fn samples_of_next_to_no_length_make_no_tiny_parts() {
        let mut parting = parting(200);
        let mut hostile = vec![1; 20_000];
        hostile.extend((0..8).flat_map(|_| [20_000, 1]));
        for _ in 0..4 {
            let (lengths, target) = parts(&mut parting, &hostile);
            assert!(target >= 100 && lengths.len() < 60, "{target} {lengths:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn parts_of_even_samples_obey_rule_12_however_they_are_stretched(
            wanted in 40_u32..1000,
            usual in 375_u32..40_000,
            jitter in proptest::collection::vec(-10_i32..=10, 1..200),
        ) {
            let durations: Vec<u32> = jitter
                .iter()
                .map(|off| usual.saturating_add_signed(off * i32::try_from(usual / 2000).unwrap()))
                .collect();
            let mut parting = parting(wanted);
            for _ in 0..2 {
                let pieces = parting.take(segment(&durations));
                let target = u64::from(pieces[0].target.get());
                let sum: u64 = pieces.iter().map(length).sum();
                prop_assert_eq!(sum, durations.iter().map(|one| u64::from(*one)).sum::<u64>());
                let count: usize = pieces.iter().map(|piece| piece.samples.len()).sum();
                prop_assert_eq!(count, durations.len());
                for piece in &pieces {
                    let (least, most) = (length(piece) * 199, length(piece) * 201);
                    prop_assert!(most <= target * 200, "{} of {target}", length(piece));
                    prop_assert!(piece.ends || least * 100 >= target * 85 * 200, "{} of {target}", length(piece));
                }
            }
        }
    }
}
