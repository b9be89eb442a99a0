//! One stream's life: it wires the street from ring to window, and takes it down again in order.

mod backlog;
mod owner;
mod seat;
mod shared;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use ringgear_producer::messages::{Open, Refused};
use tokio::sync::watch;

pub(crate) use seat::refused;

use crate::clock::Anchor;
use crate::config::StreamPlan;
use crate::control::{Granted, Peer};
use crate::encode::{FfmpegInfo, ProbeCache};
use crate::ingest::{Command, Counters, Ingest, IngestPlan, TickLog, TickLogError};
use crate::picture::Picture;
use crate::publish::{self, DiskPublisher};
use crate::status::StreamStatus;
use crate::window::{Snapshot, Window, WindowSettings};
use owner::{Event, Owner};
use seat::Bench;
use shared::Shared;

/// What all streams share.
pub(crate) struct House {
    pub(crate) anchor: Anchor,
    pub(crate) ffmpeg: Arc<FfmpegInfo>,
    pub(crate) probes: Arc<ProbeCache>,
    pub(crate) publish_dir: PathBuf,
    pub(crate) tick_log: Option<PathBuf>,
}

/// A stream could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The log for tests.
    #[error(transparent)]
    TickLog(#[from] TickLogError),
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
    commands: std::sync::mpsc::Sender<Command>,
    events: SyncSender<Event>,
    window: watch::Receiver<Arc<Snapshot>>,
    picture: watch::Receiver<Option<Picture>>,
    publisher: DiskPublisher,
    ingest: JoinHandle<()>,
    owner: JoinHandle<()>,
}

impl Stream {
    /// Starts the stream, going on from what an earlier run has published.
    pub(crate) fn start(plan: StreamPlan, house: &House) -> Result<Self, StreamError> {
        let folder = house.publish_dir.join(&plan.name);
        let tracks: Vec<String> = plan.renditions.iter().map(|rendition| rendition.name.clone()).collect();
        let restored = publish::restore(&folder, &plan.name, &tracks, house.anchor.now());
        let start = Start::from(&plan, &restored, &house.anchor);

        let shared = Arc::new(Shared::new());
        let (commands, obeyed) = channel();
        let (events, received) = sync_channel(owner::EVENTS);
        let (newest, picture) = watch::channel(None);
        let settings = WindowSettings {
            stream: plan.name.clone(),
            tracks,
            window: plan.window,
            target_duration: target_duration(&start.grid),
        };
        let window = Window::new(settings, restored.snapshot.as_deref());
        let (snapshots, snapshot) = watch::channel(window.snapshot(house.anchor.now()));
        let publisher = DiskPublisher::start(folder, snapshot.clone(), restored, Arc::new(FolderManifests::of(&plan)));

        let owner = Owner::new(owner::Parts {
            plan: plan.clone(),
            grid: start.grid,
            ffmpeg: Arc::clone(&house.ffmpeg),
            probes: Arc::clone(&house.probes),
            anchor: start.anchor.clone(),
            shared: Arc::clone(&shared),
            events: received,
            sender: events.clone(),
            window,
            snapshots,
            resume: start.resume,
            sizes: start.sizes,
        });
        let tick_log = house.tick_log.as_deref().map(|dir| TickLog::create(dir, &plan.name)).transpose()?;
        let ingest_plan = IngestPlan {
            stream: plan.name.clone(),
            grid: start.grid,
            slack: plan.slack,
            stale_after: plan.stale_after,
            backfill: plan.backfill,
            remembered: start.remembered,
            tick_log,
        };
        let sink = {
            let events = events.clone();
            // The owner ends after ingest; if it has died, nobody is left to take pictures.
            move |picture| drop(events.send(Event::Picture(picture)))
        };
        let ingest = Ingest::new(ingest_plan, start.anchor.clone(), obeyed, Arc::clone(&shared.counters), newest, sink);
        let bench = Bench::new(&plan.name, plan.grid.framerate, commands.clone());
        Ok(Self {
            ingest: thread(&plan.name, "ingest", move || ingest.run())?,
            owner: thread(&plan.name, "stream", move || owner.run())?,
            anchor: start.anchor,
            plan,
            shared,
            bench,
            commands,
            events,
            window: snapshot,
            picture,
            publisher,
        })
    }
}

/// How a stream begins: from nothing, or where an earlier run stopped.
struct Start {
    grid: Grid,
    anchor: Anchor,
    resume: Option<Tick>,
    sizes: BTreeMap<String, Size>,
    remembered: Option<(PictureFormat, Size)>,
}

/// Runs `body` on a thread named after the stream and its task.
fn thread(stream: &str, task: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StreamError> {
    std::thread::Builder::new()
        .name(format!("{task} {stream}"))
        .spawn(body)
        .map_err(|source| StreamError::Thread { stream: stream.to_owned(), source })
}

/// EXT-X-TARGETDURATION: a segment's length, rounded to whole seconds (RFC 8216, 4.3.3.1).
fn target_duration(grid: &Grid) -> u64 {
    let segment = grid.framerate.duration_of(u64::from(grid.ticks_per_segment.get()));
    (segment + std::time::Duration::from_millis(500)).as_secs().max(1)
}
