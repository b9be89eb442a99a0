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
