//! A producer without manners: it says what it likes on the socket and writes what it likes into the ring. It knows the
//! protocol from docs/protocol.md alone.

use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ringgear_producer::MemoryKind;
use ringgear_producer::messages::{Open, Opened, PROTOCOL, Reply, Request};
use rustix::io::pwrite;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::daemon::Daemon;

/// Offsets of the live words.
pub(crate) const COMMITTED: u64 = 1024;
pub(crate) const SUPERSEDED: u64 = 1032;
pub(crate) const SLOT_HEADERS: u64 = 4096;
pub(crate) const SLOT_HEADER_BYTES: u64 = 128;

pub(crate) const FREE: u64 = 0;
pub(crate) const WRITING: u64 = 1;
pub(crate) const READY: u64 = 2;
pub(crate) const READING: u64 = 3;

/// Frames of 320x180 bgr24 for `stream`, by force.
pub(crate) fn open_request(stream: &str) -> Open {
    Open {
        protocol: PROTOCOL,
        stream: stream.to_owned(),
        format: "bgr24".to_owned(),
        width: 320,
        height: 180,
        strides: None,
        slots: None,
        memory: MemoryKind::Memfd,
        take_over: true,
        client: Some("liar".to_owned()),
    }
}

/// A connection, and the ring's descriptor once a session is open.
pub(crate) struct Liar {
    pub(crate) socket: UnixStream,
    held: Vec<u8>,
    pub(crate) memory: Option<OwnedFd>,
    pub(crate) opened: Option<Opened>,
}

impl Liar {
    #[track_caller]
    pub(crate) fn connect(daemon: &Daemon) -> Self {
        let socket = UnixStream::connect(daemon.place.socket()).unwrap();
        socket
            .set_write_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        Self {
            socket,
            held: Vec::new(),
            memory: None,
            opened: None,
        }
    }

    /// A session on `stream`, taken over from whoever has it.
    #[track_caller]
    pub(crate) fn session(daemon: &Daemon, stream: &str) -> Self {
        Self::session_of(daemon, open_request(stream))
    }

    /// A session of frames as `open` has them.
    #[track_caller]
    pub(crate) fn session_of(daemon: &Daemon, open: Open) -> Self {
        Self::session_by(daemon, &Request::Open(open))
    }

    /// A session that `request` opens.
    #[track_caller]
    pub(crate) fn session_by(daemon: &Daemon, request: &Request) -> Self {
        let mut liar = Self::connect(daemon);
        match liar.ask(request) {
            Some(Reply::Opened(opened)) => liar.opened = Some(opened),
            other => panic!("no session: {other:?}"),
        }
        assert!(liar.memory.is_some(), "`opened` came with a descriptor");
        liar
    }

    /// Sends bytes; false if the daemon takes no more.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Option<Reply> {
        let mut line = serde_json::to_vec(request).unwrap();
        line.push(b'\n');
        // A daemon that refuses at once may close before; its answer is there all the same.
        let _ = self.say(&line);
        self.reply(Duration::from_secs(5))
    }

    /// The next reply; none when the connection has ended or nothing comes in time.
    #[track_caller]
    pub(crate) fn reply(&mut self, within: Duration) -> Option<Reply> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(end) = self.held.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            let mut bytes = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC;
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let received = recvmsg(&self.socket, &mut parts, &mut control, flags).ok()?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    self.memory = fds.into_iter().next().or(self.memory.take());
                }
            }
            if received.bytes == 0 {
                return None;
            }
            self.held.extend_from_slice(&bytes[..received.bytes]);
        }
    }

    /// Every reply until the connection ends; fails when it does not.
    #[track_caller]
    pub(crate) fn last_reply(&mut self, within: Duration) -> Option<Reply> {
        let deadline = Instant::now() + within;
        let mut last = None;
        while let Some(reply) = self.reply(deadline.saturating_duration_since(Instant::now())) {
            last = Some(reply);
        }
        assert!(Instant::now() < deadline, "the daemon did not end it");
        last
    }

    /// Writes bytes into the ring, as its mapping would.
    #[track_caller]
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        pwrite(self.memory.as_ref().unwrap(), bytes, offset).unwrap();
    }

    pub(crate) fn word(&self, offset: u64, value: u64) {
        self.write(offset, &value.to_le_bytes());
    }

    pub(crate) fn slot(&self, slot: u64, sequence: u64, state: u64) {
        self.word(
            SLOT_HEADERS + SLOT_HEADER_BYTES * slot,
            sequence << 2 | state,
        );
    }

    /// Commits frame `sequence` in `slot`, as an honest producer would.
    pub(crate) fn commit(&self, slot: u64, sequence: u64) {
        self.slot(slot, sequence, READY);
        self.word(COMMITTED, sequence);
    }
}
