//! A stream of the config as the daemon holds it: live, or recorded.

use std::sync::Arc;
use std::time::Duration;

use ringgear_producer::messages::Refused;

use super::{House, Recorder, Stream, StreamError};
use crate::config::StreamPlan;
use crate::control::{Granted, Offer, Peer};
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

    pub(crate) fn may_feed(
        &self,
        offer: &Offer,
        peer: Peer,
        groups: &[u32],
    ) -> Result<(), Refused> {
        match (self, offer) {
            (Self::Live(stream), offer) => stream.may_feed(offer, peer, groups),
            (Self::Recorded(recorder), Offer::Frames(_)) => recorder.may_feed(peer, groups),
            (Self::Recorded(recorder), Offer::Sound(_)) => Err(recorder.no_sound()),
        }
    }

    /// Starts a session for a producer that may.
    pub(crate) fn open(&self, offer: &Offer, peer: Peer) -> Result<Granted, Refused> {
        match (self, offer) {
            (Self::Live(stream), Offer::Frames(open)) => stream.open(open, peer),
            (Self::Live(stream), Offer::Sound(open)) => stream.open_sound(open, peer),
            (Self::Recorded(recorder), Offer::Frames(open)) => recorder.open(open, peer),
            (Self::Recorded(recorder), Offer::Sound(_)) => Err(recorder.no_sound()),
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
