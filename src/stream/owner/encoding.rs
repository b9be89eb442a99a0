//! The encoder's life as its owner leads it: tried, started, fed, watched, and started again when it dies.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use super::pace::{Change, Load};
use super::{Event, Owner};
use crate::clock::MonotonicTime;
use crate::config::SourcePlan;
use crate::encode::{
    Cadence, EncodePlan, EncodeRendition, Encoder, EncoderStart, FeedError, FfmpegInfo, StallWatch,
    at_once,
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
/// For so long after the last picture of an encoding its sound is waited for, before another encoding begins.
const PATIENCE_FOR_SOUND: Duration = Duration::from_secs(1);

/// Where a stream is that has to start its encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// In no line.
    #[default]
    Outside,
    /// Other streams' encoders are to start first.
    InLine,
    /// It is its turn.
    Starting,
}

pub(super) enum State {
    /// Nothing is known to encode yet.
    Waiting,
    /// A thread tries the encoders; [`Event::Probed`] will come.
    Probing,
    Running(Box<Running>),
    /// The encoder is started again at this time.
    Resting {
        until: MonotonicTime,
    },
}

pub(super) struct Running {
    pub(super) encoder: Encoder,
    pub(super) input: Input,
    /// Which ticks it is fed.
    pub(super) cadence: Cadence,
    pub(super) step: NonZeroU32,
    pub(super) first_tick: Tick,
    /// Whether it has died without an exit.
    pub(super) watch: StallWatch,
    /// When it returned its first new sample.
    pub(super) returned: Option<MonotonicTime>,
    /// Whether it has returned a sample of each rendition.
    pub(super) all_returned: bool,
    /// Whether it has been no longer behind since its start.
    pub(super) caught_up: bool,
    /// No more pictures go in; its exit is expected.
    pub(super) finishing: bool,
    /// When it was killed; its exit comes.
    pub(super) killed: Option<MonotonicTime>,
}

impl Running {
    /// Takes no more pictures; its end is waited for like an answer.
    pub(super) fn finish(&mut self, now: MonotonicTime) {
        self.encoder.finish();
        self.finishing = true;
        self.watch.progress(now);
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed.is_some()
    }

    /// Kills its process group; its exit will come.
    pub(super) fn kill(&mut self, now: MonotonicTime) {
        self.killed.get_or_insert(now);
        self.encoder.kill();
    }
}

impl Owner {
    /// Starts an encoder for what waits, trying it first if that was not done yet.
    pub(super) fn start(&mut self) {
        if self.audio_descriptions().is_none() {
            // What the sound is encoded as is not known yet.
            return;
        }
        let Some(backlog) = &mut self.backlog else {
            return;
        };
        backlog.rewind();
        let Some(input) = backlog.input() else { return };
        let stood_in_line = self.standing == Standing::InLine;
        if self.inits.is_some() && !self.may_start() {
            return;
        }
        if stood_in_line && self.breaker.in_a_row() > 0 {
            // What has waited beside the line is no measure for this encoder: it begins with what comes.
            self.show_all_late();
        }
        let plan = self.encode_plan(input);
        match self.inits.clone() {
            Some(descriptions) => self.start_encoder(&plan, input, descriptions),
            None => {
                // One that has been seen goes on with its slate meanwhile.
                self.parts.shared.report().starting = !self.worked;
                self.state = State::Probing;
                let (probes, sender) = (Arc::clone(&self.parts.probes), self.parts.sender.clone());
                let stream = self.name().to_owned();
                let probe = move || {
                    faults::point("probe", &stream);
                    // The owner may have ended meanwhile; then nobody asks.
                    let _ = sender.send(Event::Probed(crate::encode::probe_each(&plan, &probes)));
                };
                let spawned = self.parts.crew.spawn("probe", probe);
                if let Err(error) = spawned {
                    self.rest(format!("no thread could be started: {error}"), Vec::new());
                }
            }
        }
    }

    /// Whether it is its turn to start an encoder. One that has worked is replaced at once, in no line.
    fn may_start(&mut self) -> bool {
        let at_once = self.stopping.is_some() || self.worked && self.breaker.in_a_row() < 2;
        if at_once {
            self.leave_line();
            return true;
        }
        let watched = self.parts.window.period().is_some();
        let now = self.parts.anchor.monotonic();
        self.standing = match self.parts.turn.take(now, watched) {
            true => Standing::Starting,
            false => Standing::InLine,
        };
        self.standing == Standing::Starting
    }

    /// Lets other streams start their encoders.
    pub(super) fn leave_line(&mut self) {
        if std::mem::take(&mut self.standing) != Standing::Outside {
            self.parts.turn.give_back();
        }
    }

    /// Whether an encoder has started and not come so far yet that it needs no more than its stream does at any time.
    pub(super) fn is_starting(&self) -> bool {
        matches!(&self.state, State::Running(running) if !running.caught_up && !running.is_killed())
    }

    pub(super) fn encode_plan(&mut self, input: Input) -> EncodePlan {
        let (input_format, input_size) = input;
        let sizes = &mut self.parts.sizes;
        let renditions =
            self.parts
                .plan
                .renditions
                .iter()
                .zip(&self.fallen)
                .map(|(plan, fallen)| {
                    let other = fallen.as_ref().and_then(|_| plan.fallen_back());
                    let plan = other.as_ref().unwrap_or(plan);
                    // A rendition of the source's size keeps the first source's, so that a later one of another size is no break.
                    let size = plan
                        .size
                        .unwrap_or_else(|| *sizes.entry(plan.name.clone()).or_insert(input_size));
                    EncodeRendition::new(plan, size)
                });
        EncodePlan {
            ffmpeg: FfmpegInfo::clone(&self.parts.ffmpeg),
            input_format,
            input_size,
            grid: self.parts.grid,
            at_once: at_once(self.parts.plan.mode),
            renditions: renditions.collect(),
        }
    }

    /// Pictures a second, when those are fewer than the framerate's.
    fn reduced_rate(&self) -> Option<f64> {
        let step = self.pace.step();
        let grid = self.parts.grid;
        let (pictures, ticks) = Cadence::new(grid, Tick(0), step, []).pictures_per_segment();
        let share = f64::from(pictures) / f64::from(ticks);
        (pictures < ticks).then(|| grid.framerate.as_f64() * share)
    }

    fn start_encoder(
        &mut self,
        plan: &EncodePlan,
        input: Input,
        descriptions: Vec<TrackDescription>,
    ) {
        if !self.complete_encoding(&descriptions) {
            return;
        }
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
            step: self.pace.step(),
            queue: QUEUE,
            large_pipe: true,
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
        self.stand_in.encoder_started(&descriptions);
        match Encoder::start(plan, &descriptions, &start, events) {
            Ok(encoder) => {
                let now = self.parts.anchor.monotonic();
                self.pace.started();
                let mut report = self.parts.shared.report();
                report.encoder.next_try = None;
                report.encoder.reduced_to_per_second = self.reduced_rate();
                report.encoder.pid = Some(encoder.pid());
                report.starting = false;
                report
                    .started
                    .get_or_insert_with(|| self.parts.anchor.now());
                drop(report);
                self.parts.disk.remember(RememberedSource {
                    format: input.0,
                    size: input.1,
                    input: self.parts.plan.source.as_ref().map(SourcePlan::fingerprint),
                });
                tracing::info!(stream = %self.name(), pid = encoder.pid(), tick = %first_tick, "encoder started");
                self.count_skips_from(first_tick);
                self.note_kept_sizes(input.1, plan);
                self.state = State::Running(Box::new(Running {
                    encoder,
                    input,
                    cadence: start.cadence(self.parts.grid),
                    step: start.step,
                    first_tick,
                    watch: StallWatch::new(now),
                    returned: None,
                    all_returned: false,
                    caught_up: false,
                    finishing: false,
                    killed: None,
                }));
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

    /// Another encoding than the one that is published can begin with the next segment only: until then the slate is shown, part by part, if
    /// there is one, so that no time is missing; else the segment ends where it is. Its sound, which comes after its pictures, is waited for.
    /// False if it is too early to go on.
    fn complete_encoding(&mut self, descriptions: &[TrackDescription]) -> bool {
        let grid = self.parts.grid;
        let newest = self.packagers.iter().map(TrackPackager::next_tick).max();
        let (Some(period), Some(newest), Some(backlog)) =
            (self.parts.window.period(), newest, &self.backlog)
        else {
            return true;
        };
        let published = period.tracks.iter().take(descriptions.len());
        let same = published.map(|track| &track.description).eq(descriptions);
        if same || self.recording.is_some() {
            return true;
        }
        let come = backlog.next();
        let edge = grid.segment_edge(newest);
        if self.show_stand_in(edge.min(come)) && come < edge {
            self.rest_for_a_part(edge.since(come));
            return false;
        }
        let now = self.parts.anchor.now();
        for track in 0..self.packagers.len() {
            let part = self.packagers[track].flush();
            self.push_part(track, part, now);
        }
        self.push_audio();
        let waited = grid.framerate.duration_of(come.since(edge));
        if self.parts.window.sound_is_behind() && waited < PATIENCE_FOR_SOUND {
            self.rest_for_a_part(u64::MAX);
            return false;
        }
        true
    }

    /// The encoder is started after a part's time, or after so many ticks if those are fewer.
    fn rest_for_a_part(&mut self, at_most: u64) {
        let grid = self.parts.grid;
        let rest = at_most.min(grid.ticks_per_part.get().into());
        let rest = u64::try_from(grid.framerate.duration_of(rest).as_nanos());
        let now = self.parts.anchor.monotonic();
        let until = MonotonicTime(now.0 + rest.unwrap_or(0));
        // Viewers have the slate meanwhile.
        self.parts.shared.report().starting = false;
        self.state = State::Resting { until };
    }

    /// Makes sure that the window's period is of these encodings and reaches `first_tick`, and that each track has a packager.
    fn begin_period(&mut self, first_tick: Tick, descriptions: &[TrackDescription]) {
        let audio = self.audio_descriptions().unwrap_or_default();
        let tracks = descriptions.iter().cloned().chain(audio);
        let tracks: Vec<TrackInit> = tracks.map(TrackInit::new).collect();
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
        if !goes_on || self.sound_waits() {
            self.direct_audio();
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
        if self.is_held_back() {
            return;
        }
        let (State::Running(running), Some(backlog)) = (&mut self.state, &mut self.backlog) else {
            return;
        };
        if running.finishing || running.is_killed() {
            return;
        }
        let grid = self.parts.grid;
        let kept = backlog.first();
        self.skips.retain(|(tick, _)| *tick >= kept);
        while let Some((tick, picture)) = backlog.next_unfed() {
            if running.step != self.pace.step() && grid.starts_segment(tick) {
                // Another pace is to be tried: this encoder gives back what it has, and another one takes over.
                running.finish(self.parts.anchor.monotonic());
                return;
            }
            if !running.cadence.feeds(tick) {
                // The picture before is shown for this tick too.
                backlog.mark_fed(self.parts.anchor.monotonic());
                continue;
            }
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
                running.watch.progress(now);
            }
            backlog.mark_fed(now);
            if let Some(recording) = &mut self.recording {
                recording.note_fed(tick);
            }
            let after = running.cadence.after(tick);
            if tick >= self.counted {
                self.counted = after;
                let skipped = after.since(tick.next());
                if skipped > 0 {
                    self.parts.shared.report().encoder.skipped += skipped;
                    self.skips.push_back((tick, skipped));
                }
            }
            let counters = &self.parts.shared.counters;
            if tick.0 > counters.last_tick.get() {
                counters.last_tick.set(tick.0);
                let on_time = self.recording.is_none() && self.stopping.is_none();
                if on_time && tick >= self.filled_to {
                    let late = self
                        .parts
                        .anchor
                        .to_unix(now)
                        .saturating_since(grid.time_of(tick));
                    self.parts.shared.latency.tick_lateness.record(late);
                    if late >= grid.framerate.duration_of(1) {
                        counters.overdue.add(1);
                    }
                }
            }
        }
    }

    /// An encoder begins at `first`: which ticks are skipped from there on is decided anew. What lies before will not be fed again.
    fn count_skips_from(&mut self, first: Tick) {
        self.counted = self.counted.min(first);
        let fed_again = self.skips.iter().filter(|(tick, _)| *tick >= first);
        let again: u64 = fed_again.map(|(_, skipped)| skipped).sum();
        self.parts.shared.report().encoder.skipped -= again;
        self.skips.clear();
    }

    /// Looks whether the encoder keeps up, and starts it again with fewer pictures when it doesn't.
    pub(super) fn keep_pace(&mut self, now: MonotonicTime) {
        let (State::Running(running), Some(backlog)) = (&self.state, &self.backlog) else {
            return;
        };
        if running.returned.is_none() || running.finishing || running.is_killed() {
            return;
        }
        let rate = self.parts.grid.framerate;
        let behind = rate.duration_of(backlog.next().since(backlog.first()));
        let load = Load {
            now,
            busy: backlog.next_unfed().is_some(),
            returned: backlog.first(),
            behind: behind.saturating_sub(self.delay),
        };
        let before = self.pace.step();
        match self.pace.look(load) {
            None => {}
            Some(Change::TooSlow {
                reached,
                longer_step,
            }) => {
                let told = self.too_slow(reached, before);
                let report = &self.parts.shared;
                if longer_step {
                    let step = self.pace.step().get();
                    tracing::warn!(stream = %self.name(), "{told}: it is given one picture of {step} from now on; choose a faster preset, a smaller size or a lower framerate");
                    report.report().encoder.too_slow = Some(told);
                    self.discard_encoder();
                    self.start();
                } else {
                    tracing::warn!(stream = %self.name(), "{told}: ticks that come too late are left out; choose a faster preset, a smaller size or a lower framerate");
                    report.report().encoder.too_slow = Some(told);
                }
            }
            Some(Change::Try) => {
                let step = self.pace.step().get();
                tracing::info!(stream = %self.name(), "encoder has room: it is given one picture of {step} from the next segment on");
            }
        }
        if self.pace.step() == NonZeroU32::MIN && !self.pace.is_overwhelmed() {
            self.parts.shared.report().encoder.too_slow = None;
        }
    }

    /// "720p at veryfast reaches 21 of 30 fps here", in pictures a second.
    fn too_slow(&self, reached: f64, step: NonZeroU32) -> String {
        let renditions = self.parts.plan.renditions.iter().zip(&self.fallen);
        let names: Vec<String> = renditions
            .map(|(plan, fallen)| {
                let used = fallen.as_ref().and_then(|_| plan.fallen_back());
                let used = used.as_ref().unwrap_or(plan);
                let how = used.preset.as_ref().unwrap_or(&used.codec);
                format!("{} at {how}", used.name)
            })
            .collect();
        let verb = if names.len() == 1 { "reaches" } else { "reach" };
        let grid = self.parts.grid;
        let (pictures, ticks) = Cadence::new(grid, Tick(0), step, []).pictures_per_segment();
        let share = f64::from(pictures) / f64::from(ticks);
        let (reached, wanted) = (reached * share, grid.framerate.as_f64() * share);
        let number = |rate: f64| {
            let text = format!("{rate:.1}");
            text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
        };
        format!(
            "{} {verb} {} of {} fps here",
            names.join(", "),
            number(reached),
            number(wanted)
        )
    }
}
