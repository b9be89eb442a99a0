//! Where a copied source's segments lie in the stream's time: its own distances, from where the clock or what is published says that it begins. What
//! a segment's first part is placed by holds for all of it.
//! Pure; times are ticks of 90 kHz.

use crate::sample::Sample;
use crate::tick::Tick;

use super::cutter::Taken;
use super::soundtrack::Run;

const SECOND: i64 = 90_000;
/// A live source that is so far from where its clock was begins anew.
const OFF: i64 = SECOND;
/// What keeps its own pace is not moved for less: an hour of a camera's clock, or the noise of a network.
const STILL: i64 = SECOND / 100;
/// A file that is read so late is not made up for: the machine has slept.
const SLEPT: i64 = 10 * SECOND;
const MILLION: i64 = 1_000_000;
/// The most that a segment is stretched by, in millionths: what no eye sees.
const STRETCH: i64 = 5000;

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
    /// Of the samples that have come since a segment was placed, the least time from their own to when they came.
    least: Option<i64>,
    /// Whether the segment before was as late as if the source had begun anew.
    late: bool,
    /// Where the segment under way lies; none if it is left out.
    under_way: Option<Stretch>,
    /// Where the newest segment ends.
    next: Tick,
    /// Where each track of its sound does, where it goes on from there.
    heard: Vec<Option<u64>>,
}

/// Where a segment lies: its beginning in the source's time and in the stream's, and how much longer each tick of it is, in millionths.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    begins: u64,
    first: Tick,
    offset: i64,
    millionths: i64,
}

impl Stretch {
    /// Where `at` of the source's time is. Each edge is stretched by itself, so that all of them together are exact.
    fn place(&self, at: u64) -> u64 {
        self.first.0 + self.edge(at)
    }

    fn edge(&self, at: u64) -> u64 {
        let pace = u64::try_from(MILLION + self.millionths).unwrap_or(0);
        let since = u128::from(at.saturating_sub(self.begins)) * u128::from(pace);
        u64::try_from(since / u128::from(MILLION.unsigned_abs())).unwrap_or(u64::MAX)
    }
}

/// A piece of a segment in its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// Where it begins.
    pub(super) first: Tick,
    /// Whether its segment follows on the one before, with all its sound.
    pub(super) follows: bool,
    pub(super) samples: Vec<Sample>,
    /// The parts of each track of sound that are whole.
    pub(super) sounds: Vec<Vec<Vec<Sample>>>,
}

impl Placing {
    /// For a stream whose next tick is `next`.
    pub(super) fn new(rule: Rule, next: Tick) -> Self {
        Self {
            rule,
            offset: None,
            shift: None,
            least: None,
            late: false,
            under_way: None,
            next,
            heard: Vec::new(),
        }
    }

    /// The source is opened anew, or leaps: its times so far say nothing any more.
    pub(super) fn begin_anew(&mut self, rule: Rule) {
        self.rule = rule;
        (self.offset, self.shift) = (None, None);
        (self.least, self.late, self.under_way) = (None, false, None);
        self.heard.clear();
    }

    /// Notes when a sample has come that will be placed.
    pub(super) fn note(&mut self, taken: &Taken) {
        let delay = signed(taken.came.0).saturating_sub(signed(taken.packet.decode_time));
        self.least = Some(self.least.map_or(delay, |least| least.min(delay)));
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

    /// From when to when these samples, of which there is one, are shown, in the source's time: where their sound is.
    pub(super) fn shown(&mut self, samples: &[Taken]) -> Option<(u64, u64)> {
        let first = &samples.first()?.packet;
        let shift = *self.shift.get_or_insert(first.composition_offset);
        let shown = |at: u64| at.saturating_add_signed(shift.into());
        let end = first.decode_time + length_of(samples);
        Some((shown(first.decode_time), shown(end)))
    }

    /// Puts the next of a segment into its place, and the sound that goes with it: where the segment lies is decided when it `begins`, and it stays
    /// there. None if its place is taken: then all of the segment is left out.
    pub(super) fn place(
        &mut self,
        samples: Vec<Taken>,
        begins: bool,
        sounds: Vec<Vec<Run>>,
    ) -> Option<Placed> {
        let mut follows = true;
        if begins {
            self.under_way = None;
            let stretch = self.decide(&samples)?;
            follows = stretch.first == self.next
                && self.heard.len() == sounds.len()
                && self.heard.iter().all(Option::is_some);
            if stretch.first != self.next {
                self.heard.clear();
            }
            self.heard.resize(sounds.len(), None);
            self.under_way = Some(stretch);
        }
        let stretch = self.under_way?;
        let first_offset = samples.first().map(|taken| taken.packet.composition_offset);
        let shift = match first_offset {
            Some(offset) => *self.shift.get_or_insert(offset),
            None => self.shift.unwrap_or_default(),
        };
        let end = samples.last().map(|last| {
            let packet = &last.packet;
            packet.decode_time + u64::from(packet.duration)
        });
        let first = match samples.first() {
            Some(taken) => Tick(stretch.place(taken.packet.decode_time)),
            None => self.next,
        };
        let samples: Vec<Sample> = samples
            .into_iter()
            .map(|Taken { packet, idr, .. }| {
                let begin = stretch.place(packet.decode_time);
                let end = stretch.place(packet.decode_time + u64::from(packet.duration));
                Sample {
                    track: 0,
                    decode_time: begin,
                    duration: u32::try_from(end - begin).unwrap_or(u32::MAX),
                    composition_offset: packet.composition_offset.saturating_sub(shift),
                    keyframe: idr,
                    data: packet.data,
                }
            })
            .collect();
        // Sound is shown as much earlier as the pictures are.
        let place = |at: u64| stretch.place(at.saturating_add_signed(-i64::from(shift)));
        let sounds = sounds.into_iter().zip(&mut self.heard).enumerate();
        let sounds = sounds
            .map(|(track, (runs, heard))| {
                let runs = runs.into_iter();
                let runs = runs.map(|run| {
                    let frames = placed_sound(track + 1, run, *heard, place);
                    let last = frames.last();
                    *heard = last.map(|last| last.decode_time + u64::from(last.duration));
                    frames
                });
                runs.collect()
            })
            .collect();
        if let Some(end) = end {
            self.next = Tick(stretch.place(end));
            if self.rule == Rule::Captured {
                let stretched = signed(stretch.edge(end)) - signed(end - stretch.begins);
                self.offset = Some(stretch.offset.saturating_add(stretched));
            }
        }
        Some(Placed {
            first,
            follows,
            samples,
            sounds,
        })
    }

    /// Where a segment lies that begins with these samples.
    fn decide(&mut self, samples: &[Taken]) -> Option<Stretch> {
        let begins = samples.first()?.packet.decode_time;
        let at = signed(begins);
        let followed = signed(self.next.0).saturating_sub(at);
        let least = self.least.take();
        let (offset, millionths) = match (self.rule, self.offset) {
            (Rule::Captured, before) => {
                let mut least = least.or(before)?;
                let most = before.map(|before| before.saturating_add(OFF));
                // A network that stands still brings all of a segment late, and then what comes after in time.
                let late = most.is_some_and(|most| least > most);
                if let Some(most) = most.filter(|_| late && !self.late) {
                    least = most;
                }
                self.late = late;
                captured(before, least, followed)?
            }
            (_, Some(offset)) => (offset, 0),
            (_, None) => (followed, 0),
        };
        self.offset = Some(offset);
        Some(Stretch {
            begins,
            first: tick(at.saturating_add(offset)).max(self.next),
            offset,
            millionths,
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

/// From the time of a source that comes as it is captured to the stream's, `least` being the least delay with which samples have come since that was
/// last asked, and `followed` what would put it right behind the one before; and by how much it is stretched, because the clocks differ, in millionths. None if its
/// place is taken.
fn captured(before: Option<i64>, least: i64, followed: i64) -> Option<(i64, i64)> {
    let off = before.map(|before| least.saturating_sub(before));
    match (before, off) {
        (Some(offset), Some(off)) if off.abs() <= OFF => {
            let stretch = match off.abs() <= STILL {
                true => 0,
                // An eighth of it is made up for in two seconds.
                false => (off * (MILLION / 8) / (2 * SECOND)).clamp(-STRETCH, STRETCH),
            };
            Some((offset, stretch))
        }
        // One that comes back before its time is past waits for it, if that is not long.
        _ if followed.saturating_sub(least) > OFF => None,
        _ => Some((least.max(followed), 0)),
    }
}

fn length_of(samples: &[Taken]) -> u64 {
    let durations = samples.iter().map(|taken| taken.packet.duration);
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
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::fragments::Packet;
    use super::*;

    const DAY: u64 = 20_000 * 86_400 * 90_000;
    const FRAME: u32 = 3600;

    /// Two seconds from the source's time `at` on, each sample coming at what `came` says of its time.
    fn segment(at: u64, came: impl Fn(u64) -> u64) -> Vec<Taken> {
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

    /// Places a whole segment.
    fn place(placing: &mut Placing, segment: Vec<Taken>, sounds: Vec<Run>) -> Option<Placed> {
        segment.iter().for_each(|taken| placing.note(taken));
        let sounds = sounds.into_iter().map(|run| vec![run]).collect();
        placing.place(segment, true, sounds)
    }

    fn end(placed: &Placed) -> u64 {
        let last = placed.samples.last().unwrap();
        last.decode_time + u64::from(last.duration)
    }

    #[test]
    fn a_recording_follows_what_is_there() {
        let mut placing = Placing::new(Rule::Follow, Tick(500));
        let first = place(&mut placing, segment(7000, |_| 0), Vec::new()).unwrap();
        assert_eq!(first.first, Tick(500));
        assert_eq!(first.samples[0].composition_offset, 0);
        assert_eq!(first.samples[1].composition_offset, 7200);
        assert!(first.samples.iter().all(|sample| sample.duration == FRAME));
        let second = place(&mut placing, segment(187_000, |_| 0), Vec::new()).unwrap();
        assert_eq!(second.first, Tick(180_500));
        placing.begin_anew(Rule::Follow);
        assert_eq!(
            place(&mut placing, segment(3, |_| 0), Vec::new())
                .unwrap()
                .first,
            Tick(360_500)
        );
    }

    #[test]
    fn a_file_is_read_at_its_own_speed_from_the_clock_on() {
        let mut placing = Placing::new(Rule::Read, Tick(0));
        assert_eq!(placing.due(1000, Tick(DAY)), Some(Tick(DAY)));
        assert_eq!(placing.due(4600, Tick(DAY)), Some(Tick(DAY + 3600)));
        let placed = place(&mut placing, segment(1000, |_| DAY), Vec::new()).unwrap();
        assert_eq!(placed.first, Tick(DAY));
        // A hiccup is made up for, a night is not.
        let late = |seconds: u64| Tick(DAY + 180_000 + seconds * 90_000);
        assert_eq!(placing.due(181_000, late(9)), Some(late(0)));
        assert_eq!(placing.due(181_000, late(11)), None);
        placing.begin_anew(Rule::Read);
        assert_eq!(placing.due(181_000, late(11)), Some(late(11)));
        assert_eq!(
            place(&mut placing, segment(181_000, |_| 0), Vec::new())
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
        let first = place(&mut placing, segment(0, came), Vec::new()).unwrap();
        assert_eq!(first.first, Tick(DAY + 9000));
        let mut before = end(&first);
        for number in 1..100 {
            let next = place(&mut placing, segment(number * 180_000, came), Vec::new()).unwrap();
            assert_eq!(next.first.0, before);
            assert!(next.samples.iter().all(|sample| sample.duration == FRAME));
            before = end(&next);
        }
    }

    /// Stereo of 48 kHz from the source's time `from` on, as many frames of 1920 ticks.
    fn sound(from: u64, frames: u64) -> Run {
        let frame = |index| (from + index * 1920, Bytes::from_static(b"sound"));
        Run {
            frames: (0..frames).map(frame).collect(),
            end: from + frames * 1920,
        }
    }

    #[test]
    fn sound_has_the_pictures_place_and_goes_on_without_a_seam() {
        let mut placing = Placing::new(Rule::Captured, Tick(0));
        // The first picture is shown two frames after it is decoded: sound of that moment is heard with it.
        let one = segment(9000, |at| DAY + at);
        assert_eq!(placing.shown(&one), Some((16_200, 196_200)));
        let one = place(&mut placing, one, vec![sound(16_300, 94)]).unwrap();
        let heard = &one.sounds[0][0];
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
        let two = place(
            &mut placing,
            segment(189_000, late),
            vec![sound(16_300 + 94 * 1920, 94)],
        );
        let two = two.unwrap();
        let seam = |frame: &Sample| frame.decode_time + u64::from(frame.duration);
        assert_eq!(two.sounds[0][0][0].decode_time, seam(heard.last().unwrap()));
        let stretched = |samples: &[Sample]| seam(samples.last().unwrap()) - samples[0].decode_time;
        assert_eq!(stretched(&two.samples), 180_900);
        assert!(stretched(&two.sounds[0][0]).abs_diff(94 * 1920 * 201 / 200) <= 10);
        // After a leap it begins where it says.
        placing.begin_anew(Rule::Captured);
        let three = place(
            &mut placing,
            segment(0, |at| DAY + 900_000 + at),
            vec![sound(7300, 90)],
        );
        assert_eq!(three.unwrap().sounds[0][0][0].decode_time, DAY + 900_100);
    }

    #[test]
    fn a_camera_that_comes_back_too_soon_or_leaps_is_placed_anew_and_never_over_what_is_there() {
        let published = Tick(DAY + 90_000);
        let mut placing = Placing::new(Rule::Captured, published);
        // Half a second too early: it follows.
        let first = place(&mut placing, segment(0, |at| DAY + 45_000 + at), Vec::new()).unwrap();
        assert_eq!(first.first, published);
        let mut placing = Placing::new(Rule::Captured, published);
        assert_eq!(
            place(&mut placing, segment(0, |at| DAY - 90_000 + at), Vec::new()),
            None
        );
        let later = place(
            &mut placing,
            segment(180_000, |at| DAY - 90_000 + at),
            Vec::new(),
        );
        assert_eq!(later.unwrap().first, published);
        // It stands still for five seconds, and its clock with it: if the segment after is as late, it is no stall of the network.
        let late = place(
            &mut placing,
            segment(360_000, |at| DAY - 90_000 + 450_000 + at),
            Vec::new(),
        );
        let late = late.unwrap();
        assert_eq!(
            (late.first, end(&late)),
            (Tick(DAY + 270_000), DAY + 450_900)
        );
        let leap = place(
            &mut placing,
            segment(540_000, |at| DAY - 90_000 + 450_000 + at),
            Vec::new(),
        );
        assert_eq!(leap.unwrap().first, Tick(DAY + 900_000));
    }

    #[test]
    fn a_network_that_stands_still_for_longer_than_a_segment_moves_nothing() {
        let mut placing = Placing::new(Rule::Captured, Tick(0));
        // What is captured from 4 s to 7.5 s comes at once.
        let came = |at: u64| {
            DAY + match at {
                360_000..675_000 => 675_000,
                _ => at,
            }
        };
        let mut next = DAY;
        for number in 0..20 {
            let placed = place(&mut placing, segment(number * 180_000, came), Vec::new());
            let placed = placed.unwrap();
            assert_eq!(placed.first.0, next, "{number}");
            next = end(&placed);
        }
        assert!(next.abs_diff(DAY + 20 * 180_000) <= 900, "{next}");
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
                let placed = place(&mut placing, segment(at, came), Vec::new()).unwrap();
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

        #[test]
        fn what_is_placed_piece_by_piece_has_no_hole_and_stays_where_its_segment_began(
            millionths in -400_i64..400,
            cuts in proptest::collection::vec(1_usize..49, 1..6),
            jitter in proptest::collection::vec(0_u64..9000, 50),
        ) {
            let mut placing = Placing::new(Rule::Captured, Tick(0));
            let mut next: Option<u64> = None;
            for number in 0..200 {
                let came = |at: u64| {
                    let off = i64::try_from(at).unwrap() / 1000 * millionths / 1000;
                    let late = jitter[usize::try_from(at / 3600 % 50).unwrap()];
                    (DAY + at + late).checked_add_signed(off).unwrap()
                };
                let mut rest = segment(number * 180_000, came);
                let mut cuts = cuts.clone();
                cuts.sort_unstable();
                cuts.dedup();
                let mut pieces = Vec::new();
                for cut in cuts.iter().rev() {
                    pieces.push(rest.split_off(*cut));
                }
                pieces.push(rest);
                pieces.reverse();
                for (index, piece) in pieces.into_iter().enumerate() {
                    // The first segment of an opening is there as a whole.
                    if number > 0 {
                        piece.iter().for_each(|taken| placing.note(taken));
                    } else if index == 0 {
                        segment(0, came).iter().for_each(|taken| placing.note(taken));
                    }
                    let placed = placing.place(piece, index == 0, Vec::new()).unwrap();
                    prop_assert_eq!(placed.first.0, next.unwrap_or(placed.first.0));
                    for sample in &placed.samples {
                        prop_assert_eq!(sample.decode_time, next.unwrap_or(sample.decode_time));
                        prop_assert!(sample.duration.abs_diff(FRAME) <= 20);
                        next = Some(sample.decode_time + u64::from(sample.duration));
                    }
                }
                // As far as the least that it came late, which not each segment shows.
                let due = came((number + 1) * 180_000);
                let off = next.unwrap().abs_diff(due);
                prop_assert!(off < 27_000, "{off} ticks off at {number}");
            }
        }
    }
}
