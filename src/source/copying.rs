//! A source that is copied: FFmpeg opens it and hands its samples on as they are. They are cut at its keyframes, divided into parts and put into their
//! place in time, and the stream's owner gets one part after another, with the sound that goes with it. All else is as with a source that is decoded: its state, its
//! rests, its end.

mod opening;

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use bytes::Bytes;

use super::arguments::Tempo;
use super::cutter::{Cutter, Step};
use super::heard::Found;
use super::input::Break;
use super::parting::{Parting, Piece};
use super::placing::{Placing, Rule};
use super::session::Halt;
use super::soundtrack::Soundtrack;
use crate::config::{AudioCodec, AudioRenditionPlan};
use crate::encode::copied::CopiedTrack;
use crate::encode::copied_sound::CopiedSound;
use crate::sample::Sample;
use crate::tick::{Framerate, Grid, Tick};

/// Pictures of a recording that are so much further, in ticks, wait no longer for the sound that goes with those before them: there nobody waits.
const RECORDED_MAY_BE_LATE: u64 = 10 * 90_000;

/// What the owner of a copied stream gets.
pub(crate) enum Copied {
    /// The source is open: a segment will come. Why there is no sound, if there is to be some, for people.
    Opened(Option<&'static str>),
    /// The next part of a segment.
    Part(CopiedPart),
    /// No segments can be made of it, for people.
    Unfit(String),
    /// It gives nothing for now.
    Away,
    /// No more will come.
    Over,
}

/// What a segment is of.
#[derive(Clone)]
pub(crate) struct CopiedTracks {
    pub(crate) pictures: Arc<CopiedTrack>,
    pub(crate) sounds: Vec<Arc<CopiedSound>>,
}

/// The next part of a segment's pictures, and what parts of its sound are whole with it. All parts of a segment are of the same tracks.
pub(crate) struct CopiedPart {
    pub(crate) tracks: CopiedTracks,
    /// How many pictures a second the source has, as far as that can be told.
    pub(crate) framerate: Framerate,
    /// The longest that the segment's parts are to be.
    pub(crate) target: NonZeroU32,
    /// Whether a segment begins with it, and whether that goes on in all tracks where the one before ended.
    pub(crate) begins: bool,
    pub(crate) follows: bool,
    /// Whether the segment ends with it.
    pub(crate) ends: bool,
    /// Where it begins.
    pub(crate) first: Tick,
    /// None only if the segment has ended without another part. The first of a segment is a keyframe.
    pub(crate) samples: Vec<Sample>,
    /// The parts of each track of sound, each of at least one frame.
    pub(crate) sounds: Vec<Vec<Vec<Sample>>>,
}

/// What a source needs to be copied.
pub(crate) struct CopyDesk {
    /// The stream's.
    pub(crate) grid: Grid,
    /// The stream's next tick.
    pub(crate) next: Tick,
    /// What becomes of its sound.
    pub(crate) sounds: Vec<AudioRenditionPlan>,
    /// Where its owner waits. There is room for one: who waits for a disk or a clock holds up the source.
    pub(crate) deliver: SyncSender<Copied>,
}

/// A source that is copied, over all of its openings.
pub(super) struct Copying {
    desk: CopyDesk,
    parting: Parting,
    placing: Placing,
    /// What the segment under way is of, once it has begun.
    under_way: Option<CopiedTracks>,
    /// How late a keyframe ever came before which pictures were left out.
    latest: u64,
    /// When the newest picture of this opening is decoded, in the source's time.
    at: u64,
    /// One for each of the desk's sounds.
    soundtracks: Vec<Soundtrack>,
    /// Whether it was found to have no sound: FFmpeg must not be asked for any.
    mute: bool,
    /// What the source was when it brought parameter sets of its own. Where opening it anew changes nothing, they are let be.
    tried: Option<Bytes>,
}

impl Copying {
    pub(super) fn new(desk: CopyDesk) -> Self {
        let soundtracks = desk.sounds.iter();
        let grid = desk.grid;
        let parts = grid.is_cut_in_parts().then_some(grid.ticks_per_part);
        Self {
            parting: Parting::new(parts, grid.ticks_per_segment),
            under_way: None,
            latest: 0,
            at: 0,
            placing: Placing::new(Rule::Follow, desk.next),
            soundtracks: soundtracks
                .map(|sound| Soundtrack::new(sound.codec))
                .collect(),
            desk,
            mute: false,
            tried: None,
        }
    }

    /// The sounds that FFmpeg is asked for.
    fn asked(&self) -> &[AudioRenditionPlan] {
        match self.mute {
            true => &[],
            false => &self.desk.sounds,
        }
    }

    /// Whether sound that is to be copied is of this codec, which can't be.
    fn cannot_copy(&self, codec: &str) -> bool {
        let mut sounds = self.asked().iter();
        codec != "aac" && sounds.any(|sound| sound.codec == AudioCodec::Copy)
    }

    /// Takes what the source is cut into.
    fn take(&mut self, opened: &mut Opened, steps: Vec<Step>) {
        for step in &steps {
            if let Step::Sample { taken, .. } = step {
                self.placing.note(taken);
            }
        }
        opened.waiting.extend(self.parting.take(steps));
    }

    /// Hands on what has its sound, the pictures having come to `at`; all there is if they have come to an end.
    fn release(&mut self, opened: &mut Opened, at: Option<u64>) -> Result<(), Halt> {
        let recorded = self.placing.rule() == Rule::Follow;
        while let Some(piece) = opened.waiting.front() {
            // One without samples is the end of one that has its sound.
            let shown = self.placing.shown(&piece.samples);
            let end = shown.map_or(0, |(_, end)| end);
            let has_come =
                |soundtrack: &Soundtrack| soundtrack.is_overdue() || soundtrack.reaches(end);
            let missing = self.soundtracks.iter().filter(|track| !has_come(track));
            let late = match recorded {
                true => { missing }.next().map(|_| RECORDED_MAY_BE_LATE),
                false => missing.map(Soundtrack::patience).max(),
            };
            let late = late.filter(|_| !self.mute && shown.is_some());
            if late.is_some_and(|late| at.is_some_and(|at| at < end + late)) {
                break;
            }
            if late.is_some() && !recorded {
                let soundtracks = self.soundtracks.iter_mut();
                soundtracks.for_each(|soundtrack| soundtrack.give_up(end));
            }
            if let Some(piece) = opened.waiting.pop_front() {
                self.deliver(opened, piece, shown)?;
            }
        }
        Ok(())
    }

    /// Hands on what is shown from when to when, in its place in time.
    fn deliver(
        &mut self,
        opened: &mut Opened,
        piece: Piece,
        shown: Option<(u64, u64)>,
    ) -> Result<(), Halt> {
        let Piece {
            samples,
            begins,
            ends,
            target,
            usual,
        } = piece;
        if let Some((from, end)) = shown {
            opened.shown = end;
            if begins {
                opened.framerate = rate_of(rate(opened.found.as_ref()), usual);
                let soundtracks = self.soundtracks.iter_mut();
                self.under_way = Some(CopiedTracks {
                    pictures: Arc::clone(&opened.track),
                    sounds: soundtracks.map(|sound| sound.begin(from)).collect(),
                });
            }
        }
        let Some(tracks) = &self.under_way else {
            return Ok(());
        };
        let grid = self.desk.grid.with_parts_of(target);
        let frames = |sound: &CopiedSound| {
            let frame = u32::try_from(sound.frame_in(Framerate::COPIED.num())).ok();
            let frame = frame
                .and_then(NonZeroU32::new)
                .filter(|_| grid.is_cut_in_parts());
            frame.map_or(usize::MAX, |frame| grid.frames_beside(frame) as usize)
        };
        let runs = self.soundtracks.iter_mut().zip(&tracks.sounds);
        let runs =
            runs.map(|(soundtrack, sound)| soundtrack.take(opened.shown, frames(sound), ends));
        let Some(placed) = self.placing.place(samples, begins, runs.collect()) else {
            if begins {
                tracing::debug!("a segment is left out: its time is published already");
            }
            return Ok(());
        };
        self.say(Copied::Part(CopiedPart {
            tracks: tracks.clone(),
            framerate: opened.framerate,
            target: grid.ticks_per_part,
            begins,
            follows: placed.follows,
            ends,
            first: placed.first,
            samples: placed.samples,
            sounds: placed.sounds,
        }))
    }

    /// What comes next does not follow on what came before.
    fn break_off(&mut self, opened: &mut Opened) -> Result<(), Halt> {
        let steps = opened.cutter.finish();
        self.take(opened, steps);
        self.release(opened, None)?;
        self.placing.begin_anew(self.placing.rule());
        Ok(())
    }

    /// Tells the owner why nothing of the source can be published.
    fn refuse(&self, why: String) -> Halt {
        let _ = self.say(Copied::Unfit(why.clone()));
        Halt::Refused(why)
    }

    /// Tells the owner; one that has died needs nothing more.
    fn say(&self, news: Copied) -> Result<(), Halt> {
        let said = self.desk.deliver.send(news);
        said.map_err(|_| Halt::Break(Break::Stopped))
    }
}

/// One opening that has given a track.
struct Opened {
    track: Arc<CopiedTrack>,
    entry: Bytes,
    found: Option<Found>,
    tempo: Tempo,
    cutter: Cutter,
    /// What waits for its sound.
    waiting: VecDeque<Piece>,
    /// Until when what was handed on is shown, in the source's time.
    shown: u64,
    /// Pictures a second, of the segment under way.
    framerate: Framerate,
    /// How much of the source's time has come.
    played: Duration,
}

/// Pictures a second as FFmpeg tells.
fn rate(found: Option<&Found>) -> Option<f64> {
    found.and_then(|found| found.framerate)
}

/// The framerate that the manifests tell: FFmpeg's, which is steadier than what can be measured; else that of samples that last
/// so many ticks, as most do.
fn rate_of(found: Option<f64>, usual: u32) -> Framerate {
    let told = found.filter(|rate| (1.0..=240.0).contains(rate));
    if let Some(rate) = told.and_then(|rate| rate.to_string().parse::<Framerate>().ok()) {
        let ticks = u64::from(Framerate::COPIED.num()) * u64::from(rate.den());
        return Framerate::copied(u32::try_from(ticks / u64::from(rate.num())).unwrap_or(1));
    }
    Framerate::copied(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_framerate_that_is_told_counts_in_the_copied_timescale() {
        for (told, shown) in [(25.0, "25"), (29.97, "30000/1001"), (12.5, "25/2")] {
            let rate = rate_of(Some(told), 1);
            assert_eq!(rate.num(), 90_000);
            assert_eq!(rate.reduced().to_string(), shown);
        }
        assert_eq!(rate_of(None, 3600).reduced().to_string(), "25");
    }
}
