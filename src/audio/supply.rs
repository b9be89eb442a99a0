//! What comes into the stream's sound: an inlet that somebody fills, or one that an FFmpeg of its own fills, which is started again when it ends.

use std::collections::VecDeque;
use std::collections::vec_deque::Drain;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Pcm;
use super::inlet::{Arrival, Inlet};
use super::reader::Reader;
use super::rests::{self, Rests};
use crate::clock::{Anchor, MonotonicTime};
use crate::config::{AudioInput, AudioPlan, AudioSource};
use crate::status::AudioStatus;
use crate::tick::SAMPLE_RATE;

/// A source that gives nothing for so long is ended and begun again.
const MUTE: Duration = Duration::from_secs(15);
/// So many inlets follow on one another, where none may be cut short.
const FOLLOWING: usize = 4;
/// What has come so lately is still heard.
const HEARD: Duration = Duration::from_secs(3);

/// Adds an inlet behind those that wait. Where there are too many, the oldest goes; says whether it has.
pub(super) fn follow(waiting: &mut VecDeque<Inlet>, inlet: Inlet) -> bool {
    // Who opened and closed without a sample takes nobody's place.
    waiting.retain(|inlet| !inlet.is_over());
    waiting.push_back(inlet);
    waiting.len() > FOLLOWING && waiting.pop_front().is_some()
}

/// What there is to read from, and what is read now.
pub(super) struct Supply {
    stream: String,
    plan: AudioPlan,
    kind: Kind,
    ffmpeg: PathBuf,
    anchor: Anchor,
    inlet: Option<Inlet>,
    /// Whether it is a recording's, which leaves nothing out.
    recorded: bool,
    /// What comes after the inlet then.
    following: VecDeque<Inlet>,
    /// The inlet is a new one.
    changed: bool,
    /// What fills it, where that is an FFmpeg of its own.
    reader: Option<Reader>,
    /// One that was killed, and has not ended yet: no other is started meanwhile.
    hung: Option<Reader>,
    /// What there was has ended for good, unless somebody begins anew.
    finished: bool,
    rests: Rests,
    heard: MonotonicTime,
    restarts: u64,
    detail: Option<String>,
}

/// What kind of sound it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file, by itself.
    File,
    /// What a recording downloads by itself: mostly a file elsewhere, but it may be live.
    Download,
    /// A URL or a device, by itself.
    Unending,
    /// What comes beside a source's pictures.
    Given,
    /// A producer's.
    Fed,
}

impl Kind {
    fn of(plan: &AudioPlan, recorded: bool) -> Self {
        match &plan.source {
            AudioInput::Pictures => Self::Given,
            AudioInput::Producer => Self::Fed,
            AudioInput::Own(source) if source.is_file() => Self::File,
            AudioInput::Own(source) if recorded && source.is_download() => Self::Download,
            AudioInput::Own(_) => Self::Unending,
        }
    }
}

/// What has happened to it.
#[derive(Debug, Default)]
pub(super) struct Tidings {
    /// What comes from now on is another sound.
    pub(super) begun: bool,
    /// What has come, and whether its source was held back then.
    pub(super) arrivals: Vec<(Arrival, bool)>,
    /// Nothing more comes, for now.
    pub(super) ended: bool,
}

impl Supply {
    pub(super) fn new(stream: &str, plan: &AudioPlan, ffmpeg: &Path, anchor: &Anchor) -> Self {
        Self {
            stream: stream.to_owned(),
            plan: plan.clone(),
            kind: Kind::of(plan, false),
            ffmpeg: ffmpeg.to_owned(),
            anchor: anchor.clone(),
            inlet: None,
            recorded: false,
            following: VecDeque::new(),
            changed: false,
            reader: None,
            hung: None,
            finished: false,
            rests: Rests::default(),
            heard: anchor.monotonic(),
            restarts: 0,
            detail: None,
        }
    }

    /// Leaves nothing out: gives all that a producer has given before what the next one gives, and lets a download wait.
    pub(super) fn recorded(self) -> Self {
        Self {
            kind: Kind::of(&self.plan, true),
            recorded: true,
            ..self
        }
    }

    /// Takes what comes out of `inlet` from now on.
    pub(super) fn begin(&mut self, inlet: Inlet) {
        let under_way =
            self.inlet.as_ref().is_some_and(|inlet| !inlet.is_over()) || !self.following.is_empty();
        if self.recorded && self.kind == Kind::Fed && under_way {
            if follow(&mut self.following, inlet) {
                self.tell_left_out();
            }
            return;
        }
        self.reader = None;
        self.inlet = Some(inlet);
        self.finished = false;
        self.heard = self.anchor.monotonic();
        self.changed = true;
        self.detail = None;
    }

    /// Tells that the sound of a session is lost, for there is no room for all that have come since.
    pub(super) fn tell_left_out(&self) {
        tracing::warn!(
            stream = %self.stream,
            "a producer's sound is left out: {FOLLOWING} further sessions followed it before any of it was recorded"
        );
    }

    /// There is no sound, for the reason `why`.
    pub(super) fn without(&mut self, why: String) {
        self.inlet = None;
        self.detail = Some(why);
    }

    /// Starts the source if it is time to, and looks whether it still gives anything.
    pub(super) fn tend(&mut self, now: MonotonicTime) -> Tidings {
        let mut tidings = Tidings {
            begun: std::mem::take(&mut self.changed),
            ..Tidings::default()
        };
        let Some(inlet) = &self.inlet else {
            if let AudioInput::Own(source) = self.plan.source.clone()
                && !self.finished
                && self.rests.are_over(now)
                && self.hung.as_mut().is_none_or(Reader::is_gone)
            {
                tidings.begun = true;
                self.hung = None;
                self.start(&source, now);
            }
            return tidings;
        };
        for arrival in inlet.arrivals() {
            self.heard = arrival.moment.came;
            let held_back = inlet.is_held_back(self.heard);
            tidings.arrivals.push((arrival, held_back));
        }
        let mute =
            self.reader.is_some() && now.saturating_since(self.heard) > MUTE && inlet.is_empty();
        let over = inlet.is_over();
        if mute || over {
            tidings.ended = true;
            self.inlet = None;
            self.ended(now, over);
            if let Some(next) = self.following.pop_front() {
                self.begin(next);
            }
        }
        tidings
    }

    /// Samples a second of what comes.
    pub(super) fn rate(&self) -> NonZeroU32 {
        self.inlet.as_ref().map_or(SAMPLE_RATE, Inlet::rate)
    }

    /// Gives up to `most` samples to `to`; says how many there were.
    pub(super) fn take(&self, most: usize, to: impl FnOnce(Drain<'_, Pcm>)) -> usize {
        let inlet = self.inlet.as_ref();
        inlet.map_or(0, |inlet| inlet.take(most, to))
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether nothing comes, unless somebody gives another inlet. The first producer's is waited for.
    pub(super) fn is_finished(&self) -> bool {
        self.inlet.is_none() && (self.finished || self.kind == Kind::Given)
    }

    /// Whether it is a file that is read for the first time, from which nothing may have come yet.
    pub(super) fn is_being_opened(&self) -> bool {
        self.kind == Kind::File && self.inlet.is_some() && self.restarts == 0
    }

    /// Whether more is there than is taken.
    pub(super) fn is_held_back(&self, now: MonotonicTime) -> bool {
        let inlet = self.inlet.as_ref();
        inlet.is_some_and(|inlet| inlet.is_held_back(now))
    }

    /// Tells how it is; `fault` is why nothing is made of it, if so.
    pub(super) fn report(
        &mut self,
        status: &mut AudioStatus,
        fault: Option<&String>,
        now: MonotonicTime,
    ) {
        let heard = now.saturating_since(self.heard) < HEARD || self.is_held_back(now);
        status.playing = self.inlet.is_some() && heard;
        if status.playing {
            self.detail = None;
        } else if self.inlet.is_some() && self.detail.is_none() {
            self.detail = Some("no sound comes from the source: silence in its place".to_owned());
        }
        status.detail = fault.or(self.detail.as_ref()).cloned();
        status.source_restarts = self.restarts;
        status.source_pid = self.reader.as_ref().and_then(Reader::pid);
    }

    fn start(&mut self, source: &AudioSource, now: MonotonicTime) {
        self.rests.begin(now);
        self.heard = now;
        self.kind = Kind::of(&self.plan, self.recorded);
        let waits = matches!(self.kind, Kind::File | Kind::Download);
        match Reader::start(&self.ffmpeg, source, &self.anchor, waits) {
            Ok((reader, inlet)) => {
                tracing::info!(stream = %self.stream, source = %source.shown(), "audio source started");
                self.reader = Some(reader);
                self.inlet = Some(inlet);
            }
            Err(error) => self.failed(source, now, &error.to_string()),
        }
    }

    fn ended(&mut self, now: MonotonicTime, over: bool) {
        let (Some(reader), AudioInput::Own(source)) =
            (self.reader.take(), self.plan.source.clone())
        else {
            self.finished = true;
            return;
        };
        let (well, mut how) = match reader.end(over) {
            Ok(ended) => ended,
            Err(hung) => {
                self.hung = Some(hung);
                let why = "nothing comes, and it can't be killed: it hangs in what it reads";
                return self.failed(&source, now, why);
            }
        };
        if !over {
            how = format!("nothing has come for {MUTE:?}");
        }
        if well && self.kind == Kind::File && !source.repeat {
            self.finished = true;
            self.detail = Some("the file has ended: silence follows".to_owned());
            tracing::info!(stream = %self.stream, source = %source.shown(), "the audio file has ended: silence follows");
            return;
        }
        self.failed(&source, now, &how);
    }

    fn failed(&mut self, source: &AudioSource, now: MonotonicTime, why: &str) {
        let rest = self.rests.rest(now, rests::FIRST);
        self.restarts += 1;
        tracing::warn!(stream = %self.stream, source = %source.shown(), retry_in = ?rest, "the audio source ended and is started again, with silence until then: {why}");
        self.detail = Some(format!("the audio source ended: {why}"));
    }
}

#[cfg(test)]
impl Supply {
    /// One of this kind that gives what comes out of `inlet`.
    pub(super) fn of(kind: Kind, inlet: Inlet) -> Self {
        let input = match kind {
            Kind::File => Some("/proc/self/exe"),
            Kind::Download => Some("https://example.com/clap.mp4"),
            Kind::Unending => Some("hw:0"),
            Kind::Given | Kind::Fed => None,
        };
        let other = match kind {
            Kind::Fed => AudioInput::Producer,
            _ => AudioInput::Pictures,
        };
        let source = input.map_or(other, |input| {
            AudioInput::Own(AudioSource {
                input: input.to_owned(),
                input_args: Vec::new(),
                repeat: false,
            })
        });
        let plan = AudioPlan {
            source,
            renditions: Vec::new(),
        };
        let clock = std::sync::Arc::new(crate::clock::SystemClock);
        let mut supply =
            Self::new("door", &plan, Path::new("ffmpeg"), &Anchor::new(clock)).recorded();
        supply.inlet = Some(inlet);
        supply
    }
}
