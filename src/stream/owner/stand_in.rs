//! What viewers see while the encoder does not run: the slate, encoded ahead while it still did. Its samples go into the same
//! segments, parts and init segment as the encoder's, so that the window goes on without a gap, a break or a process.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;

use super::encoding::State;
use super::{Backlog, Event, Owner};
use crate::clock::MonotonicTime;
use crate::encode::{EncodeError, EncodePlan, encode_ahead};
use crate::faults;
use crate::ingest::notice;
use crate::package::{PackageError, Part, TrackPackager};
use crate::sample::{Sample, TrackDescription, TrackIndex};
use crate::tick::{Grid, Tick};

/// What the slate says under the stream's name.
const WORDS: &str = "the encoder gives no pictures";
/// When a slate that could not be had is tried again; each further time takes twice as long, five times.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// A segment with more parts than this has a further keyframe in its middle.
const MOST_SAMPLES: u32 = 32;

/// Why there is no slate.
#[derive(Debug, thiserror::Error)]
pub(in crate::stream) enum StandInError {
    #[error(
        "there is no memory for its picture: {0}; choose a smaller source, or leave the machine more memory"
    )]
    Memory(std::io::Error),
    #[error("there is no thread to encode it: {0}; allow the daemon more threads")]
    Thread(std::io::Error),
    #[error("{0}")]
    Encode(#[from] EncodeError),
}

/// Where a stream's slate is.
#[derive(Default)]
pub(super) enum Stage {
    /// It is encoded once the encoder has shown that it works.
    #[default]
    Wanted,
    /// A thread encodes it; [`Event::StandIn`] will come.
    InTheMaking,
    Ready(Vec<Reel>),
    /// It can't be had, which was said; it is tried again at this time.
    Missing {
        until: MonotonicTime,
    },
}

/// The slate as a stream's tracks have it.
#[derive(Default)]
pub(super) struct StandIn {
    /// What it is encoded as: it fits no other init segment.
    of: Vec<TrackDescription>,
    stage: Stage,
    /// Whether it is shown, for the log.
    shown: bool,
    /// How often it could not be had in a row.
    missed: u32,
}

impl StandIn {
    /// The encoder starts, as `descriptions` say: what the slate shows from then on begins with a keyframe again.
    pub(super) fn encoder_started(&mut self, descriptions: &[TrackDescription]) {
        if self.of != descriptions {
            descriptions.clone_into(&mut self.of);
            self.stage = Stage::Wanted;
        }
        if let Stage::Ready(reels) = &mut self.stage {
            for reel in reels {
                reel.begun = false;
            }
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready(_))
    }

    /// The encoder shows pictures.
    pub(super) fn encoder_works(&mut self) {
        self.shown = false;
    }
}

/// One track's encoded slate: a keyframe, and samples that say that nothing has changed since. It is shown from a keyframe on
/// in each segment, a sample for each part, so it costs as few bits as a picture that stands still.
#[derive(Clone, Debug)]
pub(in crate::stream) struct Reel {
    /// Whether each is a keyframe, and its bytes.
    samples: Vec<(bool, Bytes)>,
    /// The one to be shown next.
    next: usize,
    /// Whether the one before it was shown just now.
    begun: bool,
}

impl Reel {
    /// Of samples that the encoder has returned, the first of which is a keyframe.
    fn new(samples: &[Sample]) -> Self {
        let samples = samples
            .iter()
            // Not the memory that they were read into.
            .map(|sample| (sample.keyframe, Bytes::copy_from_slice(&sample.data)));
        Self {
            samples: samples.collect(),
            next: 0,
            begun: false,
        }
    }

    fn bytes(&self) -> usize {
        self.samples.iter().map(|(_, data)| data.len()).sum()
    }

    /// What `grid`'s segments need: how many samples, and whether the second is a keyframe, too. Where each segment is one sample, every
    /// sample is a keyframe, and H.264 wants two in a row to differ (ITU-T H.264, 7.4.3, `idr_pic_id`): two take turns.
    fn needs(grid: &Grid) -> (NonZeroUsize, bool) {
        let parts = grid.parts_per_segment().min(MOST_SAMPLES) as usize;
        let alone = parts == 1;
        let count = NonZeroUsize::new(parts.max(2)).expect("two at least");
        (count, alone)
    }

    /// The sample that shows the slate from `tick` to the end of its part.
    fn sample(&mut self, track: TrackIndex, grid: &Grid, tick: Tick) -> Sample {
        let count = self.samples.len();
        if !self.begun || grid.starts_segment(tick) || self.next >= count {
            let from = if self.next < count { self.next } else { 0 };
            let keyframe = (from..count).chain(0..from).find(|&at| self.samples[at].0);
            self.next = keyframe.expect("a reel begins with a keyframe");
            self.begun = true;
        }
        let (keyframe, data) = self.samples[self.next].clone();
        self.next += 1;
        let ticks = u32::try_from(grid.part_end(tick).since(tick)).unwrap_or(u32::MAX);
        Sample {
            track,
            decode_time: grid.decode_time(tick),
            duration: grid.framerate.den().saturating_mul(ticks),
            composition_offset: 0,
            keyframe,
            data,
        }
    }
}

/// Shows the slate in every whole part before `until`, the earliest first, whichever track it is of. An error comes with the parts made before.
fn cover(
    packagers: &mut [TrackPackager],
    reels: &mut [Reel],
    grid: &Grid,
    until: Tick,
) -> (Vec<(TrackIndex, Part)>, Result<(), PackageError>) {
    let mut parts = Vec::new();
    loop {
        let tracks = packagers.iter_mut().zip(reels.iter_mut()).enumerate();
        let next = tracks.min_by_key(|(_, (packager, _))| packager.next_tick());
        let Some((track, (packager, reel))) = next else {
            return (parts, Ok(()));
        };
        let tick = packager.next_tick();
        if grid.part_end(tick) > until {
            return (parts, Ok(()));
        }
        if !reel.begun {
            packager.encoder_restarted();
        }
        let sample = reel.sample(track, grid, tick);
        match packager.push_captured(sample, grid.time_of(tick)) {
            Ok(part) => parts.extend(part.map(|part| (track, part))),
            Err(error) => {
                // The sample that was refused was not shown.
                reel.begun = false;
                return (parts, Err(error));
            }
        }
    }
}

fn encode(
    stream: &str,
    plan: &EncodePlan,
    descriptions: &[TrackDescription],
) -> Result<Vec<Reel>, StandInError> {
    let picture = notice(stream, WORDS, plan.input_format, plan.input_size);
    let picture = picture.map_err(StandInError::Memory)?;
    let (count, second_keyframe) = Reel::needs(&plan.grid);
    let encoded = encode_ahead(plan, descriptions, &picture, count, second_keyframe)?;
    Ok(encoded.iter().map(|samples| Reel::new(samples)).collect())
}

impl Owner {
    /// Has the slate encoded, once the encoder has published something: by then viewers have the stream, and there is no hurry.
    pub(super) fn prepare_stand_in(&mut self) {
        let State::Running(running) = &self.state else {
            return;
        };
        let input = running.input;
        let due = match self.stand_in.stage {
            Stage::Wanted => true,
            Stage::Missing { until } => self.parts.anchor.monotonic() >= until,
            Stage::InTheMaking | Stage::Ready(_) => false,
        };
        if !due || !self.has_worked(running.first_tick) {
            return;
        }
        self.stand_in.stage = Stage::InTheMaking;
        let plan = self.encode_plan(input);
        let (stream, sender) = (self.name().to_owned(), self.parts.sender.clone());
        let descriptions = self.stand_in.of.clone();
        let make = move || {
            faults::point("stand-in", &stream);
            let made = encode(&stream, &plan, &descriptions);
            // The owner may have ended meanwhile; then nobody asks.
            let _ = sender.send(Event::StandIn { descriptions, made });
        };
        if let Err(error) = self.parts.crew.spawn("stand-in", make) {
            self.miss_stand_in(&StandInError::Thread(error));
        }
    }

    pub(super) fn take_stand_in(
        &mut self,
        descriptions: &[TrackDescription],
        made: Result<Vec<Reel>, StandInError>,
    ) {
        // One of another encoding comes too late; this encoding's is made in its turn.
        if descriptions != self.stand_in.of {
            return;
        }
        match made {
            Ok(reels) => {
                let bytes: usize = reels.iter().map(Reel::bytes).sum();
                tracing::info!(stream = %self.name(), bytes, "slate encoded, to be shown should the encoder fail");
                self.stand_in.stage = Stage::Ready(reels);
            }
            Err(error) => self.miss_stand_in(&error),
        }
    }

    fn miss_stand_in(&mut self, error: &StandInError) {
        let now = self.parts.anchor.monotonic();
        let pause = FIRST_PAUSE * (1 << self.stand_in.missed.min(5));
        self.stand_in.missed = self.stand_in.missed.saturating_add(1);
        tracing::warn!(stream = %self.name(), retry_in = ?pause, "should the encoder fail, no slate can be shown, and the window stands still: {error}");
        let until = MonotonicTime(now.0 + u64::try_from(pause.as_nanos()).unwrap_or(0));
        self.stand_in.stage = Stage::Missing { until };
    }

    /// Shows the slate on the ticks before `until`, which are too late to be encoded, if the encoder fails; false if there is none.
    pub(super) fn stand_in_for_late_ticks(&mut self, until: Tick) -> bool {
        if self.breaker.in_a_row() == 0 || !self.show_stand_in(until) {
            return false;
        }
        if matches!(self.state, State::Running(_)) {
            // It was started again and has not come so far.
            self.give_up_encoder();
        }
        true
    }

    /// Shows the slate on all ticks that have come, if there is one.
    pub(super) fn show_all_late(&mut self) {
        if let Some(next) = self.backlog.as_ref().map(Backlog::next) {
            self.show_stand_in(next);
        }
    }

    /// Shows the slate in all whole parts before `until` that lack pictures; false if there is none that fits. The pictures
    /// that were kept for them are let go.
    pub(super) fn show_stand_in(&mut self, until: Tick) -> bool {
        let Stage::Ready(reels) = &mut self.stand_in.stage else {
            return false;
        };
        let published = self.parts.window.period();
        let fits = published.is_some_and(|period| {
            // Sound comes after the pictures, and goes on by itself.
            let pictures = period.tracks.iter().take(self.packagers.len());
            let described = pictures.map(|track| &track.description);
            period.grid == self.parts.grid && described.eq(&self.stand_in.of)
        });
        let Some(from) = self.packagers.iter().map(TrackPackager::next_tick).min() else {
            return false;
        };
        if !fits || reels.len() != self.packagers.len() {
            return false;
        }
        let (parts, end) = cover(&mut self.packagers, reels, &self.parts.grid, until);
        for (track, part) in parts {
            let shown = self.parts.grid.time_of(part.first_tick);
            self.push_part(track, Some(part), shown);
        }
        match end {
            // Memory may be had again for the next part.
            Ok(()) | Err(PackageError::Memory { .. }) => {}
            Err(error) => {
                tracing::error!(stream = %self.name(), %error, "the slate does not fit the window, and is not shown");
                self.stand_in.stage = Stage::Wanted;
                return false;
            }
        }
        let to = self.packagers.iter().map(TrackPackager::next_tick).min();
        let to = to.unwrap_or(from);
        if let Some(backlog) = &mut self.backlog {
            backlog.release_before(to);
        }
        self.parts.shared.report().encoder.slate += to.since(from);
        let last = Tick(to.0.saturating_sub(1));
        let counters = &self.parts.shared.counters;
        counters.last_tick.set(counters.last_tick.get().max(last.0));
        if to > from && !std::mem::replace(&mut self.stand_in.shown, true) {
            tracing::warn!(stream = %self.name(), tick = %from, "the slate is shown until the encoder runs again");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;
    use crate::tick::Framerate;

    /// With segments and parts of so many ticks.
    fn grid(segment: u32, part: u32) -> Grid {
        Grid {
            framerate: Framerate::new(25, 1).unwrap(),
            ticks_per_segment: NonZeroU32::new(segment).unwrap(),
            ticks_per_part: NonZeroU32::new(part).unwrap(),
            number_offset: 0,
            audio: None,
            cut: None,
        }
    }

    /// A reel as the encoder returns it for `grid`, whose samples' only byte is their place.
    fn reel(grid: &Grid) -> Reel {
        let (count, second_keyframe) = Reel::needs(grid);
        let sample = |at: usize| Sample {
            track: 0,
            decode_time: 0,
            duration: 1,
            composition_offset: 0,
            keyframe: at == 0 || at == 1 && second_keyframe,
            data: Bytes::from(vec![u8::try_from(at).unwrap()]),
        };
        Reel::new(&(0..count.get()).map(sample).collect::<Vec<_>>())
    }

    /// Which samples of the reel are shown from `first` to before `until`, and their ticks.
    fn shown(reel: &mut Reel, grid: &Grid, first: u64, until: u64) -> Vec<(u8, u64)> {
        let mut tick = Tick(first);
        let mut shown = Vec::new();
        while tick < Tick(until) {
            let sample = reel.sample(0, grid, tick);
            shown.push((sample.data[0], tick.0));
            tick = tick.plus(u64::from(sample.duration));
        }
        shown
    }

    #[test]
    fn each_segment_is_a_keyframe_and_a_sample_for_each_further_part() {
        let grid = grid(10, 4);
        let mut reel = reel(&grid);
        assert_eq!(
            shown(&mut reel, &grid, 10, 30),
            [(0, 10), (1, 14), (2, 18), (0, 20), (1, 24), (2, 28)]
        );
    }

    #[test]
    fn within_a_segment_it_begins_with_a_keyframe_and_again_after_an_encoder() {
        let grid = grid(10, 4);
        let mut reel = reel(&grid);
        assert_eq!(
            shown(&mut reel, &grid, 6, 14),
            [(0, 6), (1, 8), (0, 10)],
            "from the middle of a part"
        );
        reel.begun = false;
        assert_eq!(shown(&mut reel, &grid, 18, 24), [(0, 18), (0, 20)]);
    }

    #[test]
    fn where_a_segment_is_one_part_two_keyframes_take_turns() {
        let grid = grid(10, 10);
        let mut reel = reel(&grid);
        assert_eq!(
            shown(&mut reel, &grid, 5, 40),
            [(0, 5), (1, 10), (0, 20), (1, 30)]
        );
    }

    #[test]
    fn a_segment_of_very_many_parts_has_further_keyframes() {
        let grid = grid(100, 1);
        let mut reel = reel(&grid);
        let keyframes: Vec<u64> = shown(&mut reel, &grid, 0, 200)
            .into_iter()
            .filter_map(|(place, tick)| (place == 0).then_some(tick))
            .collect();
        assert_eq!(keyframes, [0, 32, 64, 96, 100, 132, 164, 196]);
    }

    proptest! {
        #[test]
        fn every_whole_part_is_covered_in_every_track_and_none_twice(
            segment in 1..40_u32, part in 1..12_u32, firsts in proptest::collection::vec(0..60_u64, 1..4), steps in proptest::collection::vec(0..50_u64, 1..6),
        ) {
            let grid = grid(segment, part.min(segment));
            let mut packagers: Vec<_> = firsts.iter().enumerate()
                .map(|(track, &first)| TrackPackager::start_at(track, grid, Tick(first)))
                .collect();
            let mut reels = vec![reel(&grid); firsts.len()];
            let mut next = firsts.clone();
            let mut until = 0;
            for step in steps {
                until += step;
                let mut newest = 0;
                let (parts, end) = cover(&mut packagers, &mut reels, &grid, Tick(until));
                end.unwrap();
                for (track, part) in parts {
                    prop_assert_eq!(part.first_tick, Tick(next[track]));
                    prop_assert!(part.independent || !grid.starts_segment(part.first_tick));
                    prop_assert!(part.first_tick.0 >= newest, "in the order of time");
                    newest = part.first_tick.0;
                    next[track] += u64::from(part.ticks);
                    prop_assert_eq!(grid.part_end(part.first_tick), Tick(next[track]));
                    prop_assert!(next[track] <= until);
                }
                for &next in &next {
                    prop_assert!(grid.part_end(Tick(next)).0 > until, "nothing is left over");
                }
            }
        }
    }
}
