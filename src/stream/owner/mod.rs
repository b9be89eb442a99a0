//! A stream's owner: one thread that takes pictures from ingest and samples from the encoder, and keeps the encoder, the
//! packagers and the window in step. It blocks on nothing but its own events.

mod audio;
mod encoding;
mod pace;
mod recording;
mod recovery;
mod room;
mod stand_in;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::backlog::Backlog;
use super::curtain::Curtain;
use super::gate::Gate;
use super::keeper::Crew;
use super::shared::Shared;
use super::shortage::ShortageTeller;
use super::turns::Turn;
use crate::audio::{AudioDesk, AudioNews, Beside};
use crate::budget::Budget;
use crate::clock::{Anchor, MonotonicTime};
use crate::config::{BreakerPlan, StreamPlan};
use crate::encode::{Breaker, EncodeError, EncoderEvent, FfmpegInfo, ProbeCache};
use crate::faults;
use crate::ingest::{TickKind, TickPicture};
use crate::package::TrackPackager;
use crate::picture::{Picture, Size};
use crate::publish::DiskDesk;
use crate::sample::{Sample, TrackDescription};
use crate::tick::{Grid, Tick, UnixTime};
use crate::window::Window;
use audio::Sound;
use encoding::{Standing, State};
use pace::Pace;
use recording::Recording;
use recovery::CAUGHT_UP;
use stand_in::{Reel, StandIn, StandInError};

/// How many events may wait: pictures and samples of more than a second.
pub(super) const EVENTS: usize = 1024;
/// How long the encoder may take at a stop to return what it has; then the stream ends with what is published.
const DRAIN: Duration = Duration::from_secs(3);
/// Up to so much of a standing picture completes the last segment at a stop.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// How many pictures an encoder may hold until it is known how many it does: more than any lookahead.
const LOOKAHEAD: usize = 64;

/// What reaches the owner.
pub(super) enum Event {
    Picture(TickPicture),
    /// Each rendition's encoder was tried.
    Probed(Vec<Result<TrackDescription, EncodeError>>),
    Encoder {
        generation: u64,
        event: EncoderEvent,
    },
    /// The slate was encoded as these descriptions say.
    StandIn {
        descriptions: Vec<TrackDescription>,
        made: Result<Vec<Reel>, StandInError>,
    },
    /// Of the stream's sound.
    Audio(AudioNews),
    /// The playlists list so much from now on.
    WindowLength(Duration),
    /// Ingest has ended: publish what is there and end.
    Stop,
    /// Another thread of the stream has died: end at once, for the next life goes on from the window.
    Abandon,
}

/// What a stream's owner is made of.
pub(super) struct Parts {
    pub(super) plan: StreamPlan,
    /// The stream's grid, numbered.
    pub(super) grid: Grid,
    pub(super) ffmpeg: Arc<FfmpegInfo>,
    pub(super) probes: Arc<ProbeCache>,
    pub(super) anchor: Anchor,
    pub(super) shared: Arc<Shared>,
    pub(super) events: Receiver<Event>,
    pub(super) sender: SyncSender<Event>,
    /// How many pictures wait among the events.
    pub(super) waiting: Arc<AtomicUsize>,
    /// Starts the owner's own threads.
    pub(super) crew: Crew,
    pub(super) window: Window,
    pub(super) curtain: Curtain,
    pub(super) disk: DiskDesk,
    /// Whether the first period breaks with what an earlier run published.
    pub(super) discontinuity: bool,
    /// When an encoder that fails is started again.
    pub(super) breaker: BreakerPlan,
    /// The bytes of pictures that are kept for the encoder's restart; none for those of the time that it takes.
    pub(super) replay_memory: Option<u64>,
    pub(super) picture_memory: Arc<Budget>,
    /// Says when it may start its encoder.
    pub(super) turn: Turn,
    /// Where an earlier run stopped.
    pub(super) resume: Option<Tick>,
    /// The sizes that an earlier run gave its renditions, by name.
    pub(super) sizes: BTreeMap<String, Size>,
    /// Of a recording: what holds its frames back.
    pub(super) gate: Option<Arc<Gate>>,
    /// The stream's sound, if it has any.
    pub(super) audio: Option<(AudioDesk, Option<Arc<Beside>>)>,
}

pub(super) struct Owner {
    parts: Parts,
    sound: Option<Sound>,
    state: State,
    generation: u64,
    backlog: Option<Backlog>,
    /// The newest picture, for the ticks that complete the last segment at a stop.
    newest: Option<Picture>,
    packagers: Vec<TrackPackager>,
    inits: Option<Vec<TrackDescription>>,
    /// Ticks before this one that were missed while the daemon was away: they are late by nature, not overdue.
    filled_to: Tick,
    /// Pictures that backlogs before this one replaced.
    replaced: u64,
    breaker: Breaker,
    pace: Pace,
    /// What is shown while the encoder fails.
    stand_in: StandIn,
    /// Why each rendition is encoded by its fallback, if it is.
    fallen: Vec<Option<String>>,
    /// The most pictures that the encoder held when it had returned a sample of each rendition.
    held: Option<usize>,
    /// The ticks before this one are counted as skipped or not.
    counted: Tick,
    /// After which pictures, that the encoder may be fed with once more, how many ticks were counted as skipped.
    skips: VecDeque<(Tick, u64)>,
    /// The longest that the encoder took from picture to last sample, slowly forgotten.
    delay: Duration,
    stopping: Option<MonotonicTime>,
    /// When the first pictures of the parts were captured that the window has got since it was last shown.
    unshown: Vec<UnixTime>,
    shortage: ShortageTeller,
    recording: Option<Recording>,
    /// Whether an encoder has returned anything.
    worked: bool,
    standing: Standing,
    dirty: bool,
    done: bool,
}

/// The fallbacks that a life before this one had to take: they stay until the daemon starts again.
fn fallen_before(parts: &Parts) -> Vec<Option<String>> {
    let mut fallen = parts.shared.report().fallen.clone();
    fallen.resize(parts.plan.renditions.len(), None);
    fallen
}

impl Owner {
    pub(super) fn new(mut parts: Parts) -> Self {
        let sound = parts.audio.take();
        let sound = sound.map(|(desk, beside)| Sound::new(desk, beside));
        let (plan, grid) = (&parts.plan, &parts.grid);
        let recording = parts.gate.clone().map(Recording::new);
        Self {
            breaker: Breaker::new(parts.breaker, &plan.name),
            pace: Pace::new(plan.degrade, grid.framerate, grid.ticks_per_part),
            stand_in: StandIn::default(),
            fallen: fallen_before(&parts),
            sound,
            held: None,
            counted: Tick(0),
            skips: VecDeque::new(),
            parts,
            state: State::Waiting,
            generation: 0,
            backlog: None,
            newest: None,
            packagers: Vec::new(),
            inits: None,
            filled_to: Tick(0),
            replaced: 0,
            delay: Duration::ZERO,
            stopping: None,
            unshown: Vec::new(),
            shortage: ShortageTeller::default(),
            recording,
            worked: false,
            standing: Standing::Outside,
            dirty: true,
            done: false,
        }
    }

    /// Runs until the stream has ended.
    pub(super) fn run(mut self) {
        while !self.done {
            faults::point("stream", self.name());
            let rest = self.nap();
            let wait = self.parts.curtain.lift_when_late(Instant::now());
            match self.parts.events.recv_timeout(wait.unwrap_or(rest)) {
                Ok(event) => self.obey(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while !self.done {
                let Ok(event) = self.parts.events.try_recv() else {
                    break;
                };
                self.obey(event);
            }
            self.tend();
            self.push_audio();
            self.publish();
        }
    }

    fn name(&self) -> &str {
        &self.parts.plan.name
    }

    fn obey(&mut self, event: Event) {
        match event {
            Event::Picture(picture) => {
                self.parts.waiting.fetch_sub(1, Ordering::Relaxed);
                self.take_picture(picture);
            }
            Event::Probed(result) => self.take_probe(result),
            Event::Encoder { generation, event } if generation == self.generation => match event {
                EncoderEvent::Sample(sample) => self.take_sample(sample),
                EncoderEvent::Failed { error, .. } => self.fault(&error),
                EncoderEvent::Exited(report) => self.take_exit(&report),
            },
            // An encoder that was replaced has nothing more to say.
            Event::Encoder { .. } => {}
            Event::Audio(news) => self.take_audio(news),
            Event::StandIn { descriptions, made } => self.take_stand_in(&descriptions, made),
            Event::WindowLength(window) => self.parts.window.set_length(window),
            Event::Stop => self.begin_stop(),
            Event::Abandon => {
                self.discard_encoder();
                self.state = State::Resting {
                    until: MonotonicTime(u64::MAX),
                };
                self.done = true;
            }
        }
    }

    fn take_picture(&mut self, new: TickPicture) {
        let TickPicture {
            tick,
            picture,
            kind,
        } = new;
        if self.recording.is_some() {
            return self.record(tick, picture);
        }
        self.parts.shared.report().no_signal = kind == TickKind::Slate;
        self.newest = Some(picture.clone());
        if self.standing == Standing::InLine && self.parts.window.period().is_none() {
            // Nobody watches yet: what is so old is nothing to catch up with at its turn.
            let oldest = self.ticks(CAUGHT_UP) as u64;
            let old = self
                .backlog
                .take_if(|kept| tick.since(kept.first()) > oldest);
            self.replaced += old.map_or(0, |old| old.replaced());
        }
        let first = self.parts.resume.take().unwrap_or(tick);
        let kept = self.kept();
        let lag_limit = self.ticks(self.longest_lag()) as u64;
        let backlog = self
            .backlog
            .get_or_insert_with(|| Backlog::new(first, kept, &self.parts.picture_memory));
        backlog.allow(kept);
        if tick < backlog.next() {
            // An earlier run has published this tick already, or the sample before it lasts until after it.
            return;
        }
        if tick.since(backlog.first()) > lag_limit {
            self.skip_to(tick);
        }
        let Some(backlog) = &mut self.backlog else {
            return;
        };
        let counters = &self.parts.shared.counters;
        let filled = if kind == TickKind::Slate {
            &counters.slate
        } else {
            &counters.repeated
        };
        if backlog.next() < tick {
            self.filled_to = tick;
        }
        while backlog.next() < tick {
            filled.add(1);
            backlog.push(picture.clone(), false);
        }
        backlog.push(picture, kind == TickKind::Fresh);
    }

    /// Gives up the ticks that are too late to be encoded. While the encoder fails they show its slate, if there is one; else the stream goes
    /// on at the segment that holds `tick`.
    fn skip_to(&mut self, tick: Tick) {
        let Some(backlog) = &self.backlog else { return };
        let (first, next) = (backlog.first(), backlog.next());
        // What the daemon itself has slept through is no fault of the encoder, and has no bound.
        let slept = tick.since(next) > self.ticks(self.longest_lag()) as u64;
        if !slept && self.stand_in_for_late_ticks(next) {
            return;
        }
        let start = self.parts.grid.segment_start(tick);
        if start <= self.published_to().unwrap_or(first) {
            return;
        }
        self.give_up_encoder();
        self.complete_segment(start);
        let from = self.published_to().unwrap_or(first);
        let missed = start.since(from);
        if missed > 0 {
            tracing::warn!(
                stream = %self.name(), missed, from = %self.parts.grid.time_of(from), to = %self.parts.grid.time_of(start),
                "ticks are missing, because the daemon was away or the encoder too late: the window shows a gap"
            );
        }
        self.parts.shared.counters.missed.add(missed);
        if self.parts.window.next_tick(0).is_some() {
            let now = self.parts.anchor.now();
            self.parts.window.mark_missing(from, start, now);
            self.dirty = true;
        }
        self.packagers.clear();
        if let (Some(backlog), Some(newest)) = (&mut self.backlog, &self.newest) {
            backlog.begin_at(start, newest);
        }
    }

    /// Up to which tick all renditions are published.
    fn published_to(&self) -> Option<Tick> {
        let next = self.packagers.iter().map(TrackPackager::next_tick);
        next.min()
    }

    /// Shows the slate in what is left of the segment that players have begun to play, at most up to `until`, if there is one: hls.js never leaves
    /// a segment that is listed in parts and then becomes a gap.
    fn complete_segment(&mut self, until: Tick) {
        let grid = self.parts.grid;
        let newest = self.packagers.iter().map(TrackPackager::next_tick).max();
        if let Some(newest) = newest
            && self.show_stand_in(grid.segment_edge(newest).min(until))
        {
            self.push_audio();
        }
    }

    /// How many pictures and bytes are kept for the encoder's restart: what it holds, and what comes until its death is noticed
    /// and another one has started.
    fn kept(&self) -> (usize, u64) {
        let held = self.held.unwrap_or(LOOKAHEAD);
        if self.recording.is_some() {
            // Its frames are held back before the encoder, and what that holds has to be kept.
            return (usize::MAX, u64::MAX);
        }
        (
            held + self.ticks(self.parts.plan.replay()),
            self.parts.replay_memory.unwrap_or(u64::MAX),
        )
    }

    fn ticks(&self, duration: Duration) -> usize {
        self.parts.grid.framerate.ticks_in(duration).get() as usize
    }

    /// Whatever is due: a start, pictures to be fed, a stall, the end.
    fn tend(&mut self) {
        self.dirty |= self.parts.window.expire(self.parts.anchor.now());
        self.tell_shortage();
        let now = self.parts.anchor.monotonic();
        let drain = match self.recording {
            None => DRAIN,
            Some(_) => recording::DRAIN,
        };
        if self
            .stopping
            .is_some_and(|since| now.saturating_since(since) > drain)
        {
            // Nothing is started any more, or an encoder that never drains would be killed and replaced for ever.
            return self.give_up_draining();
        }
        if self.is_stuck(now) {
            return self.give_up_draining();
        }
        self.let_go_of_stored();
        if self.recording.is_none()
            && self.breaker.is_open()
            && !matches!(self.state, State::Running(_))
            && let Some(next) = self.backlog.as_ref().map(Backlog::next)
        {
            // The newest picture stays, for the encoder to be started with.
            self.show_stand_in(Tick(next.0.saturating_sub(1)));
        }
        match &self.state {
            State::Waiting => self.start(),
            State::Resting { until } if now >= *until => self.start(),
            State::Running(_) => {
                self.feed();
                self.watch_for_stall(now);
                if self.recording.is_none() {
                    self.keep_pace(now);
                }
            }
            State::Probing | State::Resting { .. } => {}
        }
        if self.standing == Standing::Starting && !self.is_starting() {
            self.leave_line();
        }
        if self.stopping.is_some() {
            self.drain();
        }
        let mut report = self.parts.shared.report();
        report.disk = self.parts.disk.status().error;
        report.encoder.replaced =
            self.replaced + self.backlog.as_ref().map_or(0, Backlog::replaced);
        report.encoder.pending = self
            .backlog
            .as_ref()
            .map_or(0, |backlog| backlog.pending() as u64);
    }

    fn take_sample(&mut self, sample: Sample) {
        if matches!(&self.state, State::Running(running) if running.is_killed()) {
            // Its successor starts where the window is; what it still says would only be in the way.
            return;
        }
        let track = sample.track;
        let Some(tick) = self.parts.grid.tick_of_decode_time(sample.decode_time) else {
            return;
        };
        let captured = self.captured(tick);
        if track == 0 {
            self.note_picture_lag(tick);
        }
        let Some(packager) = self.packagers.get_mut(track) else {
            return;
        };
        if let Some(recording) = &mut self.recording {
            recording.note_returned();
        }
        if tick < packager.next_tick() {
            // The encoder before this one returned it already. It shows that this one works.
            if let State::Running(running) = &mut self.state {
                running.watch.progress(self.parts.anchor.monotonic());
            }
            return;
        }
        let part = match packager.push_captured(sample, captured) {
            Ok(part) => part,
            Err(error) => {
                tracing::error!(stream = %self.name(), %error, "encoder is stopped: its samples can't be published");
                self.parts.shared.report().failure = Some(error.to_string());
                self.inits = None;
                if let State::Running(running) = &mut self.state {
                    running.kill(self.parts.anchor.monotonic());
                }
                return;
            }
        };
        let captured = packager.captured();
        self.push_part(track, part, captured);
        self.note_return();
    }

    /// When what `tick` shows was captured. A picture that is shown again is of no moment of its own: then it is the tick's.
    fn captured(&self, tick: Tick) -> UnixTime {
        let captured = self
            .backlog
            .as_ref()
            .and_then(|backlog| backlog.captured(tick));
        if self.recording.is_some() {
            let now = || self.parts.anchor.now();
            return captured.map_or_else(now, |captured| self.parts.anchor.to_unix(captured));
        }
        let shown = self.parts.grid.time_of(tick);
        captured.map_or(shown, |captured| {
            self.parts.anchor.to_unix(captured).min(shown)
        })
    }

    /// Lets go of the pictures that every track has returned.
    fn note_return(&mut self) {
        self.worked = true;
        let now = self.parts.anchor.monotonic();
        let all = self.packagers.iter().map(TrackPackager::next_tick).min();
        if let State::Running(running) = &mut self.state {
            running.watch.progress(now);
            if running.returned.is_none() {
                running.returned = Some(now);
            }
        }
        self.note_recovery();
        self.note_lag();
        if self.recording.is_some() {
            // As long as it goes on, it is waited for.
            self.stopping = self.stopping.map(|_| now);
        } else {
            self.stand_in.encoder_works();
            self.prepare_stand_in();
        }
        let (Some(all), Some(backlog)) = (all, &mut self.backlog) else {
            return;
        };
        let pending = backlog.pending();
        // What was fed while the encoder started has waited for it to start.
        let fed = backlog.release_before(all);
        let returned = match &mut self.state {
            State::Running(running) => {
                if fed.is_some() && !std::mem::replace(&mut running.all_returned, true) {
                    self.held = Some(self.held.unwrap_or(0).max(pending));
                }
                running.returned
            }
            _ => None,
        };
        if let Some(fed) = fed.filter(|fed| returned.is_some_and(|first| *fed >= first)) {
            let delay = now.saturating_since(fed);
            self.parts.shared.latency.encoder_delay.record(delay);
            self.delay = delay.max(self.delay - self.delay / 64);
            let mut report = self.parts.shared.report();
            let before = report.encoder.delay_seconds.unwrap_or(delay.as_secs_f64());
            report.encoder.delay_seconds = Some(before + (delay.as_secs_f64() - before) / 16.0);
        }
    }

    fn begin_stop(&mut self) {
        self.stopping = Some(self.parts.anchor.monotonic());
        if self.recording.is_some() {
            return;
        }
        if self.standing == Standing::InLine && self.parts.window.period().is_none() {
            // It has nothing to make whole.
            self.backlog = None;
        }
        let (Some(backlog), Some(last)) = (&mut self.backlog, &self.newest) else {
            return;
        };
        if !self.parts.shared.ends_at_exit() {
            // The last segment is made whole with the last picture, so that a restart goes on at an edge of the grid. A restart
            // comes too soon for a long rest: then the part is made whole, and it goes on within the segment.
            let grid = &self.parts.grid;
            let last_tick = Tick(backlog.next().0.saturating_sub(1));
            let mut end = grid.segment_end(last_tick);
            if grid.framerate.duration_of(end.since(backlog.next())) > LONGEST_REST {
                end = grid.part_end(last_tick);
            }
            while backlog.next() < end {
                backlog.push(last.clone(), false);
                self.parts.shared.counters.repeated.add(1);
            }
        }
    }

    /// Ends when everything is published, or can't be.
    fn drain(&mut self) {
        let backlog = self.backlog.as_ref();
        let unfed = backlog.is_some_and(|backlog| backlog.next_unfed().is_some());
        let unpublished = backlog.is_some_and(|backlog| !backlog.is_empty());
        let may_come = unpublished && self.may_work_yet();
        match &mut self.state {
            State::Running(running) if !unfed && !running.finishing => {
                running.finish(self.parts.anchor.monotonic());
            }
            State::Running(_) => {}
            _ if may_come => {}
            _ => {
                if self.sound_is_whole() {
                    self.end();
                }
            }
        }
    }

    /// Whether another encoder may return what the last one hasn't. Of a recording, which loses what none returns, one that has worked is tried until it has
    /// failed too often.
    fn may_work_yet(&self) -> bool {
        let recorded = self.recording.is_some() && self.worked;
        self.breaker.in_a_row() < 2 || recorded && !self.breaker.is_open()
    }

    /// Ends without what the encoder has not returned in time.
    fn give_up_draining(&mut self) {
        if matches!(self.state, State::Running(_)) {
            tracing::warn!(stream = %self.name(), "encoder was killed: it did not drain in time");
            self.discard_encoder();
        }
        self.end();
    }

    fn end(&mut self) {
        if self.recording.is_some() || self.parts.shared.ends_at_exit() {
            for track in 0..self.packagers.len() {
                let part = self.packagers[track].flush();
                self.push_part(track, part, self.packagers[track].captured());
            }
            self.parts.window.end(self.parts.anchor.now());
        }
        self.dirty = true;
        self.done = true;
    }

    fn publish(&mut self) {
        if std::mem::take(&mut self.dirty) {
            let snapshot = self.parts.window.snapshot(self.parts.anchor.now());
            if let Some(recording) = &mut self.recording {
                recording.shelf.note_shown(&snapshot);
            }
            let parts = std::mem::take(&mut self.unshown);
            self.parts.curtain.show(snapshot, parts, Instant::now());
        }
    }
}
