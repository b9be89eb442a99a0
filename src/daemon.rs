//! The set of streams with its doors: the control socket, the origin, the signals. Starts them in order and stops them in
//! order, within five seconds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringgear_producer::messages::{Open, RefusalCode, Refused};
use tokio::sync::watch;

use crate::clock::{Anchor, SystemClock};
use crate::config::Plan;
use crate::control::{self, Accounts, ControlError, Desk, Granted, Peer};
use crate::encode::{self, EncodeError, ProbeCache};
use crate::http::{self, Site};
use crate::status::{StreamStatus, StreamsStatus};
use crate::stream::{House, Stream, StreamError, refused};

/// How often the wall clock is compared with the anchor.
const STEP_CHECK: Duration = Duration::from_secs(10);
/// A wall clock that is this far off the anchor has been stepped.
const STEP: Duration = Duration::from_millis(500);
/// How long viewers' requests may still be answered at a stop.
const LAST_ANSWERS: Duration = Duration::from_millis(300);

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
        source: std::io::Error,
    },
    /// The origin's certificate.
    #[error("the origin can't speak TLS: {0}")]
    Tls(#[from] http::TlsError),
    /// FFmpeg.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The folder of the windows.
    #[error("the publish folder {} can't be used: {source}; make it writable for this user, or set [publish] dir to another", path.display())]
    Publish {
        /// What the config says.
        path: std::path::PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The runtime.
    #[error("the runtime could not be started: {0}")]
    Runtime(std::io::Error),
}

/// A daemon that is up: its doors are open and its streams run.
pub(crate) struct Daemon {
    runtime: tokio::runtime::Runtime,
    streams: Arc<Streams>,
    /// What the origin serves; it ends with this.
    ports: watch::Sender<Arc<BTreeMap<String, http::StreamPort>>>,
    /// Tells the control socket to end.
    stopping: watch::Sender<bool>,
    /// Tells the origin to end.
    closing: watch::Sender<bool>,
    address: SocketAddr,
    control: tokio::task::JoinHandle<()>,
    origin: tokio::task::JoinHandle<()>,
}

/// The streams, and what the doors ask of them.
struct Streams {
    by_name: BTreeMap<String, Stream>,
    /// The streams as the origin sees them; it counts their viewers.
    ports: BTreeMap<String, http::StreamPort>,
    anchor: Anchor,
    started: Instant,
    asked_to_stop: watch::Sender<bool>,
}

impl Daemon {
    /// Opens the doors and starts every stream of `plan`.
    pub(crate) fn start(plan: &Plan) -> Result<Self, DaemonError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("ringgear io")
            .enable_all()
            .build()
            .map_err(DaemonError::Runtime)?;
        let ffmpeg = encode::find_ffmpeg(&plan.ffmpeg)?;
        for rendition in plan.streams.values().flat_map(|stream| &stream.renditions) {
            ffmpeg.require_encoder(&rendition.codec)?;
        }
        let entered = runtime.enter();
        let publish = |source| DaemonError::Publish {
            path: plan.publish_dir.clone(),
            source,
        };
        std::fs::create_dir_all(&plan.publish_dir).map_err(publish)?;
        tempfile_probe(&plan.publish_dir).map_err(publish)?;
        match ringgear_ring::sweep_leftovers() {
            Ok(0) => {}
            Ok(segments) => {
                tracing::info!(segments, "removed named rings that a dead daemon left")
            }
            Err(error) => tracing::warn!(%error, "/dev/shm could not be searched for leftovers"),
        }
        let control = control::Listener::bind(&plan.socket, plan.socket_mode)?;
        let listen = |source| DaemonError::Listen {
            address: plan.listen,
            source,
        };
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(plan.listen))
            .map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let tls = plan.tls.clone().map(http::Tls::load).transpose()?;
        let tls = tls.map(Arc::new);
        let anchor = Anchor::new(Arc::new(SystemClock));
        let house = House {
            anchor: anchor.clone(),
            ffmpeg: Arc::new(ffmpeg),
            probes: Arc::new(ProbeCache::default()),
            publish_dir: plan.publish_dir.clone(),
            tick_log: plan.tick_log.clone(),
            accounts: Accounts::new(plan.limits),
        };
        let mut by_name = BTreeMap::new();
        for (name, stream) in &plan.streams {
            by_name.insert(name.clone(), Stream::start(stream.clone(), &house)?);
        }
        let (stopping, told) = watch::channel(false);
        let (closing, mut closed) = watch::channel(false);
        let streams = Arc::new(Streams {
            ports: by_name
                .iter()
                .map(|(name, stream)| (name.clone(), stream.port()))
                .collect(),
            by_name,
            anchor: anchor.clone(),
            started: Instant::now(),
            asked_to_stop: watch::Sender::new(false),
        });
        let (ports, current) = watch::channel(Arc::new(streams.ports.clone()));
        let router = http::router(Site::new(anchor, current));
        let desk: Arc<dyn Desk> = Arc::<Streams>::clone(&streams);
        let control = runtime.spawn(control::serve(
            control,
            desk,
            Arc::clone(&house.accounts),
            told.clone(),
        ));
        let origin = runtime.spawn(http::serve(listener, router, tls, async move {
            let _ = closed.wait_for(|closed| *closed).await;
        }));
        drop(entered);
        Ok(Self {
            runtime,
            streams,
            ports,
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

    /// Waits until somebody asks over the control socket to stop, or `asked` does; looks at the wall clock meanwhile.
    pub(crate) fn wait(&self, asked: watch::Receiver<bool>) {
        let mut over_socket = self.streams.asked_to_stop.subscribe();
        let mut asked = asked;
        self.runtime.block_on(async {
            let steps = watch_for_steps(&self.streams.anchor);
            tokio::select! {
                _ = over_socket.wait_for(|asked| *asked) => {}
                _ = asked.wait_for(|asked| *asked) => {}
                () = steps => {}
            }
        });
    }

    /// Stops in order: producers are told, the encoders drained, the last segments published.
    pub(crate) fn stop(self) {
        self.stopping.send_replace(true);
        let Self {
            runtime,
            streams,
            ports,
            closing,
            control,
            origin,
            ..
        } = self;
        // The control task removes the socket's name, so that producers wait for the next daemon instead of meeting this one.
        let _ = runtime.block_on(control);
        for stream in streams.by_name.values() {
            stream.begin_stop();
        }
        for stream in streams.by_name.values() {
            stream.finish_stop();
        }
        runtime.block_on(async {
            // Answers under way are ended; players then wait for the next daemon.
            closing.send_replace(true);
            let _ = tokio::time::timeout(LAST_ANSWERS, origin).await;
        });
        drop(ports);
        runtime.shutdown_timeout(LAST_ANSWERS);
    }
}

impl Streams {
    fn report(&self) -> StreamsStatus {
        StreamsStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: self.anchor.now().rfc3339(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            streams: self
                .by_name
                .iter()
                .map(|(name, stream)| self.status_of(name, stream))
                .collect(),
        }
    }

    fn status_of(&self, name: &str, stream: &Stream) -> StreamStatus {
        let mut status = stream.status();
        if let Some(port) = self.ports.get(name) {
            status.window.viewers = port.viewers.count(self.anchor.monotonic());
        }
        status
    }
}

impl Desk for Streams {
    fn may_feed(&self, stream: &str, peer: Peer, groups: &[u32]) -> Result<(), Refused> {
        self.by_name
            .get(stream)
            .map_or(Ok(()), |stream| stream.may_feed(peer, groups))
    }

    fn open(&self, open: &Open, peer: Peer) -> Result<Granted, Refused> {
        if open.protocol != ringgear_producer::messages::PROTOCOL {
            let message = format!(
                "this daemon speaks protocol {}, the producer {}: update the older of the two",
                ringgear_producer::messages::PROTOCOL,
                open.protocol
            );
            return Err(refused(RefusalCode::ProtocolMismatch, message));
        }
        match self.by_name.get(&open.stream) {
            Some(stream) => stream.open(open, peer),
            None => {
                let known: Vec<_> = self.by_name.keys().map(String::as_str).collect();
                let given = open.stream.chars().take(64).collect::<String>();
                let message = format!(
                    "no stream is called '{}': the config has {}",
                    given.escape_debug(),
                    if known.is_empty() {
                        "none".to_owned()
                    } else {
                        known.join(", ")
                    }
                );
                Err(refused(RefusalCode::UnknownStream, message))
            }
        }
    }

    fn status(&self) -> serde_json::Value {
        serde_json::to_value(self.report()).unwrap_or_default()
    }

    fn stop(&self) {
        self.asked_to_stop.send_replace(true);
    }

    fn may_administer(&self, peer: Peer) -> bool {
        peer.uid == 0 || peer.uid == rustix::process::geteuid().as_raw()
    }
}

/// Says when the wall clock has been stepped; the streams go on by the anchor.
async fn watch_for_steps(anchor: &Anchor) {
    let mut known = 0;
    loop {
        tokio::time::sleep(STEP_CHECK).await;
        let off = anchor.wall_step_nanos();
        let moved = Duration::from_nanos(off.abs_diff(known));
        if moved > STEP {
            let seconds = off as f64 / 1e9;
            tracing::warn!(
                ahead_seconds = seconds,
                "the wall clock was stepped: streams go on by the clock as it was at the start; restart to take the new time"
            );
        }
        known = off;
    }
}

/// Whether files can be made in `dir`.
fn tempfile_probe(dir: &std::path::Path) -> std::io::Result<()> {
    let probe = dir.join(format!(".ringgear-probe-{}", std::process::id()));
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(probe)
}
