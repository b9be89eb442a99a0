//! Connections: accepting them, and bounding what each may cost. HTTP/1.1 and HTTP/2 share one port, in cleartext and, with a certificate,
//! over TLS: the first byte tells. With one, cleartext is for this machine and trusted proxies; others are sent to TLS. A first request has to come in time, and who reads nothing or too little is dropped (`stalled`); till then hyper and the kernel buffer
//! little, and media is shared memory.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use hyper::http::{Method, Version};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::crowd::Crowd;
use super::head_timer::HeadTimer;
use super::place::Placed;
use super::socket::Socket;
use super::stalled::{Answers, Impatient};
use super::threads::Threads;
use super::{Site, Tls, origin, reply};
use crate::complaint::Complaint;
use crate::config::ViewerLimits;

/// Answers under way at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// What HTTP/2 may buffer of one answer.
const MAX_BUFFERED: usize = 64 * 1024;
/// How often an HTTP/2 peer is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// What the kernel may hold of one connection beside what is on its way: a viewer that reads nothing costs that.
const MAX_UNSENT: u32 = 128 << 10;
/// How long answers under way may take when the daemon stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Who a request came from; an extension of each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    /// The address that its share of what is dear is counted by; none if it stands for many.
    pub(super) counted: Option<IpAddr>,
    /// Whether it asked over TLS.
    pub(super) encrypted: bool,
}

/// Answers from `site` on `listener` within `limits`, over TLS too if there is a certificate, until `shutdown` is done; then answers what is under way,
/// for 2 s at most. Connections beyond the limit of all wait in the listener's backlog.
pub async fn serve(
    listener: TcpListener,
    site: Site,
    limits: ViewerLimits,
    tls: Option<Arc<Tls>>,
    shutdown: impl Future<Output = ()>,
) {
    let at_once = usize::try_from(limits.connections).unwrap_or(usize::MAX);
    let permits = Arc::new(Semaphore::new(at_once.min(Semaphore::MAX_PERMITS)));
    let door = Arc::new(Door::new(Arc::new(site), limits, tls));
    let mut complaint = Complaint::default();
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut threads = Threads::start();
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
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let Some(place) = door.crowd.admit(peer.ip(), Instant::now()) else {
            continue;
        };
        bound(&stream, door.limits.stall_timeout);
        let (door, watcher) = (Arc::clone(&door), graceful.watcher());
        let stream = stream.into_std();
        let serving = async move {
            let served = async {
                // Of the runtime that it is served by.
                let stream = TcpStream::from_std(stream?)?;
                door.welcome(stream, peer.ip(), watcher).await
            };
            if let Err(cause) = served.await {
                tracing::debug!(%peer, %cause, "an HTTP connection ended early");
            }
            drop((place, permit));
        };
        connections.spawn_on(serving, &threads.next());
    }
    drop(listener);
    // Whoever is not done by then is cut off: dropping the set ends the rest.
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

/// What every connection is served with.
struct Door {
    site: Arc<Site>,
    limits: ViewerLimits,
    crowd: Arc<Crowd>,
    tls: Option<Arc<Tls>>,
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

impl Door {
    fn new(site: Arc<Site>, limits: ViewerLimits, tls: Option<Arc<Tls>>) -> Self {
        Self {
            site,
            crowd: Crowd::new(limits.clone()),
            limits,
            tls,
        }
    }

    /// What a connection is served by.
    fn builder(&self, timer: HeadTimer) -> auto::Builder<TokioExecutor> {
        let limits = &self.limits;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(timer)
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(limits.header_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
            .max_send_buf_size(MAX_BUFFERED)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(limits.stall_timeout);
        builder
    }

    /// Finds out what `stream` speaks, and serves it to its end.
    async fn welcome(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        watcher: Watcher,
    ) -> Result<(), Broken> {
        let within = self.limits.header_timeout;
        let impatient = |stream| Impatient::new(Socket::new(stream), self.limits.stall_timeout);
        let Some(tls) = &self.tls else {
            return self.serve(impatient(stream), peer, false, watcher).await;
        };
        // The first byte of a TLS handshake record; no HTTP request begins with it.
        const HANDSHAKE: u8 = 0x16;
        let mut first = [0];
        tokio::time::timeout(within, stream.peek(&mut first)).await??;
        if first != [HANDSHAKE] {
            return self.serve(impatient(stream), peer, false, watcher).await;
        }
        let accepted = TlsAcceptor::from(tls.config()).accept(impatient(stream));
        let stream = tokio::time::timeout(within, accepted).await??;
        self.serve(stream, peer, true, watcher).await
    }

    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        peer: IpAddr,
        encrypted: bool,
        watcher: Watcher,
    ) -> Result<(), Broken> {
        let asked = Arc::new(AtomicBool::new(false));
        let served = is_served(encrypted, self.tls.is_some(), self.crowd.counted(peer));
        // Only HTTP/2 has answers that are not seen to be taken.
        let answers: Arc<OnceLock<Arc<Answers>>> = Arc::default();
        let (site, crowd) = (Arc::clone(&self.site), Arc::clone(&self.crowd));
        let (has_asked, books) = (Arc::clone(&asked), Arc::clone(&answers));
        let ViewerLimits {
            header_timeout,
            stall_timeout: patience,
            ..
        } = self.limits;
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            has_asked.store(true, Ordering::Relaxed);
            let under_way = (request.version() == Version::HTTP_2)
                .then(|| books.get_or_init(|| Answers::new(patience)).begin());
            let head_alone = request.method() == Method::HEAD;
            let (address, forwarded) = crowd.viewer(peer, request.headers());
            let client = Client {
                address,
                counted: crowd.counted(address),
                encrypted: encrypted || forwarded,
            };
            let refusal = match crowd.may_ask(address, Instant::now) {
                true if !served && !origin::tells_of_life(request.uri().path()) => {
                    Some(reply::to_tls(&request))
                }
                true => None,
                false => Some(reply::too_many_requests()),
            };
            // Nobody reads a request's body.
            let (head, _) = request.into_parts();
            let answer = match refusal {
                None => Ok(Placed::new(origin::answer(
                    Arc::clone(&site),
                    Some(client),
                    head,
                ))),
                Some(refusal) => Err(refusal),
            };
            async move {
                let response = match answer {
                    Ok(answer) => answer.await,
                    Err(refusal) => refusal,
                };
                Ok::<_, Infallible>(match under_way {
                    // With HTTP/1 hyper leaves the body out.
                    Some(_) if head_alone => reply::without_body(response),
                    Some(under_way) => response.map(|body| body.watched(under_way)),
                    None => response,
                })
            }
        });
        let timer = HeadTimer::default();
        let connection = self
            .builder(timer.clone())
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let mut connection = pin!(watcher.watch(connection));
        // Until the version is known hyper has no timer of its own, and HTTP/2 has none for headers.
        let mut look_at = Some(Instant::now() + header_timeout);
        let mut alarm = pin!(sleep(header_timeout));
        poll_fn(|context| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                    return Poll::Ready(ended);
                }
                let Some(next) = timer.due().into_iter().chain(look_at).min() else {
                    return Poll::Pending;
                };
                // It may go off too early, which costs less than to set it for each request.
                if next < alarm.deadline().into_std() {
                    alarm.as_mut().reset(next.into());
                }
                ready!(alarm.as_mut().poll(context));
                alarm.as_mut().reset(next.into());
                let now = Instant::now();
                if timer.due().is_some_and(|due| due <= now) {
                    // hyper sees it, too, unless the head has just come.
                    if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                        return Poll::Ready(ended);
                    }
                    if timer.due().is_some_and(|due| due <= now) {
                        return Poll::Ready(Err("no request came in time".into()));
                    }
                    continue;
                }
                if look_at.is_none_or(|at| now < at) {
                    continue;
                }
                if !asked.load(Ordering::Relaxed) {
                    return Poll::Ready(Err("no request came in time".into()));
                }
                look_at = match answers.get() {
                    Some(answers) => match answers.over(now.into(), header_timeout) {
                        Some(why) => return Poll::Ready(Err(why.into())),
                        None => Some(now + patience.min(header_timeout) / 2),
                    },
                    None => None,
                };
            }
        })
        .await
    }
}

/// Whether a connection is: in cleartext, where there is a certificate, only one of this machine or of a trusted proxy, which is not `counted`.
fn is_served(encrypted: bool, has_certificate: bool, counted: Option<IpAddr>) -> bool {
    encrypted || !has_certificate || counted.is_none()
}

/// Sets the socket's limits. Without them it still works, so a refusal is only logged.
fn bound(stream: &TcpStream, stall_timeout: Duration) {
    let stalled = u32::try_from(stall_timeout.as_millis()).unwrap_or(u32::MAX);
    let set = rustix::net::sockopt::set_tcp_user_timeout(stream, stalled)
        .map_err(std::io::Error::from)
        .and_then(|()| SockRef::from(stream).set_tcp_notsent_lowat(MAX_UNSENT))
        .and_then(|()| stream.set_nodelay(true));
    if let Err(cause) = set {
        tracing::debug!(%cause, "can't set a connection's limits");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_a_certificate_cleartext_is_for_this_machine_and_proxies() {
        let crowd = Crowd::new(ViewerLimits {
            trusted_proxies: vec!["10.9.0.0/16".parse().unwrap()],
            ..ViewerLimits::default()
        });
        for (peer, in_cleartext) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.9.1.1", true),
            ("192.0.2.7", false),
            ("::ffff:192.0.2.7", false),
            ("2001:db8::1", false),
        ] {
            let counted = crowd.counted(peer.parse().unwrap());
            assert_eq!(is_served(false, true, counted), in_cleartext, "{peer}");
            assert!(is_served(true, true, counted), "{peer}");
            assert!(is_served(false, false, counted), "{peer}");
        }
    }
}
