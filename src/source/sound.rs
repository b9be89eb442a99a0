//! The sound that a source carries beside its pictures: FFmpeg's second pipe, emptied by a thread of its own into the stream's inlet, so that nothing about
//! the sound holds the pictures up. Each block's moment follows from the pictures' clock.

use std::io::{PipeReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Stop;
use super::session::time_of;
use crate::audio::{Capture, Entrance, Filler, Moment, Pcm, SAMPLE, samples};
use crate::clock::{Anchor, MonotonicTime};
use crate::encode::nut::{self, NutEvent};
use crate::threads;

/// No block of sound is larger.
const MOST_BYTES: usize = 1 << 20;
/// How many samples may wait: FFmpeg is ahead with them by as many pictures as fit into their pipe, many if they are small.
const ROOM: usize = 16 * 48_000;
/// Sound that is so much off what its times say, in samples, is put right: by silence, or by leaving some out.
const TOLERANCE: i64 = 960;
/// What is less off is the sound's own clock, or times that are rounded: so much of it is believed with each block, and a live timeline follows by resampling.
const BELIEVED: f64 = 1.0 / 32.0;
/// A longer hole is none, but another count of time.
const LONGEST_HOLE: i64 = 10 * 48_000;
const SAMPLES_A_SECOND: f64 = 48_000.0;
/// How soon it is looked again whether all sound was read.
const SOON: Duration = Duration::from_millis(20);

/// What the source's times are in ours: of a live stream the instants of capture, of a recording the time from its beginning. The pictures say it.
#[derive(Clone, Debug)]
pub(super) struct PictureClock(Arc<AtomicI64>);

/// Before the first picture.
const UNKNOWN: i64 = i64::MIN;

impl PictureClock {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(UNKNOWN)))
    }

    /// A picture of the source's time `at` was captured at `here`.
    pub(super) fn set(&self, at: Duration, here: MonotonicTime) {
        let at = i64::try_from(at.as_nanos()).unwrap_or(i64::MAX);
        let here = i64::try_from(here.0).unwrap_or(i64::MAX);
        self.0
            .store(here.saturating_sub(at).max(UNKNOWN + 1), Ordering::Relaxed);
    }

    /// What the source's time `at` is here, once that is known.
    fn here(&self, at: i64) -> Option<i64> {
        let offset = self.0.load(Ordering::Relaxed);
        (offset != UNKNOWN).then(|| at.saturating_add(offset))
    }
}

/// What a recording has already, in time from its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) pictures: MonotonicTime,
    pub(super) sound: MonotonicTime,
}

impl Known {
    /// The sound before this is let go, in nanoseconds: nobody takes any before new pictures come, and what is kept until then has to fit.
    fn until(self) -> u64 {
        let kept = ROOM as u64 / 2 * 1_000_000_000 / 48_000;
        self.sound.0.max(self.pictures.0.saturating_sub(kept))
    }
}

/// The thread.
pub(super) struct Sound {
    thread: JoinHandle<()>,
}

impl Sound {
    /// Reads what FFmpeg writes to `pipe` for as long as it does. In a recording, of which so much is `known`, FFmpeg waits while nobody takes it; else
    /// what nobody takes is let go.
    pub(super) fn start(
        pipe: PipeReader,
        entrance: &Entrance,
        clock: PictureClock,
        anchor: Anchor,
        known: Option<Known>,
    ) -> std::io::Result<Self> {
        let mut blocks = Blocks {
            filler: entrance.begin(ROOM),
            clock,
            anchor,
            waits: known.is_some(),
            from: known.map_or(0, Known::until),
            next: None,
            early: Vec::new(),
        };
        let thread = threads::spawn("source-sound", move || blocks.read(pipe))?;
        Ok(Self { thread })
    }

    /// Waits until all was read, or `stop`.
    pub(super) fn wait(self, stop: &Stop) {
        while !self.thread.is_finished() && !stop.wait(SOON) {}
    }
}

/// What is done with each block.
struct Blocks {
    filler: Filler,
    clock: PictureClock,
    anchor: Anchor,
    waits: bool,
    /// What ends before this is recorded already, in nanoseconds from the recording's beginning.
    from: u64,
    /// Where the next sample belongs, in samples of the source's time.
    next: Option<f64>,
    /// What has come before the first picture.
    early: Vec<Pcm>,
}

impl Blocks {
    /// Until the pipe's end; what can't be understood is passed over, for FFmpeg must not wait.
    fn read(&mut self, mut pipe: PipeReader) {
        let mut reader = nut::Reader::new(MOST_BYTES);
        let mut time_base = (1, 48_000);
        let mut buffer = vec![0; 64 << 10];
        let mut broken = false;
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => reader.push(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            }
            while !broken {
                match reader.next() {
                    Ok(None) => break,
                    Ok(Some(NutEvent::Track(track))) => time_base = track.time_base,
                    Ok(Some(NutEvent::Packet(packet))) => {
                        self.take(time_of(packet.pts, time_base), &packet.data);
                    }
                    Err(error) => {
                        tracing::warn!(
                            "the sound of a source can't be read any more, and silence follows: {error}"
                        );
                        broken = true;
                    }
                }
            }
        }
    }

    /// Takes the block of the source's time `at`.
    fn take(&mut self, at: Duration, bytes: &[u8]) {
        let at = at.as_secs_f64() * SAMPLES_A_SECOND;
        let mut block: Vec<Pcm> = samples(&bytes[..bytes.len() / SAMPLE * SAMPLE]).collect();
        let mut next = self.next.unwrap_or(at);
        match whole(at - next) {
            hole if (TOLERANCE..LONGEST_HOLE).contains(&hole) => {
                let hole = usize::try_from(hole).unwrap_or(0);
                block.splice(0..0, std::iter::repeat_n([0.0; 2], hole));
            }
            twice if (-LONGEST_HOLE..-TOLERANCE).contains(&twice) => {
                let twice = usize::try_from(-twice).unwrap_or(0);
                block.drain(..twice.min(block.len()));
            }
            small if small.abs() < LONGEST_HOLE => next += (at - next) * BELIEVED,
            _ => next = at,
        }
        let end = next + block.len() as f64;
        self.next = Some(end);
        let nanos = whole(end * 1e9 / SAMPLES_A_SECOND);
        let Some(captured) = self.clock.here(nanos) else {
            // Before the first picture nobody knows when that was; of more than fits the newest counts.
            self.early.append(&mut block);
            let surplus = self.early.len().saturating_sub(ROOM);
            self.early.drain(..surplus);
            return;
        };
        if !self.early.is_empty() {
            self.early.append(&mut block);
            block = std::mem::take(&mut self.early);
        }
        let Ok(captured) = u64::try_from(captured) else {
            // Before a recording's beginning.
            return;
        };
        if captured < self.from {
            return;
        }
        let moment = Moment {
            captured: Capture::Known(MonotonicTime(captured)),
            came: self.anchor.monotonic(),
        };
        if self.waits {
            // Once nobody takes it any more, it is emptied out.
            self.filler.put(block, moment, || self.anchor.monotonic());
        } else if !self.filler.offer(&block, moment) {
            // What is older is of no use any more.
            self.filler.clear();
            self.filler.offer(&block, moment);
        }
    }
}

/// The nearest whole number.
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is too large becomes the largest"
)]
fn whole(number: f64) -> i64 {
    number.round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::inlet::{Inlet, inlet};
    use crate::clock::SystemClock;
    use crate::tick::SAMPLE_RATE;

    fn blocks(clock: &PictureClock) -> (Blocks, Inlet) {
        let (filler, inlet) = inlet(SAMPLE_RATE, ROOM);
        let blocks = Blocks {
            filler,
            clock: clock.clone(),
            anchor: Anchor::new(Arc::new(SystemClock)),
            waits: false,
            from: 0,
            next: None,
            early: Vec::new(),
        };
        (blocks, inlet)
    }

    fn bytes(value: f32, count: usize) -> Vec<u8> {
        [value.to_le_bytes(), value.to_le_bytes()]
            .concat()
            .repeat(count)
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// The loudness of each sample, and the place of the end of what has come, in milliseconds.
    fn taken(inlet: &Inlet) -> (Vec<f32>, Vec<u64>) {
        let mut samples = Vec::new();
        inlet.take(usize::MAX, |some| samples.extend(some.map(|pcm| pcm[0])));
        let places = inlet.arrivals().into_iter();
        let places = places.map(|arrival| arrival.moment.captured.time().unwrap().0 / 1_000_000);
        (samples, places.collect())
    }

    #[test]
    fn sound_is_placed_by_the_pictures_even_what_came_before_the_first() {
        let clock = PictureClock::new();
        let (mut blocks, inlet) = blocks(&clock);
        blocks.take(millis(0), &bytes(0.1, 480));
        assert_eq!(taken(&inlet), (vec![], vec![]));
        clock.set(millis(5), MonotonicTime(1_005_000_000));
        blocks.take(millis(10), &bytes(0.2, 480));
        let (samples, places) = taken(&inlet);
        assert_eq!((samples.len(), places), (960, vec![1020]));
        assert_eq!((samples[0], samples[959]), (0.1, 0.2));
        clock.set(millis(45), MonotonicTime(1_046_000_000));
        blocks.take(millis(20), &bytes(0.2, 480));
        assert_eq!(taken(&inlet).1, [1031]);
    }

    #[test]
    fn of_a_recording_that_goes_on_only_as_much_waits_as_fits() {
        let at = |seconds: u64| MonotonicTime(seconds * 1_000_000_000);
        let until = |pictures, sound| {
            let (pictures, sound) = (at(pictures), at(sound));
            MonotonicTime(Known { pictures, sound }.until())
        };
        assert_eq!(
            [until(0, 0), until(60, 59), until(60, 20)],
            [at(0), at(59), at(52)]
        );
        let clock = PictureClock::new();
        clock.set(millis(0), MonotonicTime(0));
        let (mut blocks, inlet) = blocks(&clock);
        blocks.from = 20_000_000;
        for (number, value) in [0.1, 0.2, 0.3].into_iter().enumerate() {
            blocks.take(millis(10 * number as u64), &bytes(value, 480));
        }
        let (samples, places) = taken(&inlet);
        assert_eq!(
            (samples[0], samples.len(), places),
            (0.2, 960, vec![20, 30])
        );
    }

    #[test]
    fn holes_become_silence_and_what_comes_twice_is_left_out() {
        let clock = PictureClock::new();
        clock.set(millis(0), MonotonicTime(0));
        let (mut blocks, inlet) = blocks(&clock);
        blocks.take(millis(0), &bytes(0.1, 480));
        blocks.take(millis(60), &bytes(0.2, 480));
        let (samples, places) = taken(&inlet);
        assert_eq!((samples.len(), places), (70 * 48, vec![10, 70]));
        assert_eq!((samples[480], samples[60 * 48]), (0.0, 0.2));
        blocks.take(millis(40), &bytes(0.3, 40 * 48));
        let (samples, places) = taken(&inlet);
        assert_eq!((samples.len(), places), (480, vec![80]));
        // A little off is what rounding and resamplers make.
        blocks.take(millis(82), &bytes(0.3, 480));
        assert_eq!(taken(&inlet).0.len(), 480);
        // An hour is no hole.
        blocks.take(millis(3_600_000), &bytes(0.3, 480));
        let (samples, places) = taken(&inlet);
        assert_eq!((samples.len(), places), (480, vec![3_600_010]));
    }

    #[test]
    fn ten_minutes_of_a_clock_that_is_100_ppm_off_are_where_their_times_say_and_have_no_seam() {
        let clock = PictureClock::new();
        clock.set(millis(0), MonotonicTime(0));
        let (mut blocks, inlet) = blocks(&clock);
        const BLOCK: u64 = 1024;
        let samples = bytes(0.1, 1024);
        for block in 0..600 * 48_000 / BLOCK {
            // As RTMP has them: in whole milliseconds.
            let at = Duration::from_nanos(block * BLOCK * 1_000_100 / 48);
            blocks.take(
                Duration::from_millis(at.as_millis().try_into().unwrap()),
                &samples,
            );
            let (taken, places) = (inlet.take(usize::MAX, |_| ()), inlet.arrivals());
            assert_eq!(
                (taken, places.len()),
                (1024, 1),
                "no sample is put in or left out"
            );
            let Capture::Known(end) = places[0].moment.captured else {
                panic!("its place is known");
            };
            let due = ((block + 1) * BLOCK) as f64 * 1000.1 / 48.0 * 1000.0;
            let off = (end.0 as f64 - due).abs() / 1e6;
            assert!(off < 2.0, "block {block} is {off} ms off");
        }
    }

    #[test]
    fn of_live_sound_that_nobody_takes_the_newest_stays() {
        let clock = PictureClock::new();
        clock.set(millis(0), MonotonicTime(0));
        let (mut blocks, inlet) = blocks(&clock);
        for second in 0..40 {
            blocks.take(millis(second * 1000), &bytes(0.1, 48_000));
        }
        let (samples, places) = taken(&inlet);
        assert!(!samples.is_empty() && samples.len() <= ROOM);
        assert_eq!(places.last(), Some(&40_000));
    }
}
