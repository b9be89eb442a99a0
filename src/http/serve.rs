//! Connections: accepting them, and bounding what each may cost. The kernel ends a connection whose peer reads nothing,
//! and a request line and headers have to come in time; in between hyper buffers little, and media is shared memory.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower::Service as _;

use crate::complaint::Complaint;

/// How long a request's headers may take, and how long a connection may idle before them.
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// How long a peer may take nothing of what was sent to it.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// The most that is read ahead, and the longest request line with its headers.
const MAX_HEADERS: usize = 32 * 1024;
/// How long answers under way may take when the daemon stops.
const DRAIN: Duration = Duration::from_secs(2);

/// The address that a request came from; an extension of each.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// Serves `router` on `listener` until `shutdown` is done; then answers what is under way, for 2 s at most. No more than `at_once`
/// connections are served at a time; more wait in the listener's backlog.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    at_once: usize,
    shutdown: impl Future<Output = ()>,
) {
    let permits = Arc::new(Semaphore::new(at_once));
    let mut complaint = Complaint::default();
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
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
        let router = router.clone();
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(ClientAddress(peer.ip()));
            // A router without middleware that waits is always ready.
            router.clone().call(request.map(Body::new))
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_WITHIN)
            .max_buf_size(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(cause) = connection.await {
                tracing::debug!(%peer, %cause, "an HTTP connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    // Whoever is not done by then is cut off: dropping the set ends the rest.
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
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
