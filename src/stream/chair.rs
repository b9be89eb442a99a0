//! A place for one producer at a time: who holds it, whom they keep out, and how they are told that it is no longer theirs.

use std::sync::atomic::{AtomicU64, Ordering};

use ringgear_producer::messages::{EndCode, Ended, RefusalCode, Refused};
use ringgear_ring::MemoryKind;
use tokio::sync::watch;

use crate::control::Peer;
use crate::tick::UnixTime;

static NEXT_SESSION: AtomicU64 = AtomicU64::new(1);

/// A session's number, which no other has.
pub(super) fn next_session() -> u64 {
    NEXT_SESSION.fetch_add(1, Ordering::Relaxed)
}

/// The place. `S` is what status tells of its holder.
pub(super) struct Chair<S> {
    /// What is fed here, as messages call it: `stream 'door'`.
    what: String,
    holder: Option<Holder<S>>,
    /// Why nobody may have it now: the stream does not run.
    closed: Option<String>,
}

/// Who has it.
pub(super) struct Holder<S> {
    pub(super) session: u64,
    pub(super) peer: Peer,
    pub(super) since: UnixTime,
    pub(super) status: S,
    pub(super) ended: watch::Sender<Option<Ended>>,
}

impl<S> Chair<S> {
    pub(super) fn new(what: String) -> Self {
        Self {
            what,
            holder: None,
            closed: None,
        }
    }

    /// What status tells of who has it.
    pub(super) fn status(&self) -> Option<&S> {
        self.holder.as_ref().map(|holder| &holder.status)
    }

    /// Refuses a producer while the stream does not run, or that does not ask to take over from the holder.
    pub(super) fn check_free(&self, take_over: bool) -> Result<(), Refused> {
        let what = &self.what;
        if let Some(cause) = &self.closed {
            let message = format!("{what} does not run now: {cause}");
            return Err(refused(RefusalCode::OutOfResources, message));
        }
        let Some(held) = self.holder.as_ref().filter(|_| !take_over) else {
            return Ok(());
        };
        let message = format!(
            "{what} is fed by process {} (user {}) since {}: stop it, or ask to take over",
            held.peer.pid,
            held.peer.uid,
            held.since.rfc3339()
        );
        Err(Refused {
            code: RefusalCode::StreamBusy,
            message,
            holder_pid: Some(held.peer.pid),
        })
    }

    /// Gives it to `holder`, and tells whoever had it.
    pub(super) fn give(&mut self, holder: Holder<S>) {
        let Peer { pid, uid, .. } = holder.peer;
        let message = format!("process {pid} (user {uid}) has taken the stream over");
        self.clear(EndCode::TakenOver, message);
        self.holder = Some(holder);
    }

    /// The stream does not run, because of `cause`. Who held the place is told to come again, and nobody gets it before [`Self::reopen`].
    pub(super) fn close(&mut self, cause: &str) {
        self.closed = Some(cause.to_owned());
        let message = format!("{} does not run; connect again: {cause}", self.what);
        self.clear(EndCode::StreamGone, message);
    }

    /// The stream runs.
    pub(super) fn reopen(&mut self) {
        self.closed = None;
    }

    /// Takes it from whoever has it, and says why.
    pub(super) fn clear(&mut self, code: EndCode, message: String) {
        if let Some(held) = self.holder.take() {
            held.ended.send_replace(Some(Ended { code, message }));
        }
    }

    /// `session` is over: whether the place was still its own.
    pub(super) fn leave(&mut self, session: u64) -> bool {
        let left = self.holder.take_if(|holder| holder.session == session);
        left.is_some()
    }
}

/// A refusal without a holder.
pub(crate) fn refused(code: RefusalCode, message: String) -> Refused {
    Refused {
        code,
        message,
        holder_pid: None,
    }
}

/// Refuses named segments to other users: their files are the daemon's user's alone.
pub(super) fn may_have(memory: MemoryKind, peer: Peer) -> Result<(), Refused> {
    let own = rustix::process::geteuid().as_raw();
    if memory == MemoryKind::Named && peer.uid != own {
        let message = format!(
            "named memory is for the daemon's own user (uid {own}), not for uid {}: leave 'memory' out for a memfd",
            peer.uid
        );
        return Err(refused(RefusalCode::NotPermitted, message));
    }
    Ok(())
}

/// The client's words about itself, as far as they are kept.
pub(super) fn client_name(client: Option<&str>) -> Option<String> {
    client.map(|client| client.chars().take(100).collect())
}
