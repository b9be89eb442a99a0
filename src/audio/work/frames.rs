//! What becomes of the encoder's frames: parts, of a recording once the pictures have come to them, and at its end whole.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Place, State, Work};
use crate::audio::{AudioNews, Order};
use crate::encode::audio::start_sample;
use crate::package::{PackageError, TrackPackager};
use crate::sample::Sample;
use crate::tick::Tick;

/// No encoder holds so many samples: so much silence behind the end of a recording makes it return all that is before it.
pub(super) const FLUSH: u64 = 8192;

/// Where a recording's sound ends.
pub(super) struct End {
    /// Before this frame, by track.
    frames: Vec<Tick>,
    /// What the encoder is fed until it has returned all of them, silence at the end included.
    pub(super) fed: u64,
    told: bool,
}

impl State {
    /// How many samples a frame of each track has.
    pub(super) fn frames(&self) -> impl Iterator<Item = u64> {
        let tracks = self.descriptions.iter().take(self.packagers.len());
        tracks.map(|description| u64::from(description.sample_duration()))
    }

    /// The frame of `track` that the encoder has to return next.
    pub(super) fn next_frame(&self, track: usize) -> Option<Tick> {
        let ready = self.ready.get(track)?.len() as u64;
        Some(self.packagers.get(track)?.next_tick().plus(ready))
    }

    /// The same of every track.
    pub(super) fn next_frames(&self) -> Vec<Tick> {
        let tracks = 0..self.packagers.len();
        tracks.filter_map(|track| self.next_frame(track)).collect()
    }

    /// The sample up to before which every track has its frames.
    pub(super) fn returned(&self) -> u64 {
        let tracks = self.frames().enumerate();
        let returned = tracks.filter_map(|(track, frame)| {
            let next = self.next_frame(track)?;
            Some(next.0.saturating_mul(frame))
        });
        returned.min().unwrap_or(0)
    }

    /// Whether a recording that ends has all of its frames.
    pub(super) fn has_all(&self) -> bool {
        let frames = self.end.as_ref().map(|end| end.frames.iter().enumerate());
        frames.is_some_and(|mut frames| {
            frames.all(|(track, end)| self.next_frame(track).is_none_or(|next| next >= *end))
        })
    }

    /// Where an encoder has to begin.
    pub(super) fn first_sample(&self) -> u64 {
        let next = self.next_frames();
        let formats: Vec<_> = self.descriptions.iter().filter_map(|d| d.audio).collect();
        start_sample(&formats, &next)
    }
}

impl<F: Fn(AudioNews) -> bool> Work<F> {
    pub(super) fn go_on(&self, state: &mut State, order: &Order) {
        state.generation = order.generation;
        state.encoder = None;
        state.status.encoder_pid = None;
        state.run += 1;
        state.packagers = order
            .tracks
            .iter()
            .enumerate()
            .map(|(track, (grid, next, first))| match first {
                true => TrackPackager::start_at(track, *grid, *next),
                false => TrackPackager::continue_at(track, *grid, *next),
            })
            .collect();
        let grids = order.tracks.iter().map(|(grid, _, _)| grid);
        state.part_frames = grids.map(|grid| grid.ticks_per_part.get().into()).collect();
        state.ready = order.tracks.iter().map(|_| VecDeque::new()).collect();
        let first = state.first_sample();
        if let Place::Recorded(_) = &state.place
            && !(state.timeline.first()..=state.timeline.end()).contains(&first)
        {
            state.timeline = self.timeline(first);
        }
    }

    /// The recording ends before sample `end`: so many frames are made of it.
    pub(super) fn end_at(&self, state: &mut State, end: u64) {
        let frames = state.descriptions.iter();
        let frames = frames.map(|track| end.div_ceil(u64::from(track.sample_duration())));
        state.end = Some(End {
            frames: frames.map(Tick).collect(),
            fed: end + FLUSH,
            told: false,
        });
        if let Place::Recorded(recorded) = &mut state.place {
            recorded.end_at(end);
        }
        if state.packagers.is_empty() {
            // Nothing was published, so there is nothing to end.
            state.over |= !(self.tell)(AudioNews::Whole);
        }
    }

    pub(super) fn take(&self, state: &mut State, track: usize, frame: Tick, data: Bytes) {
        let Some(next) = state.next_frame(track) else {
            return;
        };
        // Its successor starts where the window is; what a killed one still says would only be in the way.
        let Some(running) = state.encoder.as_mut().filter(|one| !one.is_killed()) else {
            return;
        };
        let now = self.anchor.monotonic();
        running.progress(now);
        if frame < next {
            // The frames that an encoder is begun early for, and those that the one before has returned.
            return;
        }
        if matches!(state.place, Place::Live(_)) {
            if let Err(error) = self.publish(state, track, frame, data) {
                return self.kill_encoder(state, error.to_string());
            }
        } else if frame > next {
            let why = "frames are missing from what it returns";
            return self.kill_encoder(state, why.to_owned());
        } else if let Some(ready) = state.ready.get_mut(track) {
            ready.push_back(data);
        }
        state.note_return(now);
    }

    /// Publishes what a recording's pictures have come to, and at its end the rest.
    pub(super) fn package(&self, state: &mut State) {
        let Some(beside) = &self.beside else { return };
        let video = beside.video();
        let frames: Vec<u64> = state.frames().collect();
        for (track, frame) in frames.into_iter().enumerate() {
            let end = state.end.as_ref().map(|end| end.frames[track]);
            loop {
                let next = state.packagers[track].next_tick();
                let due = match end {
                    Some(end) => next < end,
                    None => next.0.saturating_add(1).saturating_mul(frame) <= video,
                };
                if !due {
                    break;
                }
                let Some(data) = state.ready[track].pop_front() else {
                    break;
                };
                if let Err(error) = self.publish(state, track, next, data) {
                    // What was to follow it comes again.
                    state.ready.iter_mut().for_each(VecDeque::clear);
                    self.kill_encoder(state, error.to_string());
                }
            }
        }
        self.conclude(state);
    }

    /// Tells that a recording's sound is whole, once it is.
    fn conclude(&self, state: &mut State) {
        let Some(end) = state.end.as_mut().filter(|end| !end.told) else {
            return;
        };
        let made = state.packagers.iter().map(TrackPackager::next_tick);
        if !made.zip(&end.frames).all(|(next, end)| next >= *end) {
            return;
        }
        end.told = true;
        state.encoder = None;
        state.run += 1;
        let generation = state.generation;
        for (track, packager) in state.packagers.iter_mut().enumerate() {
            if let Some(part) = packager.flush() {
                state.over |= !(self.tell)(AudioNews::Part {
                    generation,
                    track,
                    part,
                });
            }
        }
        state.over |= !(self.tell)(AudioNews::Whole);
    }

    /// Gives a frame to its packager, and what that makes of it to the owner.
    ///
    /// # Errors
    /// Those of [`TrackPackager::push`]: the frame is still to come.
    pub(super) fn publish(
        &self,
        state: &mut State,
        track: usize,
        frame: Tick,
        data: Bytes,
    ) -> Result<(), PackageError> {
        let (Some(packager), Some(description)) = (
            state.packagers.get_mut(track),
            state.descriptions.get(track),
        ) else {
            return Ok(());
        };
        let duration = description.sample_duration();
        let sample = Sample {
            track,
            decode_time: frame.0.saturating_mul(u64::from(duration)),
            duration,
            composition_offset: 0,
            keyframe: true,
            data,
        };
        if let Some(part) = packager.push(sample)? {
            let generation = state.generation;
            state.over |= !(self.tell)(AudioNews::Part {
                generation,
                track,
                part,
            });
        }
        Ok(())
    }
}
