//! The sound beside the picture: audio's parts go into the same window, behind the video's, and where the video's window breaks or leaps, the sound is sent after it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Owner;
use crate::audio::{AudioDesk, AudioNews, Beside, Order};
use crate::package::{Part, TrackPackager};
use crate::sample::TrackDescription;
use crate::tick::{SAMPLE_RATE, Tick};
use crate::window::PushError;

/// How many parts of one track wait for the video at most.
const MOST_WAITING: usize = 1024;

/// Pictures that are older are no measure for sound.
const LONGEST_LAG: Duration = Duration::from_millis(500);

/// So many pictures say how late the sound has to be.
const MEASURED: usize = 32;

/// What the owner knows of its stream's sound.
pub(super) struct Sound {
    desk: AudioDesk,
    /// Of a recording: where the pictures are, for the sound to know.
    beside: Option<Arc<Beside>>,
    finish: Finish,
    /// What its tracks are encoded as, once that is known.
    descriptions: Option<Vec<TrackDescription>>,
    generation: u64,
    /// Parts that the video has not come to, by track.
    waiting: Vec<VecDeque<Part>>,
    lags: Lags,
}

/// How late the newest pictures were shown, in nanoseconds.
#[derive(Debug, Default)]
struct Lags {
    newest: [u64; MEASURED],
    noted: usize,
}

impl Lags {
    /// Notes one more; returns the middle one of the newest, which those of a machine that stood still for a moment do not move.
    fn note(&mut self, lag: u64) -> u64 {
        self.newest[self.noted % MEASURED] = lag;
        self.noted += 1;
        let mut sorted = self.newest;
        let sorted = &mut sorted[..self.noted.min(MEASURED)];
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    }
}

/// How far the end of a recording's sound is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Finish {
    No,
    Asked,
    Whole,
}

impl Sound {
    pub(super) fn new(desk: AudioDesk, beside: Option<Arc<Beside>>) -> Self {
        Self {
            desk,
            beside,
            finish: Finish::No,
            descriptions: None,
            generation: 0,
            waiting: Vec::new(),
            lags: Lags::default(),
        }
    }
}

impl Owner {
    /// What audio tracks are encoded as: nothing for a stream without, none while it is not known.
    pub(super) fn audio_descriptions(&self) -> Option<Vec<TrackDescription>> {
        match &self.sound {
            Some(sound) => sound.descriptions.clone(),
            None => Some(Vec::new()),
        }
    }

    pub(super) fn take_audio(&mut self, news: AudioNews) {
        let now = self.parts.anchor.monotonic();
        let Some(sound) = &mut self.sound else { return };
        if matches!(news, AudioNews::Part { .. }) {
            // As long as it goes on, the end of a recording is waited for.
            self.stopping = self.stopping.map(|since| match self.recording {
                Some(_) => now,
                None => since,
            });
        }
        match news {
            AudioNews::Described(descriptions) => {
                sound.waiting = descriptions.iter().map(|_| VecDeque::new()).collect();
                sound.descriptions = Some(descriptions);
                self.parts.shared.report().undescribed = None;
            }
            AudioNews::Undescribed(cause) => self.parts.shared.report().undescribed = Some(cause),
            AudioNews::Part {
                generation,
                track,
                part,
            } if generation == sound.generation => {
                if let Some(waiting) = sound.waiting.get_mut(track) {
                    if waiting.len() == MOST_WAITING {
                        waiting.pop_front();
                    }
                    waiting.push_back(part);
                }
            }
            // Of before the newest order.
            AudioNews::Part { .. } => {}
            AudioNews::Whole => sound.finish = Finish::Whole,
            AudioNews::Status(status) => self.parts.shared.report().audio = Some(status),
        }
    }

    /// Notes how long after its capture the picture of `tick` is shown: sound of the same moment has to be heard then.
    pub(super) fn note_picture_lag(&mut self, tick: Tick) {
        let Some(sound) = &mut self.sound else { return };
        let backlog = self.backlog.as_ref();
        let Some(captured) = backlog.and_then(|backlog| backlog.captured(tick)) else {
            return;
        };
        let shown = self.parts.grid.time_of(tick);
        let lag = shown.saturating_since(self.parts.anchor.to_unix(captured));
        let lag = u64::try_from(lag.min(LONGEST_LAG).as_nanos()).unwrap_or(0);
        let latency = &self.parts.shared.latency;
        latency.picture_lag.set(sound.lags.note(lag));
    }

    /// Whether the sound was never told where to begin.
    pub(super) fn sound_waits(&self) -> bool {
        self.sound
            .as_ref()
            .is_some_and(|sound| sound.generation == 0)
    }

    /// Sends the sound to where the window goes on.
    pub(super) fn direct_audio(&mut self) {
        let Some(sound) = &mut self.sound else { return };
        let Some(period) = self.parts.window.period() else {
            return;
        };
        let first = self.parts.plan.renditions.len();
        let tracks = (first..period.tracks.len()).filter_map(|track| {
            let view = period.of(track);
            let next = self.parts.window.next_tick(track)?;
            Some((view.grid, next, next == view.first_tick))
        });
        let tracks = tracks.collect();
        sound.generation += 1;
        sound.waiting.iter_mut().for_each(VecDeque::clear);
        sound.desk.order(Order {
            generation: sound.generation,
            tracks,
        });
    }

    /// Whether a recording's sound is as long as its pictures, all of which are published; if it isn't, it becomes so.
    pub(super) fn sound_is_whole(&mut self) -> bool {
        let Some(sound) = self.sound.as_ref().filter(|_| self.recording.is_some()) else {
            return true;
        };
        let end = self.packagers.iter().map(TrackPackager::next_tick).max();
        match (sound.finish, end) {
            (Finish::Whole, _) => {
                self.push_audio();
                return true;
            }
            (Finish::No, Some(end)) => self.finish_sound(end),
            (Finish::No, None) => return true,
            (Finish::Asked, _) => {}
        }
        false
    }

    /// Makes the recording's sound end with its last picture, which is before `end`.
    fn finish_sound(&mut self, end: Tick) {
        // The last segment is there before the sound that goes with it.
        for track in 0..self.packagers.len() {
            let part = self.packagers[track].flush();
            self.push_part(track, part, self.packagers[track].captured());
        }
        let samples = self.samples_until(end);
        if let Some(sound) = &mut self.sound {
            sound.finish = Finish::Asked;
            sound.desk.finish(samples);
        }
    }

    /// How many samples there are before `tick`, from tick 0 on.
    fn samples_until(&self, tick: Tick) -> u64 {
        let rate = self.parts.grid.framerate;
        let samples = u128::from(tick.0) * u128::from(rate.den()) * u128::from(SAMPLE_RATE.get());
        u64::try_from(samples / u128::from(rate.num())).unwrap_or(u64::MAX)
    }

    /// Tells the sound of a recording how far its pictures are.
    fn note_beside(&self) {
        // Where the end is known, a packager is no measure any more: it is past its last segment.
        let sound = self
            .sound
            .as_ref()
            .filter(|sound| sound.finish == Finish::No);
        let beside = sound.and_then(|sound| sound.beside.as_ref());
        let video = self.packagers.iter().map(TrackPackager::next_tick).min();
        let (Some(beside), Some(video), Some(recording)) = (beside, video, &self.recording) else {
            return;
        };
        beside.note(self.samples_until(video), recording.is_held_back());
    }

    /// Puts what waits into the window, as far as the video has come.
    pub(super) fn push_audio(&mut self) {
        self.note_beside();
        let first = self.parts.plan.renditions.len();
        let now = self.parts.anchor.now();
        let mut lost = false;
        let Some(sound) = &mut self.sound else { return };
        for (place, waiting) in sound.waiting.iter_mut().enumerate() {
            while let Some(part) = waiting.front() {
                match self.parts.window.push(first + place, part.clone(), now) {
                    // Without memory the segment has become a gap, which viewers have to be told of, too.
                    Ok(()) | Err(PushError::Memory { .. }) => self.dirty = true,
                    Err(PushError::Past { .. }) => {}
                    Err(PushError::Ahead { .. } | PushError::NoPeriod | PushError::Ended) => break,
                    Err(PushError::Hole { .. }) => {
                        lost = true;
                        break;
                    }
                    Err(error) => {
                        let stream = &self.parts.plan.name;
                        tracing::error!(%stream, %error, "a part of audio does not fit the window");
                        lost = true;
                        break;
                    }
                }
                waiting.pop_front();
            }
        }
        if lost {
            self.direct_audio();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_that_are_late_by_themselves_move_no_sound() {
        let mut lags = Lags::default();
        assert_eq!(lags.note(30), 30);
        for at in 0..200 {
            let late = if at % 20 < 6 { 400 } else { 0 };
            let middle = lags.note(30 + late);
            assert!(at < 16 || middle == 30, "{at}: {middle}");
        }
        // Once most are, so is the sound.
        let middle = (0..20).map(|_| lags.note(70)).last();
        assert_eq!(middle, Some(70));
    }
}
