//! The disk publisher: keeps a stream's folder in the state of the newest snapshot, on a thread of its own. It is driven by
//! the level, not by events: a slow disk makes it skip snapshots, and never holds up the stream; what failed is done again
//! with the next one.

use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::tick::UnixTime;
use crate::window::Snapshot;

use super::copy::{Copy, Manifests};
use super::folder::PublishError;
use super::restore::Ledger;
use super::state::RememberedSource;

/// How soon a failed pass is tried again when no snapshot comes.
const RETRY: Duration = Duration::from_secs(2);

/// How the publisher is doing; shared, and cheap to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskStatus {
    /// Why the folder is behind the window, if it is: one line with the cause and the mend.
    pub error: Option<String>,
    /// How many passes have failed.
    pub failures: u64,
    /// How many bytes have been written.
    pub bytes_written: u64,
    /// The newest snapshot that the folder is at.
    pub published: Option<UnixTime>,
}

/// The running publisher of one stream.
#[derive(Debug)]
pub struct DiskPublisher {
    shared: Arc<Shared>,
    ended: mpsc::Receiver<()>,
}

#[derive(Debug, Default)]
struct Shared {
    status: Mutex<DiskStatus>,
    source: Mutex<Option<RememberedSource>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DiskPublisher {
    /// Starts the thread that keeps `dir`, the stream's folder, in the state of `snapshots`. It ends when the sender is dropped, after a last
    /// pass.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn start(
        dir: PathBuf,
        ledger: Ledger,
        source: Option<RememberedSource>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        manifests: impl Manifests,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let shared = Arc::new(Shared {
            source: Mutex::new(source),
            ..Shared::default()
        });
        let (running, ended) = mpsc::channel();
        let copy = Copy::new(dir, ledger, manifests);
        let for_thread = Arc::clone(&shared);
        let stream = snapshots.borrow().stream.clone();
        std::thread::Builder::new()
            .name(format!("disk {stream}").chars().take(15).collect())
            .spawn(move || {
                runtime.block_on(run(copy, snapshots, &for_thread));
                drop(running);
            })?;
        Ok(Self { shared, ended })
    }

    /// How it is doing.
    pub fn status(&self) -> DiskStatus {
        lock(&self.shared.status).clone()
    }

    /// Keeps with the state what the producer sends; it is written with the next change.
    pub fn remember(&self, source: RememberedSource) {
        *lock(&self.shared.source) = Some(source);
    }

    /// Waits for the last pass, after the sender of snapshots has been dropped: whether it ended in time. A disk that hangs
    /// is left behind.
    pub fn wait(&self, at_most: Duration) -> bool {
        self.ended.recv_timeout(at_most) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}

async fn run<M: Manifests>(
    mut copy: Copy<M>,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    shared: &Shared,
) {
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        let source = *lock(&shared.source);
        let result = copy.bring(&snapshot, source);
        let failed = result.is_err();
        note(&snapshot, result, copy.bytes_written, shared);
        if failed {
            // A closed channel ends the thread even so: the disk had its chance.
            if let Ok(Err(_)) = tokio::time::timeout(RETRY, snapshots.changed()).await {
                return;
            }
        } else if snapshots.changed().await.is_err() {
            return;
        }
    }
}

/// Tells of each change between well and not well once.
fn note(snapshot: &Snapshot, result: Result<(), PublishError>, bytes: u64, shared: &Shared) {
    let mut status = lock(&shared.status);
    status.bytes_written = bytes;
    match result {
        Ok(()) => {
            if status.error.take().is_some() {
                info!(stream = snapshot.stream, "the folder is up to date again");
            }
            status.published = Some(snapshot.updated);
        }
        Err(error) => {
            let text = error.to_string();
            if status.error.is_none() {
                warn!(stream = snapshot.stream, "{text}");
            }
            status.error = Some(text);
            status.failures += 1;
        }
    }
}
