//! What a session of frames and one of sound have in common: how it is opened, looked after and closed.

use std::path::Path;
use std::time::Duration;

use ringgear_ring::layout::{Policy, SlotFormat};
use ringgear_ring::{Deadline, MemoryKind, Writer};

use crate::connection::Connection;
use crate::error::ProducerError;
use crate::messages::{FrameCounts, Opened, PROTOCOL, Reply, Request};

/// How long the daemon may take to accept a connection, and to answer `open` and `close`.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a lossless ring is waited for until the connection is looked at again: nothing else tells of a daemon's death.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A connection with a session, and the session's ring of `F`. Dropping it ends the session without a word, as a crash would.
#[derive(Debug)]
pub(crate) struct Session<F> {
    connection: Connection,
    opened: Opened,
    pub(crate) writer: Writer<F>,
}

impl<F: SlotFormat> Session<F> {
    /// Opens the session that `request` asks for, whose ring has slots of `format` in memory of `kind`.
    pub(crate) fn open(
        socket: &Path,
        request: &Request,
        kind: MemoryKind,
        format: &F,
    ) -> Result<Self, ProducerError> {
        let mut connection = Connection::open(socket, PATIENCE)?;
        // A daemon that refuses at once, stopping or out of descriptors, may close before our line is out; its answer then says more than the failure.
        let sent = connection.send(request, PATIENCE);
        let reply = match connection.receive(PATIENCE) {
            Err(ProducerError::Gone) => return Err(sent.err().unwrap_or(ProducerError::Gone)),
            reply => reply?,
        };
        let opened = match reply {
            Reply::Opened(opened) => opened,
            Reply::Refused(refused) => return Err(ProducerError::Refused(refused)),
            other => return Err(unexpected(&other)),
        };
        if opened.protocol != PROTOCOL {
            let what = format!("protocol {} instead of {PROTOCOL}", opened.protocol);
            return Err(ProducerError::Protocol { what });
        }
        let missing = |what: &str| ProducerError::Protocol {
            what: format!("`opened` without a {what}"),
        };
        let (bytes, slots) = (opened.memory_bytes, opened.slots);
        let writer = match kind {
            MemoryKind::Memfd => {
                let fd = connection
                    .take_fd()
                    .ok_or_else(|| missing("file descriptor"))?;
                Writer::from_fd(fd, format, bytes, slots)?
            }
            MemoryKind::Named => {
                let name = opened.name.as_deref().ok_or_else(|| missing("name"))?;
                Writer::open_named(name, format, bytes, slots)?
            }
        };
        Ok(Self {
            connection,
            opened,
            writer,
        })
    }
}

impl<F> Session<F> {
    /// What the daemon said at the session's opening.
    pub(crate) fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Whether the session still lasts. Waits for nothing.
    ///
    /// # Errors
    /// [`ProducerError::Ended`] with the daemon's reason, [`ProducerError::Gone`] without one.
    pub(crate) fn check(&mut self) -> Result<(), ProducerError> {
        match self.connection.poll()? {
            None => Ok(()),
            Some(Reply::Ended(ended)) => Err(ProducerError::Ended(ended)),
            Some(other) => Err(unexpected(&other)),
        }
    }

    /// Whether the ring has a slot for its writer: at once in a live stream, else after a short wait for the daemon at most.
    pub(crate) fn has_room(&mut self) -> Result<bool, ProducerError>
    where
        F: SlotFormat,
    {
        Ok(self.writer.wait_for_room(Deadline::after(LOOK_AGAIN))?)
    }

    /// Ends the session in good order. A recording's end is waited for as long as the daemon is there.
    pub(crate) fn close(mut self) -> Result<FrameCounts, ProducerError> {
        self.connection.send(&Request::Close {}, PATIENCE)?;
        let recorded = self.writer.policy() == Policy::Lossless;
        let reply = loop {
            match self.connection.receive(PATIENCE) {
                Err(ProducerError::NoAnswer { .. }) if recorded => {}
                reply => break reply?,
            }
        };
        match reply {
            Reply::Closed(counts) => Ok(counts),
            Reply::Ended(ended) => Err(ProducerError::Ended(ended)),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(reply: &Reply) -> ProducerError {
    let name = match reply {
        Reply::Opened(_) => "opened",
        Reply::Refused(refused) => &refused.message,
        Reply::Ended(_) => "ended",
        Reply::Closed(_) => "closed",
        Reply::Status { .. } => "status",
        Reply::Done {} => "done",
        Reply::Reloaded { .. } => "reloaded",
    };
    let what = format!("unexpected: {name}");
    ProducerError::Protocol { what }
}
