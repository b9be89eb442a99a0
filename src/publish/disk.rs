//! The disk publisher: keeps a stream's folder in the state of the newest snapshot, on a thread of its own. It is driven by
//! the level, not by events: a slow disk makes it skip snapshots, and never holds up the stream; what failed is done again
//! with the next one.

use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::faults;
use crate::threads;
use crate::tick::UnixTime;
use crate::window::Snapshot;

use super::copy::{Copy, Manifests};
use super::folder::PublishError;
use super::restore::Ledger;
use super::state::RememberedSource;
use super::wanted::DiskLimits;

/// How soon a failed pass is tried again when no snapshot comes.
const RETRY: Duration = Duration::from_secs(2);
/// A pass that takes so long is worth a word.
const STALLED: Duration = Duration::from_secs(5);

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

/// The running publisher of one stream. Dropping it ends it after a last pass.
#[derive(Debug)]
pub struct DiskPublisher {
    /// Its dropping asks the thread to end.
    stop: watch::Sender<()>,
    ended: mpsc::Receiver<()>,
}

/// What a stream and its publisher tell each other. It outlives a publisher that panics, and the next one takes it over.
#[derive(Clone, Debug, Default)]
pub struct DiskDesk {
    shared: Arc<Shared>,
}

/// What a publisher works on.
#[derive(Debug)]
pub struct DiskPlan<M> {
    /// The stream's folder.
    pub dir: PathBuf,
    /// What gives the playlists' and MPDs' text.
    pub manifests: M,
    /// How much of the disk it may use.
    pub limits: DiskLimits,
    /// How long the thread rests before its first pass: for one that follows another that panicked.
    pub rest: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    stream: String,
    status: Mutex<DiskStatus>,
    /// Since when a pass has been under way, and whether it has been said that it takes long.
    pass: Mutex<Option<(Instant, bool)>>,
    source: Mutex<Option<RememberedSource>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DiskDesk {
    /// A desk of `stream` on which lies what an earlier run remembered.
    pub fn new(stream: &str, source: Option<RememberedSource>) -> Self {
        let shared = Shared {
            stream: stream.to_owned(),
            source: Mutex::new(source),
            ..Shared::default()
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// How the publisher is doing. A disk that does not answer is said to be so by this alone, for the publisher itself waits for it.
    pub fn status(&self) -> DiskStatus {
        let mut status = lock(&self.shared.status).clone();
        if let Some((since, said)) = &mut *lock(&self.shared.pass)
            && since.elapsed() >= STALLED
        {
            let text = "the disk of the publish folder does not answer: what is on it stands still until it does; \
                 viewers of the origin are not concerned; see whether it fails or is overloaded";
            if !std::mem::replace(said, true) {
                warn!(stream = self.shared.stream, "{text}");
            }
            status.error = Some(text.to_owned());
        }
        status
    }

    /// Keeps with the state what the producer sends; it is written with the next change.
    pub fn remember(&self, source: RememberedSource) {
        *lock(&self.shared.source) = Some(source);
    }

    /// What was last kept.
    pub fn remembered(&self) -> Option<RememberedSource> {
        *lock(&self.shared.source)
    }
}

impl DiskPublisher {
    /// Starts the thread that keeps a stream's folder in the state of `snapshots`. It asks `ledger` first what is known of the folder,
    /// again and again while that fails. `passed` is told
    /// when the snapshot of a time was passed through, successfully or not. `guard` is dropped when it ends, by a panic too.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn start<M: Manifests>(
        plan: DiskPlan<M>,
        desk: DiskDesk,
        ledger: impl FnMut() -> Result<Ledger, PublishError> + Send + 'static,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        passed: impl Fn(UnixTime) + Send + 'static,
        guard: impl Send + 'static,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let (running, ended) = mpsc::channel();
        let (stop, stopped) = watch::channel(());
        let stream = snapshots.borrow().stream.clone();
        threads::spawn_for(&stream, "disk", move || {
            // Dropped in the reverse order: who waits for the end knows by then how it ended.
            let _running = running;
            let _guard = guard;
            let thread = Thread {
                snapshots,
                stopped,
                shared: desk.shared,
            };
            runtime.block_on(thread.run(plan, ledger, passed));
        })?;
        Ok(Self { stop, ended })
    }

    /// Asks for a last pass and waits for it: whether it ended in time. A disk that hangs is left behind.
    pub fn finish(self, at_most: Duration) -> bool {
        drop(self.stop);
        self.ended.recv_timeout(at_most) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}

/// What the thread works with.
struct Thread {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    stopped: watch::Receiver<()>,
    shared: Arc<Shared>,
}

impl Thread {
    async fn run<M: Manifests>(
        mut self,
        plan: DiskPlan<M>,
        mut ledger: impl FnMut() -> Result<Ledger, PublishError>,
        passed: impl Fn(UnixTime),
    ) {
        // A stop ends the rest, which may be over before it has begun: what was published until then is in the last pass all the same.
        self.wait(plan.rest).await;
        let ledger = loop {
            match ledger() {
                Ok(ledger) => break ledger,
                Err(error) => {
                    let snapshot = Arc::clone(&self.snapshots.borrow());
                    note(&snapshot, Err(error), 0, &self.shared);
                }
            }
            if self.wait(RETRY).await {
                return;
            }
        };
        let mut copy = Copy::new(plan.dir, ledger, plan.manifests, plan.limits);
        loop {
            // Looked at first, so that what was published before the stop is in the last pass.
            let last = self.stopped.has_changed().is_err();
            let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
            faults::point("disk", &snapshot.stream);
            let source = *lock(&self.shared.source);
            *lock(&self.shared.pass) = Some((Instant::now(), false));
            let result = copy.bring(&snapshot, source);
            let pass = lock(&self.shared.pass).take();
            if let Some((since, true)) = pass {
                let took = since.elapsed();
                info!(
                    stream = snapshot.stream,
                    ?took,
                    "the disk of the publish folder answers again"
                );
            }
            let failed = result.is_err();
            note(&snapshot, result, copy.bytes_written, &self.shared);
            passed(snapshot.updated);
            if last {
                // It ends though the pass may have failed: the disk had its chance.
                return;
            }
            tokio::select! {
                _ = self.stopped.changed() => {}
                changed = self.snapshots.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if failed => {}
            }
        }
    }

    /// Waits so long: whether the thread is asked to end meanwhile.
    async fn wait(&mut self, rest: Duration) -> bool {
        tokio::time::timeout(rest, self.stopped.changed())
            .await
            .is_ok()
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
