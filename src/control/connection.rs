//! One connection: requests in, replies out, and at most one session.

use std::future::pending;
use std::io::{IoSlice, Result as IoResult};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use interprocess::local_socket::tokio::Stream as Socket;
use interprocess::local_socket::traits::StreamCommon as _;
use ringgear_producer::messages::{
    EndCode, Ended, FrameCounts, Opened, PROTOCOL, RefusalCode, Refused, Reply, Request,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::sync::{Semaphore, oneshot, watch};

use super::lines::{LineError, Lines};
use super::pace::Pace;
use super::{
    Accounts, Desk, Granted, Hold, LimitError, Offer, Peer, ReloadError, Reloaded, Seat, unreadable,
};

/// A peer that does not read its replies for so long is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// A dead producer's connection is seen to end within this, on a busy machine too.
const NEWS_OF_DEATH: Duration = Duration::from_millis(250);
/// How often a seat that is held is asked for meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// What every connection works with.
#[derive(Clone)]
pub(super) struct Doors {
    pub(super) desk: Arc<dyn Desk>,
    pub(super) accounts: Arc<Accounts>,
    /// Turns at making a ring.
    pub(super) making: Arc<Semaphore>,
    pub(super) stopping: watch::Receiver<bool>,
}

pub(super) struct Connection {
    socket: Socket,
    peer: Peer,
    doors: Doors,
    session: Option<Session>,
    _hold: Hold,
}

struct Session {
    number: u64,
    stream: String,
    /// Whether the log knows of it.
    logged: bool,
    ended: watch::Receiver<Option<Ended>>,
    /// Gone once the producer has closed.
    seat: Option<Box<dyn Seat>>,
    closing: Option<oneshot::Receiver<FrameCounts>>,
}

/// What happens next on a connection.
enum Next {
    Line(Result<Option<Vec<u8>>, LineError>),
    Ended(Ended),
    Closed(FrameCounts),
    Idle,
}

impl Connection {
    /// A connection for a client within the limits; another one is told why and turned away. Waits for nothing.
    pub(super) fn accept(socket: Socket, doors: &Doors) -> Option<Self> {
        let peer = match peer_of(&socket) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "a connection without peer credentials was dropped");
                return None;
            }
        };
        match doors.accounts.connection(peer.uid) {
            Ok(hold) => Some(Self {
                socket,
                peer,
                doors: doors.clone(),
                session: None,
                _hold: hold,
            }),
            Err(limit) => {
                log_refusal(&doors.accounts, peer, "", &limit.to_string());
                turn_away(&socket, &limit);
                None
            }
        }
    }

    /// Serves the peer until either side ends the connection.
    pub(super) async fn run(mut self) {
        let peer = self.peer;
        if let Err(error) = self.converse(peer).await {
            tracing::debug!(pid = peer.pid, %error, "connection to a client broke");
        }
        if let Some(session) = &self.session
            && session.seat.is_some()
            && session.logged
        {
            tracing::info!(stream = %session.stream, session = session.number, pid = peer.pid, "producer is gone");
        }
    }

    async fn converse(&mut self, peer: Peer) -> IoResult<()> {
        let limits = *self.doors.accounts.limits();
        let mut lines = Lines::new(limits.message_bytes);
        let per_second = limits.messages_per_second;
        let mut pace = Pace::new(per_second, per_second);
        loop {
            match self.next(&mut lines, limits.idle_timeout).await {
                Next::Line(Ok(Some(line))) if pace.try_take(Instant::now()) => {
                    self.answer(&line, peer).await?;
                }
                Next::Line(Ok(Some(_))) => {
                    let message = format!(
                        "more than {per_second} messages in a second: send fewer, or raise [limits] messages_per_second"
                    );
                    log_refusal(&self.doors.accounts, peer, "", &message);
                    self.leave(peer, &message);
                    return self.refuse(RefusalCode::OutOfResources, message).await;
                }
                Next::Line(Ok(None)) => return Ok(()),
                Next::Idle => {
                    let message = format!(
                        "no whole request came for {}: open a session, or connect when there is something to ask ([limits] idle_timeout)",
                        humantime::format_duration(limits.idle_timeout)
                    );
                    return self.refuse(RefusalCode::BadRequest, message).await;
                }
                Next::Line(Err(LineError::Io(error))) => return Err(error),
                Next::Line(Err(error)) => {
                    self.leave(peer, &error.to_string());
                    return self
                        .refuse(RefusalCode::BadRequest, error.to_string())
                        .await;
                }
                Next::Ended(ended) => {
                    // First, so that a peer that reads no replies does not keep the stream from others meanwhile.
                    self.leave(peer, &ended.message);
                    return self.reply(&Reply::Ended(ended), None).await;
                }
                Next::Closed(counts) => {
                    if let Some(session) = self.session.take().filter(|session| session.logged) {
                        tracing::info!(
                            stream = %session.stream, session = session.number, pid = peer.pid, used = counts.used,
                            superseded = counts.superseded, late = counts.late, "producer closed its session"
                        );
                    }
                    self.reply(&Reply::Closed(counts), None).await?;
                }
            }
        }
    }

    /// Ends the session, if there is one.
    fn leave(&mut self, peer: Peer, reason: &str) {
        if let Some(session) = self.session.take().filter(|session| session.logged) {
            tracing::info!(
                stream = %session.stream, session = session.number, pid = peer.pid, %reason,
                "session ended by the daemon"
            );
        }
    }

    async fn next(&mut self, lines: &mut Lines, idle_timeout: Duration) -> Next {
        let idle = self.session.is_none();
        let (ended, closing) = match &mut self.session {
            Some(session) => (Some(&mut session.ended), session.closing.as_mut()),
            None => (None, None),
        };
        let ended = async {
            let Some(ended) = ended else {
                return pending().await;
            };
            let said = ended
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|ended| ended.clone());
            said.unwrap_or_else(|| Ended {
                code: EndCode::StreamGone,
                message: "the stream is gone".to_owned(),
            })
        };
        let closed = async {
            match closing {
                Some(closing) => closing.await.unwrap_or_default(),
                None => pending().await,
            }
        };
        let idle = async {
            if idle {
                tokio::time::sleep(idle_timeout).await
            } else {
                pending().await
            }
        };
        let mut stopping = self.doors.stopping.clone();
        let mut reader = &self.socket;
        tokio::select! {
            biased;
            counts = closed => Next::Closed(counts),
            ended = ended => Next::Ended(ended),
            _ = stopping.wait_for(|stopping| *stopping) => Next::Ended(Ended {
                code: EndCode::Stopping,
                message: "ringgear is stopping".to_owned(),
            }),
            line = lines.next(&mut reader) => Next::Line(line),
            () = idle => Next::Idle,
        }
    }

    /// Opens a session. Who is refused because another holds the stream may have been quicker than the news of the other's death,
    /// as a producer is that its supervisor starts again at once: so the seat is asked for a little longer.
    async fn admit_patiently(&self, offer: &Offer, peer: Peer) -> Result<Granted, Refused> {
        let given_up = Instant::now() + NEWS_OF_DEATH;
        loop {
            let turn = self.doors.making.acquire().await;
            // A ring's memory is made and zeroed here, which takes milliseconds.
            let granted = tokio::task::block_in_place(|| self.admit(offer, peer));
            drop(turn);
            match granted {
                Err(refused)
                    if refused.code == RefusalCode::StreamBusy && Instant::now() < given_up =>
                {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                other => return other,
            }
        }
    }

    /// Opens a session if the config lets this peer feed the stream.
    fn admit(&self, offer: &Offer, peer: Peer) -> Result<Granted, Refused> {
        let Socket::UdSocket(socket) = &self.socket;
        let groups = ringgear_ring::peer_groups(socket.inner().as_fd()).map_err(|error| {
            let message =
                format!("the kernel does not say which groups this process is in: {error}");
            Refused {
                code: RefusalCode::OutOfResources,
                message,
                holder_pid: None,
            }
        })?;
        self.doors.desk.may_feed(offer, peer, &groups)?;
        self.doors.desk.open(offer, peer)
    }

    async fn answer(&mut self, line: &[u8], peer: Peer) -> IoResult<()> {
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => {
                let (code, message) = unreadable::refusal(line, &error);
                return self.refuse(code, message).await;
            }
        };
        match request {
            Request::Open(open) => self.open(&Offer::Frames(open), peer).await,
            Request::OpenSound(open) => self.open(&Offer::Sound(open), peer).await,
            Request::Close {} => match self.session.as_mut().and_then(|session| {
                session.closing = Some(session.seat.take()?.close());
                Some(())
            }) {
                Some(()) => Ok(()),
                None => {
                    let message = "there is no session to close on this connection".to_owned();
                    self.refuse(RefusalCode::OutOfOrder, message).await
                }
            },
            Request::Status {} => {
                let status = self.doors.desk.status();
                self.reply(&Reply::Status { status }, None).await
            }
            Request::Reload { .. } | Request::Stop {} if !self.doors.desk.may_administer(peer) => {
                let message = "only root and the daemon's own user may administer it".to_owned();
                self.refuse(RefusalCode::NotPermitted, message).await
            }
            Request::Reload { dry_run } => self.reload(dry_run, peer).await,
            Request::Stop {} => {
                tracing::info!(pid = peer.pid, uid = peer.uid, "asked to stop");
                self.reply(&Reply::Done {}, None).await?;
                self.doors.desk.stop();
                Ok(())
            }
        }
    }

    async fn reload(&mut self, dry_run: bool, peer: Peer) -> IoResult<()> {
        if !dry_run {
            tracing::info!(
                pid = peer.pid,
                uid = peer.uid,
                "asked to read the config again"
            );
        }
        let desk = Arc::clone(&self.doors.desk);
        // Streams that end take their time.
        let done = tokio::task::spawn_blocking(move || desk.reload(dry_run)).await;
        let done = done.unwrap_or_else(|panic| Err(ReloadError::Partly(panic.to_string())));
        match done {
            Ok(Reloaded { config, changes }) => {
                let config = config.display().to_string();
                let changes = serde_json::to_value(changes).unwrap_or_default();
                self.reply(&Reply::Reloaded { config, changes }, None).await
            }
            Err(error) => self.refuse(code_of(&error), error.to_string()).await,
        }
    }

    async fn open(&mut self, offer: &Offer, peer: Peer) -> IoResult<()> {
        if offer.protocol() != PROTOCOL {
            let (code, message) = unreadable::mismatch(&offer.protocol());
            return self.refuse(code, message).await;
        }
        if self.session.is_some() {
            let message =
                "this connection already has a session: close it, or connect again".to_owned();
            return self.refuse(RefusalCode::OutOfOrder, message).await;
        }
        match self.admit_patiently(offer, peer).await {
            Ok(granted) => {
                self.session = Some(Session {
                    number: granted.opened.session,
                    stream: offer.stream().to_owned(),
                    logged: granted.logged,
                    ended: granted.ended,
                    seat: Some(granted.seat),
                    closing: None,
                });
                self.opened(granted.opened, granted.memory).await
            }
            Err(refused) => {
                log_refusal(&self.doors.accounts, peer, offer.stream(), &refused.message);
                self.reply(&Reply::Refused(refused), None).await
            }
        }
    }

    async fn opened(&mut self, opened: Opened, memory: Option<OwnedFd>) -> IoResult<()> {
        let fd = memory.as_ref().map(|memory| memory.as_fd());
        self.reply(&Reply::Opened(opened), fd).await
    }

    async fn refuse(&mut self, code: RefusalCode, message: String) -> IoResult<()> {
        self.reply(
            &Reply::Refused(Refused {
                code,
                message,
                holder_pid: None,
            }),
            None,
        )
        .await
    }

    async fn reply(&mut self, reply: &Reply, fd: Option<BorrowedFd<'_>>) -> IoResult<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        let write = async {
            let sent = match fd {
                Some(fd) => self.send_with_fd(&line, fd).await?,
                None => 0,
            };
            (&self.socket).write_all(&line[sent..]).await
        };
        tokio::time::timeout(WRITE_TIMEOUT, write)
            .await
            .unwrap_or_else(|_| {
                Err(std::io::Error::other(
                    "the client does not read its replies",
                ))
            })
    }

    /// Sends as much of `line` as goes, `fd` with its first byte.
    async fn send_with_fd(&self, line: &[u8], fd: BorrowedFd<'_>) -> IoResult<usize> {
        let Socket::UdSocket(socket) = &self.socket;
        let socket = socket.inner();
        loop {
            socket.writable().await?;
            let sent = socket.try_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let fds = [fd];
                control.push(SendAncillaryMessage::ScmRights(&fds));
                let data = [IoSlice::new(line)];
                Ok(rustix::net::sendmsg(
                    socket,
                    &data,
                    &mut control,
                    SendFlags::NOSIGNAL,
                )?)
            });
            match sent {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

fn code_of(error: &ReloadError) -> RefusalCode {
    match error {
        ReloadError::Config(_) => RefusalCode::BadConfig,
        ReloadError::Lacking(_) | ReloadError::Partly(_) => RefusalCode::OutOfResources,
        ReloadError::NoFile => RefusalCode::OutOfOrder,
        ReloadError::Stopping => RefusalCode::Stopping,
    }
}

fn peer_of(socket: &Socket) -> IoResult<Peer> {
    let credentials = socket.peer_creds()?;
    let missing = || std::io::Error::other("the kernel names no peer");
    Ok(Peer {
        pid: credentials.pid().ok_or_else(missing)?,
        uid: credentials.euid().ok_or_else(missing)?,
        gid: credentials.egid().ok_or_else(missing)?,
    })
}

/// Says why, if that goes without waiting, as it does on a new connection.
fn turn_away(socket: &Socket, limit: &LimitError) {
    let refused = Reply::Refused(Refused {
        code: RefusalCode::OutOfResources,
        message: limit.to_string(),
        holder_pid: None,
    });
    if let Ok(mut line) = serde_json::to_vec(&refused) {
        line.push(b'\n');
        let Socket::UdSocket(socket) = socket;
        // Who does not listen any more is not told.
        let _ = rustix::net::send(
            socket.inner().as_fd(),
            &line,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        );
    }
}

fn log_refusal(accounts: &Accounts, peer: Peer, stream: &str, reason: &str) {
    if !accounts.may_log(peer.uid) {
        return;
    }
    // The reason says the names it has from the producer escaped and cut already.
    let stream: String = stream.chars().take(64).collect();
    tracing::warn!(
        stream = %stream.escape_debug(), pid = peer.pid, uid = peer.uid, %reason,
        "producer refused"
    );
}
