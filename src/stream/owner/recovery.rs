//! What a stream does when its encoder fails: it is killed when it hangs, started again, replaced by another one that the config
//! names, or left alone for a while.

use std::time::Duration;

use super::Owner;
use super::encoding::State;
use crate::clock::MonotonicTime;
use crate::encode::{EncodeError, ExitReport, Patience, START_ALLOWANCE, UNKILLABLE};
use crate::package::TrackPackager;
use crate::sample::TrackDescription;
use crate::tick::Tick;

/// Runs that fail in a row until fallbacks take over.
const RUNS: u32 = 2;
/// However little `backfill` is, ticks this late are still encoded while the daemon runs.
const LEAST_LAG: Duration = Duration::from_secs(2);
/// Nor is an encoder that is tried again after a failure given up sooner, or one that has started late and catches up.
const LONGEST_START: Duration = Duration::from_secs(5);
/// An encoder whose lag has been so short once has caught up.
pub(super) const CAUGHT_UP: Duration = Duration::from_secs(1);

impl Owner {
    /// How late ticks may be encoded.
    pub(super) fn longest_lag(&self) -> Duration {
        let failing = self.breaker.in_a_row() > 0;
        let least = match &self.state {
            // The watch for stalls judges it first, unless the slate can be shown meanwhile.
            State::Running(running)
                if running.returned.is_none() && !(failing && self.stand_in.is_ready()) =>
            {
                self.parts.plan.encoder_timeout + START_ALLOWANCE + CAUGHT_UP
            }
            State::Running(running) if !running.caught_up => LONGEST_START,
            _ if failing => LONGEST_START,
            _ => LEAST_LAG,
        };
        self.parts.plan.backfill.max(least)
    }

    /// Notes once the encoder is no longer behind since its start.
    pub(super) fn note_lag(&mut self) {
        let (State::Running(running), Some(backlog)) = (&mut self.state, &self.backlog) else {
            return;
        };
        let behind = backlog.next().since(backlog.first());
        let lag = self.parts.grid.framerate.duration_of(behind);
        running.caught_up |= running.returned.is_some() && lag <= CAUGHT_UP + self.delay;
    }

    /// The running encoder is too far behind to be waited for, which counts as a failure if it has shown nothing since its start.
    pub(super) fn give_up_encoder(&mut self) {
        let State::Running(running) = &self.state else {
            return;
        };
        let works = running.caught_up;
        let returns = running.returned.is_some();
        let lag = humantime::format_duration(self.longest_lag());
        self.discard_encoder();
        if !works {
            self.parts.shared.report().encoder.restarts += 1;
            let mut cause = format!("FFmpeg was {lag} behind since its start");
            // Once may be chance: a machine that has just started, or a disk that was asleep.
            if returns && self.breaker.in_a_row() > 0 && self.pace.lengthen_step() {
                let step = self.pace.step();
                cause = format!("{cause}; it is given one picture of {step} from now on");
            }
            tracing::error!(stream = %self.name(), "encoder is given up: {cause}");
            self.run_failed(cause, Vec::new());
        }
    }

    pub(super) fn take_probe(&mut self, results: Vec<Result<TrackDescription, EncodeError>>) {
        let mut failure = None;
        let mut fell_back = false;
        let mut descriptions = Vec::new();
        for (index, result) in results.into_iter().enumerate() {
            match result {
                Ok(description) => descriptions.push(description),
                Err(error) if self.fall_back(index, &error.to_string()) => fell_back = true,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            // The fallbacks are tried at once.
            _ if fell_back => self.state = State::Waiting,
            None => {
                // It is starting until its encoder has started, too.
                self.inits = Some(descriptions);
                self.state = State::Waiting;
            }
            Some(error) => {
                if self.parts.window.period().is_none() {
                    // Nothing is published in these sizes: the next source may have a better one.
                    self.parts.sizes.clear();
                }
                self.rest(error.to_string(), Vec::new());
            }
        }
    }

    /// Has a rendition encoded by its fallback from the next start on; false if it has none, or that is in use already.
    fn fall_back(&mut self, index: usize, why: &str) -> bool {
        let (Some(plan), Some(fallen)) = (
            self.parts.plan.renditions.get(index),
            self.fallen.get_mut(index),
        ) else {
            return false;
        };
        let (Some(fallback), None) = (&plan.fallback, &fallen) else {
            return false;
        };
        let why = format!(
            "{} encodes {} in place of {}: {why}",
            fallback, plan.name, plan.codec
        );
        tracing::error!(stream = %self.parts.plan.name, "{why}");
        *fallen = Some(why);
        self.parts.shared.report().fallen.clone_from(&self.fallen);
        self.inits = None;
        true
    }

    /// An encoder that was given pictures and returns none, or was asked to end and does not, is as good as dead.
    pub(super) fn watch_for_stall(&mut self, now: MonotonicTime) {
        let timeout = self.parts.plan.encoder_timeout;
        let pending = self.owes();
        let State::Running(running) = &mut self.state else {
            return;
        };
        if let Some(killed) = running.killed {
            if now.saturating_since(killed) > UNKILLABLE && self.stopping.is_none() {
                running.encoder.leave_behind();
                let pid = running.encoder.pid();
                tracing::error!(stream = %self.name(), pid, "killed encoder does not end: another one is started beside it");
                self.discard_encoder();
                self.run_failed("FFmpeg can't be killed".to_owned(), Vec::new());
            }
            return;
        }
        if !pending && !running.finishing {
            running.watch.progress(now);
            return;
        }
        let patience = Patience {
            timeout,
            delay: self.delay + self.parts.grid.framerate.duration_of(1),
            under_way: running.returned.is_some() && pending,
        };
        let encoder = &running.encoder;
        let stall = running.watch.ask(now, patience, || encoder.vitals());
        if let Some(why) = stall {
            let waited = now.saturating_since(running.watch.quiet_since());
            running.kill(now);
            let pid = running.encoder.pid();
            tracing::warn!(stream = %self.name(), pid, ?waited, %why, "encoder returns nothing: it is killed and started again");
        }
    }

    /// The encoder's output can't be used.
    pub(super) fn fault(&mut self, error: &EncodeError) {
        tracing::error!(stream = %self.name(), %error, "encoder is stopped: its output can't be used");
        self.parts.shared.report().failure = Some(error.to_string());
        // What the probe said may no longer hold.
        self.inits = None;
        if let State::Running(running) = &mut self.state {
            running.kill(self.parts.anchor.monotonic());
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
        if self.has_worked(running.first_tick) {
            self.breaker.worked();
        }
        let last = report.last_words();
        let cause = if running.is_killed() {
            // Why was said when it was killed; what it left on the way out says less.
            let known = self.parts.shared.report().failure.clone();
            tracing::info!(stream = %self.name(), status = %report.status, "killed encoder is gone");
            known.unwrap_or_else(|| "FFmpeg returned nothing in time and was killed".to_owned())
        } else {
            tracing::error!(stream = %self.name(), status = %report.status, last_words = last, "encoder died");
            format!("FFmpeg ended by itself ({}): {last}", report.status)
        };
        self.parts.shared.report().encoder.restarts += 1;
        self.run_failed(cause, report.last_lines.clone());
    }

    /// The encoders were tried and good, and yet failed: where that happens again, fallbacks take over.
    fn run_failed(&mut self, cause: String, last_lines: Vec<String>) {
        let again = self.breaker.in_a_row() + 1 >= RUNS;
        let renditions = 0..self.fallen.len();
        if again
            && renditions
                .map(|index| self.fall_back(index, &cause))
                .fold(false, std::ops::BitOr::bitor)
        {
            self.breaker.worked();
            self.state = State::Waiting;
            return;
        }
        self.rest(cause, last_lines);
    }

    /// Whether an encoder that started at `first` has published a part's length: then its end says nothing against the next.
    pub(super) fn has_worked(&self, first: Tick) -> bool {
        let part = u64::from(self.parts.grid.ticks_per_part.get());
        let published = self.packagers.iter().map(TrackPackager::next_tick).min();
        published.is_some_and(|published| published.since(first) >= part)
    }

    /// A sample was published: what was wrong is over, once the encoder has shown that it works.
    pub(super) fn note_recovery(&mut self) {
        if self.breaker.in_a_row() > 0
            && let State::Running(running) = &self.state
            && self.has_worked(running.first_tick)
        {
            self.breaker.worked();
            self.parts.shared.report().encoder.failures = 0;
        }
        if self.breaker.in_a_row() == 0 {
            let mut report = self.parts.shared.report();
            report.failure = None;
            report.broken = false;
        }
    }

    /// Waits before the next start: not at all after a first failure, then longer each time.
    pub(super) fn rest(&mut self, cause: String, last_lines: Vec<String>) {
        let now = self.parts.anchor.monotonic();
        let wait = self.breaker.failed(now);
        let failures = self.breaker.in_a_row();
        let mut report = self.parts.shared.report();
        if failures > 1 {
            tracing::error!(stream = %self.parts.plan.name, %cause, failures, retry_in = ?wait, "encoder does not run");
            report.failure = Some(self.breaker.told(cause));
        }
        report.broken = self.breaker.is_open();
        report.starting = false;
        report.encoder.failures = u64::from(failures);
        report.encoder.next_try = Some(self.parts.anchor.now().saturating_add(wait).rfc3339());
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
