//! One track of sound beside copied pictures: its frames as they come, and for each segment of pictures those that start within it, in parts of so many,
//! with silence where there are none. So each segment has its sound, whatever the source does. Pure; times are ticks of 90 kHz in the source's time, if not said otherwise.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::fragments::Packet;
use crate::config::AudioCodec;
use crate::encode::copied_sound::{CopiedSound, SoundError};
use crate::tick::Framerate;

/// Pictures that are so much further, in ticks, wait no longer for the sound that goes with those before them.
const MAY_BE_LATE: u64 = 2 * 90_000;
/// By so much sound may come later than it ever did, before it is not waited for.
const LATER: u64 = 90_000 / 2;
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
    /// What the segment under way is of.
    segment: Option<Voice>,
    /// Its frames that are in no part yet, in ticks.
    loose: Vec<(u64, Bytes)>,
    /// Whether it has a frame.
    begun: bool,
    /// Whether it has been waited for in vain since its last frame came.
    overdue: bool,
    /// How far behind the pictures a frame of it came at most, since the source was opened; none if none has come.
    behind: Option<u64>,
}

/// What the sound of one segment is of: what comes later and is another is heard from the next one on.
#[derive(Clone, Debug)]
struct Voice {
    track: Arc<CopiedSound>,
    scale: u32,
    /// A frame's length in its own times, and where the next one begins.
    frame: u64,
    at: u64,
}

/// A part of sound: frames with their beginnings, each of which lasts until the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// At least one.
    pub(super) frames: Vec<(u64, Bytes)>,
    pub(super) end: u64,
}

impl Voice {
    /// The tick at which its next frame begins.
    fn begins(&self) -> u64 {
        scaled(self.at, Framerate::COPIED.num(), self.scale)
    }
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
            segment: None,
            loose: Vec::new(),
            begun: false,
            overdue: false,
            behind: None,
        }
    }

    /// The source is opened anew, or its times leap: nothing is known of it.
    pub(super) fn forget(&mut self) {
        self.begin_anew();
        (self.segment, self.overdue, self.behind) = (None, false, None);
    }

    /// What waits belongs to nothing any more.
    fn begin_anew(&mut self) {
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

    /// Takes its next frame; the pictures have come to `at`.
    pub(super) fn push(&mut self, packet: Packet, at: u64) {
        // What is so late says nothing of what can be waited for.
        let segment = self.segment.as_ref();
        let begins = self.ticks(packet.decode_time);
        self.behind = self.behind.max(Some(at.saturating_sub(begins)));
        let due = begins.saturating_add(MAY_BE_LATE / 2);
        let in_time = |voice: &Voice| due > voice.begins();
        self.overdue &= !segment.is_none_or(in_time);
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

    /// How long it is waited for: as long as it ever was behind, and a little.
    pub(super) fn patience(&self) -> u64 {
        let known = self.behind.map(|behind| behind.saturating_add(LATER));
        known.map_or(MAY_BE_LATE, |known| known.min(MAY_BE_LATE))
    }

    /// Whether nothing of it can be waited for: it has not come in time, and nothing of it has come since.
    pub(super) fn is_overdue(&self) -> bool {
        self.overdue
    }

    /// What starts before `until` has been waited for in vain, if it has not come.
    pub(super) fn give_up(&mut self, until: u64) {
        self.overdue |= !self.reaches(until);
    }

    /// A segment begins, shown from `from` on. Returns what its sound is.
    pub(super) fn begin(&mut self, from: u64) -> Arc<CopiedSound> {
        let silent = || Arc::new(CopiedSound::silent(self.codec));
        let track = self.track.clone().unwrap_or_else(silent);
        let frame = track.frame_in(self.scale);
        self.segment = Some(Voice {
            track: Arc::clone(&track),
            scale: self.scale,
            frame,
            at: self.first(from, frame),
        });
        self.loose.clear();
        self.begun = false;
        track
    }

    /// The segment's parts of `count` frames that are whole once its pictures have come to `until`, and where it `ends` there, the rest, too: then it has
    /// at least one frame.
    pub(super) fn take(&mut self, until: u64, count: usize, ends: bool) -> Vec<Run> {
        let Some(mut voice) = self.segment.take() else {
            return Vec::new();
        };
        let own = voice.scale == self.scale && self.is_of(&voice.track);
        while voice.begins() < until || ends && !self.begun {
            let data = own.then(|| self.frame_at(voice.at, voice.frame)).flatten();
            let data = data.unwrap_or_else(|| voice.track.silence());
            self.loose.push((voice.begins(), data));
            self.begun = true;
            voice.at = match own {
                true => self.after(voice.at, voice.frame),
                false => voice.at + voice.frame,
            };
        }
        self.next = Some(voice.at).filter(|_| voice.scale == self.scale);
        let count = count.max(1);
        let mut runs = Vec::new();
        while self.loose.len() >= count || ends && !self.loose.is_empty() {
            let rest = self.loose.split_off(count.min(self.loose.len()));
            let frames = std::mem::replace(&mut self.loose, rest);
            let next = self.loose.first().map(|(at, _)| *at);
            let end = next.unwrap_or_else(|| voice.begins());
            runs.push(Run { frames, end });
        }
        self.segment = Some(voice);
        runs
    }

    fn is_of(&self, track: &CopiedSound) -> bool {
        self.track.as_deref().is_none_or(|own| own == track)
    }

    /// The frame that begins at `at`, if it has come. What overlaps with what there is already would be heard twice.
    fn frame_at(&mut self, at: u64, frame: u64) -> Option<Bytes> {
        while self
            .front()
            .is_some_and(|first| first.saturating_add(frame / 2) < at)
        {
            self.drop_first();
        }
        let near = self.front().is_some_and(|first| first <= at + frame / 2);
        near.then(|| self.drop_first()).flatten()
    }

    /// Where the first frame that starts at `from` or later begins: where the one before it ended, if that is there, else as the frames say that there are.
    fn first(&mut self, from: u64, frame: u64) -> u64 {
        let within = from + self.span(frame) * 3 / 2;
        let near = |at: &u64| (from..within).contains(&self.ticks(*at));
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
        push_beside(track, samples, 0);
    }

    /// The same where pictures have come to `at`.
    fn push_beside(track: &mut Soundtrack, samples: u64, at: u64) {
        let packet = Packet {
            decode_time: samples,
            duration: 1024,
            composition_offset: 0,
            keyframe: true,
            data: Bytes::from_static(b"sound"),
        };
        track.push(packet, at);
    }

    /// The sound of a whole segment.
    fn whole(track: &mut Soundtrack, from: u64, until: u64) -> Run {
        track.begin(from);
        let mut runs = track.take(until, usize::MAX, true);
        assert_eq!(runs.len(), 1);
        runs.remove(0)
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
        let first = whole(&mut track, 1000, 91_000);
        let second = whole(&mut track, 91_000, 181_000);
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
        let run = whole(&mut track, 0, 18_000);
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
        let later = whole(&mut track, 900_000, 903_000);
        assert_eq!(heard(&later), [(900_000, false), (901_920, false)]);
    }

    #[test]
    fn sound_that_never_comes_is_silence_and_one_that_is_known_stays_what_it_was() {
        let mut track = Soundtrack::new(AudioCodec::Opus);
        assert_eq!(track.begin(500).description().codecs, "opus");
        let run = whole(&mut track, 500, 90_000);
        assert_eq!((run.frames[0].0, run.end), (500, 500 + 50 * 1800));
        assert_eq!(whole(&mut track, 90_000, 90_010).frames.len(), 1);
        let mut known = opened();
        let before = known.begin(0);
        known.begin_anew();
        assert!(Arc::ptr_eq(&before, &known.begin(0)));
    }

    #[test]
    fn parts_have_as_many_frames_as_they_are_to_and_the_last_what_is_left() {
        let mut track = opened();
        for frame in 0..60 {
            push(&mut track, frame * 1024);
        }
        track.begin(0);
        let mut parts = Vec::new();
        for until in [18_000, 36_000, 54_000, 72_000] {
            parts.extend(track.take(until, 9, false));
        }
        parts.extend(track.take(90_000, 9, true));
        let counts: Vec<usize> = parts.iter().map(|part| part.frames.len()).collect();
        assert_eq!(counts, [9, 9, 9, 9, 9, 2]);
        for pair in parts.windows(2) {
            assert_eq!(pair[0].end, pair[1].frames[0].0);
        }
        // It is over without another frame.
        track.begin(90_000);
        let nine = 90_240 + 9 * 1920;
        assert_eq!(track.take(nine, 3, false).len(), 3);
        assert_eq!(track.take(nine, 3, true).len(), 0);
    }

    #[test]
    fn sound_that_opens_within_a_segment_is_heard_from_the_next_one_on() {
        let mut track = Soundtrack::new(AudioCodec::Copy);
        let before = track.begin(0);
        let mut parts = track.take(18_000, 3, false);
        let entry = before.description().sample_entry;
        track.open(&entry, 96_000).unwrap();
        for frame in 0..100 {
            push(&mut track, frame * 2048);
        }
        parts.extend(track.take(90_000, 3, true));
        let frames = parts.iter().flat_map(|part| &part.frames);
        assert!(frames.clone().all(|(_, data)| data != "sound"));
        let begins: Vec<u64> = frames.map(|(at, _)| *at).collect();
        assert!(begins.windows(2).all(|pair| pair[1] - pair[0] == 1920));
        track.begin(90_000);
        assert_eq!(&track.take(91_000, 1, false)[0].frames[0].1, "sound");
    }

    #[test]
    fn what_never_comes_is_waited_for_once() {
        let mut track = opened();
        push(&mut track, 0);
        track.begin(0);
        track.give_up(90_000);
        assert!(track.is_overdue());
        assert!(!track.take(360_000, 9, false).is_empty());
        // Four seconds late it can't be waited for, nor two, and less than one late it can.
        for late in [1024, 2 * 48_000] {
            push(&mut track, late);
            assert!(track.is_overdue());
        }
        push(&mut track, 3 * 48_000 + 9600);
        assert!(!track.is_overdue());
        // Of another opening nothing is known.
        track.give_up(900_000);
        track.forget();
        assert!(!track.is_overdue() && track.take(900_000, 9, true).is_empty());
    }

    #[test]
    fn sound_is_waited_for_no_longer_than_it_ever_was_behind_and_half_a_second() {
        let mut track = opened();
        assert_eq!(track.patience(), 180_000);
        push_beside(&mut track, 48_000, 90_000 + 9000);
        assert_eq!(track.patience(), 9000 + 45_000);
        push_beside(&mut track, 2 * 48_000, 90_000);
        assert_eq!(track.patience(), 9000 + 45_000);
        push_beside(&mut track, 3 * 48_000, 270_000 + 170_000);
        assert_eq!(track.patience(), 180_000);
        track.forget();
        assert_eq!(track.patience(), 180_000);
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
                let run = whole(&mut track, from, from + length);
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
