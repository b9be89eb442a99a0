//! A stream that records: each recording has a folder and URLs of its own, named by when it began, and is a [`Stream`] from the producer's
//! opening to its close. Here they begin and end, and those from before are found again.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use ringgear_producer::messages::{Open, OpenSound, RefusalCode, Refused};
use tokio::sync::watch;

use super::chair::refused;
use super::seat::check_request;
use super::shared::Shared;
use super::{House, Stream, StreamError, may_offer};
use crate::archive::{age_key, name_at};
use crate::config::{SourcePlan, StreamPlan};
use crate::control::{Granted, Offer, Peer};
use crate::http::{self, StreamPort};
use crate::picture::Picture;
use crate::publish::{self, Restored};
use crate::source;
use crate::status::StreamStatus;
use crate::tick::UnixTime;
use crate::window::Snapshot;

/// No more recordings are listed, the newest of them.
const MOST_LISTED: usize = 1000;
/// So many recordings from before are kept at hand for their viewers.
const MOST_WATCHED: usize = 8;
/// More recordings that begin in one second than anybody means.
const MOST_A_SECOND: u32 = 100;

/// A stream's recordings.
pub(crate) struct Recorder {
    name: String,
    /// What the next recording is made by.
    plan: Mutex<Arc<StreamPlan>>,
    house: Arc<House>,
    folder: PathBuf,
    /// The recording under way.
    current: Mutex<Option<Current>>,
    /// Recordings from before that somebody watches, the one that was asked for last at the end.
    watched: Mutex<Vec<(String, StreamPort)>>,
    picture: watch::Sender<Option<Picture>>,
    /// What is told of the stream while nothing is recorded.
    idle: Shared,
    /// Why nothing is recorded any more: the daemon has another recorder in its place, or none.
    left: OnceLock<&'static str>,
    /// Itself, for who calls back.
    this: Weak<Self>,
}

struct Current {
    name: String,
    stream: Stream,
    port: StreamPort,
}

impl Recorder {
    /// Finds the stream's recordings, and goes on with one that was cut off.
    ///
    /// # Errors
    /// When that can't be started.
    pub(crate) fn start(plan: StreamPlan, house: &Arc<House>) -> Result<Arc<Self>, StreamError> {
        let folder = house.publish_dir.join(&plan.name);
        let recorder = Arc::new_cyclic(|this| Self {
            name: plan.name.clone(),
            plan: Mutex::new(Arc::new(plan)),
            house: Arc::clone(house),
            folder,
            current: Mutex::default(),
            watched: Mutex::default(),
            picture: watch::Sender::new(None),
            idle: Shared::new(),
            left: OnceLock::new(),
            this: Weak::clone(this),
        });
        recorder
            .idle
            .look_for_encoders(&recorder.plan(), &house.ffmpeg);
        if let Some(name) = recorder.names().into_iter().next() {
            let restored = recorder.restore(&name);
            let unfinished = restored.filter(|restored| {
                let snapshot = restored.snapshot.as_ref();
                snapshot.is_some_and(|snapshot| !snapshot.ended)
            });
            if let Some(unfinished) = unfinished {
                recorder.go_on_with(&name, &unfinished)?;
            }
        }
        if recorder.plan().source.is_some() && recorder.current().is_none() {
            let name = recorder.free_name(house.anchor.now());
            match name {
                Ok(name) => *recorder.current() = Some(recorder.begin(&name)?),
                Err(refused) => {
                    tracing::error!(stream = %recorder.name, "nothing is recorded: {}", refused.message)
                }
            }
        }
        Ok(recorder)
    }

    /// Takes up a recording that was cut off by the daemon's death: its producer may go on with it, or its file does. What another source gives
    /// is none of it, so then it is only brought to its end.
    fn go_on_with(&self, name: &str, unfinished: &Restored) -> Result<(), StreamError> {
        let stream = &self.name;
        let plan = self.plan();
        let goes_on = match &plan.source {
            None => Some("its producer may go on with it"),
            Some(source) => is_of(source, &plan, unfinished)
                .then_some("its source is read again, and it goes on with the next picture"),
        };
        if let Some(how) = goes_on {
            tracing::info!(%stream, recording = %name, "the recording was cut off: {how}");
            *self.current() = Some(self.begin(name)?);
            return Ok(());
        }
        tracing::info!(%stream, recording = %name, "the recording was cut off: it ends as it is");
        let plan = StreamPlan {
            source: None,
            ..StreamPlan::clone(&plan)
        };
        let picture = watch::Sender::new(None);
        let folder = self.folder.join(name);
        let over = Box::new(|| ());
        let ending = Stream::start_in(folder.clone(), plan, &self.house, picture, over)?;
        // Who watches it sees how it ends.
        let mut port = ending.port();
        port.folder = Some(Arc::from(folder));
        self.watched().push((name.to_owned(), port));
        ending.begin_stop();
        Ok(())
    }

    /// Whether the config lets `peer`, in its supplementary `groups`, feed this stream with what it offers.
    pub(crate) fn may_feed(
        &self,
        offer: &Offer,
        peer: Peer,
        groups: &[u32],
    ) -> Result<(), Refused> {
        may_offer(&self.plan(), offer, peer, groups)
    }

    /// Starts the session of a producer of sound for the recording under way.
    pub(crate) fn open_sound(&self, open: &OpenSound, peer: Peer) -> Result<Granted, Refused> {
        let current = self.current();
        self.check_stays()?;
        let Some(current) = &*current else {
            let message = format!(
                "stream '{}' records nothing now: a recording begins with its pictures, and has sound from then on: open their session first, or try again",
                self.name
            );
            return Err(refused(RefusalCode::OutOfResources, message));
        };
        current.stream.open_sound(open, peer)
    }

    /// Refuses who comes when nothing is recorded any more.
    fn check_stays(&self) -> Result<(), Refused> {
        let Some(cause) = self.left.get() else {
            return Ok(());
        };
        let message = format!("stream '{}' does not run now: {cause}", self.name);
        Err(refused(RefusalCode::OutOfResources, message))
    }

    /// Starts a producer's session, and with it the next recording, unless one is under way.
    pub(crate) fn open(&self, open: &Open, peer: Peer) -> Result<Granted, Refused> {
        let mut current = self.current();
        self.check_stays()?;
        if let Some(current) = &*current {
            return current.stream.open(open, peer);
        }
        check_request(open, &self.house.accounts)?;
        let now = self.house.anchor.now();
        let name = self.free_name(now)?;
        let begun = self
            .begin(&name)
            .map_err(|error| refused(RefusalCode::OutOfResources, error.to_string()))?;
        let granted = begun.stream.open(open, peer);
        match &granted {
            Ok(_) => {
                tracing::info!(stream = %self.name, recording = %name, "recording begins");
                *current = Some(begun);
            }
            Err(_) => begun.stream.begin_stop(),
        }
        granted
    }

    /// The recording of this name, begun or gone on with.
    fn begin(&self, name: &str) -> Result<Current, StreamError> {
        let over = {
            let (recorder, name) = (Weak::clone(&self.this), name.to_owned());
            Box::new(move || {
                if let Some(recorder) = recorder.upgrade() {
                    recorder.ended(&name);
                }
            })
        };
        let folder = self.folder.join(name);
        let picture = self.picture.clone();
        let stream = Stream::start_in(
            folder.clone(),
            StreamPlan::clone(&self.plan()),
            &self.house,
            picture,
            over,
        )?;
        let mut port = stream.port();
        port.folder = Some(Arc::from(folder));
        Ok(Current {
            name: name.to_owned(),
            stream,
            port,
        })
    }

    /// The recording is over and published.
    fn ended(&self, name: &str) {
        let mut current = self.current();
        let over = current.take_if(|current| current.name == name);
        let mut frames = 0;
        if let Some(over) = &over {
            let status = over.stream.status();
            frames = status.ticks.fresh;
            // Who asks now learns what became of it, unless other renditions are to be made since.
            let same = over.stream.plan.borrow().renditions == self.plan().renditions;
            let fallen = status.renditions.into_iter().filter(|_| same);
            let mut report = self.idle.report();
            report.source = status.source;
            report.fallen = fallen.map(|each| each.fallback).collect();
        }
        drop(current);
        self.picture.send_replace(None);
        if let Some(over) = over {
            over.stream.dismiss_sound("the recording has ended");
        }
        let folder = self.folder.join(name);
        match publish::discard_if_empty(&folder) {
            Ok(true) => {
                tracing::info!(stream = %self.name, recording = %name, "nothing was recorded: the recording is removed");
            }
            Ok(false) => {
                tracing::info!(stream = %self.name, recording = %name, frames, "recording has ended");
            }
            Err(error) => {
                tracing::warn!(stream = %self.name, recording = %name, %error, "an empty recording stays");
            }
        }
    }

    /// A name that no recording has.
    fn free_name(&self, now: UnixTime) -> Result<String, Refused> {
        let plain = name_at(now);
        let others = (2..MOST_A_SECOND).map(|number| format!("{plain}-{number}"));
        let mut names = std::iter::once(plain.clone()).chain(others);
        let free = names.find(|name| !self.folder.join(name).exists());
        free.ok_or_else(|| {
            let message = format!(
                "stream '{}' has begun {MOST_A_SECOND} recordings within this second: try again",
                self.name
            );
            refused(RefusalCode::OutOfResources, message)
        })
    }

    /// Its recordings' names, newest first.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| http::is_recording(name)).collect();
        // Within a second, the second one is "-2".
        names.sort_by_key(|name| std::cmp::Reverse(age_key(name)));
        names.truncate(MOST_LISTED);
        names
    }

    fn restore(&self, name: &str) -> Option<Restored> {
        let tracks = self.plan().track_names();
        let now = self.house.anchor.now();
        publish::restore(&self.folder.join(name), &self.name, &tracks, now).ok()
    }

    /// What `/api/v1/streams` tells of it.
    pub(crate) fn status(&self) -> StreamStatus {
        let current = self.current();
        let mut status = match &*current {
            Some(current) => current.stream.status(),
            None => {
                let plan = self.plan();
                let nothing = nothing(&plan, self.house.anchor.now());
                self.idle.status(&plan, &nothing, None, None)
            }
        };
        status.recording = current.as_ref().map(|current| current.name.clone());
        drop(current);
        status.recordings = self.names();
        status
    }

    /// As [`Stream::since_tick`]. Who brings a recording to its end takes none any more, and that may take long.
    pub(crate) fn since_tick(&self) -> Duration {
        let current = self.current();
        current
            .as_ref()
            .filter(|_| self.left.get().is_none())
            .map_or(Duration::ZERO, |current| current.stream.since_tick())
    }

    /// What the origin needs of it.
    pub(crate) fn port(self: &Arc<Self>) -> StreamPort {
        let status = {
            let recorder = Arc::clone(self);
            Arc::new(move || recorder.status())
        };
        let now = self.house.anchor.now();
        let (_, window) = watch::channel(Arc::new(nothing(&self.plan(), now)));
        let picture = self.picture.subscribe();
        let manifests = Arc::new(super::OriginManifests);
        let mut port = StreamPort::new(self.name.clone(), window, picture, status, manifests);
        port.hls = self.plan().hls;
        port.dash = self.plan().dash;
        port.recordings = Some(Arc::<Self>::clone(self));
        port
    }

    /// Makes the next recording by `plan`; the one under way goes on as it is.
    pub(crate) fn adjust(&self, plan: &StreamPlan) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(plan.clone());
        self.idle.report().fallen.clear();
        self.idle.look_for_encoders(plan, &self.house.ffmpeg);
    }

    /// Begins to stop for good: producers hear that, because of `cause`.
    pub(crate) fn leave(&self, cause: &'static str) {
        let current = self.current();
        // Later causes change nothing.
        let _ = self.left.set(cause);
        if let Some(current) = &*current {
            current.stream.leave(cause);
        }
    }

    /// Takes no more frames and begins to publish what is under way.
    pub(crate) fn begin_stop(&self) {
        if let Some(current) = &*self.current() {
            current.stream.begin_stop();
        }
    }

    /// Waits until all is published.
    pub(crate) fn finish_stop(&self) {
        // Its end takes the lock.
        let thread = self
            .current()
            .as_ref()
            .and_then(|current| current.stream.thread());
        super::join(&self.name, thread);
    }

    /// A recording from before, as the origin sees it.
    fn load(&self, name: &str) -> Option<StreamPort> {
        let snapshot = self.restore(name)?.snapshot?;
        let (_, window) = watch::channel(snapshot);
        let (_, picture) = watch::channel(None);
        let recorder = self.this.upgrade()?;
        let status = Arc::new(move || recorder.status());
        let manifests = Arc::new(super::OriginManifests);
        let mut port = StreamPort::new(self.name.clone(), window, picture, status, manifests);
        port.hls = self.plan().hls;
        port.dash = self.plan().dash;
        port.folder = Some(Arc::from(self.folder.join(name)));
        Some(port)
    }

    fn plan(&self) -> Arc<StreamPlan> {
        Arc::clone(&self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn watched(&self) -> MutexGuard<'_, Vec<(String, StreamPort)>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl http::Recordings for Recorder {
    fn newest(&self) -> Option<String> {
        let current = self.current().as_ref().map(|current| current.name.clone());
        current.or_else(|| self.names().into_iter().next())
    }

    fn find(&self, name: &str) -> Option<StreamPort> {
        let current = self.current();
        if let Some(current) = current.as_ref().filter(|current| current.name == name) {
            return Some(current.port.clone());
        }
        drop(current);
        let mut watched = self.watched();
        let known = watched.iter().position(|(known, _)| known == name);
        let port = match known {
            Some(at) => watched.remove(at).1,
            None => self.load(name)?,
        };
        watched.push((name.to_owned(), port.clone()));
        if watched.len() > MOST_WATCHED {
            watched.remove(0);
        }
        Some(port)
    }
}

/// Whether `unfinished` is a recording of just `source` by `plan`, each of whose pictures is the tick that it would be now.
pub(super) fn is_of(source: &SourcePlan, plan: &StreamPlan, unfinished: &Restored) -> bool {
    let recorded = unfinished.source.and_then(|source| source.input);
    source::is_repeatable(source)
        && !plan.copies()
        && !unfinished.started_over
        && unfinished
            .grid
            .is_some_and(|grid| grid.same_edges(&plan.grid))
        && recorded == Some(source.fingerprint())
}

/// A window with nothing in it.
fn nothing(plan: &StreamPlan, now: UnixTime) -> Snapshot {
    Snapshot {
        stream: plan.name.clone(),
        mode: plan.mode,
        target_duration: super::target_duration(plan, &plan.grid),
        media_sequence: crate::tick::SegmentNumber(0),
        discontinuity_sequence: 0,
        window_ticks: 0,
        tracks: Vec::new(),
        longest_playlist: Duration::ZERO,
        ended: false,
        updated: now,
    }
}
