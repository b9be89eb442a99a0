//! Where a copied source's segments lie in the stream's time: its own distances, from where the clock or what is published says that it begins.
//! Pure; times are ticks of 90 kHz.

use crate::sample::Sample;
use crate::tick::Tick;

use super::cutter::{Segment, Taken};
use super::soundtrack::Run;

const SECOND: i64 = 90_000;
/// A live source that is so far from where its clock was begins anew.
const OFF: i64 = SECOND;
/// What keeps its own pace is not moved for less: an hour of a camera's clock, or the noise of a network.
const STILL: i64 = SECOND / 100;
/// A file that is read so late is not made up for: the machine has slept.
const SLEPT: i64 = 10 * SECOND;
/// The most that a segment is stretched by: what no eye sees.
const STRETCH: i64 = 200;

/// Who says when a source's first sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// What is there already: a recording has no clock.
    Follow,
    /// The clock, at which it is read.
    Read,
    /// The source: it comes as it is captured, as soon as the network lets it.
    Captured,
}

/// One stream's places.
#[derive(Debug)]
pub(super) struct Placing {
    rule: Rule,
    /// From the source's time to the stream's, once that is known.
    offset: Option<i64>,
    /// How much later the source's first sample is shown than it is decoded: all are shown as much earlier, so that the stream begins at once.
    shift: Option<i32>,
    /// Where the newest segment ends.
    next: Tick,
    /// Where each track of its sound does.
    heard: Vec<u64>,
}

/// A segment in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) first: Tick,
    pub(super) samples: Vec<Sample>,
    /// Of each track of sound.
    pub(super) sounds: Vec<Vec<Sample>>,
}

impl Placing {
    /// For a stream whose next tick is `next`.
    pub(super) fn new(rule: Rule, next: Tick) -> Self {
        Self {
            rule,
            offset: None,
            shift: None,
            next,
            heard: Vec::new(),
        }
    }

    /// The source is opened anew, or leaps: its times so far say nothing any more.
    pub(super) fn begin_anew(&mut self, rule: Rule) {
        self.rule = rule;
        (self.offset, self.shift) = (None, None);
        self.heard.clear();
    }

    /// Who says when a sample is.
    pub(super) fn rule(&self) -> Rule {
        self.rule
    }

    /// When a sample of the source's time `at` is to be read, `now` being the time: of what is read by the clock. None where it is too late for
    /// that to be made up for: then it begins anew.
    pub(super) fn due(&mut self, at: u64, now: Tick) -> Option<Tick> {
        if self.rule != Rule::Read {
            return Some(now);
        }
        let (at, begins) = (signed(at), now.max(self.next));
        let offset = *self
            .offset
            .get_or_insert_with(|| signed(begins.0).saturating_sub(at));
        let due = at.saturating_add(offset);
        (signed(now.0).saturating_sub(due) <= SLEPT).then(|| tick(due))
    }

    /// From when to when a segment is shown, in the source's time: where its sound is.
    pub(super) fn shown(&mut self, segment: &Segment) -> (u64, u64) {
        let Some(first) = segment.first() else {
            return (0, 0);
        };
        let begins = first.packet.decode_time;
        let shift = *self.shift.get_or_insert(first.packet.composition_offset);
        let shown = |at: u64| at.saturating_add_signed(shift.into());
        (shown(begins), shown(begins + length_of(segment)))
    }

    /// Puts a whole segment into its place, and the sound that goes with it. None if that is taken: then it is left out.
    pub(super) fn place(&mut self, segment: Segment, sounds: Vec<Run>) -> Option<Placed> {
        let heard = std::mem::take(&mut self.heard);
        let (begins, length) = (segment.first()?.packet.decode_time, length_of(&segment));
        let at = signed(begins);
        let followed = signed(self.next.0).saturating_sub(at);
        let (offset, stretch) = match (self.rule, self.offset) {
            (Rule::Captured, before) => captured(before, earliest(&segment), length, followed)?,
            (_, Some(offset)) => (offset, 0),
            (_, None) => (followed, 0),
        };
        self.offset = Some(offset.saturating_add(stretch));
        let first = tick(at.saturating_add(offset)).max(self.next);
        let whole = u128::from(length.saturating_add_signed(stretch));
        // Each edge is stretched by itself, so that all of them together are exact.
        let edge = |at: u64| {
            let since = u128::from(at.saturating_sub(begins));
            u64::try_from(since * whole / u128::from(length.max(1))).unwrap_or(u64::MAX)
        };
        let first_offset = segment.first()?.packet.composition_offset;
        let shift = *self.shift.get_or_insert(first_offset);
        let samples: Vec<Sample> = segment
            .into_iter()
            .map(|Taken { packet, idr, .. }| {
                let begin = edge(packet.decode_time);
                let end = edge(packet.decode_time + u64::from(packet.duration));
                Sample {
                    track: 0,
                    decode_time: first.0 + begin,
                    duration: u32::try_from(end - begin).unwrap_or(u32::MAX),
                    composition_offset: packet.composition_offset.saturating_sub(shift),
                    keyframe: idr,
                    data: packet.data,
                }
            })
            .collect();
        // Sound is shown as much earlier as the pictures are.
        let place = |at: u64| first.0 + edge(at.saturating_add_signed(-i64::from(shift)));
        let follows = first == self.next;
        let sounds: Vec<Vec<Sample>> = sounds
            .into_iter()
            .enumerate()
            .map(|(track, run)| {
                let before = heard.get(track).copied().filter(|_| follows);
                placed_sound(track + 1, run, before, place)
            })
            .collect();
        let end = |samples: &Vec<Sample>| {
            let last = samples.last();
            last.map_or(0, |last| last.decode_time + u64::from(last.duration))
        };
        self.heard = sounds.iter().map(end).collect();
        self.next = Tick(end(&samples));
        Some(Placed {
            first,
            samples,
            sounds,
        })
    }
}

/// The frames of a stretch of sound as samples of `track`: from where the stretch before ended, if it goes on from there, so that there is no seam.
fn placed_sound(
    track: usize,
    run: Run,
    before: Option<u64>,
    place: impl Fn(u64) -> u64,
) -> Vec<Sample> {
    let ends = run.frames.iter().skip(1).map(|(at, _)| *at);
    let ends: Vec<u64> = ends.chain([run.end]).map(&place).collect();
    let first = run.frames.first().map_or(0, |(at, _)| place(*at));
    let mut begin = before.unwrap_or(first);
    let frames = run.frames.into_iter().zip(ends);
    frames
        .map(|((_, data), end)| {
            let end = end.max(begin + 1);
            let sample = Sample {
                track,
                decode_time: begin,
                duration: u32::try_from(end - begin).unwrap_or(u32::MAX),
                composition_offset: 0,
                keyframe: true,
                data,
            };
            begin = end;
            sample
        })
        .collect()
}

/// From the time of a source that comes as it is captured to the stream's, `least` being the least delay with which the segment's samples came,
/// and `followed` what would put it right behind the one before; and by how much it is stretched, because the clocks differ. None if its place is taken.
fn captured(before: Option<i64>, least: i64, length: u64, followed: i64) -> Option<(i64, i64)> {
    let off = before.map(|before| least.saturating_sub(before));
    match (before, off) {
        (Some(offset), Some(off)) if off.abs() <= OFF => {
            let most = i64::try_from(length).unwrap_or(i64::MAX) / STRETCH;
            let stretch = match off.abs() <= STILL {
                true => 0,
                false => (off / 8).clamp(-most, most),
            };
            Some((offset, stretch))
        }
        // One that comes back before its time is past waits for it, if that is not long.
        _ if followed.saturating_sub(least) > OFF => None,
        _ => Some((least.max(followed), 0)),
    }
}

/// The least time from a sample's own to when it came.
fn earliest(segment: &[Taken]) -> i64 {
    let delays = segment
        .iter()
        .map(|taken| signed(taken.came.0).saturating_sub(signed(taken.packet.decode_time)));
    delays.min().unwrap_or_default()
}

fn length_of(segment: &[Taken]) -> u64 {
    let durations = segment.iter().map(|taken| taken.packet.duration);
    durations.map(u64::from).sum()
}

fn signed(ticks: u64) -> i64 {
    i64::try_from(ticks).unwrap_or(i64::MAX)
}

fn tick(at: i64) -> Tick {
    Tick(u64::try_from(at).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::fragments::Packet;
    use super::*;
    use crate::config::AudioCodec;
    use crate::encode::copied_sound::CopiedSound;

    const DAY: u64 = 20_000 * 86_400 * 90_000;
    const FRAME: u32 = 3600;

    /// Two seconds from the source's time `at` on, each sample coming at what `came` says of its time.
    fn segment(at: u64, came: impl Fn(u64) -> u64) -> Segment {
        let taken = |index: u64| {
            let decode_time = at + index * u64::from(FRAME);
            Taken {
                packet: Packet {
                    decode_time,
                    duration: FRAME,
                    composition_offset: if index == 0 { 7200 } else { 14_400 },
                    keyframe: index == 0,
                    data: Bytes::from_static(b"picture"),
                },
                idr: index == 0,
                came: Tick(came(decode_time)),
            }
        };
        (0..50).map(taken).collect()
    }

    fn end(placed: &Placed) -> u64 {
        let last = placed.samples.last().unwrap();
        last.decode_time + u64::from(last.duration)
    }

    #[test]
    fn a_recording_follows_what_is_there() {
        let mut placing = Placing::new(Rule::Follow, Tick(500));
        let first = placing.place(segment(7000, |_| 0), Vec::new()).unwrap();
        assert_eq!(first.first, Tick(500));
        assert_eq!(first.samples[0].composition_offset, 0);
        assert_eq!(first.samples[1].composition_offset, 7200);
        assert!(first.samples.iter().all(|sample| sample.duration == FRAME));
        let second = placing.place(segment(187_000, |_| 0), Vec::new()).unwrap();
        assert_eq!(second.first, Tick(180_500));
        placing.begin_anew(Rule::Follow);
        assert_eq!(
            placing.place(segment(3, |_| 0), Vec::new()).unwrap().first,
            Tick(360_500)
        );
    }

    #[test]
    fn a_file_is_read_at_its_own_speed_from_the_clock_on() {
        let mut placing = Placing::new(Rule::Read, Tick(0));
        assert_eq!(placing.due(1000, Tick(DAY)), Some(Tick(DAY)));
        assert_eq!(placing.due(4600, Tick(DAY)), Some(Tick(DAY + 3600)));
        let placed = placing.place(segment(1000, |_| DAY), Vec::new()).unwrap();
        assert_eq!(placed.first, Tick(DAY));
        // A hiccup is made up for, a night is not.
        let late = |seconds: u64| Tick(DAY + 180_000 + seconds * 90_000);
        assert_eq!(placing.due(181_000, late(9)), Some(late(0)));
        assert_eq!(placing.due(181_000, late(11)), None);
        placing.begin_anew(Rule::Read);
        assert_eq!(placing.due(181_000, late(11)), Some(late(11)));
        assert_eq!(
            placing
                .place(segment(181_000, |_| 0), Vec::new())
                .unwrap()
                .first,
            late(11)
        );
        // What begins again before its time is past follows.
        placing.begin_anew(Rule::Read);
        assert_eq!(placing.due(0, late(12)), Some(late(13)));
    }

    #[test]
    fn a_camera_is_placed_by_the_sample_that_came_soonest_and_keeps_its_own_distances() {
        let mut placing = Placing::new(Rule::Captured, Tick(0));
        // It begins with a burst: what it had waiting comes at once, and then each sample 9000 ticks late, or a little more.
        let came = |at: u64| DAY + at.max(100_000) + 9000 + at % 7;
        let first = placing.place(segment(0, came), Vec::new()).unwrap();
        assert_eq!(first.first, Tick(DAY + 9000));
        let mut before = end(&first);
        for number in 1..100 {
            let next = placing
                .place(segment(number * 180_000, came), Vec::new())
                .unwrap();
            assert_eq!(next.first.0, before);
            assert!(next.samples.iter().all(|sample| sample.duration == FRAME));
            before = end(&next);
        }
    }

    /// Stereo of 48 kHz from the source's time `from` on, as many frames of 1920 ticks.
    fn sound(from: u64, frames: u64) -> Run {
        let frame = |index| (from + index * 1920, Bytes::from_static(b"sound"));
        Run {
            track: Arc::new(CopiedSound::silent(AudioCodec::Copy)),
            frames: (0..frames).map(frame).collect(),
            end: from + frames * 1920,
        }
    }

    #[test]
    fn sound_has_the_pictures_place_and_goes_on_without_a_seam() {
        let mut placing = Placing::new(Rule::Captured, Tick(0));
        // The first picture is shown two frames after it is decoded: sound of that moment is heard with it.
        let one = segment(9000, |at| DAY + at);
        assert_eq!(placing.shown(&one), (16_200, 196_200));
        let one = placing.place(one, vec![sound(16_300, 94)]).unwrap();
        let heard = &one.sounds[0];
        assert_eq!(
            (one.first.0, heard[0].decode_time),
            (DAY + 9000, DAY + 9100)
        );
        assert!(
            heard
                .iter()
                .all(|frame| (frame.track, frame.duration) == (1, 1920))
        );
        // A clock that is a tenth of a second off: both are stretched alike, and the seam is exact.
        let late = |at: u64| DAY + at + 9000;
        let two = placing.place(segment(189_000, late), vec![sound(16_300 + 94 * 1920, 94)]);
        let two = two.unwrap();
        let seam = |frame: &Sample| frame.decode_time + u64::from(frame.duration);
        assert_eq!(two.sounds[0][0].decode_time, seam(heard.last().unwrap()));
        let stretched = |samples: &[Sample]| seam(samples.last().unwrap()) - samples[0].decode_time;
        assert_eq!(stretched(&two.samples), 180_900);
        assert!(stretched(&two.sounds[0]).abs_diff(94 * 1920 * 201 / 200) <= 10);
        // After a leap it begins where it says.
        placing.begin_anew(Rule::Captured);
        let three = placing.place(segment(0, |at| DAY + 900_000 + at), vec![sound(7300, 90)]);
        assert_eq!(three.unwrap().sounds[0][0].decode_time, DAY + 900_100);
    }

    #[test]
    fn a_camera_that_comes_back_too_soon_or_leaps_is_placed_anew_and_never_over_what_is_there() {
        let published = Tick(DAY + 90_000);
        let mut placing = Placing::new(Rule::Captured, published);
        // Half a second too early: it follows.
        let first = placing
            .place(segment(0, |at| DAY + 45_000 + at), Vec::new())
            .unwrap();
        assert_eq!(first.first, published);
        let mut placing = Placing::new(Rule::Captured, published);
        assert_eq!(
            placing.place(segment(0, |at| DAY - 90_000 + at), Vec::new()),
            None
        );
        let later = placing.place(segment(180_000, |at| DAY - 90_000 + at), Vec::new());
        assert_eq!(later.unwrap().first, published);
        // It stands still for five seconds, and its clock with it.
        let leap = placing.place(
            segment(360_000, |at| DAY - 90_000 + 450_000 + at),
            Vec::new(),
        );
        assert_eq!(leap.unwrap().first, Tick(DAY + 270_000 + 450_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_clock_that_drifts_is_followed_without_a_hole(millionths in -400_i64..400) {
            let mut placing = Placing::new(Rule::Captured, Tick(0));
            let came = |at: u64| {
                let off = i64::try_from(at).unwrap() / 1000 * millionths / 1000;
                (DAY + at).checked_add_signed(off).unwrap()
            };
            let mut before = None;
            for number in 0..1000 {
                let at = number * 180_000;
                let placed = placing.place(segment(at, came), Vec::new()).unwrap();
                if let Some(before) = before {
                    prop_assert_eq!(placed.first.0, before);
                }
                let mut next = placed.first.0;
                for sample in &placed.samples {
                    prop_assert_eq!(sample.decode_time, next);
                    prop_assert!(sample.duration.abs_diff(FRAME) <= 20);
                    next += u64::from(sample.duration);
                }
                let late = came(at).abs_diff(placed.first.0);
                prop_assert!(late < 9000, "{late} ticks off at {number}");
                before = Some(next);
            }
        }
    }
}
