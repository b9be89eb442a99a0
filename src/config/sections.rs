//! The config's tables as TOML has them: their keys, and each key's kind and range.

use std::net::SocketAddr;

use ringgear_producer::messages::MAX_LINE;
use ringgear_ring::layout::MAX_MEMORY_BYTES;
use serde::Deserialize;
use toml::Spanned;

use super::access::{Hidden, HiddenList};
use super::feeders::List;
use super::table::Entries;
use super::value::{Bits, Bytes, Flag, Length, Mode, Read, Text, Whole};
use crate::network::Network;
use crate::picture::Size;
use crate::tick::Framerate;

/// A key's value and where it stands.
pub(super) type Entry<T> = Option<Spanned<Read<T>>>;

/// A list of texts, each with its place.
pub(super) type TextList = Spanned<Vec<Spanned<Read<Text>>>>;

/// The tables of the file.
pub(super) const ROOT: [&str; 6] = ["daemon", "http", "publish", "ffmpeg", "limits", "streams"];

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Daemon {
    pub(super) socket: Entry<Text>,
    pub(super) socket_mode: Entry<Mode>,
    pub(super) tick_log: Entry<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Http {
    pub(super) listen: Entry<SocketAddr>,
    pub(super) allow_anyone: Entry<Flag>,
    pub(super) admin_listen: Entry<SocketAddr>,
    pub(super) admin_token_file: Entry<Text>,
    pub(super) tls_certificate: Entry<Text>,
    pub(super) tls_key: Entry<Text>,
    pub(super) trusted_proxies: Option<Spanned<Vec<Spanned<Read<Network>>>>>,
    pub(super) connections: Entry<Whole<64, 65_536>>,
    pub(super) connections_per_address: Entry<Whole<1, 65_536>>,
    pub(super) requests_per_second: Entry<Whole<10, 1_000_000>>,
    pub(super) header_bytes: Entry<Bytes<8192, { 1 << 20 }>>,
    pub(super) header_timeout: Entry<Length<1_000, 600_000>>,
    pub(super) stall_timeout: Entry<Length<1_000, 600_000>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Publish {
    pub(super) dir: Entry<Text>,
    pub(super) keep_free: Entry<Bytes<0, { 1 << 40 }>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Ffmpeg {
    pub(super) path: Entry<Text>,
    pub(super) failures: Entry<Whole<2, 100>>,
    pub(super) failures_within: Entry<Length<1_000, 3_600_000>>,
    pub(super) retry_every: Entry<Length<1_000, 3_600_000>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) connections: Entry<Whole<8, 4096>>,
    pub(super) connections_per_user: Entry<Whole<1, 4096>>,
    pub(super) connections_per_second: Entry<Whole<10, 100_000>>,
    pub(super) message_bytes: Entry<Bytes<1024, { MAX_LINE as u64 }>>,
    pub(super) messages_per_second: Entry<Whole<1, 10_000>>,
    pub(super) idle_timeout: Entry<Length<1_000, 3_600_000>>,
    pub(super) sessions_per_user: Entry<Whole<1, 4096>>,
    pub(super) sessions_per_second: Entry<Whole<1, 10_000>>,
    pub(super) frame_pixels: Entry<Whole<4, { 1 << 28 }>>,
    pub(super) memory_per_session: Entry<Bytes<{ 1 << 20 }, { MAX_MEMORY_BYTES as u64 }>>,
    pub(super) memory_per_user: Entry<Bytes<{ 1 << 20 }, { 1 << 40 }>>,
    pub(super) memory: Entry<Bytes<{ 1 << 20 }, { 1 << 40 }>>,
    pub(super) replay_memory: Entry<Bytes<{ 1 << 20 }, { 1 << 40 }>>,
    pub(super) window_memory: Entry<Bytes<{ 1 << 20 }, { 1 << 40 }>>,
    pub(super) picture_memory: Entry<Bytes<{ 1 << 20 }, { 1 << 40 }>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Stream {
    pub(super) framerate: Entry<Framerate>,
    pub(super) mode: Entry<Text>,
    pub(super) segment: Entry<Length<500, 20_000>>,
    pub(super) part: Entry<Length<100, 1_000>>,
    pub(super) window: Entry<Length<3_000, 3_600_000>>,
    pub(super) stale_after: Entry<Length<1, 3_600_000>>,
    pub(super) slack: Entry<Whole<0, 4>>,
    pub(super) pace: Entry<Text>,
    pub(super) backfill: Entry<Length<0, 60_000>>,
    pub(super) encoder_timeout: Entry<Length<100, 60_000>>,
    pub(super) degrade: Entry<Text>,
    pub(super) max_bytes: Entry<Bytes<{ 1 << 20 }, { 1 << 40 }>>,
    pub(super) formats: Option<TextList>,
    pub(super) at_exit: Entry<Text>,
    pub(super) source: Entry<Text>,
    pub(super) input_args: Option<Spanned<Vec<Spanned<Read<Text>>>>>,
    pub(super) source_loop: Option<Spanned<bool>>,
    pub(super) source_timeout: Entry<Length<1_000, 600_000>>,
    pub(super) allow_users: List,
    pub(super) allow_groups: List,
    pub(super) tokens: HiddenList,
    pub(super) token_file: Entry<Text>,
    pub(super) signing_key: Option<Spanned<Hidden>>,
    pub(super) signing_key_file: Entry<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rendition {
    pub(super) name: Entry<Text>,
    pub(super) size: Entry<Size>,
    pub(super) framerate: Entry<Framerate>,
    pub(super) bitrate: Entry<Bits>,
    pub(super) crf: Entry<Whole<0, 63>>,
    pub(super) codec: Entry<Text>,
    pub(super) device: Entry<Text>,
    pub(super) fallback: Entry<Text>,
    pub(super) preset: Entry<Text>,
    pub(super) filter: Entry<Text>,
    pub(super) output_args: Option<TextList>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Audio {
    pub(super) source: Entry<Text>,
    pub(super) input_args: Option<Spanned<Vec<Spanned<Read<Text>>>>>,
    pub(super) r#loop: Entry<Flag>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Record {
    pub(super) keep: Entry<Length<60_000, 315_360_000_000>>,
    pub(super) max_bytes: Entry<Bytes<{ 1 << 20 }, { 1 << 50 }>>,
    pub(super) dir: Entry<Text>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AudioRendition {
    pub(super) name: Entry<Text>,
    pub(super) codec: Entry<Text>,
    pub(super) bitrate: Entry<Bits>,
}

impl Entries for Daemon {}
impl Entries for Http {}
impl Entries for Publish {}
impl Entries for Ffmpeg {}
impl Entries for Limits {}
impl Entries for Stream {
    const TABLES: &'static [&'static str] = &["renditions", "audio", "record"];
}
impl Entries for Audio {
    const TABLES: &'static [&'static str] = &["renditions"];
}
impl Entries for AudioRendition {}
impl Entries for Record {}
impl Entries for Rendition {
    const TABLES: &'static [&'static str] = &["options"];
}
