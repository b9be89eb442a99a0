//! The encoder's life as its owner leads it: tried, started, fed, watched, and started again when it dies.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::{Event, Owner};
use crate::clock::MonotonicTime;
use crate::encode::{
    EncodeError, EncodePlan, EncodeRendition, Encoder, EncoderStart, ExitReport, FeedError,
    FfmpegInfo,
};
use crate::faults;
use crate::package::TrackPackager;
use crate::picture::Size;
use crate::publish::RememberedSource;
use crate::sample::TrackDescription;
use crate::stream::backlog::Input;
use crate::tick::Tick;
use crate::window::TrackInit;

/// How many pictures may wait for the encoder's pipe; the others wait in the backlog.
const QUEUE: NonZeroUsize = NonZeroUsize::new(4).unwrap();
/// An encoder that has returned nothing since its start, or has only its end to come, is given this long on top.
const START_ALLOWANCE: Duration = Duration::from_secs(10);

pub(super) enum State {
    /// Nothing is known to encode yet.
    Waiting,
    /// A thread tries the encoders; [`Event::Probed`] will come.
    Probing,
    Running(Running),
    /// The encoder is started again at this time.
    Resting {
        until: MonotonicTime,
    },
}

pub(super) struct Running {
    pub(super) encoder: Encoder,
    pub(super) input: Input,
    pub(super) started: MonotonicTime,
    /// When it last returned something, or was first given something to return.
    pub(super) progress: MonotonicTime,
    pub(super) returned: bool,
    /// No more pictures go in; its exit is expected.
    pub(super) finishing: bool,
    /// It has been killed; its exit comes.
    pub(super) killed: bool,
}

impl Running {
    /// Takes no more pictures; its end is waited for like an answer.
    pub(super) fn finish(&mut self, now: MonotonicTime) {
        self.encoder.finish();
        self.finishing = true;
        self.progress = now;
    }
}

impl Owner {
    /// Starts an encoder for what waits, trying it first if that was not done yet.
    pub(super) fn start(&mut self) {
        let Some(backlog) = &mut self.backlog else {
            return;
        };
        backlog.rewind();
        let Some(input) = backlog.input() else { return };
        let plan = self.encode_plan(input);
        match self.inits.clone() {
            Some(descriptions) => self.start_encoder(&plan, input, descriptions),
            None => {
                self.parts.shared.report().starting = true;
                self.state = State::Probing;
                let (probes, sender) = (Arc::clone(&self.parts.probes), self.parts.sender.clone());
                let stream = self.name().to_owned();
                let probe = move || {
                    faults::point("probe", &stream);
                    // The owner may have ended meanwhile; then nobody asks.
                    let _ = sender.send(Event::Probed(crate::encode::probe(&plan, &probes)));
                };
                let spawned = self.parts.crew.spawn("probe", probe);
                if let Err(error) = spawned {
                    self.rest(format!("no thread could be started: {error}"), Vec::new());
                }
            }
        }
    }

    fn encode_plan(&mut self, input: Input) -> EncodePlan {
        let (input_format, input_size) = input;
        let sizes = &mut self.parts.sizes;
        let renditions = self
            .parts
            .plan
            .renditions
            .iter()
            .map(|plan| EncodeRendition {
                name: plan.name.clone(),
                // A rendition of the source's size keeps the first source's, so that a later one of another size is no break.
                size: plan
                    .size
                    .unwrap_or_else(|| *sizes.entry(plan.name.clone()).or_insert(input_size)),
                codec: plan.codec.clone(),
                preset: plan.preset.clone(),
                rate: plan.rate,
                options: plan.options.clone(),
            });
        EncodePlan {
            ffmpeg: FfmpegInfo::clone(&self.parts.ffmpeg),
            input_format,
            input_size,
            grid: self.parts.grid,
            renditions: renditions.collect(),
        }
    }

    pub(super) fn take_probe(&mut self, result: Result<Vec<TrackDescription>, EncodeError>) {
        self.parts.shared.report().starting = false;
        match result {
            Ok(descriptions) => {
                self.inits = Some(descriptions);
                self.state = State::Waiting;
            }
            Err(error) => {
                if self.parts.window.period().is_none() {
                    // Nothing is published in these sizes: the next source may have a better one.
                    self.parts.sizes.clear();
                }
                self.rest(error.to_string(), Vec::new());
            }
        }
    }

    fn start_encoder(
        &mut self,
        plan: &EncodePlan,
        input: Input,
        descriptions: Vec<TrackDescription>,
    ) {
        let Some(backlog) = &self.backlog else { return };
        let first_tick = backlog.first();
        self.begin_period(first_tick, &descriptions);
        let keyframes_at = self.packagers.iter().map(|packager| {
            let next = packager.next_tick();
            (next != first_tick).then_some(next)
        });
        let start = EncoderStart {
            first_tick,
            keyframes_at: keyframes_at.collect(),
            queue: QUEUE,
        };
        self.generation += 1;
        let (generation, sender) = (self.generation, self.parts.sender.clone());
        let stream = self.name().to_owned();
        let events = move |event| {
            faults::point("encoder", &stream);
            let _ = sender.send(Event::Encoder { generation, event });
        };
        for packager in &mut self.packagers {
            packager.encoder_restarted();
        }
        match Encoder::start(plan, &descriptions, &start, events) {
            Ok(encoder) => {
                let now = self.parts.anchor.monotonic();
                let mut report = self.parts.shared.report();
                report.encoder.pid = Some(encoder.pid());
                report.starting = false;
                report
                    .started
                    .get_or_insert_with(|| self.parts.anchor.now());
                drop(report);
                self.parts.disk.remember(RememberedSource {
                    format: input.0,
                    size: input.1,
                });
                tracing::info!(stream = %self.name(), pid = encoder.pid(), tick = %first_tick, "encoder started");
                self.note_kept_sizes(input.1, plan);
                self.state = State::Running(Running {
                    encoder,
                    input,
                    started: now,
                    progress: now,
                    returned: false,
                    finishing: false,
                    killed: false,
                });
                self.feed();
            }
            Err(error) => self.rest(error.to_string(), Vec::new()),
        }
    }

    /// Tells of renditions of the source's size that have another one, because it is published already.
    fn note_kept_sizes(&self, source: Size, plan: &EncodePlan) {
        let unsized_ones = self.parts.plan.renditions.iter().zip(&plan.renditions);
        for (_, rendition) in
            unsized_ones.filter(|(plan, made)| plan.size.is_none() && made.size != source)
        {
            tracing::warn!(
                stream = %self.name(), rendition = %rendition.name, %source, kept = %rendition.size,
                "the source has another size than what is published, which is kept: give the rendition a size to change it"
            );
        }
    }

    /// Makes sure that the window's period is of these encodings and reaches `first_tick`, and that each track has a packager.
    fn begin_period(&mut self, first_tick: Tick, descriptions: &[TrackDescription]) {
        let tracks: Vec<TrackInit> = descriptions.iter().cloned().map(TrackInit::new).collect();
        let window = &mut self.parts.window;
        let now = self.parts.anchor.now();
        let old = window.period().cloned();
        let grid = self.parts.grid;
        let same_encodings = old.as_ref().is_some_and(|old| old.tracks == tracks);
        let same_edges = old.as_ref().is_some_and(|old| {
            old.grid.same_edges(&grid) && old.grid.number_offset == grid.number_offset
        });
        let goes_on = same_encodings
            && old.as_ref().is_some_and(|old| old.grid == grid)
            && !window.ended()
            && !self.parts.discontinuity
            && (!self.packagers.is_empty() || window.resume_tick() == Some(first_tick));
        if !goes_on {
            // Another part length alone changes nothing for a player's decoder.
            let broken = old.is_some() && !(same_encodings && same_edges);
            let discontinuity = std::mem::take(&mut self.parts.discontinuity) || broken;
            if discontinuity {
                tracing::warn!(stream = %self.parts.plan.name, tick = %first_tick, "the encoding changes: players see a discontinuity");
            }
            window.begin_period(grid, first_tick, tracks, discontinuity, now);
            self.packagers.clear();
            self.dirty = true;
        }
        if self.packagers.is_empty() {
            let first = |track| {
                self.parts
                    .window
                    .next_tick(track)
                    .unwrap_or(first_tick)
                    .max(first_tick)
            };
            self.packagers = (0..descriptions.len())
                .map(|track| match goes_on {
                    true => TrackPackager::continue_at(track, grid, first(track)),
                    false => TrackPackager::start_at(track, grid, first(track)),
                })
                .collect();
        }
    }

    pub(super) fn feed(&mut self) {
        let (State::Running(running), Some(backlog)) = (&mut self.state, &mut self.backlog) else {
            return;
        };
        if running.finishing || running.killed {
            return;
        }
        let grid = self.parts.grid;
        while let Some((tick, picture)) = backlog.next_unfed() {
            if picture.input() != running.input {
                // The source has changed: this encoder gives back what it has, and another one takes over.
                running.finish(self.parts.anchor.monotonic());
                return;
            }
            match running.encoder.feed(picture.clone()) {
                Ok(()) => {}
                Err(FeedError::Full(_) | FeedError::Gone | FeedError::Unfit) => return,
            }
            let now = self.parts.anchor.monotonic();
            if backlog.pending() == 0 {
                running.progress = now;
            }
            backlog.mark_fed(now);
            let counters = &self.parts.shared.counters;
            if tick.0 > counters.last_tick.get() {
                counters.last_tick.set(tick.0);
                if self.parts.anchor.to_unix(now) >= grid.time_of(tick.next())
                    && self.stopping.is_none()
                {
                    counters.overdue.add(1);
                }
            }
        }
    }

    /// An encoder that was given pictures and returns none, or was asked to end and does not, is as good as dead.
    pub(super) fn watch_for_stall(&mut self, now: MonotonicTime) {
        let timeout = self.parts.plan.encoder_timeout;
        let State::Running(running) = &mut self.state else {
            return;
        };
        let pending = self
            .backlog
            .as_ref()
            .is_some_and(|backlog| backlog.pending() > 0);
        let allowed = timeout
            + if running.returned && pending {
                4 * self.delay
            } else {
                START_ALLOWANCE
            };
        let awaited = pending || running.finishing;
        if !running.killed && awaited && now.saturating_since(running.progress) > allowed {
            running.killed = true;
            running.encoder.kill();
            let pid = running.encoder.pid();
            tracing::warn!(stream = %self.name(), pid, waited = ?allowed, "encoder returns nothing: it is killed and started again");
        }
    }

    /// The encoder's output can't be used.
    pub(super) fn fault(&mut self, error: &EncodeError) {
        tracing::error!(stream = %self.name(), %error, "encoder is stopped: its output can't be used");
        self.parts.shared.report().failure = Some(error.to_string());
        // What the probe said may no longer hold.
        self.inits = None;
        if let State::Running(running) = &mut self.state {
            running.killed = true;
            running.encoder.kill();
        }
    }

    pub(super) fn take_exit(&mut self, report: &ExitReport) {
        let State::Running(running) = std::mem::replace(&mut self.state, State::Waiting) else {
            return;
        };
        self.parts.shared.report().encoder.pid = None;
        if running.finishing && report.expected {
            return;
        }
        let lived = self
            .parts
            .anchor
            .monotonic()
            .saturating_since(running.started);
        if running.returned && lived > Duration::from_secs(10) {
            self.failures = 0;
        }
        if self.stopping.is_some() && running.killed {
            return;
        }
        let last = report
            .last_lines
            .last()
            .map_or("it said nothing", String::as_str);
        let cause = if running.killed {
            // Why was said when it was killed; what it left on the way out says less.
            let known = self.parts.shared.report().failure.clone();
            tracing::info!(stream = %self.name(), status = %report.status, "killed encoder is gone");
            known.unwrap_or_else(|| "FFmpeg returned nothing in time and was killed".to_owned())
        } else {
            tracing::error!(stream = %self.name(), status = %report.status, last_line = last, "encoder died");
            format!("FFmpeg ended by itself ({}): {last}", report.status)
        };
        self.parts.shared.report().encoder.restarts += 1;
        self.rest(cause, report.last_lines.clone());
    }

    /// Waits before the next start: not at all after a first death, then longer each time.
    fn rest(&mut self, cause: String, last_lines: Vec<String>) {
        let wait = match self.failures {
            0 => Duration::ZERO,
            failures => Duration::from_millis(125 << failures.min(6)),
        };
        self.failures += 1;
        let now = self.parts.anchor.monotonic();
        let mut report = self.parts.shared.report();
        if self.failures > 1 {
            tracing::error!(stream = %self.parts.plan.name, %cause, retry_in = ?wait, "encoder does not run");
            report.failure = Some(cause);
        }
        report.starting = false;
        if !last_lines.is_empty() {
            report.encoder.last_error = last_lines;
        }
        drop(report);
        self.state = State::Resting {
            until: MonotonicTime(now.0 + u64::try_from(wait.as_nanos()).unwrap_or(0)),
        };
    }

    /// Ends the running encoder without listening to it any more.
    pub(super) fn discard_encoder(&mut self) {
        if let State::Running(running) = &self.state {
            running.encoder.kill();
            self.generation += 1;
            self.parts.shared.report().encoder.pid = None;
            self.state = State::Waiting;
        }
    }
}
