//! The set of streams with its doors: the control socket, the origin, the signals. Starts them in order and stops them in
//! order, within five seconds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringgear_producer::messages::{RefusalCode, Refused};
use tokio::sync::watch;

use crate::clock::{Anchor, StepWatch, SystemClock};
use crate::config::{Plan, StreamPlan};
use crate::control::{self, Accounts, ControlError, Desk, Granted, Offer, Peer};
use crate::descriptors::{self, Descriptors};
use crate::encode::{self, EncodeError, ProbeCache};
use crate::http::{self, Site};
use crate::service::Watchdog;
use crate::status::{StreamStatus, StreamsStatus};
use crate::stream::{AnyStream, House, StreamError, hear_panics, refused};
use crate::window::WindowMemory;

/// How often the wall clock is compared with the anchor.
const STEP_CHECK: Duration = Duration::from_secs(1);
/// How long viewers' requests may still be answered at a stop.
const LAST_ANSWERS: Duration = Duration::from_millis(300);
/// A stream that has reached no tick for so long will reach none any more.
const STUCK: Duration = Duration::from_secs(10);

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
    by_name: BTreeMap<String, AnyStream>,
    /// The streams as the origin sees them; it counts their viewers.
    ports: BTreeMap<String, http::StreamPort>,
    anchor: Anchor,
    accounts: Arc<Accounts>,
    started: Instant,
    asked_to_stop: watch::Sender<bool>,
}

impl Daemon {
    /// Opens the doors and starts every stream of `plan`.
    pub(crate) fn start(plan: &Plan) -> Result<Self, DaemonError> {
        hear_panics();
        descriptors::raise_limit();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("ringgear io")
            .enable_all()
            .build()
            .map_err(DaemonError::Runtime)?;
        let ffmpeg = encode::find_ffmpeg(&plan.ffmpeg)?;
        for encoder in plan.streams.values().flat_map(StreamPlan::needed_encoders) {
            ffmpeg.require_encoder(encoder)?;
        }
        let streams = plan.streams.values();
        for rendition in streams.flat_map(|stream| stream.audio_renditions()) {
            ffmpeg.require_encoder(rendition.codec.encoder())?;
        }
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
            window_memory: WindowMemory::new(plan.limits.window_memory),
        });
        let mut by_name = BTreeMap::new();
        for (name, stream) in &plan.streams {
            by_name.insert(name.clone(), AnyStream::start(stream.clone(), &house)?);
        }
        let at_once = house.descriptors.viewers();
        let (stopping, told) = watch::channel(false);
        let (closing, mut closed) = watch::channel(false);
        let streams = Arc::new(Streams {
            ports: by_name
                .iter()
                .map(|(name, stream)| (name.clone(), stream.port()))
                .collect(),
            by_name,
            anchor: anchor.clone(),
            accounts: Arc::clone(&house.accounts),
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
        let origin = runtime.spawn(http::serve(listener, router, at_once, tls, async move {
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

    /// Waits until somebody asks over the control socket to stop, or `asked` does; looks at the wall clock meanwhile, and tells
    /// the service manager's watchdog that all streams go on.
    pub(crate) fn wait(&self, asked: watch::Receiver<bool>, watchdog: Option<Watchdog>) {
        let mut over_socket = self.streams.asked_to_stop.subscribe();
        let mut asked = asked;
        self.runtime.block_on(async {
            let steps = watch_for_steps(&self.streams.anchor);
            tokio::select! {
                _ = over_socket.wait_for(|asked| *asked) => {}
                _ = asked.wait_for(|asked| *asked) => {}
                () = steps => {}
                () = self.streams.keep_alive(watchdog) => {}
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
    /// Feeds `watchdog` as long as every stream goes on; without one, waits for ever.
    async fn keep_alive(&self, watchdog: Option<Watchdog>) {
        let Some(watchdog) = watchdog else {
            return std::future::pending().await;
        };
        loop {
            let stuck: Vec<_> = self
                .by_name
                .iter()
                .filter(|(_, stream)| stream.since_tick() > STUCK)
                .map(|(name, _)| name.as_str())
                .collect();
            if stuck.is_empty() {
                watchdog.feed();
            } else {
                tracing::error!(
                    streams = %stuck.join(", "),
                    "streams stand still: the service manager's watchdog is not fed, and will start the daemon again"
                );
            }
            tokio::time::sleep(watchdog.interval()).await;
        }
    }

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

    fn status_of(&self, name: &str, stream: &AnyStream) -> StreamStatus {
        let mut status = stream.status();
        if let Some(port) = self.ports.get(name) {
            status.window.viewers = port.viewers.count(self.anchor.monotonic());
        }
        status
    }
}

impl Desk for Streams {
    fn may_feed(&self, offer: &Offer, peer: Peer, groups: &[u32]) -> Result<(), Refused> {
        self.by_name
            .get(offer.stream())
            .map_or(Ok(()), |stream| stream.may_feed(offer, peer, groups))
    }

    fn open(&self, offer: &Offer, peer: Peer) -> Result<Granted, Refused> {
        match self.by_name.get(offer.stream()) {
            Some(stream) => stream.open(offer, peer),
            None => {
                let given = offer.stream().chars().take(64).collect::<String>();
                let message = format!(
                    "no stream is called '{}': the config has {}",
                    given.escape_debug(),
                    some_of(self.by_name.keys().map(String::as_str))
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
        self.accounts.administers(peer.uid)
    }
}

/// The first of many names, for a message that has to stay short.
fn some_of<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.take(SHOWN).collect::<Vec<_>>().join(", ");
    match (shown.as_str(), more) {
        ("", _) => "none".to_owned(),
        (_, 0) => shown,
        (_, more) => format!("{shown} and {more} more"),
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

/// Whether the disk is in trouble, rather than the config wrong.
fn may_mend_itself(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem
    ) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Whether files can be made in `dir`.
fn tempfile_probe(dir: &std::path::Path) -> std::io::Result<()> {
    let probe = dir.join(format!(".ringgear-probe-{}", std::process::id()));
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_some_streams_however_many_there_are() {
        let names: Vec<String> = (0..1000).map(|nth| format!("cam{nth}")).collect();
        let said = |count: usize| some_of(names[..count].iter().map(String::as_str));
        assert_eq!(said(0), "none");
        assert_eq!(said(2), "cam0, cam1");
        assert!(said(20).ends_with(", cam19"));
        assert!(said(1000).ends_with(", cam19 and 980 more"));
    }
}
