//! The thread that keeps what the window lists. It is driven by the level, as the disk publisher is: what could not be written is
//! tried again with the next snapshot, for as long as the window still has it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::writer::Writer;
use super::{Shared, UNWATCHED, lock};
use crate::faults;
use crate::window::Snapshot;

/// How soon a failed pass is tried again when no snapshot comes.
const RETRY: Duration = Duration::from_secs(2);

/// The running thread. It ends after a last pass when the stream has ended, or when this is dropped.
#[derive(Debug)]
pub(crate) struct ArchiveThread {
    /// Its dropping asks the thread to end.
    stop: watch::Sender<()>,
    ended: mpsc::Receiver<()>,
}

impl ArchiveThread {
    pub(super) fn start(
        shared: Arc<Shared>,
        window: watch::Receiver<Arc<Snapshot>>,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let (running, ended) = mpsc::channel();
        let (stop, stopped) = watch::channel(());
        std::thread::Builder::new()
            .name(format!("record {}", shared.plan.stream))
            .spawn(move || {
                let _running: mpsc::Sender<()> = running;
                let mut wires = (window, stopped);
                let mut last = false;
                loop {
                    let life = AssertUnwindSafe(|| runtime.block_on(run(&shared, &mut wires)));
                    match catch_unwind(life) {
                        Ok(()) => return,
                        Err(_) if last => return,
                        Err(_) => {
                            let stream = &shared.plan.stream;
                            tracing::error!(%stream, retry_in = ?RETRY, "the recording of the stream panicked and is started again");
                            // Who is asked to end meanwhile makes one more pass.
                            last = runtime.block_on(rest(&mut wires.1));
                        }
                    }
                }
            })?;
        Ok(Self { stop, ended })
    }

    /// Asks for a last pass and waits for it: whether it ended in time. A disk that hangs is left behind.
    pub(crate) fn finish(self, at_most: Duration) -> bool {
        drop(self.stop);
        self.ended.recv_timeout(at_most) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}

/// Rests before another attempt: whether the thread is asked to end meanwhile.
async fn rest(stopped: &mut watch::Receiver<()>) -> bool {
    tokio::time::timeout(RETRY, stopped.changed()).await.is_ok()
}

async fn run(
    shared: &Shared,
    (window, stopped): &mut (watch::Receiver<Arc<Snapshot>>, watch::Receiver<()>),
) {
    let mut writer = None;
    loop {
        // Looked at first, so that what was listed before the end is in the last pass.
        let last = stopped.has_changed().is_err() || window.has_changed().is_err();
        let snapshot = Arc::clone(&window.borrow_and_update());
        begin(shared);
        faults::point("record", &shared.plan.stream);
        let done = match writer.take() {
            Some(writer) => Ok(Some(writer)),
            None => Writer::open(shared),
        };
        let done = done.and_then(|opened| match opened {
            Some(mut opened) => opened.bring(&snapshot).map(|()| Some(opened)),
            None => Ok(None),
        });
        let text = match done {
            Ok(Some(done)) => {
                writer = Some(done);
                None
            }
            Ok(None) => Some(format!(
                "nothing is recorded: another ringgear records to {}; stop it, or set dir of record to another folder",
                shared.plan.dir.display()
            )),
            // What is on the disk is looked at anew.
            Err(error) => Some(format!("nothing is recorded: {error}")),
        };
        let failed = text.is_some();
        note(shared, text);
        if last {
            return;
        }
        shared.let_go(Instant::now());
        tokio::select! {
            _ = stopped.changed() => {}
            _ = window.changed() => {}
            () = tokio::time::sleep(RETRY), if failed => {}
            // Of a stream that stands still, too, what is too old goes.
            () = tokio::time::sleep(UNWATCHED) => {}
        }
        // Parts come many times a second.
        if failed && window.has_changed().is_ok() {
            rest(stopped).await;
        }
    }
}

/// A pass begins.
fn begin(shared: &Shared) {
    let mut trouble = lock(&shared.trouble);
    trouble.pass = Some((Instant::now(), false));
    if let Some(since) = trouble.failing {
        trouble.held_up = since.elapsed();
    }
}

/// A pass has ended. Tells of each change between well and not well once.
fn note(shared: &Shared, error: Option<String>) {
    let stream = &shared.plan.stream;
    let mut trouble = lock(&shared.trouble);
    if let Some((since, told)) = trouble.pass.take() {
        if told {
            let took = since.elapsed();
            tracing::info!(%stream, ?took, "the disk of the recordings answers again");
        }
        let since = trouble.failing.take().unwrap_or(since);
        match error {
            Some(_) => trouble.failing = Some(since),
            None => trouble.held_up = since.elapsed(),
        }
    }
    match (&error, &trouble.error) {
        (Some(text), None) => tracing::warn!(%stream, "{text}"),
        (None, Some(_)) => tracing::info!(%stream, "the stream is recorded again"),
        _ => {}
    }
    trouble.error = error;
}
