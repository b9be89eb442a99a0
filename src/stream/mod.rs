//! One stream's life: it wires the street from ring to window, and takes it down again in order.

mod backlog;
mod changes;
mod manifests;
mod owner;
mod seat;
mod shared;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ringgear_producer::messages::{Open, RefusalCode, Refused};
use tokio::sync::watch;

pub(crate) use seat::refused;

use crate::clock::{Anchor, MonotonicTime};
use crate::config::{BreakerPlan, Plan, StreamPlan, user_name};
use crate::control::{Accounts, Granted, Peer};
use crate::encode::{FfmpegInfo, ProbeCache};
use crate::http::StreamPort;
use crate::ingest::{Command, Ingest, IngestPlan, TickLog, TickLogError};
use crate::picture::{Picture, Size};
use crate::publish::{self, Claim, DiskPublisher, Restored};
use crate::status::StreamStatus;
use crate::tick::{Grid, Tick, UnixTime};
use crate::window::{Snapshot, Window, WindowSettings};
use manifests::{FolderManifests, OriginManifests};
use owner::{Event, Owner};
use seat::Bench;
use shared::Shared;

/// What all streams share.
pub(crate) struct House {
    pub(crate) anchor: Anchor,
    pub(crate) ffmpeg: Arc<FfmpegInfo>,
    pub(crate) breaker: BreakerPlan,
    pub(crate) probes: Arc<ProbeCache>,
    pub(crate) publish_dir: PathBuf,
    pub(crate) tick_log: Option<PathBuf>,
    pub(crate) accounts: Arc<Accounts>,
}

/// A stream could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The log for tests.
    #[error(transparent)]
    TickLog(#[from] TickLogError),
    /// Another daemon publishes there.
    #[error(
        "another ringgear publishes stream '{stream}' to {}: stop it, or set [publish] dir to another folder", folder.display()
    )]
    FolderInUse {
        /// The stream.
        stream: String,
        /// Its folder.
        folder: PathBuf,
    },
    /// No more threads.
    #[error("stream '{stream}' can't have a thread of its own: {source}; raise the limit of tasks")]
    Thread {
        /// The stream.
        stream: String,
        /// The system's word.
        source: std::io::Error,
    },
}

/// A running stream.
pub(crate) struct Stream {
    plan: StreamPlan,
    anchor: Anchor,
    shared: Arc<Shared>,
    bench: Bench,
    commands: Sender<Command>,
    window: watch::Receiver<Arc<Snapshot>>,
    picture: watch::Receiver<Option<Picture>>,
    /// Taken at the stop.
    threads: Mutex<Option<Threads>>,
    /// Keeps other daemons out of the folder, if that could be had.
    _claim: Option<Claim>,
}

struct Threads {
    ingest: JoinHandle<()>,
    owner: JoinHandle<()>,
}

impl Stream {
    /// Starts the stream, going on from what an earlier run has published.
    pub(crate) fn start(plan: StreamPlan, house: &House) -> Result<Self, StreamError> {
        let folder = house.publish_dir.join(&plan.name);
        let claim = claim(&plan.name, &folder)?;
        let tracks: Vec<String> = plan
            .renditions
            .iter()
            .map(|rendition| rendition.name.clone())
            .collect();
        let restored = publish::restore(&folder, &plan.name, &tracks, house.anchor.now()).unwrap_or_else(|error| {
            tracing::error!(stream = %plan.name, %error, "what was published before can't be gone on with");
            Restored::default()
        });
        for note in &restored.notes {
            tracing::warn!(stream = %plan.name, "{note}");
        }
        let start = Start::new(&plan, &restored, house.anchor.now());
        let settings = WindowSettings {
            stream: plan.name.clone(),
            tracks,
            window: plan.window,
            target_duration: target_duration(&start.grid),
        };
        let window = Window::new(settings, restored.snapshot.as_deref());
        let (snapshots, snapshot) = watch::channel(window.snapshot(house.anchor.now()));
        let no_thread = |source| StreamError::Thread {
            stream: plan.name.clone(),
            source,
        };
        let manifests = FolderManifests::of(&plan);
        let publisher = DiskPublisher::start(
            folder,
            restored.ledger,
            restored.source,
            snapshot.clone(),
            manifests,
        )
        .map_err(no_thread)?;

        let shared = Arc::new(Shared::new());
        // Its start counts as a tick: it has not been late yet.
        let now = house.anchor.monotonic();
        shared.counters.turned.set(now.0);
        let (commands, obeyed) = channel();
        let (events, received) = sync_channel(owner::EVENTS);
        let (newest, picture) = watch::channel(None);
        let resume = start
            .resume
            .filter(|_| !start.discontinuity)
            .and_then(|_| window.resume_tick());
        let owner = Owner::new(owner::Parts {
            plan: plan.clone(),
            grid: start.grid,
            ffmpeg: Arc::clone(&house.ffmpeg),
            probes: Arc::clone(&house.probes),
            anchor: house.anchor.clone(),
            shared: Arc::clone(&shared),
            events: received,
            sender: events.clone(),
            window,
            snapshots,
            publisher,
            resume,
            discontinuity: start.discontinuity,
            breaker: house.breaker,
            replay_memory: house.accounts.limits().replay_memory,
            sizes: start.sizes,
        });
        let tick_log = house
            .tick_log
            .as_deref()
            .map(|dir| TickLog::create(dir, &plan.name))
            .transpose()?;
        let ingest_plan = IngestPlan {
            stream: plan.name.clone(),
            grid: start.grid,
            slack: plan.slack,
            stale_after: plan.stale_after,
            backfill: plan.backfill,
            remembered: restored.source.map(|source| (source.format, source.size)),
            tick_log,
        };
        let sink = {
            let events = events.clone();
            // The owner ends after ingest; if it has died, nobody is left to take pictures.
            move |picture| drop(events.send(Event::Picture(picture)))
        };
        let counters = Arc::clone(&shared.counters);
        let ingest = Ingest::new(
            ingest_plan,
            house.anchor.clone(),
            obeyed,
            counters,
            newest,
            sink,
        );
        let bench = Bench::new(
            &plan.name,
            plan.grid.framerate,
            commands.clone(),
            Arc::clone(&house.accounts),
        );
        let threads = Threads {
            ingest: thread(&plan.name, "ingest", move || {
                let _stop = StopAfter(events);
                ingest.run();
            })
            .map_err(no_thread)?,
            owner: thread(&plan.name, "stream", move || owner.run()).map_err(no_thread)?,
        };
        Ok(Self {
            anchor: house.anchor.clone(),
            plan,
            shared,
            bench,
            commands,
            window: snapshot,
            picture,
            threads: Mutex::new(Some(threads)),
            _claim: claim,
        })
    }

    /// Whether the config lets `peer`, in its supplementary `groups`, feed this stream.
    pub(crate) fn may_feed(&self, peer: Peer, groups: &[u32]) -> Result<(), Refused> {
        let (feeders, stream) = (&self.plan.feeders, &self.plan.name);
        if feeders.include(peer.uid, groups.iter().copied().chain([peer.gid])) {
            return Ok(());
        }
        let (user, listed) = match user_name(peer.uid) {
            Some(name) => (
                format!("user {name} (uid {})", peer.uid),
                format!("{name:?}"),
            ),
            None => (format!("user {}", peer.uid), peer.uid.to_string()),
        };
        let message = format!(
            "{user} may not feed stream '{stream}', only {feeders} may: run the producer as one of these, or add {listed} to \
             allow_users of [streams.{stream}] in the daemon's config"
        );
        Err(refused(RefusalCode::NotPermitted, message))
    }

    /// Starts a producer's session.
    pub(crate) fn open(&self, open: &Open, peer: Peer) -> Result<Granted, Refused> {
        self.bench.open(open, peer, self.anchor.now())
    }

    /// What `/api/v1/streams` tells of it.
    pub(crate) fn status(&self) -> StreamStatus {
        status(&self.shared, &self.plan, &self.bench, &self.window)
    }

    /// How long ago it last reached a tick. A stream that works reaches one at least every second: ingest never waits for
    /// a producer, and only for the stream's owner when that has stopped taking pictures.
    pub(crate) fn since_tick(&self) -> Duration {
        let turned = MonotonicTime(self.shared.counters.turned.get());
        self.anchor.monotonic().saturating_since(turned)
    }

    /// What the origin needs of it.
    pub(crate) fn port(&self) -> StreamPort {
        let status = {
            let (shared, plan) = (Arc::clone(&self.shared), self.plan.clone());
            let (bench, window) = (self.bench.clone(), self.window.clone());
            Arc::new(move || status(&shared, &plan, &bench, &window))
        };
        let (window, picture) = (self.window.clone(), self.picture.clone());
        let mut port = StreamPort::new(
            self.plan.name.clone(),
            window,
            picture,
            status,
            Arc::new(OriginManifests),
        );
        port.hls = self.plan.hls;
        port.dash = self.plan.dash;
        port
    }

    /// Takes no more frames and begins to publish what is under way.
    pub(crate) fn begin_stop(&self) {
        // A stream whose threads have died has nothing to stop.
        let _ = self.commands.send(Command::Stop);
    }

    /// Waits until all is published, within the owner's deadline.
    pub(crate) fn finish_stop(&self) {
        let threads = self
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(Threads { ingest, owner }) = threads else {
            return;
        };
        for (thread, task) in [(ingest, "ingest"), (owner, "stream")] {
            if thread.join().is_err() {
                tracing::error!(stream = %self.plan.name, task, "a thread of the stream had panicked");
            }
        }
    }
}

/// Takes the stream's folder. A folder that can't be had for another reason is no reason not to stream.
fn claim(stream: &str, folder: &Path) -> Result<Option<Claim>, StreamError> {
    match Claim::take(folder) {
        Ok(Some(claim)) => Ok(Some(claim)),
        Ok(None) => Err(StreamError::FolderInUse {
            stream: stream.to_owned(),
            folder: folder.to_owned(),
        }),
        Err(error) => {
            tracing::warn!(%stream, %error, "the stream's folder can't be locked against other daemons");
            Ok(None)
        }
    }
}

fn status(
    shared: &Shared,
    plan: &StreamPlan,
    bench: &Bench,
    window: &watch::Receiver<Arc<Snapshot>>,
) -> StreamStatus {
    let snapshot = Arc::clone(&window.borrow());
    shared.status(
        plan,
        &snapshot,
        bench.session(shared.counters.session_committed.get()),
    )
}

/// The daemon's one anchor: `anchor`, unless one of the streams of `plan` has published further than its clock is, as on a
/// machine that booted without one. Then all of them go on from the furthest, and no number or time steps back.
pub(crate) fn anchor_for(plan: &Plan, anchor: Anchor) -> Anchor {
    let now = anchor.now();
    let ends = plan.streams.keys().filter_map(|name| {
        let end = publish::stored_end(&plan.publish_dir.join(name), name)?;
        // A stop completes its last segment, so the clock may be up to a segment behind it.
        (end.time > now.saturating_add(end.segment)).then_some((end.time, name))
    });
    let Some((until, stream)) = ends.max() else {
        return anchor;
    };
    tracing::warn!(
        %stream, clock = %now, published_until = %until,
        "the clock is behind what was published before: the time of all streams goes on from there"
    );
    anchor.not_before(until)
}

/// How a stream begins: from nothing, or where an earlier run stopped.
struct Start {
    grid: Grid,
    resume: Option<Tick>,
    discontinuity: bool,
    sizes: BTreeMap<String, Size>,
}

impl Start {
    fn new(plan: &StreamPlan, restored: &Restored, now: UnixTime) -> Self {
        let (grid, changed) = restored.grid_for(&plan.grid, plan.grid.tick_at(now));
        let period = restored
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.tracks.first()?.newest_period().cloned());
        let sizes = period.map(|period| {
            let named = plan.renditions.iter().zip(&period.tracks);
            named
                .map(|(rendition, track)| (rendition.name.clone(), track.description.size))
                .collect()
        });
        Self {
            grid,
            resume: restored.last_tick.map(Tick::next),
            discontinuity: changed || restored.started_over,
            sizes: sizes.filter(|_| !restored.started_over).unwrap_or_default(),
        }
    }
}

/// Ends the owner when ingest has ended, by a panic too: nobody would feed the stream any more, and a stop would wait for it for ever.
struct StopAfter(SyncSender<Event>);

impl Drop for StopAfter {
    fn drop(&mut self) {
        // Pictures came before this, so the owner has them all. If it has died, nobody has to be told.
        let _ = self.0.send(Event::Stop);
    }
}

/// Runs `body` on a thread named after the stream and its task.
fn thread(
    stream: &str,
    task: &str,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("{task} {stream}"))
        .spawn(body)
}

/// EXT-X-TARGETDURATION: a segment's length, rounded to whole seconds (RFC 8216, 4.3.3.1).
fn target_duration(grid: &Grid) -> u64 {
    let segment = grid
        .framerate
        .duration_of(u64::from(grid.ticks_per_segment.get()));
    (segment + Duration::from_millis(500)).as_secs().max(1)
}
