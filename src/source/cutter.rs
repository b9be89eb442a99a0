//! Where a copied source's segments end: at its own keyframes. A segment that is published whole is held until it is known where the next one
//! begins, so that it is neither too long for the playlist nor shorter than it has to be. Of one that is published in parts that can't be known: it ends
//! at a keyframe where the next might come too late, by the longest distance there was of late. Pure; times are ticks of the source, from its
//! beginning.

use std::collections::VecDeque;
use std::time::Duration;

use crate::package::MAX_PART_BYTES;
use crate::tick::{Framerate, Grid, Tick};

use super::fragments::Packet;

/// A keyframe that comes so much of a segment too early still begins the next one, and the next may come so much of a distance later than any
/// before: clocks and timestamps are never exact.
const EARLY: u64 = 20;
/// Until then, the next keyframe is waited for, so that people can be told how far they are apart.
const LONGEST_SEARCH: u64 = 60 * 90_000;
/// `segment` can't be longer.
const LONGEST_SEGMENT: Duration = Duration::from_secs(20);
/// No frame of sound lasts longer: that of AAC at 7350 samples a second.
const LONGEST_FRAME: u64 = 90_000 * 3 / 20;
/// A sample that seems to last longer is followed by a leap in the source's times.
const LONGEST_SAMPLE: u64 = 10 * 90_000;
/// Placing stretches by at most one part in so many.
const STRETCH: u64 = 200;
/// By so many of the last distances of keyframes it is reckoned when the next one comes.
const REMEMBERED: usize = 64;

/// A sample, and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) packet: Packet,
    /// Whether decoding can start at it.
    pub(super) idr: bool,
    /// The tick of the clock at which it came.
    pub(super) came: Tick,
}

/// A whole segment, from a keyframe on: in it, every sample lasts until the next one.
pub(super) type Segment = Vec<Taken>;

/// What the source is cut into, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A segment begins with the next sample, which is a keyframe.
    Begin,
    /// The segment's next sample, which lasts as long as it says.
    Sample {
        taken: Taken,
        /// Whether the segment is likely to end behind it.
        closing: bool,
    },
    /// The segment, which has a sample, is over.
    End,
}

/// Why a source can't be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uncut {
    /// Its keyframes are too far apart: by so much, or if `beyond`, by more.
    Sparse {
        distance: Duration,
        beyond: bool,
        /// What `segment` has to be for that.
        needs: Duration,
        /// Whether there were keyframes of open groups of pictures between them.
        open: bool,
    },
    /// A segment would have so many bytes.
    Large(usize),
}

impl Uncut {
    /// One line: why no segments can be made of the source `shown` of stream `stream`, and the mend.
    pub(super) fn told(&self, shown: &str, stream: &str) -> String {
        let (distance, beyond, needs, open) = match *self {
            Self::Large(bytes) => {
                return format!(
                    "{shown} has a segment of {} MiB, more than is published: make segment of [streams.{stream}] shorter, or lower the source's bitrate",
                    bytes >> 20
                );
            }
            Self::Sparse {
                distance,
                beyond,
                needs,
                open,
            } => (distance, beyond, needs, open),
        };
        let more = if beyond { "more than " } else { "" };
        let open = match open {
            true => " without those of open groups of pictures, at which no player can begin",
            false => "",
        };
        let mend = match needs <= LONGEST_SEGMENT {
            true => format!(
                "set segment = \"{}ms\" in [streams.{stream}], or a shorter keyframe interval (GOP) at the source",
                needs.as_nanos().div_ceil(1_000_000)
            ),
            false => "set a keyframe interval (GOP) of a few seconds at the source".to_owned(),
        };
        format!(
            "the keyframes of {shown} are {more}{} s apart{open}: segments of stream '{stream}' would be too long; {mend}, or write an encoder instead of codec = \"copy\"",
            seconds(distance)
        )
    }
}

/// Seconds to the hundredth, without needless zeros.
fn seconds(duration: Duration) -> String {
    let text = format!("{:.2}", duration.as_secs_f64());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Cuts one opening of a source.
#[derive(Debug)]
pub(super) struct Cutter {
    /// The least and the most that a segment lasts.
    nominal: u64,
    longest: u64,
    /// By so much its sound may be longer.
    spare: u64,
    held: Segment,
    bytes: usize,
    /// The last keyframe among them, after the first.
    keyframe: Option<usize>,
    /// Since the last keyframe there was one of an open group.
    open: bool,
    /// The keyframe after which none came in time, and how long ago that is.
    sparse: Option<(u64, u64)>,
    /// Whether the source may lose a keyframe on its way, and whether the next one that is missing is taken for lost.
    lossy: bool,
    forgives: bool,
    /// The longest time from one keyframe to the next, and the last keyframe.
    distance: u64,
    last_keyframe: Option<u64>,
    /// The last of those times.
    distances: VecDeque<u64>,
    /// Of what is published in parts: a longer sample is believed to last so long only when the next one has come; none is if this is 0.
    believed: Option<u64>,
    /// Where it stands, once a whole segment has shown how far keyframes are apart.
    flow: Option<Flow>,
    /// A keyframe came so late that pictures before it were left out, though none was missing.
    late: Option<Duration>,
    /// The longest distance of which that was so.
    latest: u64,
}

/// Where what is published in parts stands.
#[derive(Debug, Default)]
struct Flow {
    /// When the segment under way begins.
    start: Option<u64>,
    /// A sample of which it is not known how long it lasts.
    pending: Option<Taken>,
    /// Where the one before ends, and how long it lasts.
    end: Option<u64>,
    lasts: u32,
}

impl Cutter {
    /// For the segments of `grid`, which is a copied stream's, whole or in parts; with sound, a segment of which may be longer by a frame. One keyframe
    /// of a `lossy` source may be missing: its pictures are left out until the next. What has a clock of its own may be stretched when it is placed.
    pub(super) fn new(grid: &Grid, lossy: bool, with_sound: bool) -> Self {
        let spare = if with_sound { LONGEST_FRAME } else { 0 };
        let longest = u64::from(grid.ticks_per_segment.get());
        let longest = match lossy {
            true => longest * STRETCH / (STRETCH + 1),
            false => longest,
        };
        let longest = longest.saturating_sub(spare);
        let nominal = grid.cut.map_or(longest, |ticks| u64::from(ticks.get()));
        Self {
            nominal: nominal.min(longest),
            longest,
            spare,
            held: Vec::new(),
            bytes: 0,
            keyframe: None,
            open: false,
            sparse: None,
            lossy,
            forgives: lossy,
            distance: 0,
            last_keyframe: None,
            distances: VecDeque::new(),
            believed: grid
                .is_cut_in_parts()
                .then(|| u64::from(grid.ticks_per_part.get())),
            flow: None,
            late: None,
            latest: 0,
        }
    }

    /// This one, which knows that a keyframe may come so late.
    pub(super) fn knowing(mut self, latest: u64) -> Self {
        self.latest = latest;
        self
    }

    /// How late a keyframe ever came before which pictures were left out.
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// How far apart keyframes were at most.
    pub(super) fn keyframe_distance(&self) -> Option<Duration> {
        (self.distance > 0).then(|| duration_of(self.distance))
    }

    /// The source's times have leapt: a keyframe that was looked for is another one's.
    pub(super) fn leap(&mut self) {
        (self.sparse, self.last_keyframe) = (None, None);
    }

    /// How late the keyframe was before which pictures were left out since this was last asked.
    pub(super) fn take_late(&mut self) -> Option<Duration> {
        self.late.take()
    }

    /// Whether `packet` does not follow in the source's times on what came before it.
    pub(super) fn leaps_to(&mut self, packet: &Packet) -> bool {
        let flow = self.flow.as_ref();
        let pending = flow.and_then(|flow| flow.pending.as_ref());
        if let Some(end) = flow.and_then(|flow| flow.end).filter(|_| pending.is_none()) {
            let leaps = packet.decode_time != end;
            if leaps {
                // FFmpeg has said how long the one before lasts, and was wrong.
                self.believed = Some(0);
            }
            return leaps;
        }
        pending.or(self.held.last()).is_some_and(|last| {
            let before = last.packet.decode_time;
            packet.decode_time <= before || packet.decode_time - before > LONGEST_SAMPLE
        })
    }

    /// A keyframe of an open group has come: it is no place to cut at.
    pub(super) fn note_open(&mut self) {
        self.open = true;
    }

    /// Takes the next sample, which does not leap; returns what is known with it. What comes before the first keyframe is left out.
    ///
    /// # Errors
    /// When no segment can be made of the source.
    pub(super) fn push(&mut self, taken: Taken) -> Result<Vec<Step>, Uncut> {
        if self.flow.is_some() {
            return self.go_on(taken);
        }
        let whole = self.hold(taken)?;
        let knows = !whole.is_empty();
        let mut steps: Vec<Step> = whole.into_iter().flat_map(whole_steps).collect();
        if knows && self.believed.is_some() {
            self.flow = Some(Flow::default());
            (self.bytes, self.keyframe) = (0, None);
            for taken in std::mem::take(&mut self.held) {
                steps.extend(self.go_on(taken)?);
            }
        }
        Ok(steps)
    }

    /// Takes the next sample of what is published in parts.
    fn go_on(&mut self, taken: Taken) -> Result<Vec<Step>, Uncut> {
        let mut steps = Vec::new();
        let at = taken.packet.decode_time;
        let flow = self.flow.get_or_insert_default();
        if let Some(mut before) = flow.pending.take() {
            let lasts = at.saturating_sub(before.packet.decode_time);
            before.packet.duration = u32::try_from(lasts).unwrap_or(u32::MAX);
            self.pass(before, &mut steps)?;
        }
        let lasts = u64::from(taken.packet.duration);
        let flow = self.flow.get_or_insert_default();
        let most = match self.believed {
            Some(believed) if believed > 0 => believed.max(2 * u64::from(flow.lasts)),
            _ => 0,
        };
        if (1..=most).contains(&lasts) {
            self.pass(taken, &mut steps)?;
        } else {
            flow.pending = Some(taken);
        }
        Ok(steps)
    }

    /// Passes on a sample that lasts as long as it says, if it is of a segment.
    fn pass(&mut self, taken: Taken, steps: &mut Vec<Step>) -> Result<(), Uncut> {
        let at = taken.packet.decode_time;
        let end = at + u64::from(taken.packet.duration);
        let flow = self.flow.get_or_insert_default();
        (flow.end, flow.lasts) = (Some(end), taken.packet.duration);
        let mut start = flow.start;
        if let Some((since, _)) = self.sparse {
            self.search(since, at, taken.idr)?;
            if !taken.idr {
                return Ok(());
            }
        }
        if taken.idr {
            self.note_keyframe(at);
            if start.is_some_and(|start| at > start && self.ends_at(start, at)) {
                steps.push(Step::End);
                self.forgives |= self.lossy;
                start = None;
            }
        }
        if start.is_none() && !taken.idr {
            return Ok(());
        }
        let begin = start.unwrap_or(at);
        let flow = self.flow.get_or_insert_default();
        if end - begin > self.longest {
            flow.start = None;
            if start.is_some() {
                steps.push(Step::End);
            }
            return self.search(self.last_keyframe.unwrap_or(at), at, false);
        }
        flow.start = Some(begin);
        if start.is_none() {
            steps.push(Step::Begin);
            self.bytes = 0;
        }
        self.bytes += taken.packet.data.len();
        if self.bytes > MAX_PART_BYTES {
            return Err(Uncut::Large(self.bytes));
        }
        let half = u64::from(taken.packet.duration) / 2;
        let closing = self
            .expected()
            .is_some_and(|next| next.abs_diff(end) <= half)
            && self.ends_at(begin, end);
        steps.push(Step::Sample { taken, closing });
        Ok(())
    }

    /// Whether a segment from `start` ends at a keyframe at `at`: because it is long enough, or the next one might come too late.
    fn ends_at(&self, start: u64, at: u64) -> bool {
        let lasts = at.saturating_sub(start);
        let next = self.distances.iter().max().copied();
        let next = next.unwrap_or(self.longest).max(self.latest);
        lasts + self.nominal / EARLY >= self.nominal || lasts + next + next / EARLY > self.longest
    }

    /// When the next keyframe comes if it is as far from the last one as that from the one before.
    fn expected(&self) -> Option<u64> {
        Some(self.last_keyframe? + self.distances.back()?)
    }

    /// Holds the next sample until its segment is whole; returns those that are with it.
    fn hold(&mut self, taken: Taken) -> Result<Vec<Segment>, Uncut> {
        let at = taken.packet.decode_time;
        if let Some((since, _)) = self.sparse {
            self.search(since, at, taken.idr)?;
            if !taken.idr {
                return Ok(Vec::new());
            }
        }
        if let Some(last) = self.held.last_mut() {
            let lasts = at.saturating_sub(last.packet.decode_time);
            last.packet.duration = u32::try_from(lasts).unwrap_or(u32::MAX);
        } else if !taken.idr {
            return Ok(Vec::new());
        }
        let mut whole = Vec::new();
        // Where the one under way would be too long with what came before this sample, it has to end at the last keyframe that it has.
        while at - self.start(at) > self.longest {
            match self.keyframe {
                Some(index) => whole.push(self.cut(index)),
                None => {
                    let since = self.start(at);
                    self.held.clear();
                    self.bytes = 0;
                    self.search(since, at, taken.idr)?;
                    if !taken.idr {
                        return Ok(whole);
                    }
                }
            }
        }
        if taken.idr {
            self.note_keyframe(at);
            let lasts = at - self.start(at);
            if lasts > 0 && lasts + self.nominal / EARLY >= self.nominal {
                whole.push(self.cut(self.held.len()));
            } else if lasts > 0 {
                self.keyframe = Some(self.held.len());
            }
        }
        self.forgives |= self.lossy && !whole.is_empty();
        self.bytes += taken.packet.data.len();
        self.held.push(taken);
        if self.bytes > MAX_PART_BYTES {
            return Err(Uncut::Large(self.bytes));
        }
        Ok(whole)
    }

    /// The source has ended, or leaps: what is there is its last segment, and what follows begins anew.
    pub(super) fn finish(&mut self) -> Vec<Step> {
        let steps = match self.flow.take() {
            Some(flow) => self.finish_flow(flow),
            None => self.finish_held().map_or_else(Vec::new, whole_steps),
        };
        if !steps.is_empty() {
            (self.open, self.last_keyframe) = (false, None);
        }
        steps
    }

    fn finish_flow(&mut self, mut flow: Flow) -> Vec<Step> {
        let mut steps = Vec::new();
        let pending = flow.pending.take();
        self.flow = Some(flow);
        if let Some(mut last) = pending {
            last.packet.duration = match self.flow.as_ref().map_or(0, |flow| flow.lasts) {
                0 => Framerate::COPIED.num() / 25,
                before => before,
            };
            // What can't be published any more is left out.
            let _ = self.pass(last, &mut steps);
        }
        if self.flow.take().is_some_and(|flow| flow.start.is_some()) {
            steps.push(Step::End);
        }
        steps
    }

    fn finish_held(&mut self) -> Option<Segment> {
        let before = self.held.len().checked_sub(2).map(|index| {
            let packet = &self.held[index].packet;
            packet.duration
        });
        let last = self.held.last_mut()?;
        // What FFmpeg says of the last sample's duration may be a guess, or reach over a leap.
        let stated = u64::from(last.packet.duration);
        if stated == 0
            || stated > LONGEST_SAMPLE
            || before.is_some_and(|before| stated > 8 * u64::from(before))
        {
            last.packet.duration = before.unwrap_or(Framerate::COPIED.num() / 25);
        }
        let at = last.packet.decode_time;
        let room = self.longest - (at - self.start(at)).min(self.longest);
        if let Some(last) = self.held.last_mut() {
            let lasts = u64::from(last.packet.duration).min(room);
            last.packet.duration = u32::try_from(lasts).unwrap_or(u32::MAX);
        }
        self.held.pop_if(|last| last.packet.duration == 0);
        (!self.held.is_empty()).then(|| self.cut(self.held.len()))
    }

    /// Why there is no more to finish, if the source has ended while its next keyframe was looked for.
    pub(super) fn uncut(&self) -> Option<Uncut> {
        self.sparse
            .filter(|(_, distance)| *distance > self.longest)
            .map(|(_, distance)| self.too_sparse(distance, true))
    }

    fn too_sparse(&self, distance: u64, beyond: bool) -> Uncut {
        Uncut::Sparse {
            distance: duration_of(distance),
            beyond,
            needs: duration_of(self.stretched(distance + self.spare)),
            open: self.open,
        }
    }

    /// How long that may become when it is placed.
    fn stretched(&self, lasts: u64) -> u64 {
        match self.lossy {
            true => (lasts * (STRETCH + 1)).div_ceil(STRETCH) + 1,
            false => lasts,
        }
    }

    /// When the one under way begins; `at` if none is.
    fn start(&self, at: u64) -> u64 {
        let first = self.held.first();
        first.map_or(at, |first| first.packet.decode_time)
    }

    /// Takes the first `count` samples off as a segment of their own.
    fn cut(&mut self, count: usize) -> Segment {
        let rest = self.held.split_off(count);
        let segment = std::mem::replace(&mut self.held, rest);
        self.bytes = self.held.iter().map(|taken| taken.packet.data.len()).sum();
        self.keyframe = None;
        segment
    }

    fn note_keyframe(&mut self, at: u64) {
        if let Some(before) = self.last_keyframe.replace(at)
            && at > before
        {
            self.distance = self.distance.max(at - before);
            self.distances.push_back(at - before);
            if self.distances.len() > REMEMBERED {
                self.distances.pop_front();
            }
        }
        self.open = false;
    }

    /// Whether a keyframe that comes so long after the one before shows that one between them was lost: those before came at one interval.
    fn is_missing(&self, distance: u64) -> bool {
        let (least, most) = (self.distances.iter().min(), self.distances.iter().max());
        let (Some(least), Some(most)) = (least, most) else {
            return false;
        };
        most * 10 <= least * 11 && distance * 2 >= most * 3
    }

    /// No segment can be made of the source; only how far apart its keyframes are is not known yet.
    fn search(&mut self, since: u64, at: u64, idr: bool) -> Result<(), Uncut> {
        let distance = at.saturating_sub(since);
        self.sparse = Some((since, distance));
        let beyond = distance > LONGEST_SEARCH;
        if !idr && !beyond {
            return Ok(());
        }
        if distance <= self.longest && self.lossy && self.is_missing(distance) {
            (self.sparse, self.last_keyframe) = (None, None);
            return Ok(());
        }
        if distance <= self.longest {
            // Only the decision where to end was wrong.
            (self.sparse, self.late) = (None, Some(duration_of(distance)));
            self.latest = self.latest.max(distance);
            return Ok(());
        }
        if self.forgives && !beyond {
            (self.forgives, self.sparse, self.last_keyframe) = (false, None, None);
            return Ok(());
        }
        self.distance = self.distance.max(distance);
        Err(self.too_sparse(distance, beyond))
    }
}

/// The steps of a segment that is whole.
fn whole_steps(segment: Segment) -> Vec<Step> {
    let last = segment.len().saturating_sub(1);
    let samples = segment.into_iter().enumerate();
    let samples = samples.map(|(index, taken)| Step::Sample {
        taken,
        closing: index == last,
    });
    let mut steps = vec![Step::Begin];
    steps.extend(samples);
    steps.push(Step::End);
    steps
}

fn duration_of(ticks: u64) -> Duration {
    Framerate::COPIED.duration_of(ticks)
}

#[cfg(test)]
mod tests {
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
    fn in_parts(
        cutter: &mut Cutter,
        keyframes: &[u64],
        end: u64,
    ) -> Result<Vec<(u64, u64)>, Uncut> {
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
}
