//! The control protocol: one JSON object on a line, in both directions, over a Unix stream socket.
//!
//! A producer sends [`Request::Open`], or [`Request::OpenSound`], and gets [`Reply::Opened`] with the ring's memory as the one file descriptor
//! (SCM_RIGHTS) beside it, or by name, or [`Reply::Refused`]. The session lasts until either side closes. `docs/protocol.md` is the reference.

use std::num::NonZeroU32;

use ringgear_ring::MemoryKind;
use serde::{Deserialize, Serialize};

/// The protocol's version, which both sides have to name alike.
pub const PROTOCOL: u32 = 1;

/// The longest line either side may send, its newline included.
pub const MAX_LINE: usize = 64 * 1024;

/// The default control socket.
pub const DEFAULT_SOCKET: &str = "/run/ringgear/control.sock";

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Starts a session: this connection will feed `stream`.
    Open(Open),
    /// Starts a session of sound: this connection will feed the sound of `stream`, beside who feeds its pictures.
    OpenSound(OpenSound),
    /// Ends the session: every committed frame may still be taken, then the reply is [`Reply::Closed`].
    Close {},
    /// Asks for what `ringgear status` shows; the reply is [`Reply::Status`].
    Status {},
    /// Stops the daemon, as SIGTERM does. Administrative.
    Stop {},
    /// Reads the config again, as SIGHUP does; the reply is [`Reply::Reloaded`] once all is done. Administrative.
    Reload {
        /// Whether only to say what would be done.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        dry_run: bool,
    },
}

/// The fields of [`Request::Open`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The stream to feed.
    pub stream: String,
    /// How pixels are stored; a name of [`PixelFormat`](ringgear_ring::format::PixelFormat), as text so that an unknown one is refused by name.
    pub format: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Bytes from row to row, for each plane; none for rows without padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strides: Option<Vec<usize>>,
    /// How many slots the ring shall have; none for the daemon's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// How the ring's memory is handed over; named segments are for peers of the daemon's own user.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory: MemoryKind,
    /// Whether to end a session that another producer holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub take_over: bool,
    /// The client's own name and version, for logs and status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// The fields of [`Request::OpenSound`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenSound {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The stream to feed.
    pub stream: String,
    /// How samples are stored; a name of [`SampleFormat`](ringgear_ring::sound::SampleFormat), as text so that an unknown one is refused by name.
    pub format: String,
    /// Samples a second.
    pub rate: u32,
    /// How many channels.
    pub channels: u32,
    /// As in [`Open`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// As in [`Open`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory: MemoryKind,
    /// Whether to end a session that another producer of sound holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub take_over: bool,
    /// As in [`Open`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

fn is_default(memory: &MemoryKind) -> bool {
    *memory == MemoryKind::default()
}

/// What the daemon says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    /// The session has begun. The ring's file descriptor travels with this message's first byte, unless it is a named segment.
    Opened(Opened),
    /// The session or request is refused; nothing has changed.
    Refused(Refused),
    /// The daemon ends the session.
    Ended(Ended),
    /// The client's `close` is done.
    Closed(FrameCounts),
    /// The answer to `status`: the JSON of `/api/v1/streams`.
    Status {
        /// As at `/api/v1/streams`.
        status: serde_json::Value,
    },
    /// An administrative request was carried out.
    Done {},
    /// What a reload has changed, or would change.
    Reloaded {
        /// The config's path.
        config: String,
        /// `{"streams": {NAME: {"action": ..., "keys": [...]}}, "next_start": [...]}`
        changes: serde_json::Value,
    },
}

/// The fields of [`Reply::Opened`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The session's number, unique in the daemon's life.
    pub session: u64,
    /// The size of the ring's memory, all of it to be mapped.
    pub memory_bytes: u64,
    /// How many slots the ring has.
    pub slots: u32,
    /// The named segment to open, the file's name in /dev/shm, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The stream's framerate, numerator.
    pub framerate_num: NonZeroU32,
    /// The stream's framerate, denominator.
    pub framerate_den: NonZeroU32,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The client speaks another version of the protocol.
    ProtocolMismatch,
    /// The line was no request: not JSON, an unknown type or field, too long.
    BadRequest,
    /// No stream has this name.
    UnknownStream,
    /// No pixel format, or none of sound, has this name.
    UnknownFormat,
    /// The size, strides, rate, channels or slots can't be had.
    BadSize,
    /// Another producer holds the stream.
    StreamBusy,
    /// The peer may not do this.
    NotPermitted,
    /// Memory, descriptors or another resource ran out.
    OutOfResources,
    /// The daemon is stopping.
    Stopping,
    /// The request came at the wrong time: a second open, a close without a session.
    OutOfOrder,
    /// The config that should be taken is wrong; nothing has changed.
    BadConfig,
}

/// The fields of [`Reply::Refused`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For programs.
    pub code: RefusalCode,
    /// For people: what was wrong and how to mend it.
    pub message: String,
    /// With [`RefusalCode::StreamBusy`]: who holds the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder_pid: Option<i32>,
}

/// Why the daemon ends a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndCode {
    /// The daemon is stopping; reconnect with backoff.
    Stopping,
    /// Another producer took the stream over; do not reconnect by yourself.
    TakenOver,
    /// The ring's memory held an impossible value.
    RingCorrupt,
    /// The stream was removed from the config or restarts with another.
    StreamGone,
}

/// The fields of [`Reply::Ended`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// For programs.
    pub code: EndCode,
    /// For people.
    pub message: String,
}

/// What became of a session's committed frames, or blocks of sound, counted by the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameCounts {
    /// Shown by a tick, or heard.
    pub used: u64,
    /// Passed over for a newer one, by the daemon or by the producer's own ring being full.
    pub superseded: u64,
    /// Committed when the session had already ended.
    pub late: u64,
}
