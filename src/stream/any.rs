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
        match self {
            Self::Live(stream) => stream.may_feed(offer, peer, groups),
            Self::Recorded(recorder) => recorder.may_feed(offer, peer, groups),
        }
    }

    /// Starts a session for a producer that may.
    pub(crate) fn open(&self, offer: &Offer, peer: Peer) -> Result<Granted, Refused> {
        match (self, offer) {
            (Self::Live(stream), Offer::Frames(open)) => stream.open(open, peer),
            (Self::Live(stream), Offer::Sound(open)) => stream.open_sound(open, peer),
            (Self::Recorded(recorder), Offer::Frames(open)) => recorder.open(open, peer),
            (Self::Recorded(recorder), Offer::Sound(open)) => recorder.open_sound(open, peer),
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

    /// Says once if the disk of what is kept of it does not answer. Whether anything is kept.
    pub(crate) fn look_at_disk(&self) -> bool {
        matches!(self, Self::Live(stream) if stream.look_at_disk())
    }

    pub(crate) fn port(&self) -> StreamPort {
        match self {
            Self::Live(stream) => stream.port(),
            Self::Recorded(recorder) => recorder.port(),
        }
    }

    /// Changes to `plan` on the way: [`Action::Adjust`](crate::config::Action::Adjust).
    pub(crate) fn adjust(&self, plan: &StreamPlan) {
        match self {
            Self::Live(stream) => stream.adjust(plan),
            Self::Recorded(recorder) => recorder.adjust(plan),
        }
    }

    /// Begins to stop, to be started again in another's place; producers are told to come again, because of `cause`.
    pub(crate) fn leave(&self, cause: &'static str) {
        match self {
            Self::Live(stream) => stream.leave(cause),
            Self::Recorded(recorder) => recorder.leave(cause),
        }
    }

    /// Begins to stop for good, as its viewers see, because of `cause`.
    pub(crate) fn end(&self, cause: &'static str) {
        match self {
            Self::Live(stream) => stream.end(cause),
            // A recording that stops has ended.
            Self::Recorded(recorder) => recorder.leave(cause),
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
