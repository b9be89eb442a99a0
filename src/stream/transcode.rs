//! One recording by itself, in a folder of its own, without a daemon around it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::recorder::is_of;
use super::{House, Stream, Turns};
use crate::budget::Budget;
use crate::clock::{Anchor, SystemClock};
use crate::config::{Plan, SourceInput, StreamPlan};
use crate::control::Accounts;
use crate::descriptors::{self, Descriptors};
use crate::encode::{self, ProbeCache};
use crate::manifest;
use crate::publish::{self, Claim, Restored};
use crate::status::StreamStatus;
use crate::tick::{Tick, UnixTime};

/// What a transcode has left in its folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// How much, from the beginning.
    pub(crate) length: Duration,
    /// Whether there are playlists of it.
    pub(crate) plays: bool,
}

impl Left {
    /// What `folder` has of `stream`, as far as it can be read.
    pub(crate) fn of(stream: &StreamPlan, folder: &Path) -> Self {
        let Some(snapshot) = restored(stream, folder).ok().and_then(|left| left.snapshot) else {
            return Self::default();
        };
        let listed = snapshot.tracks.first().map(|pictures| &pictures.listed);
        let lengths = listed.into_iter().flatten();
        Self {
            length: lengths.map(|segment| segment.duration()).sum(),
            plays: snapshot.ended && manifest::playable(&snapshot),
        }
    }
}

fn restored(stream: &StreamPlan, folder: &Path) -> Result<Restored, String> {
    let restored = publish::restore(folder, &stream.name, &stream.track_names(), now());
    restored.map_err(|error| error.to_string())
}

fn now() -> UnixTime {
    Anchor::new(Arc::new(SystemClock)).now()
}

/// How many pictures of `stream` there are in `restored`, what `folder` has.
///
/// # Errors
/// For people: it can't be gone on with.
fn stays_of(stream: &StreamPlan, restored: &Restored, folder: &Path) -> Result<u64, String> {
    let (Some(snapshot), Some(last)) = (&restored.snapshot, restored.last_tick) else {
        return Ok(0);
    };
    let shown = folder.display();
    let source = stream.source.as_ref();
    let recorded = restored.source.and_then(|source| source.input);
    if let Some(source) = source
        && let SourceInput::Url { .. } = source.input
        && recorded.is_some_and(|recorded| recorded != source.fingerprint())
    {
        return Err(format!(
            "what {shown} has is of {} with another user, password or query than now: give the URL as it was to go on with it, or name another folder",
            source.input.shown()
        ));
    }
    let mut listed = snapshot.tracks.iter().flat_map(|track| &track.listed);
    let whole = !restored.started_over && listed.all(|segment| !segment.gap);
    let ours = source.is_some_and(|source| is_of(source, stream, restored));
    if whole && ours {
        return Ok(Tick::next(last).0);
    }
    Err(format!(
        "what {shown} has is not as it was left, and can't be gone on with: remove what is in it, or name another folder"
    ))
}

/// A running one.
pub(crate) struct Transcode {
    stream: Stream,
    /// What its threads may wait on.
    _runtime: tokio::runtime::Runtime,
}

impl Transcode {
    /// Makes what an earlier one of `stream` has left unfinished in `folder` ready for [`Self::start`], which then goes on with it; says how many
    /// pictures stay.
    ///
    /// # Errors
    /// For people: it is being worked on, or is not as it was left.
    pub(crate) fn reopen(stream: &StreamPlan, folder: &Path) -> Result<u64, String> {
        let shown = folder.display();
        let claim = Claim::take(folder).map_err(|error| error.to_string())?;
        if claim.is_none() {
            return Err(format!(
                "another ringgear works in {shown}: wait for it, or name another folder"
            ));
        }
        let tracks = stream.track_names();
        let restored = publish::reopened(folder, &stream.name, &tracks, now());
        let restored = restored.map_err(|error| error.to_string())?;
        let stays = stays_of(stream, &restored, folder)?;
        publish::reopen(folder, &stream.name).map_err(|error| error.to_string())?;
        Ok(stays)
    }

    /// Begins to record what the source of `stream` gives into `folder`, or goes on where that ends; `over` is called when that is whole.
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

    /// Why what there is can't be written, if it can't.
    pub(crate) fn unwritten(&self) -> Option<String> {
        self.stream.shared.report().disk.clone()
    }

    /// Ends it, whole or not, and waits until what there is is published.
    pub(crate) fn finish(&self) {
        self.stream.begin_stop();
        self.stream.finish_stop();
    }
}
