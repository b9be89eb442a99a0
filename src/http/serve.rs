//! Connections: accepting them, and bounding what each may cost. HTTP/1.1 and HTTP/2 share one port, in cleartext and, with a certificate,
//! over TLS: the first byte tells. The kernel ends a connection whose peer reads nothing, and a first request has to come in time; in
//! between hyper buffers little, and media is shared memory.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use super::Tls;
use crate::complaint::Complaint;

/// How long a request's headers may take, and how long a connection may idle before them.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// Answers under way at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// What HTTP/2 may buffer of one answer.
const MAX_BUFFERED: usize = 64 * 1024;
/// How often an HTTP/2 peer is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long a peer may take nothing of what was sent to it.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// The most that is read ahead, and the longest request line with its headers.
const MAX_HEADERS: usize = 32 * 1024;
/// How long answers under way may take when the daemon stops.
const DRAIN: Duration = Duration::from_secs(2);

/// The address that a request came from; an extension of each.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// Serves `router` on `listener`, over TLS too if there is a certificate, until `shutdown` is done; then answers what is under way, for 2 s
/// at most. No more than `at_once` connections are served at a time; more wait in the listener's backlog.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    at_once: usize,
    tls: Option<Arc<Tls>>,
    shutdown: impl Future<Output = ()>,
) {
    let door = Arc::new(Door::new(router, tls));
    let permits = Arc::new(Semaphore::new(at_once));
    let mut complaint = Complaint::default();
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    if let Some(tls) = &door.tls {
        connections.spawn(Arc::clone(tls).follow());
    }
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            let permit = permit.expect("the semaphore is never closed");
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepted => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(cause) => {
                // Out of descriptors, mostly: at once it would fail again.
                if complaint.is_due(Instant::now()) {
                    tracing::warn!(%cause, "viewers can't connect; raise the limit of open files (LimitNOFILE=), should it be that");
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        bound(&stream);
        let (door, watcher) = (Arc::clone(&door), graceful.watcher());
        connections.spawn(async move {
            if let Err(cause) = door.welcome(stream, peer.ip(), watcher).await {
                tracing::debug!(%peer, %cause, "an HTTP connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    // Whoever is not done by then is cut off: dropping the set ends the rest.
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

/// What every connection is served with.
struct Door {
    router: Router,
    tls: Option<Arc<Tls>>,
    builder: auto::Builder<TokioExecutor>,
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

impl Door {
    fn new(router: Router, tls: Option<Arc<Tls>>) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_WITHIN)
            .max_buf_size(MAX_HEADERS);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEADERS).unwrap_or(u32::MAX))
            .max_send_buf_size(MAX_BUFFERED)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(STALLED_AFTER);
        Self {
            router,
            tls,
            builder,
        }
    }

    /// Finds out what `stream` speaks, and serves it to its end.
    async fn welcome(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        watcher: Watcher,
    ) -> Result<(), Broken> {
        let Some(tls) = &self.tls else {
            return self.serve(stream, peer, watcher).await;
        };
        // The first byte of a TLS handshake record; no HTTP request begins with it.
        const HANDSHAKE: u8 = 0x16;
        let mut first = [0];
        tokio::time::timeout(HEADERS_WITHIN, stream.peek(&mut first)).await??;
        if first != [HANDSHAKE] {
            return self.serve(stream, peer, watcher).await;
        }
        let accepted = TlsAcceptor::from(tls.config()).accept(stream);
        let stream = tokio::time::timeout(HEADERS_WITHIN, accepted).await??;
        self.serve(stream, peer, watcher).await
    }

    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        peer: IpAddr,
        watcher: Watcher,
    ) -> Result<(), Broken> {
        let asked = Arc::new(AtomicBool::new(false));
        let (router, has_asked) = (self.router.clone(), Arc::clone(&asked));
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            has_asked.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(ClientAddress(peer));
            // A router without middleware that waits is always ready.
            router.clone().call(request.map(Body::new))
        });
        let connection = self
            .builder
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let mut connection = std::pin::pin!(watcher.watch(connection));
        // Until the version is known hyper has no timer of its own, and HTTP/2 has none for headers.
        match tokio::time::timeout(HEADERS_WITHIN, &mut connection).await {
            Ok(ended) => ended,
            Err(_) if !asked.load(Ordering::Relaxed) => Err("no request came in time".into()),
            Err(_) => connection.await,
        }
    }
}

/// Sets the socket's limits. Without them it still works, so a refusal is only logged.
fn bound(stream: &TcpStream) {
    let stalled = u32::try_from(STALLED_AFTER.as_millis()).unwrap_or(u32::MAX);
    let set = rustix::net::sockopt::set_tcp_user_timeout(stream, stalled)
        .map_err(std::io::Error::from)
        .and_then(|()| stream.set_nodelay(true));
    if let Err(cause) = set {
        tracing::debug!(%cause, "can't set a connection's limits");
    }
}
