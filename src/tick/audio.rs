//! The grids of audio tracks: their ticks are audio frames, and their segments follow from the video's.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::{Framerate, Grid, Tick};

/// The samples per second of every audio track.
pub const SAMPLE_RATE: NonZeroU32 = NonZeroU32::new(48_000).unwrap();

/// What an audio track's grid takes over from its stream's: a tick of it is one audio frame, counted from the epoch like any tick, and its
/// segments hold the frames that start inside the video's segments, so that the edges of both are equal within a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u32, u32, u32, u32)", into = "(u32, u32, u32, u32)")]
pub struct AudioEdges {
    /// How many samples a frame has; beside a copied stream, how many ticks.
    pub(super) samples: NonZeroU32,
    /// The video's framerate.
    framerate: Framerate,
    /// The video's segment, in its ticks.
    ticks_per_segment: NonZeroU32,
}

impl AudioEdges {
    /// The first frame that starts at or after `tick` of the video.
    fn first_frame_from(&self, tick: u128) -> Tick {
        let samples = tick * u128::from(self.framerate.den()) * u128::from(SAMPLE_RATE.get());
        let frame =
            samples.div_ceil(u128::from(self.framerate.num()) * u128::from(self.samples.get()));
        Tick(u64::try_from(frame).unwrap_or(u64::MAX))
    }

    /// The first frame that starts inside the segment of `index`, whatever its number.
    pub(super) fn first_frame(&self, index: u64) -> Tick {
        self.first_frame_from(u128::from(index) * u128::from(self.ticks_per_segment.get()))
    }

    /// The index of the segment that `frame` starts inside.
    pub(super) fn segment_index(&self, frame: Tick) -> u64 {
        let samples = u128::from(frame.0) * u128::from(self.samples.get());
        let tick = samples * u128::from(self.framerate.num())
            / (u128::from(self.framerate.den()) * u128::from(SAMPLE_RATE.get()));
        let index = tick / u128::from(self.ticks_per_segment.get());
        u64::try_from(index).unwrap_or(u64::MAX)
    }
}

impl TryFrom<(u32, u32, u32, u32)> for AudioEdges {
    type Error = String;

    fn try_from((samples, num, den, ticks): (u32, u32, u32, u32)) -> Result<Self, String> {
        let framerate = Framerate::try_from((num, den)).map_err(|error| error.to_string())?;
        match (NonZeroU32::new(samples), NonZeroU32::new(ticks)) {
            (Some(samples), Some(ticks_per_segment)) if audio_framerate(samples).is_some() => {
                Ok(Self {
                    samples,
                    framerate,
                    ticks_per_segment,
                })
            }
            _ => Err(format!(
                "no audio has frames of {samples} samples in segments of {ticks} ticks"
            )),
        }
    }
}

impl From<AudioEdges> for (u32, u32, u32, u32) {
    fn from(edges: AudioEdges) -> Self {
        let (num, den) = edges.framerate.into();
        (edges.samples.get(), num, den, edges.ticks_per_segment.get())
    }
}

/// How many frames of `samples` samples there are in a second.
fn audio_framerate(samples: NonZeroU32) -> Option<Framerate> {
    Framerate::new(SAMPLE_RATE.get(), samples.get()).ok()
}

impl Grid {
    /// The grid of an audio track beside this one, whose ticks are frames of `samples` samples; none if such frames are too long or too
    /// short to be any codec's. Its parts are as many whole frames as fit into this one's, so that none is longer. Beside a copied stream, whose
    /// ticks sound has too, a frame lasts `samples` of these, and a segment begins with the first frame that starts after its pictures.
    pub fn for_audio(&self, samples: NonZeroU32) -> Option<Self> {
        let framerate = audio_framerate(samples)?;
        let edges = AudioEdges {
            samples,
            framerate: self.framerate,
            ticks_per_segment: self.ticks_per_segment,
        };
        if self.cut.is_some() {
            let sound = Self {
                audio: Some(edges),
                ..*self
            };
            let parts = sound.is_cut_in_parts().then(|| {
                let frames = u64::from(samples.get()) * u64::from(self.frames_beside(samples));
                // Frames are stretched as pictures are, and end at whole ticks.
                u32::try_from(frames + frames / 100 + 1).ok()
            });
            let parts = parts.flatten().and_then(NonZeroU32::new);
            return Some(parts.map_or(sound, |parts| sound.with_parts_of(parts)));
        }
        let in_samples = |ticks: NonZeroU32| {
            u128::from(ticks.get())
                * u128::from(self.framerate.den())
                * u128::from(SAMPLE_RATE.get())
        };
        let frame = u128::from(self.framerate.num()) * u128::from(samples.get());
        let count = |frames: u128| {
            NonZeroU32::new(u32::try_from(frames).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
        };
        Some(Self {
            framerate,
            ticks_per_segment: count(in_samples(self.ticks_per_segment).div_ceil(frame)),
            ticks_per_part: count(in_samples(self.ticks_per_part) / frame),
            number_offset: self.number_offset,
            audio: Some(edges),
            cut: None,
        })
    }

    /// Beside a copied stream in parts, how many frames of `ticks` ticks a part of sound has: as many as fit into one of pictures, at least one.
    pub fn frames_beside(&self, ticks: NonZeroU32) -> u32 {
        (self.ticks_per_part.get() / ticks.get()).max(1)
    }

    /// The first audio frame of a stretch of video that begins with `tick` of the video: the first that starts no earlier, or where none
    /// does in that tick's segment, the last that starts in it. Of a grid of video, `tick` itself.
    pub fn first_beside(&self, tick: Tick) -> Tick {
        let Some(edges) = self.edges() else {
            return tick;
        };
        let segment = tick.0 / u64::from(edges.ticks_per_segment.get());
        let next = edges.first_frame(segment.saturating_add(1));
        let last = Tick(next.0.saturating_sub(1));
        edges.first_frame_from(u128::from(tick.0)).min(last)
    }

    /// Before how many ticks after its pictures a segment begins: of sound beside a copied stream, within a frame, whose length varies by half.
    pub fn begins_within(&self) -> u64 {
        let edges = self.audio.as_ref().filter(|_| self.cut.is_some());
        edges.map_or(1, |edges| u64::from(edges.samples.get()) * 3 / 2 + 1)
    }

    /// The framerate of the stream's video.
    pub fn video_framerate(&self) -> Framerate {
        self.audio
            .as_ref()
            .map_or(self.framerate, |edges| edges.framerate)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::tick::{SegmentNumber, UnixTime};

    // 2100-01-01 in nanoseconds.
    const YEAR_2100: u64 = 4_102_444_800_000_000_000;

    fn rate(text: &str) -> Framerate {
        text.parse().unwrap()
    }

    fn framerates() -> impl Strategy<Value = Framerate> {
        prop_oneof![
            (1_u32..=240).prop_map(|n| Framerate::new(n, 1).unwrap()),
            (2_u32..=240).prop_map(|n| Framerate::new(n * 1000, 1001).unwrap()),
        ]
    }

    #[test]
    fn aac_in_segments_of_two_seconds_has_93_or_94_frames() {
        let (two, third) = (Duration::from_secs(2), Duration::from_millis(333));
        let audio = Grid::new(rate("30"), two, third)
            .for_audio(NonZeroU32::new(1024).unwrap())
            .unwrap();
        assert_eq!((audio.framerate.num(), audio.framerate.den()), (375, 8));
        assert_eq!(audio.ticks_per_part.get(), 15, "320 ms");
        let frames: Vec<u64> = (900_000_000..900_000_008)
            .map(|number| {
                let first = audio.first_tick_of(SegmentNumber(number)).unwrap();
                audio.segment_end(first).since(first)
            })
            .collect();
        assert_eq!(frames.iter().sum::<u64>(), 750, "16 seconds to the frame");
        assert!(
            frames.iter().all(|count| [93, 94].contains(count)),
            "{frames:?}"
        );
        // 960 samples fit 2 s exactly: then audio's edges are the video's.
        let opus = Grid::new(rate("30"), two, third)
            .for_audio(NonZeroU32::new(960).unwrap())
            .unwrap();
        let number = SegmentNumber(900_000_000);
        assert_eq!(opus.first_tick_of(number), Some(Tick(number.0 * 100)));
    }

    #[test]
    fn audio_begins_in_the_segment_that_the_video_begins_in() {
        let video = Grid::new(
            rate("60"),
            Duration::from_secs(2),
            Duration::from_millis(333),
        );
        let audio = video.for_audio(NonZeroU32::new(1024).unwrap()).unwrap();
        assert_eq!(audio.first_beside(Tick(0)), Tick(0));
        for tick in (120_000..120_000 + 16 * 120).map(Tick) {
            let frame = audio.first_beside(tick);
            assert_eq!(audio.segment_of(frame), video.segment_of(tick), "{tick}");
            let late = i128::from(audio.time_of(frame).as_nanos())
                - i128::from(video.time_of(tick).as_nanos());
            assert!((-21_400_000..21_400_000).contains(&late), "{tick}: {late}");
        }
        assert_eq!(video.first_beside(Tick(7)), Tick(7));
    }

    #[test]
    fn a_grid_of_audio_is_written_and_read_back_and_video_as_before() {
        let video = Grid::new(
            rate("29.97"),
            Duration::from_secs(2),
            Duration::from_millis(333),
        );
        let text = serde_json::to_string(&video).unwrap();
        assert!(!text.contains("audio"), "{text}");
        let audio = video.for_audio(NonZeroU32::new(1024).unwrap()).unwrap();
        let text = serde_json::to_string(&audio).unwrap();
        assert_eq!(serde_json::from_str::<Grid>(&text).unwrap(), audio);
        for bad in [
            "[0,30,1,60]",
            "[1024,30,1,0]",
            "[1,30,1,60]",
            "[1024,0,1,60]",
        ] {
            assert!(serde_json::from_str::<AudioEdges>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn audio_segments_hold_the_frames_that_start_inside_the_videos(
            rate in framerates(), nanos in 0..YEAR_2100, segment_ms in 500_u64..20_000, part_ms in 100_u64..1_000, opus: bool,
        ) {
            let samples = NonZeroU32::new(if opus { 960 } else { 1024 }).unwrap();
            let video = Grid::new(rate, Duration::from_millis(segment_ms), Duration::from_millis(part_ms));
            let audio = video.for_audio(samples).unwrap();
            prop_assert_eq!(audio.timescale(), 48_000);
            let first = audio.tick_at(UnixTime::from_nanos(nanos));
            let start = audio.segment_start(first);
            let number = audio.segment_of(first);
            prop_assert_eq!(audio.first_tick_of(number), Some(start));
            // In units of 1/(48000 * num) seconds, exactly.
            let frame = |tick: Tick| u128::from(audio.decode_time(tick)) * u128::from(rate.num());
            let edge = |number: SegmentNumber| {
                u128::from(video.first_tick_of(number).unwrap().0) * u128::from(rate.den()) * 48_000
            };
            prop_assert!(frame(start) >= edge(number));
            prop_assert!(start.0 == 0 || frame(Tick(start.0 - 1)) < edge(number));
            let (mut tick, mut part) = (start, 0);
            loop {
                prop_assert_eq!(audio.segment_of(tick), number);
                prop_assert_eq!(audio.part_of(tick), part);
                prop_assert_eq!(audio.part_end(tick) == tick.next(), audio.ends_part(tick));
                prop_assert!(frame(tick) < edge(number.next()));
                prop_assert!(audio.ticks_into_segment(tick) < audio.ticks_per_segment.get());
                if audio.ends_part(tick) { part += 1; }
                tick = tick.next();
                if audio.starts_segment(tick) { break; }
            }
            prop_assert!(part <= audio.parts_per_segment() && part + 1 >= audio.parts_per_segment());
            prop_assert_eq!(audio.segment_of(tick), number.next());
            prop_assert_eq!(audio.segment_end(start), tick);
            let longest = video.framerate.duration_of(u64::from(video.ticks_per_part.get()));
            let part = audio.framerate.duration_of(u64::from(audio.ticks_per_part.get()));
            prop_assert!(part <= longest || audio.ticks_per_part.get() == 1);
        }
    }
}
