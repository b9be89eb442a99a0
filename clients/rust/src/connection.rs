//! One connection to the control socket: lines out, lines and one descriptor in, all bounded in length and time.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recvmsg, send, socket_with,
};

use crate::error::ProducerError;
use crate::messages::{MAX_LINE, Reply, Request};

/// A connection and what was received of the next line.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    pending: Vec<u8>,
    /// The descriptor that came and was not asked for yet.
    fd: Option<OwnedFd>,
}

/// What one look at the socket brought.
enum Received {
    Bytes,
    Nothing,
    Closed,
}

impl Connection {
    /// Connects, waiting for at most `patience` where the daemon's queue of connections is full.
    pub(crate) fn open(path: &Path, patience: Duration) -> Result<Self, ProducerError> {
        let failed = |error: Errno| ProducerError::connecting(path, error.into());
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        let flags = SocketFlags::CLOEXEC;
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
        // The limit on sending is the one on connecting, too: see unix(7) and socket(7).
        set_socket_timeout(&socket, Timeout::Send, Some(patience)).map_err(failed)?;
        let deadline = Instant::now() + patience;
        loop {
            match connect(&socket, &address) {
                Ok(()) => break,
                // A signal's handler ran, and the wait begins anew: nothing has happened yet.
                Err(Errno::INTR) if Instant::now() < deadline => {}
                Err(Errno::AGAIN | Errno::INTR) => {
                    return Err(ProducerError::NoAnswer {
                        seconds: patience.as_secs(),
                    });
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(Self {
            stream: UnixStream::from(socket),
            pending: Vec::new(),
            fd: None,
        })
    }

    /// Sends a request, waiting for at most `patience`.
    pub(crate) fn send(
        &mut self,
        request: &Request,
        patience: Duration,
    ) -> Result<(), ProducerError> {
        let mut line = serde_json::to_vec(request)
            .map_err(|error| ProducerError::Io(io::Error::other(error)))?;
        line.push(b'\n');
        self.stream
            .set_write_timeout(Some(patience))
            .map_err(ProducerError::Io)?;
        let mut rest = &line[..];
        while !rest.is_empty() {
            // A program that is not Rust's keeps SIGPIPE's default, so a daemon that just went away would end the camera's process.
            match send(&self.stream, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ProducerError::Gone),
                Err(Errno::AGAIN) => {
                    return Err(ProducerError::NoAnswer {
                        seconds: patience.as_secs(),
                    });
                }
                Err(error) => return Err(ProducerError::Io(error.into())),
            }
        }
        Ok(())
    }

    /// The next reply, waited for until `patience` is over.
    pub(crate) fn receive(&mut self, patience: Duration) -> Result<Reply, ProducerError> {
        let no_answer = ProducerError::NoAnswer {
            seconds: patience.as_secs(),
        };
        let deadline = Instant::now() + patience;
        loop {
            if let Some(reply) = self.next_line()? {
                return Ok(reply);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(no_answer);
            }
            self.stream
                .set_read_timeout(Some(left))
                .map_err(ProducerError::Io)?;
            match self.read_some(RecvFlags::CMSG_CLOEXEC)? {
                Received::Bytes => {}
                Received::Nothing => return Err(no_answer),
                Received::Closed => return Err(ProducerError::Gone),
            }
        }
    }

    /// A reply if a whole one is there; waits for nothing.
    pub(crate) fn poll(&mut self) -> Result<Option<Reply>, ProducerError> {
        loop {
            if let Some(reply) = self.next_line()? {
                return Ok(Some(reply));
            }
            match self.read_some(RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)? {
                Received::Bytes => {}
                Received::Nothing => return Ok(None),
                Received::Closed => return Err(ProducerError::Gone),
            }
        }
    }

    /// The descriptor that came with the lines so far.
    pub(crate) fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fd.take()
    }

    fn next_line(&mut self) -> Result<Option<Reply>, ProducerError> {
        let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') else {
            if self.pending.len() >= MAX_LINE {
                return Err(protocol("a line without an end"));
            }
            return Ok(None);
        };
        let reply = serde_json::from_slice(&self.pending[..end])
            .map_err(|error| protocol(&error.to_string()))?;
        self.pending.drain(..=end);
        Ok(Some(reply))
    }

    fn read_some(&mut self, flags: RecvFlags) -> Result<Received, ProducerError> {
        let mut bytes = [0; 4096];
        // Space for two: with a second one the answer is wrong, and must be seen to be.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.stream, &mut parts, &mut control, flags) {
                Ok(received) => break received.bytes,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(Errno::CONNRESET | Errno::PIPE) => return Ok(Received::Closed),
                Err(error) => return Err(ProducerError::Io(error.into())),
            }
        };
        for message in control.drain() {
            let RecvAncillaryMessage::ScmRights(fds) = message else {
                continue;
            };
            for fd in fds {
                if self.fd.replace(fd).is_some() {
                    return Err(protocol("more than one file descriptor"));
                }
            }
        }
        if received == 0 {
            return Ok(Received::Closed);
        }
        self.pending.extend_from_slice(&bytes[..received]);
        Ok(Received::Bytes)
    }
}

fn protocol(what: &str) -> ProducerError {
    ProducerError::Protocol {
        what: what.to_owned(),
    }
}
