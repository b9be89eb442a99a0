//! An encoder whose processor is slower than it was: it is stopped for most of each tenth of a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringgear::status::StreamsStatus;
use rustix::process::{Pid, Signal, kill_process};

use super::daemon::Daemon;
use super::http;

const TURN: Duration = Duration::from_millis(100);
/// A process starts at full speed: what is slowed is its encoding.
const SPARED: Duration = Duration::from_secs(2);

/// The encoder of a stream, slowed for as long as this lives, its successors too.
pub(crate) struct SlowedEncoder {
    /// Thousandths of the time in which it runs.
    share: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SlowedEncoder {
    /// It runs all the time until [`Self::let_run`] says otherwise.
    pub(crate) fn of(daemon: &Daemon, stream: &str) -> Self {
        let (port, stream) = (daemon.place.port, stream.to_owned());
        let share = Arc::new(AtomicU32::new(1000));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&share), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut since = (None, Instant::now());
            while !stopped.load(Ordering::Relaxed) {
                let pid = encoder(port, &stream);
                if pid != since.0 {
                    since = (pid, Instant::now());
                }
                let share = shared.load(Ordering::Relaxed);
                let Some(pid) = pid.filter(|_| since.1.elapsed() > SPARED && share < 1000) else {
                    std::thread::sleep(TURN);
                    continue;
                };
                // It may have ended meanwhile.
                let _ = kill_process(pid, Signal::STOP);
                std::thread::sleep(TURN * (1000 - share) / 1000);
                let _ = kill_process(pid, Signal::CONT);
                std::thread::sleep(TURN * share / 1000);
            }
        });
        Self {
            share,
            stop,
            thread: Some(thread),
        }
    }

    /// From now on it runs for so many thousandths of the time.
    pub(crate) fn let_run(&self, thousandths: u32) {
        self.share.store(thousandths, Ordering::Relaxed);
    }
}

impl Drop for SlowedEncoder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn encoder(port: u16, stream: &str) -> Option<Pid> {
    let answer = http::get(port, "/api/v1/streams").ok()?;
    let status: StreamsStatus = serde_json::from_slice(&answer.body).ok()?;
    let stream = status.streams.into_iter().find(|one| one.name == stream)?;
    Pid::from_raw(i32::try_from(stream.encoder.pid?).ok()?)
}
