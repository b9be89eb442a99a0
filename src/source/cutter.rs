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
                    "{shown} has a segment of {} MiB, more than is published: make segment of [streams.{stream}] shorter, lower the source's bitrate, or write an encoder instead of codec = \"copy\"",
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
#[path = "cutter_tests.rs"]
mod tests;
