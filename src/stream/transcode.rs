//! One recording by itself, in a folder of its own, without a daemon around it.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::{House, Stream, Turns};
use crate::budget::Budget;
use crate::clock::{Anchor, SystemClock};
use crate::config::{Plan, StreamPlan};
use crate::control::Accounts;
use crate::descriptors::{self, Descriptors};
use crate::encode::{self, ProbeCache};
use crate::status::StreamStatus;

/// A running one.
pub(crate) struct Transcode {
    stream: Stream,
    /// What its threads may wait on.
    _runtime: tokio::runtime::Runtime,
}

impl Transcode {
    /// Begins to record what the source of `stream` gives into `folder`; `over` is called when that is whole.
    ///
    /// # Errors
    /// For people: FFmpeg is missing, or threads or the folder can't be had.
    pub(crate) fn start(
        plan: &Plan,
        stream: StreamPlan,
        folder: &Path,
        over: impl FnOnce() + Send + 'static,
    ) -> Result<Self, String> {
        super::hear_panics();
        descriptors::raise_limit();
        let ffmpeg = encode::find_ffmpeg(&plan.ffmpeg).map_err(|error| error.to_string())?;
        super::require_encoders(&ffmpeg, &stream).map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| format!("the runtime could not be started: {error}"))?;
        let house = House {
            anchor: Anchor::new(Arc::new(SystemClock)),
            ffmpeg: Arc::new(ffmpeg),
            breaker: plan.breaker,
            probes: Arc::new(ProbeCache::default()),
            publish_dir: folder.to_owned(),
            keep_free: plan.keep_free,
            tick_log: None,
            accounts: Accounts::new(plan.limits),
            descriptors: Descriptors::new(plan.limits.connections),
            window_memory: Budget::new(plan.limits.window_memory),
            picture_memory: Budget::new(plan.limits.picture_memory),
            turns: Turns::new(),
        };
        let entered = runtime.enter();
        let newest = watch::Sender::new(None);
        let started = Stream::start_in(folder.to_owned(), stream, &house, newest, Box::new(over));
        drop(entered);
        Ok(Self {
            stream: started.map_err(|error| error.to_string())?,
            _runtime: runtime,
        })
    }

    /// What `/api/v1/streams` would tell of it.
    pub(crate) fn status(&self) -> StreamStatus {
        self.stream.status()
    }

    /// Ends it, whole or not, and waits until what there is is published.
    pub(crate) fn finish(&self) {
        self.stream.begin_stop();
        self.stream.finish_stop();
    }
}
