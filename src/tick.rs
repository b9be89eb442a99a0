//! The time grid. A live stream's ticks are counted from the Unix epoch, so that numbers, decode times and
//! segment edges follow from the clock alone: they go on after a restart and are equal on every machine.
//!
//! Everything here is arithmetic in whole numbers; clocks are read in [`crate::clock`].

mod audio;

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use audio::{AudioEdges, SAMPLE_RATE};

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// An instant: nanoseconds since 1970-01-01T00:00:00Z, leap seconds not counted (POSIX time). Good until 2554.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The instant `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The instant `seconds` seconds after the epoch.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1_000_000_000)
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the epoch, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Seconds since the epoch, for display and for JSON.
    pub fn as_secs_f64(self) -> f64 {
        Duration::from_nanos(self.0).as_secs_f64()
    }

    /// The time since `earlier`, zero if `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This instant moved later by `by`, saturating at the end of the range.
    pub fn saturating_add(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// This instant moved earlier by `by`, saturating at the epoch.
    pub fn saturating_sub(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// This instant as RFC 3339 in UTC with milliseconds, rounded down: `2026-01-31T23:59:59.999Z`.
    pub fn rfc3339(self) -> String {
        let nanos = self.0 - self.0 % 1_000_000;
        let time = std::time::UNIX_EPOCH + Duration::from_nanos(nanos);
        humantime::format_rfc3339_millis(time).to_string()
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// Frames per second as a fraction, in lowest terms unless [`Framerate::every`] made it. Its numerator is the timescale of the stream's video tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u32, u32)", into = "(u32, u32)")]
pub struct Framerate {
    num: NonZeroU32,
    den: NonZeroU32,
}

/// Why a framerate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FramerateError {
    /// Not a number, nor a fraction of two whole numbers.
    #[error("'{0}' is not a framerate: write it like 30, 29.97 or \"30000/1001\"")]
    Syntax(String),
    /// Outside of what the grid is made for.
    #[error("a framerate of {0} is out of range: 1 to 240 frames per second")]
    Range(String),
}

impl Framerate {
    /// What the ticks of a copied stream are counted in: 90 kHz, which every usual timestamp is a whole number of.
    pub const COPIED: Self = Self {
        num: NonZeroU32::new(90_000).expect("it is not zero"),
        den: NonZeroU32::MIN,
    };

    /// The framerate `num/den`, reduced. It has to lie between 1 and 240 frames per second, with `num` up to 240000.
    pub fn new(num: u32, den: u32) -> Result<Self, FramerateError> {
        let range = || FramerateError::Range(format!("{num}/{den}"));
        let divisor = gcd(num, den);
        if divisor == 0 {
            return Err(range());
        }
        let num = NonZeroU32::new(num / divisor).ok_or_else(range)?;
        let den = NonZeroU32::new(den / divisor).ok_or_else(range)?;
        let (n, d) = (u64::from(num.get()), u64::from(den.get()));
        if n < d || n > 240 * d || n > 240_000 {
            return Err(range());
        }
        Ok(Self { num, den })
    }

    /// The rate of every `ticks`th tick of this one; none below one frame per second. The numerator stays, as it is the timescale: every
    /// second tick of 30 is 30/2.
    #[must_use]
    pub fn every(self, ticks: NonZeroU32) -> Option<Self> {
        let den = self.den.checked_mul(ticks)?;
        (den <= self.num).then_some(Self { den, ..self })
    }

    /// How many of this rate's ticks one of `slower`'s lasts, if that is a whole number.
    pub fn ticks_of(self, slower: Self) -> Option<NonZeroU32> {
        let own = u64::from(self.num()) * u64::from(slower.den());
        let other = u64::from(slower.num()) * u64::from(self.den());
        let ticks = u32::try_from(own / other).ok().and_then(NonZeroU32::new);
        ticks.filter(|_| own.is_multiple_of(other))
    }

    /// Numerator: ticks in [`Self::den`] seconds, and the timescale of decode times.
    pub const fn num(self) -> u32 {
        self.num.get()
    }

    /// Denominator: one tick's duration in units of the timescale.
    pub const fn den(self) -> u32 {
        self.den.get()
    }

    /// The rate of samples that last `ticks` ticks of [`Self::COPIED`], as near to it as a rate can be.
    pub fn copied(ticks: u32) -> Self {
        let den = ticks.clamp(Self::COPIED.num() / 240, Self::COPIED.num());
        Self {
            den: NonZeroU32::new(den).unwrap_or(NonZeroU32::MIN),
            ..Self::COPIED
        }
    }

    /// The same rate in lowest terms.
    #[must_use]
    pub fn reduced(self) -> Self {
        Self::new(self.num(), self.den()).unwrap_or(self)
    }

    /// Numerator and denominator.
    pub const fn parts(self) -> (NonZeroU32, NonZeroU32) {
        (self.num, self.den)
    }

    /// Frames per second, rounded to a float, for display only.
    pub fn as_f64(self) -> f64 {
        f64::from(self.num.get()) / f64::from(self.den.get())
    }

    /// How many whole ticks fit `duration` best; a half is rounded up; never fewer than one.
    pub fn ticks_in(self, duration: Duration) -> NonZeroU32 {
        let divisor = u128::from(self.den()) * NANOS_PER_SECOND;
        let ticks = (duration.as_nanos() * u128::from(self.num()) + divisor / 2) / divisor;
        NonZeroU32::new(u32::try_from(ticks).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
    }

    /// How long `ticks` ticks last, rounded down to a nanosecond.
    pub fn duration_of(self, ticks: u64) -> Duration {
        let nanos =
            u128::from(ticks) * u128::from(self.den()) * NANOS_PER_SECOND / u128::from(self.num());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl FromStr for Framerate {
    type Err = FramerateError;

    /// Reads `30`, `12.5` or `30000/1001`. A decimal within 0.005 of n*1000/1001, written with a fraction
    /// (29.97, 23.976, 59.94), means exactly that.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || FramerateError::Syntax(text.to_owned());
        let text = text.trim();
        if let Some((num, den)) = text.split_once('/') {
            let num = num.trim().parse().map_err(|_| syntax())?;
            let den = den.trim().parse().map_err(|_| syntax())?;
            return Self::new(num, den);
        }
        let Some((whole, fraction)) = text.split_once('.') else {
            let whole: u64 = text.parse().map_err(|_| syntax())?;
            let num = u32::try_from(whole).map_err(|_| FramerateError::Range(text.to_owned()))?;
            return Self::new(num, 1);
        };
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || fraction.is_empty() || !digits(whole) || !digits(fraction) {
            return Err(syntax());
        }
        let fraction = fraction.trim_end_matches('0');
        if whole.len() > 6 || fraction.len() > 6 {
            return Err(FramerateError::Range(text.to_owned()));
        }
        let parse = |part: &str| {
            if part.is_empty() {
                Ok(0)
            } else {
                part.parse::<u64>()
            }
        };
        let den = 10_u64.pow(u32::try_from(fraction.len()).map_err(|_| syntax())?);
        let num =
            parse(whole).map_err(|_| syntax())? * den + parse(fraction).map_err(|_| syntax())?;
        // The nearest n*1000/1001, compared as |num/den - n*1000/1001| <= 1/200 without division.
        let nearest = (num * 1001 + den * 500) / (den * 1000);
        let distance = (num * 1001).abs_diff(nearest * 1000 * den);
        let (num, den) = if !fraction.is_empty() && distance * 200 <= den * 1001 {
            (nearest * 1000, 1001)
        } else {
            (num, den)
        };
        let divisor = gcd64(num, den).max(1);
        let narrow =
            |n: u64| u32::try_from(n / divisor).map_err(|_| FramerateError::Range(text.to_owned()));
        Self::new(narrow(num)?, narrow(den)?)
    }
}

impl fmt::Display for Framerate {
    /// `30` or `30000/1001`: what [`FromStr`] reads back to the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.den() == 1 {
            write!(f, "{}", self.num())
        } else {
            write!(f, "{}/{}", self.num(), self.den())
        }
    }
}

impl TryFrom<(u32, u32)> for Framerate {
    type Error = FramerateError;

    fn try_from((num, den): (u32, u32)) -> Result<Self, Self::Error> {
        if (num, den) == Self::COPIED.into() {
            return Ok(Self::COPIED);
        }
        // Not reduced: what was stored comes back with its timescale.
        Self::new(num, den)?;
        match (NonZeroU32::new(num), NonZeroU32::new(den)) {
            (Some(num), Some(den)) if num.get() <= 240_000 => Ok(Self { num, den }),
            _ => Err(FramerateError::Range(format!("{num}/{den}"))),
        }
    }
}

impl From<Framerate> for (u32, u32) {
    fn from(rate: Framerate) -> Self {
        (rate.num(), rate.den())
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn gcd64(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd64(b, a % b) }
}

/// The smallest number that is a multiple of both; the largest there is, where that is beyond it.
pub fn common_multiple(a: NonZeroU32, b: NonZeroU32) -> NonZeroU32 {
    let rest = b.get() / gcd(a.get(), b.get());
    NonZeroU32::new(rest).map_or(a, |rest| a.saturating_mul(rest))
}

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// This moved later by `by`.
            #[must_use]
            pub const fn plus(self, by: u64) -> Self {
                Self(self.0 + by)
            }

            /// How many lie from `earlier` up to this, 0 if `earlier` is not earlier.
            pub const fn since(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counted! {
    /// One step of a stream's time grid: tick n is shown from n/framerate for 1/framerate seconds.
    Tick
}
counted! {
    /// A segment's number: its media sequence number in HLS, its `$Number$` in DASH, its file's name.
    SegmentNumber
}

/// A part's place in its segment, from 0.
pub type PartNumber = u32;

/// A stream's grid: how ticks follow from the clock, and segments and parts from ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    /// Ticks per second.
    pub framerate: Framerate,
    /// A segment's length; of audio, whose segments differ by a frame, the longest's.
    pub ticks_per_segment: NonZeroU32,
    /// A part's length; a segment's last part may be shorter.
    pub ticks_per_part: NonZeroU32,
    /// What is added to a segment's number so that numbers rise when the grid changes; else 0.
    #[serde(default)]
    pub number_offset: u64,
    /// What makes it the grid of an audio track; none for video.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioEdges>,
    /// Of a copied stream: how many ticks a segment has at least, if its source's keyframes allow it. There a segment begins at any tick, and
    /// ends after [`Self::ticks_per_segment`] ticks at the latest; its number is one more than that of the segment before it, and follows
    /// from no tick. Its parts are numbered as they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<NonZeroU32>,
}

impl Grid {
    /// What the edges of its segments follow from, if its ticks are frames of sound: beside a copied stream, sound has the ticks of the pictures.
    fn edges(&self) -> Option<&AudioEdges> {
        self.audio.as_ref().filter(|_| self.cut.is_none())
    }

    /// Units per second of decode times: the timescale of its tracks.
    pub fn timescale(&self) -> u32 {
        match self.edges() {
            Some(_) => SAMPLE_RATE.get(),
            None => self.framerate.num(),
        }
    }

    /// A tick's duration in units of the timescale.
    pub fn tick_duration(&self) -> u32 {
        match self.edges() {
            Some(edges) => edges.samples.get(),
            None => self.framerate.den(),
        }
    }

    /// How many segments of this grid there have been before the one that holds `tick`, whatever its number.
    pub fn segment_index(&self, tick: Tick) -> u64 {
        match self.edges() {
            Some(edges) => edges.segment_index(tick),
            None => tick.0 / u64::from(self.ticks_per_segment.get()),
        }
    }

    /// The first tick of the segment of `index`, none beyond the range.
    fn first_of_index(&self, index: u64) -> Option<Tick> {
        match self.edges() {
            Some(edges) => Some(edges.first_frame(index)),
            None => index
                .checked_mul(u64::from(self.ticks_per_segment.get()))
                .map(Tick),
        }
    }

    /// The grid for a framerate and nominal lengths, each rounded to whole ticks (a part to at most a segment).
    pub fn new(framerate: Framerate, segment: Duration, part: Duration) -> Self {
        Self::in_steps(framerate, segment, part, NonZeroU32::MIN)
    }

    /// The same, each length rounded to whole steps of so many ticks: those of a rendition that shows fewer pictures.
    pub fn in_steps(
        framerate: Framerate,
        segment: Duration,
        part: Duration,
        step: NonZeroU32,
    ) -> Self {
        let in_steps = |length| {
            let ticks = u64::from(framerate.ticks_in(length).get());
            let step = u64::from(step.get());
            let whole = ((ticks + step / 2) / step).max(1) * step;
            NonZeroU32::new(u32::try_from(whole).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
        };
        let ticks_per_segment = in_steps(segment);
        let ticks_per_part = in_steps(part).min(ticks_per_segment);
        Self {
            framerate,
            ticks_per_segment,
            ticks_per_part,
            number_offset: 0,
            audio: None,
            cut: None,
        }
    }

    /// The grid of a copied stream: segments of `segment` or, where a keyframe comes later, as much longer as rounds to as many whole seconds,
    /// in parts of `part` at most, or each in one.
    pub fn copied(segment: Duration, part: Option<Duration>) -> Self {
        let framerate = Framerate::COPIED;
        let second = u64::from(framerate.num());
        let target = (segment + Duration::from_millis(500)).as_secs().max(1);
        let longest = u32::try_from(target * second + second / 2 - 1).unwrap_or(u32::MAX);
        let longest = NonZeroU32::new(longest).unwrap_or(NonZeroU32::MIN);
        Self {
            framerate,
            ticks_per_segment: longest,
            ticks_per_part: part.map_or(longest, |part| framerate.ticks_in(part).min(longest)),
            number_offset: 0,
            audio: None,
            cut: Some(framerate.ticks_in(segment).min(longest)),
        }
    }

    /// Whether a copied stream's segments have more than one part.
    pub fn is_cut_in_parts(&self) -> bool {
        self.cut.is_some() && self.ticks_per_part < self.ticks_per_segment
    }

    /// This grid with parts of so many ticks, at most a segment's.
    #[must_use]
    pub fn with_parts_of(self, ticks: NonZeroU32) -> Self {
        Self {
            ticks_per_part: ticks.min(self.ticks_per_segment),
            ..self
        }
    }

    /// The tick that is shown at `time`.
    pub fn tick_at(&self, time: UnixTime) -> Tick {
        let ticks = u128::from(time.as_nanos()) * u128::from(self.framerate.num())
            / (u128::from(self.framerate.den()) * NANOS_PER_SECOND);
        Tick(u64::try_from(ticks).unwrap_or(u64::MAX))
    }

    /// The first nanosecond at which `tick` is shown, so that `tick_at(time_of(tick)) == tick`.
    pub fn time_of(&self, tick: Tick) -> UnixTime {
        let scaled = u128::from(tick.0) * u128::from(self.framerate.den()) * NANOS_PER_SECOND;
        let nanos = scaled.div_ceil(u128::from(self.framerate.num()));
        UnixTime::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// `baseMediaDecodeTime` of `tick` in the timescale [`Self::timescale`] (ISO/IEC 14496-12, 8.8.12).
    pub fn decode_time(&self, tick: Tick) -> u64 {
        tick.0 * u64::from(self.tick_duration())
    }

    /// The tick whose decode time is `decode_time`, if there is one.
    pub fn tick_of_decode_time(&self, decode_time: u64) -> Option<Tick> {
        let unit = u64::from(self.tick_duration());
        decode_time
            .is_multiple_of(unit)
            .then(|| Tick(decode_time / unit))
    }

    /// The segment that holds `tick`.
    pub fn segment_of(&self, tick: Tick) -> SegmentNumber {
        SegmentNumber(self.segment_index(tick) + self.number_offset)
    }

    /// The part of its segment that holds `tick`.
    pub fn part_of(&self, tick: Tick) -> PartNumber {
        self.ticks_into_segment(tick) / self.ticks_per_part.get()
    }

    /// How many ticks lie between the start of its segment and `tick`.
    pub fn ticks_into_segment(&self, tick: Tick) -> u32 {
        u32::try_from(tick.since(self.segment_start(tick))).unwrap_or(u32::MAX)
    }

    /// The first tick of the segment that holds `tick`.
    pub fn segment_start(&self, tick: Tick) -> Tick {
        if self.cut.is_some() {
            return tick;
        }
        let start = self.first_of_index(self.segment_index(tick));
        start.expect("it is not after the tick")
    }

    /// The first tick of the segment after the one that holds `tick`; of a copied stream, after the longest that begins there.
    pub fn segment_end(&self, tick: Tick) -> Tick {
        match self.edges() {
            Some(edges) => edges.first_frame(edges.segment_index(tick).saturating_add(1)),
            None => self
                .segment_start(tick)
                .plus(u64::from(self.ticks_per_segment.get())),
        }
    }

    /// The first edge between segments that is not before `tick`.
    pub fn segment_edge(&self, tick: Tick) -> Tick {
        match self.starts_segment(tick) {
            true => tick,
            false => self.segment_end(tick),
        }
    }

    /// The first tick of segment `number`; none if the grid has no such number.
    pub fn first_tick_of(&self, number: SegmentNumber) -> Option<Tick> {
        self.first_of_index(number.0.checked_sub(self.number_offset)?)
    }

    /// Whether `tick` is the first of a segment, where every rendition has a keyframe.
    pub fn starts_segment(&self, tick: Tick) -> bool {
        self.ticks_into_segment(tick) == 0
    }

    /// Whether a part ends after `tick`: the next tick is in another part or segment.
    pub fn ends_part(&self, tick: Tick) -> bool {
        let next = self.ticks_into_segment(tick) + 1;
        tick.next() == self.segment_end(tick) || next.is_multiple_of(self.ticks_per_part.get())
    }

    /// How many parts a whole segment has; of audio, the longest.
    pub fn parts_per_segment(&self) -> u32 {
        self.ticks_per_segment
            .get()
            .div_ceil(self.ticks_per_part.get())
    }

    /// The first tick of the part after the one that holds `tick`, or of the next segment.
    pub fn part_end(&self, tick: Tick) -> Tick {
        let next = u64::from(self.part_of(tick)) + 1;
        self.segment_start(tick)
            .plus(next * u64::from(self.ticks_per_part.get()))
            .min(self.segment_end(tick))
    }

    /// Whether ticks and segment edges of both are the same, so that one can go on where the other stopped.
    pub fn same_edges(&self, other: &Self) -> bool {
        self.framerate == other.framerate
            && self.ticks_per_segment == other.ticks_per_segment
            && self.audio == other.audio
            && self.cut == other.cut
    }

    /// This grid with the smallest offset that makes the segment holding `first` come after segment `last`.
    #[must_use]
    pub fn numbered_after(mut self, first: Tick, last: SegmentNumber) -> Self {
        self.number_offset = 0;
        self.number_offset = last.next().since(self.segment_of(first));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(text: &str) -> Framerate {
        text.parse().unwrap()
    }

    #[test]
    fn a_rate_of_every_few_ticks_keeps_the_timescale() {
        let ntsc = rate("29.97");
        let half = ntsc.every(NonZeroU32::new(2).unwrap()).unwrap();
        assert_eq!((half.num(), half.den()), (30_000, 2002));
        assert_eq!(ntsc.ticks_of(half).map(NonZeroU32::get), Some(2));
        assert_eq!(ntsc.ticks_of(rate("14.985")).map(NonZeroU32::get), Some(2));
        assert_eq!(ntsc.ticks_of(rate("15")), None);
        assert_eq!(rate("12.5").ticks_of(rate("25")), None);
        assert_eq!(rate("30").every(NonZeroU32::new(31).unwrap()), None);
        let stored = <(u32, u32)>::from(half);
        assert_eq!(Framerate::try_from(stored), Ok(half));
    }

    #[test]
    fn a_copied_stream_has_the_longest_segments_that_round_to_its_target() {
        for (millis, nominal, longest) in [
            (2000, 180_000, 224_999),
            (6000, 540_000, 584_999),
            (1500, 135_000, 224_999),
            (2490, 224_100, 224_999),
            (500, 45_000, 134_999),
        ] {
            let grid = Grid::copied(Duration::from_millis(millis), None);
            assert_eq!(grid.cut.map(NonZeroU32::get), Some(nominal), "{millis}");
            assert_eq!(grid.ticks_per_segment.get(), longest, "{millis}");
            let stored = serde_json::to_string(&grid).unwrap();
            assert_eq!(serde_json::from_str::<Grid>(&stored).unwrap(), grid);
        }
        let now = UnixTime::from_nanos(1_795_416_192_123_456_789);
        let grid = Grid::copied(Duration::from_secs(2), None);
        let tick = grid.tick_at(now);
        assert!(now.saturating_since(grid.time_of(tick)) < Duration::from_micros(12));
        assert!(grid.starts_segment(tick) && grid.part_of(tick) == 0);
        assert_eq!(Framerate::copied(3003).reduced(), rate("29.97"));
    }

    #[test]
    fn segments_and_parts_are_whole_steps() {
        let ms = Duration::from_millis;
        for (framerate, step, segment, part) in [
            ("30", 2, 60, 10),
            ("25", 5, 50, 10),
            ("30", 3, 60, 9),
            ("30", 30, 60, 30),
        ] {
            let step = NonZeroU32::new(step).unwrap();
            let grid = Grid::in_steps(rate(framerate), ms(2000), ms(333), step);
            let ticks = (grid.ticks_per_segment.get(), grid.ticks_per_part.get());
            assert_eq!(ticks, (segment, part), "{framerate} in steps of {step}");
        }
    }

    #[test]
    fn framerates_are_read_as_people_write_them() {
        for (text, num, den) in [
            ("30", 30, 1),
            ("29.97", 30000, 1001),
            ("23.976", 24000, 1001),
            ("59.94", 60000, 1001),
            ("119.88", 120_000, 1001),
            ("12.5", 25, 2),
            ("30.0", 30, 1),
            ("60/2", 30, 1),
            ("30000/1001", 30000, 1001),
            ("7.5", 15, 2),
            ("14.985", 15000, 1001),
            ("1", 1, 1),
            ("240", 240, 1),
            ("1.5", 3, 2),
        ] {
            assert_eq!(rate(text), Framerate::new(num, den).unwrap(), "{text}");
        }
        for text in [
            "", "fast", "-30", "30fps", "1/0", "0/1", "3.", ".5", "1e3", "0x10", "30/-1",
        ] {
            assert!(text.parse::<Framerate>().is_err(), "{text}");
        }
        for text in [
            "0",
            "241",
            "0.5",
            "99999999999",
            "1/2",
            "480/1",
            "1000001/10000",
        ] {
            assert!(
                matches!(text.parse::<Framerate>(), Err(FramerateError::Range(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_grid_change_renumbers_upwards_and_no_further_than_needed() {
        let old = Grid::new(
            rate("30"),
            Duration::from_secs(2),
            Duration::from_millis(333),
        );
        let now = UnixTime::from_secs(1_800_000_000);
        let last = old.segment_of(old.tick_at(now));
        let longer = Grid::new(
            rate("30"),
            Duration::from_secs(4),
            Duration::from_millis(333),
        );
        let first = longer.tick_at(now);
        let longer = longer.numbered_after(first, last);
        assert_eq!(longer.segment_of(first), last.next());
        let shorter = Grid::new(
            rate("30"),
            Duration::from_secs(1),
            Duration::from_millis(333),
        );
        let shorter = shorter.numbered_after(shorter.tick_at(now), last);
        assert_eq!(shorter.number_offset, 0, "numbers rise by themselves");
    }

    #[test]
    fn a_part_ends_at_its_length_or_with_its_segment() {
        let grid = Grid::new(
            rate("25"),
            Duration::from_secs(1),
            Duration::from_millis(400),
        );
        let ends = [0, 9, 10, 19, 20, 24, 25].map(|tick| grid.part_end(Tick(tick)).0);
        assert_eq!(ends, [10, 10, 20, 20, 25, 25, 35]);
        for tick in (0..60).map(Tick) {
            assert_eq!(grid.ends_part(tick), grid.part_end(tick) == tick.next());
        }
    }

    fn framerates() -> impl Strategy<Value = Framerate> {
        prop_oneof![
            (1_u32..=240).prop_map(|n| Framerate::new(n, 1).unwrap()),
            (2_u32..=240).prop_map(|n| Framerate::new(n * 1000, 1001).unwrap()),
        ]
    }

    // 2100-01-01 in nanoseconds.
    const YEAR_2100: u64 = 4_102_444_800_000_000_000;

    proptest! {
        #[test]
        fn every_instant_lies_in_exactly_one_tick(rate in framerates(), nanos in 0..YEAR_2100) {
            let grid = Grid::new(rate, Duration::from_secs(2), Duration::from_millis(333));
            let time = UnixTime::from_nanos(nanos);
            let tick = grid.tick_at(time);
            prop_assert!(grid.time_of(tick) <= time);
            prop_assert!(time < grid.time_of(tick.next()));
            prop_assert_eq!(grid.tick_at(grid.time_of(tick)), tick);
            // The last nanosecond before a tick still belongs to the tick before it.
            let before = UnixTime::from_nanos(grid.time_of(tick.next()).as_nanos() - 1);
            prop_assert_eq!(grid.tick_at(before), tick);
        }

        #[test]
        fn decode_times_neither_drift_nor_overlap(rate in framerates(), nanos in 0..YEAR_2100, ahead in 0_u64..1_000_000) {
            let grid = Grid::new(rate, Duration::from_secs(2), Duration::from_millis(333));
            let tick = grid.tick_at(UnixTime::from_nanos(nanos));
            let later = tick.plus(ahead);
            let span = grid.decode_time(later) - grid.decode_time(tick);
            prop_assert_eq!(span, ahead * u64::from(rate.den()));
            prop_assert_eq!(grid.tick_of_decode_time(grid.decode_time(tick)), Some(tick));
            // In seconds: decode_time/timescale is the tick's time to within the nanosecond that time_of rounds up by.
            let exact = u128::from(grid.decode_time(later)) * NANOS_PER_SECOND;
            let rounded = u128::from(grid.time_of(later).as_nanos()) * u128::from(rate.num());
            prop_assert!(rounded >= exact && rounded - exact < u128::from(rate.num()));
        }

        #[test]
        fn segments_and_parts_tile_the_ticks(
            rate in framerates(), nanos in 0..YEAR_2100, segment_ms in 500_u64..20_000, part_ms in 100_u64..2_000,
        ) {
            let grid = Grid::new(rate, Duration::from_millis(segment_ms), Duration::from_millis(part_ms));
            let start = grid.segment_start(grid.tick_at(UnixTime::from_nanos(nanos)));
            let number = grid.segment_of(start);
            prop_assert_eq!(grid.first_tick_of(number), Some(start));
            prop_assert!(grid.starts_segment(start));
            let mut part = 0;
            for i in 0..grid.ticks_per_segment.get() {
                let tick = start.plus(u64::from(i));
                prop_assert_eq!(grid.segment_of(tick), number);
                prop_assert_eq!(grid.part_of(tick), part);
                prop_assert_eq!(grid.part_end(tick) == tick.next(), grid.ends_part(tick));
                if grid.ends_part(tick) { part += 1; }
            }
            let end = grid.segment_end(start);
            prop_assert_eq!(grid.segment_of(end), number.next());
            prop_assert_eq!(grid.part_of(end), 0);
            prop_assert_eq!(part, grid.ticks_per_segment.get().div_ceil(grid.ticks_per_part.get()));
        }

        #[test]
        fn numbers_rise_over_any_grid_change(
            old in framerates(), new in framerates(), nanos in 0..YEAR_2100, old_s in 1_u64..20, new_s in 1_u64..20,
        ) {
            let time = UnixTime::from_nanos(nanos);
            let old = Grid::new(old, Duration::from_secs(old_s), Duration::from_millis(333));
            let last = old.segment_of(old.tick_at(time));
            let new = Grid::new(new, Duration::from_secs(new_s), Duration::from_millis(333));
            let first = new.tick_at(time);
            let new = new.numbered_after(first, last);
            prop_assert!(new.segment_of(first) > last);
            prop_assert!(new.number_offset == 0 || new.segment_of(first) == last.next());
        }
    }
}
