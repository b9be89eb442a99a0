//! A source that is copied: FFmpeg opens it and hands its samples on as they are. They are cut at its keyframes and put into their place in
//! time, and the stream's owner gets whole segments. All else is as with a source that is decoded: its state, its rests, its end.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use bytes::Bytes;
use ringgear_ring::layout::Policy;

use super::arguments::{self, Tempo};
use super::cutter::{Cutter, Segment, Taken, Uncut};
use super::ffmpeg::Ffmpeg;
use super::fragments::{self, Fragment, Packet};
use super::heard::Found;
use super::input::{Break, Pipe};
use super::placing::{Placing, Rule};
use super::session::{BROKEN_OFF, Halt, LONGEST_START, Outcome};
use super::{Source, Stop};
use crate::encode::copied::CopiedTrack;
use crate::sample::Sample;
use crate::tick::{Framerate, Grid, Tick};

/// What is read at once.
const BYTES: usize = 64 * 1024;

/// What the owner of a copied stream gets.
pub(crate) enum Copied {
    /// The source is open: a segment will come.
    Opened,
    /// The next whole segment.
    Segment(CopiedSegment),
    /// No segments can be made of it, for people.
    Unfit(String),
    /// It gives nothing for now.
    Away,
    /// No more will come.
    Over,
}

/// A whole segment, of at least one sample, the first of which is a keyframe.
pub(crate) struct CopiedSegment {
    /// What it is of.
    pub(crate) track: Arc<CopiedTrack>,
    /// How many pictures a second the source has, as far as that can be told.
    pub(crate) framerate: Framerate,
    /// Where it begins.
    pub(crate) first: Tick,
    pub(crate) samples: Vec<Sample>,
}

/// What a source needs to be copied.
pub(crate) struct CopyDesk {
    /// The stream's.
    pub(crate) grid: Grid,
    /// The stream's next tick.
    pub(crate) next: Tick,
    /// Where its owner waits. There is room for one: who waits for a disk or a clock holds up the source.
    pub(crate) deliver: SyncSender<Copied>,
}

/// A source that is copied, over all of its openings.
pub(super) struct Copying {
    desk: CopyDesk,
    placing: Placing,
    /// What the source was when it brought parameter sets of its own. Where opening it anew changes nothing, they are let be.
    tried: Option<Bytes>,
}

impl Copying {
    pub(super) fn new(desk: CopyDesk) -> Self {
        Self {
            placing: Placing::new(Rule::Follow, desk.next),
            desk,
            tried: None,
        }
    }

    /// Hands a segment on, in its place in time.
    fn deliver(
        &mut self,
        track: &Arc<CopiedTrack>,
        framerate: Option<f64>,
        segment: Segment,
    ) -> Result<(), Halt> {
        let framerate = rate_of(framerate, &segment);
        let Some(placed) = self.placing.place(segment) else {
            tracing::debug!("a segment is left out: its time is published already");
            return Ok(());
        };
        self.say(Copied::Segment(CopiedSegment {
            track: Arc::clone(track),
            framerate,
            first: placed.first,
            samples: placed.samples,
        }))
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
    /// How much of the source's time has come.
    played: Duration,
}

/// Why samples stop to flow.
enum End {
    Halt(Halt),
    /// The source has become another one.
    Changed,
    Uncut(Uncut),
}

impl From<Halt> for End {
    fn from(halt: Halt) -> Self {
        Self::Halt(halt)
    }
}

impl From<Break> for End {
    fn from(reason: Break) -> Self {
        Self::Halt(reason.into())
    }
}

impl Source {
    /// Opens the source and hands its samples to the stream's owner until that is over.
    pub(super) fn copy(&mut self, copying: &mut Copying) -> Outcome {
        let plan = self.parts.plan.clone();
        let started = Ffmpeg::start(
            self.parts.ffmpeg.clone(),
            false,
            |pipe, _| arguments::copying(&plan, pipe),
            plan.input.secrets(),
        );
        let (ffmpeg, pipes) = match started {
            Ok(started) => started,
            Err(error) => {
                return Outcome::Failed(format!(
                    "FFmpeg can't be started for {}: {error}",
                    self.status.source
                ));
            }
        };
        let pid = ffmpeg.pid();
        self.tell(|status| status.pid = Some(pid));
        let stop: Stop = self.parts.stop.clone();
        let mut pipe = Pipe::new(pipes.pictures, &stop, plan.timeout.max(LONGEST_START));
        let before = self.pictures;
        let mut opened = None;
        let end = self.flow(copying, &mut pipe, &ffmpeg, &mut opened);
        if let Some(opened) = &mut opened
            && let Some(last) = opened.cutter.finish()
        {
            // An owner that has died needs no last segment.
            let _ = copying.deliver(&opened.track, rate(opened.found.as_ref()), last);
        }
        // One that hangs up may have had its next keyframe on its way.
        let whole = opened.as_ref().filter(|opened| opened.tempo == Tempo::Kept);
        let uncut = whole.and_then(|opened| opened.cutter.uncut());
        let end = match (end, uncut) {
            (End::Halt(Halt::Break(Break::Closed)), Some(uncut)) => End::Uncut(uncut),
            (end, _) => end,
        };
        let halt = match end {
            End::Changed => {
                drop(pipe);
                ffmpeg.end(Duration::ZERO);
                return Outcome::Learnt;
            }
            End::Uncut(uncut) => {
                let why = uncut.told(&self.status.source, &self.parts.stream);
                if let Uncut::Sparse { distance, .. } = uncut {
                    self.tell(|status| status.keyframe_seconds = Some(distance.as_secs_f64()));
                }
                let _ = copying.say(Copied::Unfit(why.clone()));
                Halt::Refused(why)
            }
            End::Halt(halt) => halt,
        };
        let fed = opened.map(|opened| {
            let length = opened.found.and_then(|found| found.duration);
            let short =
                length.filter(|length| self.is_whole() && opened.played + BROKEN_OFF < *length);
            (opened.tempo, short)
        });
        let recorded = self.parts.policy == Policy::Lossless;
        let kept = matches!(fed, Some((Tempo::Kept, _)));
        let outcome = self.halted(pipe, ffmpeg, halt, fed);
        match outcome {
            Outcome::Failed(cause) if recorded && kept && self.pictures > before => {
                let _ = copying.say(Copied::Over);
                Outcome::BrokenOff(cause)
            }
            Outcome::Ended if recorded && !self.parts.plan.repeat => {
                let _ = copying.say(Copied::Over);
                Outcome::Ended
            }
            Outcome::Stopped => Outcome::Stopped,
            outcome => {
                let _ = copying.say(Copied::Away);
                outcome
            }
        }
    }

    /// Moves samples until something ends that.
    fn flow(
        &mut self,
        copying: &mut Copying,
        pipe: &mut Pipe<'_>,
        ffmpeg: &Ffmpeg,
        opened: &mut Option<Opened>,
    ) -> End {
        let mut reader = fragments::Reader::default();
        let mut buffer = vec![0; BYTES];
        loop {
            match reader.next() {
                Ok(Some(Fragment::Track {
                    sample_entry,
                    timescale,
                })) => {
                    if timescale != Framerate::COPIED.num() {
                        let why = format!("FFmpeg counts its times in {timescale} units a second");
                        return Halt::Refused(why).into();
                    }
                    match self.open_track(copying, ffmpeg, sample_entry) {
                        Ok(begun) => *opened = Some(begun),
                        Err(halt) => return halt.into(),
                    }
                }
                Ok(Some(Fragment::Packet(packet))) => {
                    let Some(opened) = opened else {
                        // FFmpeg writes the track first.
                        return Break::Closed.into();
                    };
                    if let Err(end) = self.take(copying, opened, packet) {
                        return end;
                    }
                    pipe.patience = self.parts.plan.timeout;
                }
                Ok(None) => match pipe.read(&mut buffer) {
                    Ok(count) => reader.push(&buffer[..count]),
                    Err(reason) => return reason.into(),
                },
                Err(error) => return Break::from(error).into(),
            }
        }
    }

    /// The source is open, and is of this track.
    fn open_track(
        &mut self,
        copying: &mut Copying,
        ffmpeg: &Ffmpeg,
        entry: Bytes,
    ) -> Result<Opened, Halt> {
        let found = ffmpeg.words().found();
        let track = CopiedTrack::new(&entry).map_err(|error| {
            let (shown, stream) = (&self.status.source, &self.parts.stream);
            let why = format!(
                "{shown} can't be copied: {error}; write an encoder instead of codec = \"copy\" in [streams.{stream}]"
            );
            let _ = copying.say(Copied::Unfit(why.clone()));
            Halt::Refused(why)
        })?;
        let tempo = Tempo::of(&self.parts.plan).with(found.as_ref());
        copying
            .placing
            .begin_anew(match (self.parts.policy, tempo) {
                (Policy::Lossless, _) => Rule::Follow,
                (_, Tempo::Kept) => Rule::Read,
                _ => Rule::Captured,
            });
        self.opened(found.as_ref(), track.size());
        copying.say(Copied::Opened)?;
        Ok(Opened {
            track: Arc::new(track),
            entry,
            found,
            tempo,
            cutter: Cutter::new(&copying.desk.grid, tempo == Tempo::Own),
            played: Duration::ZERO,
        })
    }

    /// Takes the next sample, once it is due.
    fn take(
        &mut self,
        copying: &mut Copying,
        opened: &mut Opened,
        packet: Packet,
    ) -> Result<(), End> {
        let rate = rate(opened.found.as_ref());
        let at = packet.decode_time;
        let mut idr = false;
        if packet.keyframe {
            let keyframe = opened
                .track
                .keyframe(&packet.data)
                .map_err(|error| Halt::Refused(format!("{}: {error}", self.status.source)))?;
            // A file would begin again from its beginning.
            let anew = opened.tempo == Tempo::Own && copying.tried.as_ref() != Some(&opened.entry);
            if keyframe.changed && anew {
                tracing::info!(
                    stream = %self.parts.stream, source = %self.status.source,
                    "the source's pictures are encoded differently now: it is opened anew"
                );
                copying.tried = Some(opened.entry.clone());
                return Err(End::Changed);
            }
            idr = keyframe.idr;
            if !idr {
                opened.cutter.note_open();
            }
        }
        let rule = copying.placing.rule();
        if opened.cutter.leaps_to(&packet) {
            if let Some(last) = opened.cutter.finish() {
                copying.deliver(&opened.track, rate, last)?;
            }
            copying.placing.begin_anew(rule);
        }
        let now = || copying.desk.grid.tick_at(self.parts.anchor.now());
        let mut came = now();
        let due = match copying.placing.due(at, came) {
            Some(due) => due,
            None => {
                if let Some(last) = opened.cutter.finish() {
                    copying.deliver(&opened.track, rate, last)?;
                }
                copying.placing.begin_anew(rule);
                copying.placing.due(at, came).unwrap_or(came)
            }
        };
        if due > came {
            let wait = Framerate::COPIED.duration_of(due.since(came));
            if self.parts.stop.wait(wait) {
                return Err(Break::Stopped.into());
            }
            came = due;
        }
        let taken = Taken { packet, idr, came };
        let whole = opened.cutter.push(taken).map_err(End::Uncut)?;
        self.pictures += 1;
        opened.played = Framerate::COPIED.duration_of(at);
        if !whole.is_empty() {
            let distance = opened.cutter.keyframe_distance();
            self.tell(|status| {
                status.keyframe_seconds = distance.map(|distance| distance.as_secs_f64());
            });
        }
        for segment in whole {
            copying.deliver(&opened.track, rate, segment)?;
        }
        Ok(())
    }
}

/// Pictures a second as FFmpeg tells.
fn rate(found: Option<&Found>) -> Option<f64> {
    found.and_then(|found| found.framerate)
}

/// The framerate that the manifests tell: FFmpeg's, which is steadier than what can be measured; else that of most samples.
fn rate_of(found: Option<f64>, segment: &Segment) -> Framerate {
    let told = found.filter(|rate| (1.0..=240.0).contains(rate));
    if let Some(rate) = told.and_then(|rate| rate.to_string().parse::<Framerate>().ok()) {
        let ticks = u64::from(Framerate::COPIED.num()) * u64::from(rate.den());
        return Framerate::copied(u32::try_from(ticks / u64::from(rate.num())).unwrap_or(1));
    }
    let mut durations: Vec<u32> = segment.iter().map(|taken| taken.packet.duration).collect();
    durations.sort_unstable();
    Framerate::copied(durations.get(durations.len() / 2).copied().unwrap_or(3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_framerate_that_is_told_counts_in_the_copied_timescale() {
        for (told, shown) in [(25.0, "25"), (29.97, "30000/1001"), (12.5, "25/2")] {
            let rate = rate_of(Some(told), &Vec::new());
            assert_eq!(rate.num(), 90_000);
            assert_eq!(rate.reduced().to_string(), shown);
        }
        assert_eq!(rate_of(None, &Vec::new()).reduced().to_string(), "25");
    }
}
