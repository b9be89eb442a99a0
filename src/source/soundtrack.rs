//! One track of sound beside copied pictures: its frames as they come, and for each segment of pictures those that start within it, with silence where there
//! are none. So each segment has its sound, whatever the source does. Pure; times are ticks of 90 kHz in the source's time, if not said otherwise.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::fragments::Packet;
use crate::config::AudioCodec;
use crate::encode::copied_sound::{CopiedSound, SoundError};
use crate::tick::Framerate;

/// What may wait for the pictures, in bytes and frames: an hour of most sound. The oldest is let go.
const MOST_BYTES: usize = 32 << 20;
const MOST_FRAMES: usize = 200_000;

/// One track, over all openings of its source.
#[derive(Debug)]
pub(super) struct Soundtrack {
    codec: AudioCodec,
    /// What it is, or was when it last came.
    track: Option<Arc<CopiedSound>>,
    /// Units a second of its own times.
    scale: u32,
    /// What has come, in its own times.
    frames: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// Where the next frame begins, in its own times.
    next: Option<u64>,
}

/// A stretch of sound: frames with their beginnings, each of which lasts until the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) track: Arc<CopiedSound>,
    /// At least one.
    pub(super) frames: Vec<(u64, Bytes)>,
    pub(super) end: u64,
}

impl Soundtrack {
    /// For sound that is to be of `codec`.
    pub(super) fn new(codec: AudioCodec) -> Self {
        Self {
            codec,
            track: None,
            scale: Framerate::COPIED.num(),
            frames: VecDeque::new(),
            bytes: 0,
            next: None,
        }
    }

    /// The source is opened anew, or its times leap: what waits belongs to nothing any more.
    pub(super) fn begin_anew(&mut self) {
        self.frames.clear();
        (self.bytes, self.next) = (0, None);
    }

    /// It comes, and is of this sample entry; its times are in units of which there are `scale` in a second.
    ///
    /// # Errors
    /// When it can't be published.
    pub(super) fn open(&mut self, entry: &Bytes, scale: u32) -> Result<(), SoundError> {
        let track = CopiedSound::new(entry)?;
        if self.track.as_deref() != Some(&track) {
            self.track = Some(Arc::new(track));
        }
        self.scale = scale.max(1);
        self.begin_anew();
        Ok(())
    }

    /// Takes its next frame.
    pub(super) fn push(&mut self, packet: Packet) {
        self.bytes += packet.data.len();
        self.frames.push_back((packet.decode_time, packet.data));
        while self.bytes > MOST_BYTES || self.frames.len() > MOST_FRAMES {
            self.drop_first();
        }
    }

    /// Whether all that starts before `until` has come.
    pub(super) fn reaches(&self, until: u64) -> bool {
        let newest = self.frames.back();
        newest.is_some_and(|(at, _)| self.ticks(*at) >= until)
    }

    /// The frames that start from `from` up to before `until`, at least one.
    pub(super) fn take(&mut self, from: u64, until: u64) -> Run {
        let silent = || Arc::new(CopiedSound::silent(self.codec));
        let track = self.track.clone().unwrap_or_else(silent);
        let frame = track.frame_in(self.scale);
        let mut at = self.begin(from, frame);
        let mut frames = Vec::new();
        while frames.is_empty() || self.ticks(at) < until {
            // What overlaps with what there is already would be heard twice.
            while self
                .front()
                .is_some_and(|first| first.saturating_add(frame / 2) < at)
            {
                self.drop_first();
            }
            let data = match self.front() {
                Some(first) if first <= at + frame / 2 => self.drop_first(),
                _ => None,
            };
            frames.push((self.ticks(at), data.unwrap_or_else(|| track.silence())));
            at = self.after(at, frame);
        }
        self.next = Some(at);
        Run {
            track,
            frames,
            end: self.ticks(at),
        }
    }

    /// Where the first frame that starts at `from` or later begins: where the one before it ended, if that is there, else as the frames say that there are.
    fn begin(&mut self, from: u64, frame: u64) -> u64 {
        let near = |at: &u64| (from..from + 2 * self.span(frame)).contains(&self.ticks(*at));
        if let Some(at) = self.next.filter(near) {
            return at;
        }
        while self.front().is_some_and(|first| self.ticks(first) < from) {
            self.drop_first();
        }
        let least = self.units(from);
        match self.front() {
            Some(first) => first - (first - least) / frame * frame,
            None => least,
        }
    }

    /// Where the frame after one at `at` begins: where the source says, unless that is a hole, or an overlap.
    fn after(&self, at: u64, frame: u64) -> u64 {
        let expected = at + frame;
        let near = |first: &u64| first.abs_diff(expected) <= frame / 2;
        self.front().filter(near).unwrap_or(expected)
    }

    fn front(&self) -> Option<u64> {
        self.frames.front().map(|(at, _)| *at)
    }

    fn drop_first(&mut self) -> Option<Bytes> {
        let (_, data) = self.frames.pop_front()?;
        self.bytes -= data.len();
        Some(data)
    }

    /// The tick of a time of its own.
    fn ticks(&self, at: u64) -> u64 {
        scaled(at, Framerate::COPIED.num(), self.scale)
    }

    /// How many ticks so many units last, rounded up.
    fn span(&self, units: u64) -> u64 {
        self.ticks(units) + 1
    }

    /// The first time of its own whose tick is not before `ticks`.
    fn units(&self, ticks: u64) -> u64 {
        let units = scaled(ticks, self.scale, Framerate::COPIED.num());
        if self.ticks(units) < ticks {
            return units + 1;
        }
        units
    }
}

/// `at` times `num` / `den`, rounded down.
fn scaled(at: u64, num: u32, den: u32) -> u64 {
    let scaled = u128::from(at) * u128::from(num) / u128::from(den.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of 48 kHz, with frames of 1024 samples: 1920 ticks.
    fn opened() -> Soundtrack {
        let mut track = Soundtrack::new(AudioCodec::Copy);
        let silent = CopiedSound::silent(AudioCodec::Copy).description();
        track.open(&silent.sample_entry, 48_000).unwrap();
        track
    }

    fn push(track: &mut Soundtrack, samples: u64) {
        track.push(Packet {
            decode_time: samples,
            duration: 1024,
            composition_offset: 0,
            keyframe: true,
            data: Bytes::from_static(b"sound"),
        });
    }

    /// When each frame begins, and whether it is of the source.
    fn heard(run: &Run) -> Vec<(u64, bool)> {
        let frames = run.frames.iter();
        frames.map(|(at, data)| (*at, data == "sound")).collect()
    }

    #[test]
    fn each_segment_has_the_frames_that_start_in_it_without_a_seam() {
        let mut track = opened();
        for frame in 0..200 {
            push(&mut track, frame * 1024);
        }
        assert!(track.reaches(180_000) && !track.reaches(400_000));
        let first = track.take(1000, 91_000);
        let second = track.take(91_000, 181_000);
        assert_eq!(first.frames[0].0, 1920);
        assert_eq!((first.end, second.frames[0].0), (92_160, 92_160));
        assert_eq!(first.frames.len() + second.frames.len(), 94);
        assert!(
            heard(&first)
                .iter()
                .chain(&heard(&second))
                .all(|(_, sound)| *sound)
        );
    }

    #[test]
    fn where_nothing_comes_there_is_silence_on_the_sources_own_frames() {
        let mut track = opened();
        // It begins late, and has a hole of three and a bit frames.
        for samples in [3000, 4024, 4024 + 4 * 1024 + 100] {
            push(&mut track, samples);
        }
        let run = track.take(0, 18_000);
        let scaled = |samples: u64| samples * 90 / 48;
        let expected = [
            (scaled(952), false),
            (scaled(1976), false),
            (scaled(3000), true),
            (scaled(4024), true),
            (scaled(5048), false),
            (scaled(6072), false),
            (scaled(7096), false),
            (scaled(8220), true),
            (scaled(9244), false),
        ];
        assert_eq!(heard(&run), expected);
        // Far beyond what was there nothing is made up for.
        let later = track.take(900_000, 903_000);
        assert_eq!(heard(&later), [(900_000, false), (901_920, false)]);
    }

    #[test]
    fn sound_that_never_comes_is_silence_and_one_that_is_known_stays_what_it_was() {
        let mut track = Soundtrack::new(AudioCodec::Opus);
        let run = track.take(500, 90_000);
        assert_eq!(run.track.description().codecs, "opus");
        assert_eq!((run.frames[0].0, run.end), (500, 500 + 50 * 1800));
        assert_eq!(track.take(90_000, 90_010).frames.len(), 1);
        let mut known = opened();
        let before = known.take(0, 90_000).track;
        known.begin_anew();
        assert!(Arc::ptr_eq(&before, &known.take(0, 90_000).track));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn however_the_source_stutters_its_sound_goes_on_in_steps_of_about_a_frame(
            times in proptest::collection::vec(0_u64..400_000, 0..300),
            cuts in proptest::collection::vec(1_u64..200_000, 1..6),
        ) {
            let mut track = opened();
            for at in times {
                push(&mut track, at);
            }
            let (mut from, mut end) = (0, None);
            for length in cuts {
                let run = track.take(from, from + length);
                let first = run.frames[0].0;
                prop_assert_eq!(first, end.unwrap_or(first));
                let begins = run.frames.iter().map(|(at, _)| *at);
                let edges: Vec<u64> = begins.chain([run.end]).collect();
                for pair in edges.windows(2) {
                    prop_assert!((950..=2900).contains(&(pair[1] - pair[0])), "{edges:?}");
                }
                let tiny = length < 2 * 1920;
                prop_assert!(run.end >= from + length || tiny);
                (from, end) = (from + length, Some(run.end).filter(|_| !tiny));
                if tiny {
                    break;
                }
            }
        }
    }
}
