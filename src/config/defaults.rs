//! Every default of the config. `config/ringgear.toml` and `docs/config.md` are tested against this file.

use std::time::Duration;

use super::{AudioCodec, BreakerPlan, Limits, ViewerLimits};
use crate::tick::Framerate;

/// The config that is read when none is named.
pub const CONFIG: &str = "/etc/ringgear/ringgear.toml";
/// `[daemon] socket`.
pub const SOCKET: &str = ringgear_producer::messages::DEFAULT_SOCKET;
/// `[daemon] socket_mode`: the owner and the group may connect.
pub const SOCKET_MODE: u32 = 0o660;
/// `[http] listen`: this machine alone.
pub const LISTEN: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// What viewers may use up: no more than an office behind one address needs.
pub const VIEWER_LIMITS: ViewerLimits = ViewerLimits {
    trusted_proxies: Vec::new(),
    connections: 4096,
    connections_per_address: 512,
    requests_per_second: 1000,
    header_bytes: 32 << 10,
    header_timeout: Duration::from_secs(30),
    stall_timeout: Duration::from_secs(30),
};
/// `[publish] dir`.
pub const PUBLISH_DIR: &str = "/var/lib/ringgear/live";
/// `[publish] keep_free`: enough for the rest of the machine to go on logging.
pub const KEEP_FREE: u64 = 64 << 20;
/// `[ffmpeg] path`: looked up in `$PATH`.
pub const FFMPEG: &str = "ffmpeg";
/// `[ffmpeg] failures`, `failures_within` and `retry_every`.
pub const BREAKER: BreakerPlan = BreakerPlan {
    failures: 5,
    within: Duration::from_secs(60),
    retry_every: Duration::from_secs(60),
};

/// `[limits]`: room for every camera of a big house, and too little of anything to starve the machine.
pub const LIMITS: Limits = Limits {
    connections: 256,
    connections_per_user: 128,
    connections_per_second: 100,
    message_bytes: ringgear_producer::messages::MAX_LINE,
    messages_per_second: 20,
    idle_timeout: Duration::from_secs(60),
    sessions_per_user: 64,
    sessions_per_second: 20,
    frame_pixels: 4096 * 2160,
    memory_per_session: 256 << 20,
    memory_per_user: 1 << 30,
    memory: 2 << 30,
    replay_memory: None,
    window_memory: 1 << 30,
    picture_memory: 2 << 30,
};

/// `segment`.
pub const SEGMENT: Duration = Duration::from_secs(2);
/// `segment` of a recording, whose playlists name every segment from its beginning on.
pub const RECORDED_SEGMENT: Duration = Duration::from_secs(6);
/// `window`, or [`super::MIN_SEGMENTS`] segments where that is longer.
pub const WINDOW: Duration = Duration::from_secs(30);
/// `stale_after`.
pub const STALE_AFTER: Duration = Duration::from_secs(2);
/// `slack`.
pub const SLACK: u32 = 1;
/// `backfill`.
pub const BACKFILL: Duration = Duration::from_secs(5);
/// `source_timeout`: longer than a camera takes to begin, shorter than people take to wonder.
pub const SOURCE_TIMEOUT: Duration = Duration::from_secs(10);
/// `encoder_timeout`.
pub const ENCODER_TIMEOUT: Duration = Duration::from_millis(500);
/// How long an encoder takes at most from its start to its first sample, on a machine that is not overloaded: so many pictures
/// are kept for it where `replay_memory` is not given.
pub const ENCODER_START: Duration = Duration::from_millis(2500);

/// The name of the rendition that a stream without any gets.
pub const RENDITION: &str = "source";
/// `codec`.
pub const CODEC: &str = "libx264";

/// The `codec` that is none: the source's pictures are published as they are.
pub const COPY: &str = "copy";

/// `loop` of `audio`.
pub const AUDIO_LOOP: bool = true;
/// The name of the audio rendition of a stream that names none.
pub const AUDIO_RENDITION: &str = "audio";
/// `codec` of an audio rendition: what every player has.
pub const AUDIO_CODEC: AudioCodec = AudioCodec::Aac;
/// `bitrate` of an audio rendition.
pub const AUDIO_BITRATE: u64 = 128_000;

/// `keep` of `record`.
pub const RECORD_KEEP: Duration = Duration::from_secs(86_400);
/// The folder in a stream's own where its recordings are if `record` names no other, and the path that they have at the origin.
pub const RECORD_FOLDER: &str = "recordings";

/// `part` of a copied stream, whose source's pictures say how near to that its parts can be.
pub const PART: Duration = Duration::from_millis(333);

/// `part`: 333 ms, or one tick where that is longer.
pub fn part(framerate: Framerate) -> Duration {
    PART.max(framerate.duration_of(1))
}

/// `preset` of `codec`; none for an encoder whose presets we don't know.
pub fn preset(codec: &str) -> Option<&'static str> {
    match codec {
        "libx264" | "libx265" => Some("veryfast"),
        "libsvtav1" => Some("10"),
        _ => None,
    }
}

/// `crf` of `codec`: about the same quality from each encoder; none for one that has no such scale.
pub fn crf(codec: &str) -> Option<u8> {
    match codec {
        "libx264" => Some(23),
        "libx265" => Some(28),
        "libsvtav1" => Some(35),
        "libaom-av1" | "libvpx-vp9" => Some(32),
        _ => None,
    }
}
