//! One opening of a source, from FFmpeg's start to its end: what is learnt of it, the stream's seat, and its pictures' way into the ring.

use std::io::{self, PipeReader};
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringgear_producer::messages::{Open, PROTOCOL};
use ringgear_ring::format::{FrameFormat, PixelFormat};
use ringgear_ring::layout::{MAX_MEMORY_BYTES, Policy};
use ringgear_ring::{Captured, Deadline, MemoryKind, Slot, Writer};

use super::arguments::{self, Filter, Tempo};
use super::ffmpeg::{Exit, Ffmpeg, Pipes};
use super::heard::Found;
use super::input::{Break, Input};
use super::sound::{Known, PictureClock, Sound};
use super::timing::{LiveClock, Pacer};
use super::trouble::explain;
use super::{Source, Stop};
use crate::clock::MonotonicTime;
use crate::config::{SourceInput, SourcePlan};
use crate::control::Granted;
use crate::encode::nut::{NutHead, NutTrack};
use crate::picture::Size;
use crate::status::SourceState;

/// Until the first picture, a source is given at least this long: some cameras send a keyframe every ten seconds.
pub(super) const LONGEST_START: Duration = Duration::from_secs(15);
/// How long FFmpeg may take to end once it has closed its pipe.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// A recording that stops so much before the end that it announced has broken off.
pub(crate) const BROKEN_OFF: Duration = Duration::from_secs(2);
/// How long a full ring is waited for until it is asked again whether that is still wanted.
const LOOK_UP: Duration = Duration::from_millis(100);

/// What is told of a stream's sound where its source has none.
pub(super) const WITHOUT_SOUND: &str = "the source has no sound: silence in its place";

/// How an opening ended.
pub(super) enum Outcome {
    /// As it was told to.
    Stopped,
    /// What was found asks for other filters: it is opened again at once.
    Learnt,
    /// Its pictures were of this size and are of another one now.
    Resized(Size),
    /// It came to its end.
    Ended,
    /// It failed, for people.
    Failed(String),
    /// It failed amid its recording, and going on has not helped, or can't be done: a copied one would be recorded twice.
    BrokenOff(String),
}

/// Why pictures stop to flow.
pub(super) enum Halt {
    Break(Break),
    Resized(Size),
    /// For people.
    Refused(String),
}

impl From<Break> for Halt {
    fn from(reason: Break) -> Self {
        Self::Break(reason)
    }
}

/// The seat with its ring.
struct Seated {
    granted: Granted,
    writer: Writer,
    size: Size,
}

/// Who says when each picture is committed, and when it was captured.
enum Pace {
    /// The source, by a clock of its own.
    Live(LiveClock),
    /// This clock.
    Paced(Pacer),
    /// The ring, which takes them as fast as it can.
    FlatOut,
}

impl Source {
    /// Opens the source and feeds the stream until that is over.
    pub(super) fn open(&mut self) -> Outcome {
        let plan = self.parts.plan.clone();
        let filter = self.filter;
        let started = self.start(usize::from(filter.sound), |pipe, sounds| {
            arguments::line(&plan, &filter, pipe, sounds.first().copied())
        });
        let (ffmpeg, mut pipes) = match started {
            Ok(started) => started,
            Err(failed) => return failed,
        };
        let stop = self.parts.stop.clone();
        let patience = plan.timeout.max(LONGEST_START);
        let clock = PictureClock::new();
        let sound = match self.hear(pipes.sounds.pop(), &clock) {
            Ok(sound) => sound,
            Err(error) => {
                let shown = &self.status.source;
                return Outcome::Failed(format!("no thread for the sound of {shown}: {error}"));
            }
        };
        let mut input = Input::new(pipes.pictures, MAX_MEMORY_BYTES, &stop, patience);
        let track = match input.head() {
            Ok(NutHead::Track(track)) => track,
            // The reader gives the track first.
            Ok(NutHead::Packet(_)) => {
                return self.halted(input, ffmpeg, Break::Closed.into(), None);
            }
            Err(reason) => return self.not_opened(input, ffmpeg, reason),
        };
        let found = ffmpeg.words().found();
        let tempo = Tempo::of(&plan).with(found.as_ref());
        let size = track.size.map(|(width, height)| Size::new(width, height));
        if let (Some(found), Some(size)) = (&found, size) {
            let learnt = self.learn(found, tempo, size);
            if learnt != self.filter {
                self.filter = learnt;
                drop(input);
                ffmpeg.end(Duration::ZERO);
                return Outcome::Learnt;
            }
        }
        let recorded = tempo == Tempo::Kept && self.parts.policy == Policy::Lossless;
        self.known = if recorded {
            self.pictures.saturating_sub(self.rounds)
        } else {
            0
        };
        let (before, known) = (self.pictures, self.known);
        if known > 0 {
            tracing::info!(stream = %self.parts.stream, pictures = known, "the source is read again up to where its recording goes on");
        }
        let mut seated = match self.take_seat(size, ffmpeg.pid()) {
            Ok(seated) => seated,
            Err(refused) => return self.halted(input, ffmpeg, Halt::Refused(refused), None),
        };
        self.opened(found.as_ref(), seated.size, self.parts.sound.is_some());
        let (halt, played) = self.feed(&mut input, &track, &ffmpeg, &mut seated, (tempo, &clock));
        if let (Halt::Break(Break::Closed), Policy::Lossless, Some(sound)) =
            (&halt, self.parts.policy, sound)
        {
            // Nothing of it may be lost with the process.
            sound.wait(&stop);
        }
        let length = found.and_then(|found| found.duration);
        let short = length.filter(|length| self.is_whole() && played + BROKEN_OFF < *length);
        let mut outcome = self.halted(input, ffmpeg, halt, Some((tempo, short)));
        match &outcome {
            // A recording of a file goes on where it was, unless that does not help.
            Outcome::Failed(cause) if self.known < known && self.pictures == before => {
                outcome = Outcome::BrokenOff(cause.clone());
            }
            Outcome::Ended => self.rounds = self.pictures - self.known,
            _ => {}
        }
        if matches!(outcome, Outcome::Ended | Outcome::BrokenOff(_)) {
            // What waits in the ring is still shown; nobody waits for the account. A seat that is not given back this way is one that
            // somebody may come back to, which for a recording makes a difference.
            drop(seated.granted.seat.close());
        }
        outcome
    }

    /// Starts its FFmpeg with the line that goes with the pipes of its pictures and of so many tracks of sound.
    pub(super) fn start(
        &mut self,
        sounds: usize,
        line: impl FnOnce(RawFd, &[RawFd]) -> Vec<String>,
    ) -> Result<(Ffmpeg, Pipes), Outcome> {
        let secrets = self.parts.plan.input.secrets();
        let started = Ffmpeg::start(self.parts.ffmpeg.clone(), sounds, line, secrets);
        let shown = &self.status.source;
        let (ffmpeg, pipes) = started.map_err(|error| {
            Outcome::Failed(format!("FFmpeg can't be started for {shown}: {error}"))
        })?;
        let pid = ffmpeg.pid();
        self.tell(|status| status.pid = Some(pid));
        Ok((ffmpeg, pipes))
    }

    /// Begins to take in the sound that FFmpeg writes to `pipe`.
    fn hear(&self, pipe: Option<PipeReader>, clock: &PictureClock) -> io::Result<Option<Sound>> {
        let (Some(pipe), Some(entrance)) = (pipe, &self.parts.sound) else {
            return Ok(None);
        };
        let anchor = self.parts.anchor.clone();
        let known = (self.parts.policy == Policy::Lossless).then(|| Known {
            pictures: self.place_of(self.parts.first_tick.0),
            sound: self.parts.first_sound,
        });
        Sound::start(pipe, entrance, clock.clone(), anchor, known).map(Some)
    }

    /// It gives no pictures. If it was asked for sound that it does not have, that is learnt.
    fn not_opened(&mut self, input: Input<'_>, ffmpeg: Ffmpeg, reason: Break) -> Outcome {
        let words = Arc::clone(ffmpeg.words());
        let outcome = self.halted(input, ffmpeg, reason.into(), None);
        let silent = |found: &Found| found.sound.is_none();
        let learnt = self.filter.sound && words.heard().found.as_ref().is_some_and(silent);
        if learnt && matches!(outcome, Outcome::Failed(_)) {
            self.filter.sound = false;
            self.tell(|status| status.last_error.clear());
            return Outcome::Learnt;
        }
        outcome
    }

    /// Which filters go with what was found.
    fn learn(&mut self, found: &Found, tempo: Tempo, size: Size) -> Filter {
        let ours = self.parts.framerate;
        let recorded = self.parts.policy == Policy::Lossless;
        // In a recording each picture is the next tick, so that its rate has to be the stream's.
        let other_rate = |rate: &f64| recorded && (rate - ours.as_f64()).abs() > 0.006;
        let sound = self.parts.sound.is_some() && found.sound.is_some();
        // Where sound goes by the source's times, pictures have to, too.
        let steady = (sound && recorded && tempo == Tempo::Kept).then_some(ours);
        // A camera that changes its size is opened anew, and has it then. Of a file nothing may be shown twice.
        let fitted =
            (tempo == Tempo::Kept || recorded).then(|| *self.first_size.get_or_insert(size));
        Filter {
            converted: !found.is_bt709(),
            fitted,
            framerate: found.framerate.filter(other_rate).map(|_| ours).or(steady),
            sound,
        }
    }

    /// Whether all of what a server announces is asked for. What is missing of a file was never there.
    pub(super) fn is_whole(&self) -> bool {
        const PARTS: [&str; 4] = ["-t", "-to", "-ss", "-sseof"];
        let asked = &self.parts.plan.input_args;
        matches!(self.parts.plan.input, SourceInput::Url { .. })
            && !asked.iter().any(|word| PARTS.contains(&word.as_str()))
    }

    /// The stream's seat for pictures of this size; else why not, for people.
    fn take_seat(&self, size: Option<Size>, pid: u32) -> Result<Seated, String> {
        let shown = &self.status.source;
        let size =
            size.ok_or_else(|| format!("{shown}: FFmpeg does not say how large its pictures are"))?;
        let open = Open {
            protocol: PROTOCOL,
            stream: self.parts.stream.clone(),
            format: PixelFormat::Yuv420p.name().to_owned(),
            width: size.width,
            height: size.height,
            strides: None,
            slots: None,
            memory: MemoryKind::Memfd,
            take_over: false,
            client: Some("source".to_owned()),
        };
        let pid = i32::try_from(pid).unwrap_or_default();
        let mut granted = (self.parts.seat)(&open, pid)
            .map_err(|refused| format!("{shown}: {}", refused.message))?;
        let format = FrameFormat::packed(PixelFormat::Yuv420p, size.width, size.height);
        let format = format.map_err(|error| format!("{shown}: {error}"))?;
        let memory = granted.memory.take();
        let memory = memory.ok_or_else(|| format!("{shown}: its ring came without memory"))?;
        let writer = Writer::from_fd(
            memory,
            &format,
            granted.opened.memory_bytes,
            granted.opened.slots,
        );
        Ok(Seated {
            granted,
            writer: writer.map_err(|error| format!("{shown}: {error}"))?,
            size,
        })
    }

    /// Tells that the source is open; `heard` if its sound is wanted.
    pub(super) fn opened(&mut self, found: Option<&Found>, size: Size, heard: bool) {
        self.logged = None;
        let what = found.map_or_else(|| format!("pictures of {size}"), Found::to_string);
        let sound = found.and_then(|found| found.sound.clone());
        let note = match (heard, &sound) {
            (false, Some(_)) => "; its sound is left out",
            (true, None) => "; it has no sound: silence in its place",
            _ => "",
        };
        if let (Some(entrance), None) = (&self.parts.sound, &sound) {
            entrance.without(WITHOUT_SOUND);
        }
        tracing::info!(stream = %self.parts.stream, source = %self.status.source, "the source is open: {what}{note}");
        let found = found.cloned().unwrap_or_default();
        let word = |word: String| Some(word).filter(|word| !word.is_empty());
        self.tell(|status| {
            status.state = SourceState::Running;
            status.openings += 1;
            status.error = None;
            status.container = word(found.container);
            status.codec = word(found.codec);
            status.audio_codec = sound;
            status.pixel_format = word(found.pixels);
            status.framerate = found.framerate;
            status.duration_seconds = found.duration.map(|length| length.as_secs_f64());
            (status.width, status.height) = (Some(size.width), Some(size.height));
        });
    }

    /// Moves pictures into the ring until something ends that; says how much of the source's time they were.
    fn feed(
        &mut self,
        input: &mut Input<'_>,
        track: &NutTrack,
        ffmpeg: &Ffmpeg,
        seated: &mut Seated,
        (tempo, clock): (Tempo, &PictureClock),
    ) -> (Halt, Duration) {
        let mut pace = match (tempo, seated.writer.policy()) {
            (Tempo::Kept, Policy::Lossless) => Pace::FlatOut,
            (Tempo::Kept, Policy::Latest) => Pace::Paced(Pacer::default()),
            _ => Pace::Live(LiveClock::default()),
        };
        let mut played = Duration::ZERO;
        loop {
            let next = self.next_picture(input, track, ffmpeg, seated, (&mut pace, clock));
            match next {
                Ok(at) => played = at,
                Err(halt) => return (halt, played),
            }
            input.pipe.patience = self.parts.plan.timeout;
        }
    }

    /// Moves one picture, or passes over one that is recorded already; says when it is, in the source's time.
    fn next_picture(
        &mut self,
        input: &mut Input<'_>,
        track: &NutTrack,
        ffmpeg: &Ffmpeg,
        seated: &mut Seated,
        (pace, clock): (&mut Pace, &PictureClock),
    ) -> Result<Duration, Halt> {
        let NutHead::Packet(head) = input.head()? else {
            // The reader gives the track once.
            return Err(Break::Closed.into());
        };
        if self.filter.fitted.is_none() && ffmpeg.words().heard().resized {
            return Err(Halt::Resized(seated.size));
        }
        if let Some(ended) = &*seated.granted.ended.borrow() {
            return Err(Halt::Refused(format!(
                "{}: {}",
                self.status.source, ended.message
            )));
        }
        let at = time_of(head.pts, track.time_base);
        let mut slot = self.begin(&mut seated.writer)?;
        if head.bytes != slot.bytes_mut().len() {
            return Err(Halt::Resized(seated.size));
        }
        input.fill(slot.bytes_mut())?;
        if self.known > 0 {
            drop(slot);
            clock.set(at, self.place_of(self.pictures - self.known));
            self.known -= 1;
            return Ok(at);
        }
        let captured = self.wait_until_due(pace, at)?;
        clock.set(at, self.time_here(captured));
        slot.commit(self.pictures, captured);
        self.pictures += 1;
        Ok(at)
    }

    /// When the next picture was captured, as sound has it: in a recording, which has no clock, where the picture is.
    fn time_here(&self, captured: Option<Captured>) -> MonotonicTime {
        if self.parts.policy == Policy::Lossless {
            return self.place_of(self.pictures);
        }
        let captured = captured.unwrap_or_else(ringgear_producer::now);
        let suspended = self.parts.anchor.suspended().as_nanos();
        let suspended = u64::try_from(suspended).unwrap_or(0);
        MonotonicTime(captured.0.saturating_add(suspended))
    }

    /// When the picture of this number is, from the beginning of its recording.
    fn place_of(&self, picture: u64) -> MonotonicTime {
        let from_start = self.parts.framerate.duration_of(picture);
        MonotonicTime(u64::try_from(from_start.as_nanos()).unwrap_or(u64::MAX))
    }

    /// A place for the next picture: waited for in a lossless ring.
    fn begin<'a>(&self, writer: &'a mut Writer) -> Result<Slot<'a>, Halt> {
        let unusable = |error: ringgear_ring::RingError| {
            Halt::Refused(format!(
                "{}: its ring is unusable: {error}",
                self.status.source
            ))
        };
        while !writer
            .wait_for_room(Deadline::after(LOOK_UP))
            .map_err(unusable)?
        {
            if self.parts.stop.is_set() {
                return Err(Break::Stopped.into());
            }
        }
        writer.begin().map_err(unusable)
    }

    /// Waits until a picture of the source's time `at` is due; says when it was captured, if the moment that it is taken does not do.
    fn wait_until_due(&self, pace: &mut Pace, at: Duration) -> Result<Option<Captured>, Halt> {
        let now = ringgear_producer::now();
        match pace {
            Pace::FlatOut => Ok(None),
            Pace::Live(clock) => Ok(Some(clock.captured(at, now))),
            Pace::Paced(pacer) => {
                let due = pacer.due(at, now);
                let left = Duration::from_nanos(due.0.saturating_sub(now.0));
                if self.parts.stop.wait(left) {
                    return Err(Break::Stopped.into());
                }
                Ok(Some(due))
            }
        }
    }

    /// Ends FFmpeg, and says what that means. `fed` is there once pictures have flowed: who kept their pace, and the length of a recording
    /// that did not reach it.
    pub(super) fn halted(
        &mut self,
        input: impl Sized,
        ffmpeg: Ffmpeg,
        halt: Halt,
        fed: Option<(Tempo, Option<Duration>)>,
    ) -> Outcome {
        drop(input);
        let patience = match &halt {
            Halt::Break(Break::Closed) => LAST_WORDS,
            _ => Duration::ZERO,
        };
        let exit = ffmpeg.end(patience);
        let shown = self.status.source.clone();
        let complaints = exit.complaints.clone();
        let outcome = match halt {
            Halt::Break(Break::Stopped) => return Outcome::Stopped,
            Halt::Resized(size) => {
                tracing::info!(
                    stream = %self.parts.stream, source = %shown, before = %size,
                    "the source's pictures have another size now: it is opened anew"
                );
                return Outcome::Resized(size);
            }
            Halt::Refused(why) => Outcome::Failed(why),
            Halt::Break(Break::Closed) => self.closed(&exit, fed),
            Halt::Break(Break::Silent(time)) => {
                let time = humantime::format_duration(time);
                let stream = &self.parts.stream;
                Outcome::Failed(format!(
                    "{shown} has given nothing for {time}: look whether it still works, or raise source_timeout of [streams.{stream}]"
                ))
            }
            Halt::Break(broken @ (Break::Nut(_) | Break::Mp4(_))) => Outcome::Failed(format!(
                "{shown}: what FFmpeg makes of it can't be read: {broken}"
            )),
        };
        self.tell(|status| status.last_error = complaints);
        outcome
    }

    /// What the end of FFmpeg's pipe means.
    fn closed(&self, exit: &Exit, fed: Option<(Tempo, Option<Duration>)>) -> Outcome {
        let shown = &self.status.source;
        match fed {
            Some((Tempo::Kept, None)) if exit.is_good() => Outcome::Ended,
            Some((Tempo::Kept, Some(length))) if exit.is_good() => {
                let length = length.as_secs_f64();
                Outcome::Failed(format!(
                    "{shown} breaks off: it should be {length:.1} s long"
                ))
            }
            Some(_) if exit.is_good() && exit.complaints.is_empty() => {
                Outcome::Failed(format!("{shown} has hung up"))
            }
            Some(_) if exit.is_good() => Outcome::Failed(format!(
                "{shown} has hung up (FFmpeg says: {})",
                exit.last_words()
            )),
            _ => {
                let words = exit.last_words();
                Outcome::Failed(explain(&self.parts.plan.input, &self.parts.stream, &words))
            }
        }
    }
}

/// Opens a source only to see what FFmpeg finds in it.
///
/// # Errors
/// Why it can't be opened, or that nothing was said of it; for people.
pub(crate) fn look(ffmpeg: &Path, plan: &SourcePlan) -> Result<Found, String> {
    let shown = plan.input.shown();
    let started = Ffmpeg::start(
        ffmpeg.to_owned(),
        0,
        |pipe, _| arguments::line(plan, &Filter::default(), pipe, None),
        plan.input.secrets(),
    );
    let (ffmpeg, pipes) =
        started.map_err(|error| format!("FFmpeg can't be started for {shown}: {error}"))?;
    let stop = Stop::default();
    let mut input = Input::new(pipes.pictures, MAX_MEMORY_BYTES, &stop, LONGEST_START);
    let head = input.head();
    let found = ffmpeg.words().found();
    drop(input);
    match (head, found) {
        (Ok(_), Some(found)) => {
            ffmpeg.end(Duration::ZERO);
            Ok(found)
        }
        (Ok(_), None) => Err(format!("FFmpeg does not say what {shown} is")),
        (Err(_), _) => {
            let words = ffmpeg.end(LAST_WORDS).last_words();
            Err(explain(&plan.input, "transcode", &words))
        }
    }
}

/// `pts` in units of `num`/`den` seconds.
pub(super) fn time_of(pts: u64, (num, den): (u64, u64)) -> Duration {
    let nanos = u128::from(pts) * u128::from(num) * 1_000_000_000 / u128::from(den.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
