//! The checked config: what the rest of the house works from. Every value in it is possible.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::{AudioPlan, AudioRenditionPlan, Feeders, HttpPlan, RecordPlan, SourcePlan};
use crate::access::Access;
use crate::picture::Size;
use crate::tick::Grid;
use crate::window::Mode;

/// The whole config, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The control socket's path.
    pub socket: PathBuf,
    /// The control socket's permission bits.
    pub socket_mode: u32,
    /// Where to write a log of which frame each tick took, one `{stream}.csv` each; for tests.
    pub tick_log: Option<PathBuf>,
    /// Where the origin listens.
    pub listen: SocketAddr,
    /// Whom it serves.
    pub http: HttpPlan,
    /// The certificate that the origin has, if it speaks TLS.
    pub tls: Option<TlsPlan>,
    /// The folder that holds one folder per stream.
    pub publish_dir: PathBuf,
    /// What stays free on that folder's file system, in bytes; 0 for all that there is.
    pub keep_free: u64,
    /// The FFmpeg program: a path, or a name to be looked up in `$PATH`.
    pub ffmpeg: PathBuf,
    /// When encoders that fail are started again.
    pub breaker: BreakerPlan,
    /// What clients of the control socket may use up.
    pub limits: Limits,
    /// The streams by name.
    pub streams: BTreeMap<String, StreamPlan>,
}

/// The origin's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPlan {
    /// A PEM file: the certificate, then those that lead to its authority.
    pub certificate: PathBuf,
    /// A PEM file: its private key.
    pub key: PathBuf,
}

/// What clients of the control socket may use up. Users are told apart by the kernel's word for their uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that are open at once, in all.
    pub connections: u32,
    /// The same of one user.
    pub connections_per_user: u32,
    /// New connections of one user in a second, once it has made as many as it may have at once; more are turned away.
    pub connections_per_second: u32,
    /// A message's bytes, its newline included.
    pub message_bytes: usize,
    /// Messages in a second on one connection.
    pub messages_per_second: u32,
    /// How long a connection without a session may ask for nothing.
    pub idle_timeout: Duration,
    /// Sessions of one user at once.
    pub sessions_per_user: u32,
    /// Sessions that one user may begin in a second, once it has begun as many as it may have at once.
    pub sessions_per_second: u32,
    /// The pixels of one frame.
    pub frame_pixels: u32,
    /// The bytes of one session's ring.
    pub memory_per_session: u64,
    /// The bytes of all rings of one user.
    pub memory_per_user: u64,
    /// The bytes of all rings.
    pub memory: u64,
    /// The bytes of the pictures that one stream keeps for its encoder's restart; none for those of [`StreamPlan::replay`].
    pub replay_memory: Option<u64>,
    /// The bytes of what the windows of all streams hold.
    pub window_memory: u64,
    /// The bytes of the pictures that all streams keep for their encoders' restarts.
    pub picture_memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        super::defaults::LIMITS
    }
}

/// When an encoder that fails is started again: soon at first, and only now and then once it has failed too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPlan {
    /// So many failures...
    pub failures: u32,
    /// ...within this time make a stream `failed`.
    pub within: Duration,
    /// How often the encoder of a failed stream is tried.
    pub retry_every: Duration,
}

impl BreakerPlan {
    /// The pause after the second failure in a row; each further one doubles it.
    const FIRST_PAUSE: Duration = Duration::from_millis(250);
    /// No pause before a stream is `failed` is longer.
    pub const LONGEST_PAUSE: Duration = Duration::from_secs(8);

    /// How long to wait for the next start after so many failures in a row, while the stream is not `failed`.
    pub fn pause(&self, in_a_row: u32) -> Duration {
        match in_a_row {
            0 | 1 => Duration::ZERO,
            failures => {
                (Self::FIRST_PAUSE * (1 << (failures - 2).min(10))).min(Self::LONGEST_PAUSE)
            }
        }
    }

    /// How long it takes at least until a stream is `failed`.
    pub fn pauses(&self) -> Duration {
        (1..self.failures)
            .map(|failures| self.pause(failures))
            .sum()
    }
}

/// One stream, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPlan {
    /// Its name, fit for a path and a URL.
    pub name: String,
    /// Whether it is live or recorded.
    pub mode: Mode,
    /// Its framerate, segment and part length.
    pub grid: Grid,
    /// What the playlists list.
    pub window: Duration,
    /// How long the last picture is repeated before the slate is shown.
    pub stale_after: Duration,
    /// How many newer frames may wait while an older one is taken.
    pub slack: u32,
    /// When a tick takes its frame.
    pub pace: Pace,
    /// How much missed time is encoded afterwards.
    pub backfill: Duration,
    /// How long the encoder may return nothing though it was fed.
    pub encoder_timeout: Duration,
    /// What is done when the encoder is too slow for the framerate.
    pub degrade: Degrade,
    /// What its media files may take on the disk, in bytes; none for what the window needs.
    pub max_bytes: Option<u64>,
    /// Whether HLS playlists are made.
    pub hls: bool,
    /// Whether DASH manifests are made.
    pub dash: bool,
    /// What a stop of the daemon does to the window.
    pub at_exit: AtExit,
    /// Who may feed it.
    pub feeders: Feeders,
    /// Who may watch it.
    pub access: Access,
    /// Where its pictures come from; none: from producers.
    pub source: Option<SourcePlan>,
    /// Its renditions in the order of the config; at least one.
    pub renditions: Vec<RenditionPlan>,
    /// Its sound; none for a stream without.
    pub audio: Option<AudioPlan>,
    /// What of a live stream is kept; none for nothing.
    pub record: Option<RecordPlan>,
}

impl StreamPlan {
    /// The time whose pictures are kept beside those that the encoder holds, so that its death loses none: until it is noticed,
    /// and until another one has started.
    pub fn replay(&self) -> Duration {
        self.encoder_timeout + super::defaults::ENCODER_START
    }

    /// Whether its source is published as it is, without being encoded.
    pub fn copies(&self) -> bool {
        let mut renditions = self.renditions.iter();
        renditions.any(|rendition| rendition.codec == super::defaults::COPY)
    }

    /// The video encoders that it can't do without: a codec that has a fallback may be missing.
    pub fn needed_encoders(&self) -> impl Iterator<Item = &str> {
        let encoded = self.renditions.iter().filter(|_| !self.copies());
        encoded.map(|rendition| {
            rendition
                .fallback
                .as_ref()
                .unwrap_or(&rendition.codec)
                .as_str()
        })
    }

    /// How long a segment stays in memory: while the playlists list it, and as long again for players that have it in theirs.
    pub fn retention(&self) -> Duration {
        let grid = &self.grid;
        let segment = grid
            .framerate
            .duration_of(u64::from(grid.ticks_per_segment.get()));
        2 * self.window + 4 * segment
    }

    /// The encoders that its sound can't do without.
    pub fn needed_audio_encoders(&self) -> impl Iterator<Item = String> {
        let renditions = self.audio_renditions().iter();
        renditions.filter_map(|rendition| rendition.codec.needed())
    }

    /// Its audio renditions, in the order of the config.
    pub fn audio_renditions(&self) -> &[AudioRenditionPlan] {
        self.audio.as_ref().map_or(&[], |audio| &audio.renditions)
    }

    /// Where its sound comes from, as people may see it, if it has any.
    pub fn sound_from(&self) -> Option<String> {
        let audio = self.audio.as_ref()?;
        let pictures = || self.source.as_ref().map(|source| source.input.shown());
        audio.shown().or_else(pictures)
    }

    /// The names of its tracks: the video's, then those of audio.
    pub fn track_names(&self) -> Vec<String> {
        let video = self.renditions.iter().map(|rendition| &rendition.name);
        let audio = self.audio_renditions().iter();
        video
            .chain(audio.map(|rendition| &rendition.name))
            .cloned()
            .collect()
    }

    /// The bytes that its window holds by the bitrates that the config names; renditions without one are not in it.
    pub fn window_bytes(&self) -> u64 {
        let bits = self
            .renditions
            .iter()
            .map(|rendition| match rendition.rate {
                RateControl::Bitrate(bits) => u128::from(bits),
                RateControl::Crf(_) => 0,
            });
        let audio = self.audio_renditions().iter();
        let audio = audio.map(|rendition| u128::from(rendition.bitrate));
        let bytes = bits.chain(audio).sum::<u128>() * self.retention().as_millis() / 8000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// When a tick takes its frame. With none, its deadline is when it begins, in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// At its deadline: frames reach the encoder as evenly as the clock ticks.
    #[default]
    Tick,
    /// As soon as one arrives, from the deadline of the tick before on.
    Arrival,
}

/// What is done when an encoder is too slow for its stream's framerate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Degrade {
    /// It is given every second picture, or every fourth, each of which is shown longer, until it can do more again.
    #[default]
    Skip,
    /// It is only told of. Ticks that come too late are left out.
    Off,
}

/// What a stop of the daemon does to a stream's window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtExit {
    /// The window stays as it is, so that a restart goes on from it unnoticed.
    #[default]
    Keep,
    /// The stream ends: EXT-X-ENDLIST, a static MPD.
    End,
}

/// One rendition, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenditionPlan {
    /// Its name, fit for a path and a URL; its folder.
    pub name: String,
    /// The encoded size, even; none for the source's (padded to even).
    pub size: Option<Size>,
    /// How many ticks each of its samples lasts: 1 at the stream's framerate.
    pub every: NonZeroU32,
    /// FFmpeg's name of the encoder.
    pub codec: String,
    /// Which of several hardware encoders it is.
    pub device: Option<String>,
    /// The encoder that takes over when that one does not work.
    pub fallback: Option<String>,
    /// The encoder's preset, if it has any.
    pub preset: Option<String>,
    /// Bits per second or constant quality.
    pub rate: RateControl,
    /// More encoder options, name and value, after ours.
    pub options: Vec<(String, String)>,
    /// What its pictures go through before they are scaled: FFmpeg's filters, a chain.
    pub filter: Option<String>,
    /// FFmpeg's output options and their values in turn, after all others.
    pub output_args: Vec<String>,
}

impl RenditionPlan {
    /// This rendition with its fallback in place of its codec, and that one's own preset and quality; none without a fallback.
    /// The device, the options and the output's are left out: they are the other encoder's.
    pub fn fallen_back(&self) -> Option<Self> {
        let codec = self.fallback.clone()?;
        let rate = match self.rate {
            RateControl::Bitrate(bits) => RateControl::Bitrate(bits),
            RateControl::Crf(_) => RateControl::Crf(super::defaults::crf(&codec)?),
        };
        Some(Self {
            preset: super::defaults::preset(&codec).map(Into::into),
            codec,
            device: None,
            fallback: None,
            rate,
            options: Vec::new(),
            output_args: Vec::new(),
            ..self.clone()
        })
    }
}

/// How an encoder spends bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateControl {
    /// At most this many bits per second, held by maxrate and bufsize.
    Bitrate(u64),
    /// Constant quality, the encoder's own scale.
    Crf(u8),
}
