//! The set of streams with its doors: the control socket, the origin, the signals. Starts them in order and stops them in
//! order, within five seconds.

mod reload;
mod streams;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringgear_ring::MediaRun;
use tokio::sync::watch;

use crate::budget::Budget;
use crate::clock::{Anchor, StepWatch, SystemClock};
use crate::config::{Plan, ViewerLimits};
use crate::control::{self, Accounts, ControlError, Desk};
use crate::descriptors::{self, Descriptors};
use crate::encode::{self, EncodeError, ProbeCache};
use crate::http::{self, Site};
use crate::service::{Doors, Watchdog};
use crate::stream::{House, StreamError, Turns, hear_panics};
use streams::Streams;

/// How often the wall clock is compared with the anchor. With the watchdog and the looks at the recordings' disks, this is all that wakes a
/// daemon without streams, several times at each look, as the runtime's timers go: about once a second.
const STEP_CHECK: Duration = Duration::from_secs(10);
/// How many connections of those of viewers are administrators'.
const ADMINISTRATORS: u32 = 32;
/// How long viewers' requests may still be answered at a stop.
const LAST_ANSWERS: Duration = Duration::from_millis(300);
/// How long a door may be held by what a killed daemon left: a process that it was about to turn into FFmpeg has its doors until it is one,
/// which takes a moment on a busy machine.
const DOORS_HELD: Duration = Duration::from_secs(2);
/// How often such a door is tried.
const DOORS_TRIED: Duration = Duration::from_millis(20);

/// The daemon can't run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The origin's port.
    #[error(
        "the origin can't listen on {address}: {source}; another program may use the port: set [http] listen to a free one"
    )]
    Listen {
        /// What the config says.
        address: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// The origin would show streams to whoever comes.
    #[error("{0}")]
    Open(String),
    /// The service manager's sockets.
    #[error("{0}")]
    Doors(String),
    /// The origin's certificate.
    #[error("the origin can't speak TLS: {0}")]
    Tls(#[from] http::TlsError),
    /// FFmpeg.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The folder of the windows.
    #[error(
        "the publish folder {} can't be used: {source}; make it writable for this user{}, or set [publish] dir to another",
        path.display(), by_the_unit(path, source)
    )]
    Publish {
        /// What the config says.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The runtime.
    #[error("the runtime could not be started: {0}")]
    Runtime(io::Error),
}

/// What signals ask for.
pub(crate) struct Asked {
    /// Turns true at the first request to stop.
    pub(crate) to_stop: watch::Receiver<bool>,
    /// Counts the requests to read the config again.
    pub(crate) to_reload: watch::Receiver<u64>,
}

/// A daemon that is up: its doors are open and its streams run.
pub(crate) struct Daemon {
    runtime: tokio::runtime::Runtime,
    streams: Arc<Streams>,
    /// Tells the control socket to end.
    stopping: watch::Sender<bool>,
    /// Tells the origin to end.
    closing: watch::Sender<bool>,
    address: SocketAddr,
    control: tokio::task::JoinHandle<()>,
    origin: tokio::task::JoinHandle<()>,
}

impl Daemon {
    /// Opens the doors and starts every stream of `plan`, which `file` says, if a reload has any to read.
    pub(crate) fn start(plan: &Plan, file: Option<PathBuf>) -> Result<Self, DaemonError> {
        hear_panics();
        descriptors::raise_limit();
        // Where the system has nothing of the kind, media is kept on the heap.
        let _ = MediaRun::open();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("ringgear io")
            .enable_all()
            .build()
            .map_err(DaemonError::Runtime)?;
        // It takes its time to say what it is: the doors are opened meanwhile, and who comes waits for it.
        let looked_for = std::thread::spawn({
            let path = plan.ffmpeg.clone();
            move || encode::find_ffmpeg(&path)
        });
        let entered = runtime.enter();
        let publish = |source| DaemonError::Publish {
            path: plan.publish_dir.clone(),
            source,
        };
        let usable = std::fs::create_dir_all(&plan.publish_dir)
            .and_then(|()| tempfile_probe(&plan.publish_dir));
        match usable {
            // The streams go on without it, and their publishers say so until it is better.
            Err(source) if may_mend_itself(&source) => {
                let error = publish(source);
                tracing::warn!("{error}: until then, streams are served from memory alone");
            }
            usable => usable.map_err(publish)?,
        }
        match ringgear_ring::sweep_leftovers() {
            Ok(0) => {}
            Ok(segments) => {
                tracing::info!(segments, "removed named rings that a dead daemon left")
            }
            Err(error) => tracing::warn!(%error, "/dev/shm could not be searched for leftovers"),
        }
        let doors = Doors::opened().map_err(DaemonError::Doors)?;
        doors.compare(plan);
        let until = Instant::now() + DOORS_HELD;
        let control = match doors.control {
            Some(socket) => control::Listener::inherit(socket, &plan.socket)?,
            None => once_free(until, ControlError::is_in_use, || {
                control::Listener::bind(&plan.socket, plan.socket_mode)
            })?,
        };
        let listen = |address| move |source| DaemonError::Listen { address, source };
        let bind = |address| {
            let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
            once_free(until, in_use, || {
                runtime.block_on(tokio::net::TcpListener::bind(address))
            })
        };
        let listener = match doors.origin {
            Some(socket) => socket
                .set_nonblocking(true)
                .and_then(|()| tokio::net::TcpListener::from_std(socket)),
            None => bind(plan.listen),
        };
        let listener = listener.map_err(listen(plan.listen))?;
        let address = listener.local_addr().map_err(listen(plan.listen))?;
        // A socket unit may have opened another than the config says.
        plan.may_serve_at(address, plan.tls.is_some())
            .map_err(|(what, mend)| DaemonError::Open(format!("{what}: {mend}")))?;
        let admin_listener = plan.http.admin_listen;
        let admin_listener = admin_listener.map(|address| bind(address).map_err(listen(address)));
        let admin_listener = admin_listener.transpose()?;
        let tls = plan.tls.clone().map(http::Tls::load).transpose()?;
        let tls = tls.map(Arc::new);
        let ffmpeg = looked_for
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let anchor = crate::stream::anchor_for(plan, Anchor::new(Arc::new(SystemClock)));
        let house = Arc::new(House {
            anchor: anchor.clone(),
            ffmpeg: Arc::new(ffmpeg),
            breaker: plan.breaker,
            probes: Arc::new(ProbeCache::default()),
            publish_dir: plan.publish_dir.clone(),
            keep_free: plan.keep_free,
            tick_log: plan.tick_log.clone(),
            accounts: Accounts::new(plan.limits),
            descriptors: Descriptors::new(plan.limits.connections),
            window_memory: Budget::new(plan.limits.window_memory),
            picture_memory: Budget::new(plan.limits.picture_memory),
            turns: Turns::new(),
        });
        let mut limits = plan.http.limits.clone();
        let (connections, files) = house.descriptors.viewers(limits.connections);
        limits.connections = connections;
        let (stopping, told) = watch::channel(false);
        let (closing, closed) = watch::channel(false);
        let (streams, ports) = Streams::start(plan, file, address, Arc::clone(&house))?;
        let streams = Arc::new(streams);
        let mut site = Site::new(anchor, ports).sending(files);
        let desk: Arc<dyn Desk> = Arc::<Streams>::clone(&streams);
        let control = runtime.spawn(control::serve(
            control,
            desk,
            Arc::clone(&house.accounts),
            told.clone(),
        ));
        let until_closed = || {
            let mut closed = closed.clone();
            async move {
                let _ = closed.wait_for(|closed| *closed).await;
            }
        };
        if let Some(listener) = admin_listener {
            let (viewers, administrators) = site.divided(streams.administrators());
            site = viewers;
            limits.connections -= ADMINISTRATORS;
            let limits = ViewerLimits {
                connections: ADMINISTRATORS,
                ..limits.clone()
            };
            runtime.spawn(http::serve(
                listener,
                administrators,
                limits,
                None,
                until_closed(),
            ));
        }
        let origin = runtime.spawn(http::serve(listener, site, limits, tls, until_closed()));
        drop(entered);
        Ok(Self {
            runtime,
            streams,
            stopping,
            closing,
            address,
            control,
            origin,
        })
    }

    /// Where the origin listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until somebody asks over the control socket to stop, or by a signal of `asked`; looks at the wall clock meanwhile, reads the config
    /// again when a signal asks for it, and tells the service manager how the streams are.
    pub(crate) fn wait(&self, asked: Asked, watchdog: Option<Watchdog>) {
        let mut over_socket = self.streams.asked_to_stop();
        let Asked {
            mut to_stop,
            to_reload,
        } = asked;
        self.runtime.block_on(async {
            let steps = watch_for_steps(self.streams.anchor());
            tokio::select! {
                _ = over_socket.wait_for(|asked| *asked) => {}
                _ = to_stop.wait_for(|asked| *asked) => {}
                () = reload_on(to_reload, &self.streams) => {}
                () = steps => {}
                () = self.streams.look_at_disks() => {}
                () = self.streams.tell_service_manager(watchdog) => {}
            }
        });
    }

    /// Stops in order: producers are told, the encoders drained, the last segments published.
    pub(crate) fn stop(self) {
        self.stopping.send_replace(true);
        let Self {
            runtime,
            streams,
            closing,
            control,
            origin,
            ..
        } = self;
        // The control task removes the socket's name, so that producers wait for the next daemon instead of meeting this one.
        let _ = runtime.block_on(control);
        streams.stop_all();
        runtime.block_on(async {
            // Answers under way are ended; players then wait for the next daemon.
            closing.send_replace(true);
            let _ = tokio::time::timeout(LAST_ANSWERS, origin).await;
        });
        runtime.shutdown_timeout(LAST_ANSWERS);
    }
}

/// Reads the config again whenever `asked` says so. Who asked is told by the log alone.
async fn reload_on(mut asked: watch::Receiver<u64>, streams: &Arc<Streams>) {
    while asked.changed().await.is_ok() {
        let streams = Arc::clone(streams);
        // What it says of errors, it has logged.
        let _ = tokio::task::spawn_blocking(move || streams.reload(false)).await;
    }
    std::future::pending().await
}

/// What `open` opens, once nobody holds it any more; its error, should that not be `until` then.
fn once_free<T, E>(
    until: Instant,
    in_use: impl Fn(&E) -> bool,
    mut open: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    loop {
        match open() {
            Err(error) if in_use(&error) && Instant::now() < until => {
                std::thread::sleep(DOORS_TRIED);
            }
            opened => return opened,
        }
    }
}

/// Says when the wall clock has been stepped; the streams go on by the anchor.
async fn watch_for_steps(anchor: &Anchor) {
    let mut watch = StepWatch::new(anchor);
    loop {
        tokio::time::sleep(STEP_CHECK).await;
        if let Some(step) = watch.look(anchor) {
            tracing::warn!(
                by_seconds = step.by_seconds,
                ahead_seconds = step.ahead_seconds,
                "the wall clock was stepped: streams go on by the clock as it was at the start; restart to take the new time"
            );
        }
    }
}

/// How a unit lets the daemon write in `folder`: all is read-only there that the unit does not name.
fn by_the_unit(folder: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::ReadOnlyFilesystem {
        return String::new();
    }
    format!(
        " (under systemd: ReadWritePaths={} in the unit, by systemctl edit ringgear)",
        folder.display()
    )
}

/// Whether the disk is in trouble, rather than the config wrong.
fn may_mend_itself(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem
    ) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Whether files can be made in `dir`.
fn tempfile_probe(dir: &Path) -> io::Result<()> {
    let probe = dir.join(format!(".ringgear-probe-{}", std::process::id()));
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(probe)
}
