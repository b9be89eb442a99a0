//! A service manager's end of sd_notify(3).

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use super::place::Place;

/// What a daemon tells.
pub(crate) struct ServiceManager {
    socket: UnixDatagram,
    path: PathBuf,
    /// The newest status line.
    status: RefCell<String>,
}

impl ServiceManager {
    /// Listens in `place`.
    pub(crate) fn listen(place: &Place) -> Self {
        let path = place.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        Self {
            socket,
            path,
            status: RefCell::default(),
        }
    }

    /// The variable that tells the daemon of it.
    pub(crate) fn variable(&self) -> String {
        format!("NOTIFY_SOCKET={}", self.path.display())
    }

    /// The next message that is more than a status line.
    #[track_caller]
    pub(crate) fn next(&self) -> String {
        let next = self.next_within(Duration::from_secs(5));
        next.expect("the daemon tells something")
    }

    /// The same, if there is one before so long a silence.
    pub(crate) fn next_within(&self, silence: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(silence)).unwrap();
        loop {
            let mut text = [0; 1000];
            let read = self.socket.recv(&mut text).ok()?;
            let text = String::from_utf8_lossy(&text[..read]);
            let mut told = Vec::new();
            for line in text.lines() {
                match line.strip_prefix("STATUS=") {
                    Some(status) => status.clone_into(&mut self.status.borrow_mut()),
                    None => told.push(line),
                }
            }
            if !told.is_empty() {
                return Some(told.join("\n"));
            }
        }
    }

    /// The newest status line of those that came before the last message.
    pub(crate) fn status(&self) -> String {
        self.status.borrow().clone()
    }
}
