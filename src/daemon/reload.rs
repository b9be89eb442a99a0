//! The config is read again: what it changes is done to the streams, and to no other.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::streams::{Running, Streams};
use crate::config::{self, Action, Changes, Plan};
use crate::control::{ReloadError, Reloaded};
use crate::service;
use crate::stream::{AnyStream, require_encoders};

/// What a producer hears whose stream is restarted.
const RESTARTED: &str = "it is started again with another config";
/// What a producer hears whose stream ends.
const REMOVED: &str = "it is no longer in the daemon's config";

impl Streams {
    /// Reads the config again and does what it asks for, or only says what that would be. A config that is wrong changes nothing.
    pub(super) fn reload(&self, dry_run: bool) -> Result<Reloaded, ReloadError> {
        // Two reloads at once follow each other.
        let mut running = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_stopping() {
            return Err(ReloadError::Stopping);
        }
        let file = running.file.clone().ok_or(ReloadError::NoFile)?;
        let reloaded = |changes| Reloaded {
            config: file.clone(),
            changes,
        };
        if dry_run {
            let plan = self.checked(&file, &running.plan)?;
            return Ok(reloaded(Changes::between(&running.plan, &plan)));
        }
        // A start that is not over is not over by this.
        let is_told = self.told_ready.load(Ordering::Relaxed);
        if is_told {
            service::reloading();
        }
        let done = self.checked(&file, &running.plan);
        let done = done.and_then(|plan| self.run_by(&mut running, plan));
        match &done {
            Ok(changes) => {
                let told = changes.to_string();
                for line in told.lines() {
                    tracing::info!(config = %file.display(), "the config was read again: {line}");
                }
            }
            Err(error) => {
                let told = error.to_string();
                for line in told.lines() {
                    tracing::error!(config = %file.display(), "the config was read again: {line}");
                }
            }
        }
        if is_told {
            service::ready();
        }
        done.map(reloaded)
    }

    /// The config as it is now, if this machine can do what it asks for beside what stays of `running` until the next start.
    fn checked(&self, file: &Path, running: &Plan) -> Result<Plan, ReloadError> {
        let plan = config::load(file)?;
        for (name, stream) in &plan.streams {
            // One that lacks its encoder already is no reason to leave others as they are.
            if running.streams.get(name) != Some(stream) {
                require_encoders(&self.house.ffmpeg, stream)
                    .map_err(|error| ReloadError::Lacking(error.to_string()))?;
            }
        }
        plan.may_serve_at(self.address, running.tls.is_some())
            .map_err(|(what, mend)| ReloadError::Lacking(format!("{what}: {mend}")))?;
        Ok(plan)
    }

    /// Does what leads from the plan that runs to `plan`.
    fn run_by(&self, running: &mut Running, plan: Plan) -> Result<Changes, ReloadError> {
        let changes = Changes::between(&running.plan, &plan);
        self.let_in(&plan, &running.plan);
        for name in changes.with(Action::Adjust) {
            let Some(stream) = self.get(name) else {
                continue;
            };
            if !changes.streams[name].is_of_the_stream() {
                continue;
            }
            stream.adjust(&plan.streams[name]);
            if plan.streams[name].mode.is_recorded() {
                self.show(&stream, &plan.streams[name]);
            }
        }
        // All that stop do so at the same time.
        for name in changes.with(Action::End) {
            if let Some(stream) = self.get(name) {
                stream.end(REMOVED);
            }
        }
        for name in changes.with(Action::Restart) {
            if let Some(stream) = self.get(name) {
                stream.leave(RESTARTED);
            }
        }
        for name in changes.with(Action::End) {
            if let Some(stream) = self.get(name) {
                stream.finish_stop();
            }
            self.remove(name);
        }
        // What of the daemon itself is followed at once is not told of again.
        running.plan.http.allow_anyone = plan.http.allow_anyone;
        if running.plan.http.admin_listen == plan.http.admin_listen {
            running.plan.http.admin = plan.http.admin.clone();
        }
        let mut failed = Vec::new();
        for name in changes.with(Action::Restart) {
            if let Some(stream) = self.get(name) {
                stream.finish_stop();
            }
            self.begin(name, &plan, &mut failed);
        }
        for name in changes.with(Action::Start) {
            self.begin(name, &plan, &mut failed);
        }
        // Of what could not be done, the next reload makes another attempt.
        let mut streams = plan.streams;
        for (name, _) in &failed {
            streams.remove(name);
        }
        running.plan.streams = streams;
        if failed.is_empty() {
            return Ok(changes);
        }
        let causes: Vec<String> = failed.into_iter().map(|(_, cause)| cause).collect();
        Err(ReloadError::Partly(causes.join("; ")))
    }

    /// Starts the stream of this name in `plan`; one that can't be started is noted in `failed` and leaves its name to nobody.
    fn begin(&self, name: &str, plan: &Plan, failed: &mut Vec<(String, String)>) {
        match AnyStream::start(plan.streams[name].clone(), &self.house) {
            Ok(stream) => self.put(Arc::new(stream), &plan.streams[name]),
            Err(error) => {
                self.remove(name);
                failed.push((name.to_owned(), error.to_string()));
            }
        }
    }
}
