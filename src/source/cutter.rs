//! Where a copied source's segments end: at its own keyframes. A segment is held until it is known where the next one begins, so that it is
//! neither too long for the playlist nor shorter than it has to be. Pure; times are ticks of the source, from its beginning.

use std::time::Duration;

use crate::package::MAX_PART_BYTES;
use crate::tick::{Framerate, Grid, Tick};

use super::fragments::Packet;

/// A keyframe that comes so much of a segment too early still begins the next one: clocks and timestamps are never exact.
const EARLY: u64 = 20;
/// Until then, the next keyframe is waited for, so that people can be told how far they are apart.
const LONGEST_SEARCH: u64 = 60 * 90_000;
/// `segment` can't be longer.
const LONGEST_SEGMENT: Duration = Duration::from_secs(20);
/// No frame of sound lasts longer: that of AAC at 7350 samples a second.
const LONGEST_FRAME: u64 = 90_000 * 3 / 20;
/// A sample that seems to last longer is followed by a leap in the source's times.
const LONGEST_SAMPLE: u64 = 10 * 90_000;

/// A sample, and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) packet: Packet,
    /// Whether decoding can start at it.
    pub(super) idr: bool,
    /// The tick of the clock at which it came.
    pub(super) came: Tick,
}

/// Whole segments, each from a keyframe on: in each, every sample lasts until the next one.
pub(super) type Segment = Vec<Taken>;

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
}

impl Cutter {
    /// For the segments of `grid`, which is a copied stream's; with sound, a segment of which may be longer by a frame. One keyframe of a `lossy`
    /// source may be missing: its pictures are left out until the next.
    pub(super) fn new(grid: &Grid, lossy: bool, with_sound: bool) -> Self {
        let spare = if with_sound { LONGEST_FRAME } else { 0 };
        let longest = u64::from(grid.ticks_per_segment.get()).saturating_sub(spare);
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
        }
    }

    /// How far apart keyframes were at most.
    pub(super) fn keyframe_distance(&self) -> Option<Duration> {
        (self.distance > 0).then(|| duration_of(self.distance))
    }

    /// Whether `packet` does not follow in the source's times on what came before it.
    pub(super) fn leaps_to(&self, packet: &Packet) -> bool {
        self.held.last().is_some_and(|last| {
            let before = last.packet.decode_time;
            packet.decode_time <= before || packet.decode_time - before > LONGEST_SAMPLE
        })
    }

    /// A keyframe of an open group has come: it is no place to cut at.
    pub(super) fn note_open(&mut self) {
        self.open = true;
    }

    /// Takes the next sample, which does not leap; returns the segments that are whole with it. What comes before the first keyframe is left
    /// out.
    ///
    /// # Errors
    /// When no segment can be made of the source.
    pub(super) fn push(&mut self, taken: Taken) -> Result<Vec<Segment>, Uncut> {
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

    /// The source has ended, or leaps: what is there is its last segment.
    pub(super) fn finish(&mut self) -> Option<Segment> {
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
        let segment = self.cut(self.held.len());
        (self.open, self.last_keyframe) = (false, None);
        Some(segment)
    }

    /// Why there is no more to finish, if the source has ended while its next keyframe was looked for.
    pub(super) fn uncut(&self) -> Option<Uncut> {
        self.sparse
            .map(|(_, distance)| self.too_sparse(distance, true))
    }

    fn too_sparse(&self, distance: u64, beyond: bool) -> Uncut {
        Uncut::Sparse {
            distance: duration_of(distance),
            beyond,
            needs: duration_of(distance + self.spare),
            open: self.open,
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
        if let Some(before) = self.last_keyframe.replace(at) {
            self.distance = self.distance.max(at.saturating_sub(before));
        }
        self.open = false;
    }

    /// No segment can be made of the source; only how far apart its keyframes are is not known yet.
    fn search(&mut self, since: u64, at: u64, idr: bool) -> Result<(), Uncut> {
        let distance = at.saturating_sub(since);
        self.sparse = Some((since, distance));
        let beyond = distance > LONGEST_SEARCH;
        if !idr && !beyond {
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

fn duration_of(ticks: u64) -> Duration {
    Framerate::COPIED.duration_of(ticks)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const SECOND: u64 = 90_000;

    fn cutter(segment: Duration) -> Cutter {
        Cutter::new(&Grid::copied(segment), false, false)
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
            let whole = cutter.push(taken(millis, keyframes.contains(&millis)))?;
            lengths.extend(whole.iter().map(length));
        }
        lengths.extend(cutter.finish().as_ref().map(length));
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
        let mut heard = Cutter::new(&Grid::copied(Duration::from_secs(2)), false, true);
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
        assert_eq!(cutter.finish(), None);
        let over = sparse(Duration::from_millis(3960), true);
        assert_eq!(cutter.uncut(), Some(over));
    }

    #[test]
    fn a_keyframe_that_a_camera_loses_costs_its_segment_and_no_more_if_it_is_alone() {
        let run = |keyframes: &[u64]| {
            let mut cutter = Cutter::new(&Grid::copied(Duration::from_secs(1)), true, false);
            let mut begun = Vec::new();
            for millis in (0..8000).step_by(40) {
                let whole = cutter.push(taken(millis, keyframes.contains(&millis)))?;
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
        assert_eq!(cutter.finish(), None);
        assert_eq!(cutter.push(taken(40, true)), Ok(Vec::new()));
        assert_eq!(cutter.push(taken(80, false)), Ok(Vec::new()));
        assert!(!cutter.leaps_to(&taken(120, false).packet));
        assert!(cutter.leaps_to(&taken(80, false).packet));
        assert!(cutter.leaps_to(&taken(20_000, false).packet));
        // The last sample's duration reached over the leap.
        let mut far = taken(120, false);
        far.packet.duration = u32::try_from(20 * SECOND).unwrap();
        assert_eq!(cutter.push(far), Ok(Vec::new()));
        let last = cutter.finish().unwrap();
        let durations: Vec<_> = last.iter().map(|taken| taken.packet.duration).collect();
        assert_eq!(durations, [3600; 3]);
        assert_eq!(cutter.keyframe_distance(), None);
    }
}
