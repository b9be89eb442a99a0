//! What a service manager is told (sd_notify(3)): that the daemon is up, that it goes on, that it stops. And the doors that it has opened
//! before the daemon came (sd_listen_fds(3)), which stay open while one daemon follows the other. Without a service manager, nothing.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::config::Plan;

/// The listening sockets of a socket unit.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    /// The control socket.
    pub(crate) control: Option<UnixListener>,
    /// The origin's.
    pub(crate) origin: Option<TcpListener>,
}

impl Doors {
    /// Those that the service manager has opened for this process; no encoder inherits them.
    ///
    /// # Errors
    /// When there is one that nobody here listens at, or more than one of a kind.
    pub(crate) fn opened() -> Result<Self, String> {
        let mut given = ListenFd::from_env();
        let mut doors = Self::default();
        for number in 0..given.len() {
            let new = if let Ok(Some(socket)) = given.take_unix_listener(number) {
                doors.control.replace(socket).is_none()
            } else if let Ok(Some(socket)) = given.take_tcp_listener(number) {
                doors.origin.replace(socket).is_none()
            } else {
                false
            };
            if !new {
                return Err(format!(
                    "the socket unit's listener {} is of no use: let it have one ListenStream= with a path, for producers, and one with a port, for \
                     viewers",
                    number + 1
                ));
            }
        }
        Ok(doors)
    }

    /// Warns of what `plan` says of a door in vain, which the service manager has opened otherwise.
    pub(crate) fn compare(&self, plan: &Plan) {
        let address = self.origin.as_ref().and_then(|door| door.local_addr().ok());
        if let Some(opened) = address.filter(|opened| *opened != plan.listen) {
            in_vain("[http] listen", &plan.listen, &opened);
        }
        let address = self.control.as_ref();
        let address = address.and_then(|door| door.local_addr().ok());
        let Some(path) = address.as_ref().and_then(|address| address.as_pathname()) else {
            return;
        };
        if path != plan.socket {
            in_vain("[daemon] socket", &plan.socket.display(), &path.display());
        } else if let Ok(opened) = path.metadata()
            && opened.mode() & 0o777 != plan.socket_mode & 0o777
        {
            let [asked, opened] = [plan.socket_mode, opened.mode()].map(|mode| {
                let bits = mode & 0o777;
                format!("{bits:04o}")
            });
            in_vain("[daemon] socket_mode", &asked, &opened);
        }
    }
}

/// The config asks for one thing, and the socket unit has opened another.
fn in_vain(key: &str, asked: &dyn Display, opened: &dyn Display) {
    tracing::warn!(
        "{key} says {asked}, but the socket unit has opened {opened}, which counts: write the same into both, into the unit by systemctl edit \
         ringgear.socket"
    );
}

/// The rest before an end that only a person can mend, or time. A service manager starts the daemon again at once, five times a second by our unit;
/// and a socket unit whose doors have visitors closes them for good after twenty starts in two seconds (systemd.socket(5), `TriggerLimitBurst=`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct RestBeforeFailing {
    length: Duration,
}

impl RestBeforeFailing {
    /// As long as this process needs it: none where nobody starts it again. To be asked before [`Doors::opened`], which forgets who called.
    pub(crate) fn needed() -> Self {
        let is_set = |name: &&str| std::env::var_os(name).is_some();
        let is_managed = ["LISTEN_FDS", "NOTIFY_SOCKET"].iter().any(is_set);
        let length = Duration::from_secs(if is_managed { 3 } else { 0 });
        Self { length }
    }

    /// Rests, until `stopped` at most.
    pub(crate) fn take(self, stopped: impl Fn() -> bool) {
        let until = Instant::now() + self.length;
        while Instant::now() < until && !stopped() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// How long a service manager that takes nothing is waited for. It is that of the whole machine, and busy for moments only.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether there is a service manager that wants to be told.
pub(crate) fn listens() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// The doors are open and all streams have begun, or a reload is done.
pub(crate) fn ready() {
    tell(NotifyState::Ready);
}

/// The same of the start, with the streams' [`status`]. Whether it was taken: else it has to be said again.
pub(crate) fn ready_with(line: &str) -> bool {
    tell_all(&[NotifyState::Ready, NotifyState::Status(line)])
}

/// How the streams are, in one line: `systemctl status` shows it.
pub(crate) fn status(line: &str) {
    tell(NotifyState::Status(line));
}

/// The config is read again; [`ready`] says when that is done.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => {
            tell_all(&[NotifyState::Reloading, now]);
        }
        Err(error) => tracing::warn!(%error, "the clock can't be read for the service manager"),
    }
}

/// The stop has begun; what follows may take seconds.
pub(crate) fn stopping() {
    tell(NotifyState::Stopping);
}

/// The service manager's watchdog (`WatchdogSec=`), which starts a daemon again that does not feed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watchdog {
    limit: Duration,
}

impl Watchdog {
    /// The watchdog, if the service manager has set one on this process.
    pub(crate) fn asked_for() -> Option<Self> {
        sd_notify::watchdog_enabled().map(|limit| Self { limit })
    }

    /// How often it is to be fed: thrice within its limit, so that one delay on a busy machine is no death.
    pub(crate) fn interval(&self) -> Duration {
        (self.limit / 3).max(Duration::from_millis(10))
    }

    /// Says that the daemon goes on.
    pub(crate) fn feed(&self) {
        tell(NotifyState::Watchdog);
    }
}

fn tell(state: NotifyState<'_>) {
    tell_all(&[state]);
}

/// Whether there is nobody to tell, or it was taken.
fn tell_all(states: &[NotifyState<'_>]) -> bool {
    /// How many messages were not taken since one was.
    static LOST: AtomicU64 = AtomicU64::new(0);
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return true;
    };
    match send(&socket, states, PATIENCE) {
        Ok(()) => {
            let lost = LOST.swap(0, Ordering::Relaxed);
            if lost > 0 {
                tracing::warn!(
                    lost,
                    "the service manager has not taken what it was told: it stood still"
                );
            }
            true
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            LOST.fetch_add(1, Ordering::Relaxed);
            false
        }
        Err(error) => {
            tracing::warn!(%error, "the service manager can't be told: check that the unit has Type=notify");
            // Nor can it be the next time.
            true
        }
    }
}

/// Sends `states` to the socket of this name, and waits so long at most.
fn send(socket: &OsStr, states: &[NotifyState<'_>], patience: Duration) -> io::Result<()> {
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    let datagrams = UnixDatagram::unbound()?;
    datagrams.set_write_timeout(Some(patience))?;
    match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => datagrams.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => datagrams.connect(socket)?,
    }
    datagrams.send(text.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_that_takes_nothing_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listening = UnixDatagram::bind(&path).unwrap();
        let tell = || {
            let told = [NotifyState::Ready, NotifyState::Status("1 stream: 1 live")];
            send(path.as_os_str(), &told, Duration::from_millis(1))
        };
        // Until the kernel keeps no more for it.
        let error = std::iter::repeat_with(tell).find_map(Result::err).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let mut text = [0; 100];
        let length = listening.recv(&mut text).unwrap();
        assert_eq!(&text[..length], b"READY=1\nSTATUS=1 stream: 1 live\n");
        tell().unwrap();
    }
}
