//! A stream of the config as the daemon holds it: live, or recorded.

use std::sync::Arc;
use std::time::Duration;

use ringgear_producer::messages::{Open, Refused};

use super::{House, Recorder, Stream, StreamError};
use crate::config::StreamPlan;
use crate::control::{Granted, Peer};
use crate::http::StreamPort;
use crate::status::StreamStatus;

/// Either kind; the methods are those of [`Stream`].
pub(crate) enum AnyStream {
    Live(Box<Stream>),
    Recorded(Arc<Recorder>),
}

impl AnyStream {
    /// Starts the stream of `plan`.
    pub(crate) fn start(plan: StreamPlan, house: &Arc<House>) -> Result<Self, StreamError> {
        Ok(match plan.mode.is_recorded() {
            true => Self::Recorded(Recorder::start(plan, house)?),
            false => Self::Live(Box::new(Stream::start(plan, house)?)),
        })
    }

    pub(crate) fn may_feed(&self, peer: Peer, groups: &[u32]) -> Result<(), Refused> {
        match self {
            Self::Live(stream) => stream.may_feed(peer, groups),
            Self::Recorded(recorder) => recorder.may_feed(peer, groups),
        }
    }

    pub(crate) fn open(&self, open: &Open, peer: Peer) -> Result<Granted, Refused> {
        match self {
            Self::Live(stream) => stream.open(open, peer),
            Self::Recorded(recorder) => recorder.open(open, peer),
        }
    }

    pub(crate) fn status(&self) -> StreamStatus {
        match self {
            Self::Live(stream) => stream.status(),
            Self::Recorded(recorder) => recorder.status(),
        }
    }

    pub(crate) fn since_tick(&self) -> Duration {
        match self {
            Self::Live(stream) => stream.since_tick(),
            Self::Recorded(recorder) => recorder.since_tick(),
        }
    }

    pub(crate) fn port(&self) -> StreamPort {
        match self {
            Self::Live(stream) => stream.port(),
            Self::Recorded(recorder) => recorder.port(),
        }
    }

    pub(crate) fn begin_stop(&self) {
        match self {
            Self::Live(stream) => stream.begin_stop(),
            Self::Recorded(recorder) => recorder.begin_stop(),
        }
    }

    pub(crate) fn finish_stop(&self) {
        match self {
            Self::Live(stream) => stream.finish_stop(),
            Self::Recorded(recorder) => recorder.finish_stop(),
        }
    }
}
