//! One opening of a source that is copied, from FFmpeg's start to its end: what it gives, whether that can be published, and what its end means.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringgear_ring::layout::Policy;

use super::{Copied, Copying, Opened};
use crate::encode::copied::CopiedTrack;
use crate::encode::copied_sound::SoundError;
use crate::source::arguments::{self, LATER, Tempo};
use crate::source::cutter::{Cutter, Step, Taken, Uncut};
use crate::source::ffmpeg::Ffmpeg;
use crate::source::fragments::{Fragment, Packet};
use crate::source::inflow::{Inflow, PICTURES};
use crate::source::input::Break;
use crate::source::placing::Rule;
use crate::source::session::{BROKEN_OFF, Halt, LONGEST_START, Outcome, WITHOUT_SOUND};
use crate::source::soundtrack::Soundtrack;
use crate::source::{Source, Stop};
use crate::tick::Framerate;

/// Why samples stop to flow.
enum End {
    Halt(Halt),
    /// The source has become another one.
    Changed,
    Uncut(Uncut),
    /// It can't be published at all, and why.
    Unfit(String),
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
    pub(in crate::source) fn copy(&mut self, copying: &mut Copying) -> Outcome {
        let plan = self.parts.plan.clone();
        let sounds = copying.asked();
        let line = |pipe, pipes: &[RawFd]| {
            let sounds = sounds.iter().zip(pipes.iter().copied());
            arguments::copying(&plan, pipe, sounds)
        };
        let started = self.start(sounds.len(), line);
        let (ffmpeg, pipes) = match started {
            Ok(started) => started,
            Err(failed) => return failed,
        };
        let stop: Stop = self.parts.stop.clone();
        let mut inflow = Inflow::new(pipes, &stop, plan.timeout.max(LONGEST_START));
        copying.soundtracks.iter_mut().for_each(Soundtrack::forget);
        copying.parting.begin_anew();
        copying.at = 0;
        copying.under_way = None;
        let before = self.pictures;
        let mut opened = None;
        let end = self.flow(copying, &mut inflow, &ffmpeg, &mut opened);
        match &mut opened {
            // Pictures may have come before the sound for which it is refused.
            _ if matches!(end, End::Unfit(_)) => {}
            // An owner that has died needs no last segment.
            Some(opened) => drop(copying.break_off(opened)),
            None => {}
        }
        // One that hangs up may have had its next keyframe on its way.
        let whole = opened.as_ref().filter(|opened| opened.tempo == Tempo::Kept);
        let uncut = whole.and_then(|opened| opened.cutter.uncut());
        let end = match (end, uncut) {
            (End::Halt(Halt::Break(Break::Closed)), Some(uncut)) => End::Uncut(uncut),
            (end, _) => end,
        };
        let end = match end {
            End::Halt(Halt::Break(Break::Closed)) if self.pictures == before => {
                self.without_sound(copying, &ffmpeg)
            }
            end => end,
        };
        let halt = match end {
            End::Changed => {
                drop(inflow);
                ffmpeg.end(Duration::ZERO);
                return Outcome::Learnt;
            }
            End::Uncut(uncut) => {
                let why = uncut.told(&self.status.source, &self.parts.stream);
                if let Uncut::Sparse { distance, .. } = uncut {
                    self.tell(|status| status.keyframe_seconds = Some(distance.as_secs_f64()));
                }
                copying.refuse(why)
            }
            End::Unfit(why) => copying.refuse(why),
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
        let outcome = self.halted(inflow, ffmpeg, halt, fed);
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

    /// FFmpeg has ended before the first picture. It may have been asked for sound that is not there, or can't be copied.
    fn without_sound(&self, copying: &mut Copying, ffmpeg: &Ffmpeg) -> End {
        let found = ffmpeg.words().found();
        match found.map(|found| found.sound) {
            Some(None) if !copying.asked().is_empty() => {
                copying.mute = true;
                End::Changed
            }
            Some(Some(codec)) if copying.cannot_copy(&codec) => self.sound_not_copied(&codec),
            _ => Break::Closed.into(),
        }
    }

    fn sound_not_copied(&self, codec: &str) -> End {
        self.unfit_sound(&format!("its sound is {codec}: only AAC can be copied"))
    }

    /// The source's sound can't be published.
    fn unfit_sound(&self, why: &str) -> End {
        let (shown, stream) = (&self.status.source, &self.parts.stream);
        End::Unfit(format!(
            "{shown}: {why}; write codec = \"aac\" in [[streams.{stream}.audio.renditions]], which encodes the sound alone, or take [streams.{stream}.audio] out"
        ))
    }

    /// Moves samples until something ends that.
    fn flow(
        &mut self,
        copying: &mut Copying,
        inflow: &mut Inflow<'_>,
        ffmpeg: &Ffmpeg,
        opened: &mut Option<Opened>,
    ) -> End {
        loop {
            match inflow.next() {
                Ok((
                    PICTURES,
                    Fragment::Track {
                        sample_entry,
                        timescale,
                    },
                )) => {
                    if timescale != Framerate::COPIED.num() {
                        let why = format!("FFmpeg counts its times in {timescale} units a second");
                        return Halt::Refused(why).into();
                    }
                    match self.open_track(copying, ffmpeg, sample_entry) {
                        Ok(begun) => *opened = Some(begun),
                        Err(end) => return end,
                    }
                }
                Ok((PICTURES, Fragment::Packet(packet))) => {
                    let Some(opened) = opened else {
                        // FFmpeg writes the track first.
                        return Break::Closed.into();
                    };
                    if let Err(end) = self.take(copying, opened, packet) {
                        return end;
                    }
                    inflow.patience = self.parts.plan.timeout;
                }
                Ok((place, fragment)) => {
                    if let Err(end) = self.take_sound(copying, place - 1, fragment) {
                        return end;
                    }
                    if let Some(opened) = opened
                        && let Err(halt) = copying.release(opened, Some(copying.at))
                    {
                        return halt.into();
                    }
                }
                Err(reason) => return reason.into(),
            }
        }
    }

    /// Takes what comes of a track of sound.
    fn take_sound(
        &self,
        copying: &mut Copying,
        place: usize,
        fragment: Fragment,
    ) -> Result<(), End> {
        let Some(soundtrack) = copying.soundtracks.get_mut(place) else {
            return Ok(());
        };
        let opened = match fragment {
            Fragment::Packet(packet) => {
                soundtrack.push(packet, copying.at);
                return Ok(());
            }
            Fragment::Track {
                sample_entry,
                timescale,
            } => soundtrack.open(&sample_entry, timescale),
        };
        match opened {
            Ok(()) => Ok(()),
            Err(error @ SoundError::Entry(_)) => {
                // So it is with sound of which not one frame has come.
                tracing::warn!(stream = %self.parts.stream, source = %self.status.source, "silence in place of its sound: {error}");
                Ok(())
            }
            Err(error) => Err(self.unfit_sound(&error.to_string())),
        }
    }

    /// The source is open, and is of this track.
    fn open_track(
        &mut self,
        copying: &mut Copying,
        ffmpeg: &Ffmpeg,
        entry: Bytes,
    ) -> Result<Opened, End> {
        let found = ffmpeg.words().found();
        let heard = !copying.desk.sounds.is_empty();
        let silent = found.as_ref().is_some_and(|found| found.sound.is_none());
        if copying.mute && !silent {
            // It has some again.
            copying.mute = false;
            return Err(End::Changed);
        }
        let sound = found.as_ref().and_then(|found| found.sound.as_deref());
        if let Some(codec) = sound.filter(|codec| copying.cannot_copy(codec)) {
            return Err(self.sound_not_copied(codec));
        }
        let track = CopiedTrack::new(&entry).map_err(|error| {
            let (shown, stream) = (&self.status.source, &self.parts.stream);
            End::Unfit(format!(
                "{shown} can't be copied: {error}; write an encoder instead of codec = \"copy\" in [streams.{stream}]"
            ))
        })?;
        let tempo = Tempo::of(&self.parts.plan).with(found.as_ref());
        copying
            .placing
            .begin_anew(match (self.parts.policy, tempo) {
                (Policy::Lossless, _) => Rule::Follow,
                (_, Tempo::Kept) => Rule::Read,
                _ => Rule::Captured,
            });
        self.opened(found.as_ref(), track.size(), heard);
        copying.say(Copied::Opened((heard && silent).then_some(WITHOUT_SOUND)))?;
        Ok(Opened {
            track: Arc::new(track),
            entry,
            found,
            tempo,
            cutter: Cutter::new(&copying.desk.grid, tempo == Tempo::Own, heard)
                .knowing(copying.latest),
            waiting: VecDeque::new(),
            shown: 0,
            framerate: Framerate::COPIED,
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
        if opened.cutter.leaps_to(&packet) {
            copying.break_off(opened)?;
            opened.cutter.leap();
            copying.soundtracks.iter_mut().for_each(Soundtrack::forget);
        }
        let now = || copying.desk.grid.tick_at(self.parts.anchor.now());
        let mut came = now();
        let due = match copying.placing.due(at, came) {
            Some(due) => due,
            None => {
                copying.break_off(opened)?;
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
        let steps = opened.cutter.push(taken).map_err(End::Uncut)?;
        copying.at = at;
        self.pictures += 1;
        opened.played = Framerate::COPIED.duration_of(at.saturating_sub(LATER * 90_000));
        if let Some(late) = opened.cutter.take_late() {
            copying.latest = opened.cutter.latest();
            self.tell_of_late_keyframe(late);
        }
        if steps.contains(&Step::End) {
            let distance = opened.cutter.keyframe_distance();
            self.tell(|status| {
                status.keyframe_seconds = distance.map(|distance| distance.as_secs_f64());
            });
        }
        copying.take(opened, steps);
        copying.release(opened, Some(at))?;
        Ok(())
    }

    /// Pictures were left out because a keyframe came `late`, later than any for a while: their segment had to end before.
    fn tell_of_late_keyframe(&self, late: Duration) {
        tracing::warn!(
            stream = %self.parts.stream, source = %self.status.source,
            "the source's keyframes are uneven: one came {:.2} s after the one before, and pictures before it are left out; set a fixed keyframe interval (GOP) at the source, or a longer segment",
            late.as_secs_f64()
        );
    }
}
