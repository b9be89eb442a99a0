//! What `/api/v1/streams` answers and `ringgear status` shows: plain numbers, read by programs and people.

use serde::{Deserialize, Serialize};

/// The answer of `/api/v1/streams`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamsStatus {
    /// The daemon's version.
    pub version: String,
    /// The time on the daemon's anchor, RFC 3339.
    pub time: String,
    /// How long the daemon has run.
    pub uptime_seconds: f64,
    /// Every stream of the config, by name.
    pub streams: Vec<StreamStatus>,
}

/// What a stream is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamState {
    /// No producer has come yet, so nothing is known to encode.
    Waiting,
    /// The encoders are being tried and started.
    Starting,
    /// Frames come in and are published.
    Live,
    /// No fresh frame for `stale_after`: the slate is published.
    NoSignal,
    /// The encoder has failed so often that it is tried only now and then.
    Failed,
    /// Stopping or stopped.
    Ended,
}

impl std::fmt::Display for StreamState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Live => "live",
            Self::NoSignal => "no signal",
            Self::Failed => "failed",
            Self::Ended => "ended",
        })
    }
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: StreamState,
    /// Why it failed or waits, for people; absent when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// `live`, `event` or `vod`.
    pub mode: String,
    /// `30` or `30000/1001`; of a copied stream the source's, empty before that is known.
    pub framerate: String,
    /// When its first tick of this run was fed, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// How often it was started again after a fault in its own code.
    #[serde(default)]
    pub restarts: u64,
    /// What feeds it, where that is no producer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
    /// Who feeds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionStatus>,
    /// What became of the frames of all sessions.
    pub frames: FrameStatus,
    /// What the ticks showed.
    pub ticks: TickStatus,
    /// The encoder process.
    pub encoder: EncoderStatus,
    /// The tracks.
    pub renditions: Vec<RenditionStatus>,
    /// Of a stream that records: the recording under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<String>,
    /// Of a stream that records: its recordings, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recordings: Vec<String>,
    /// What is kept of its past; absent for a stream of which nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordStatus>,
    /// The sound; absent for a stream without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio: Option<AudioStatus>,
    /// What viewers may fetch.
    pub window: WindowStatus,
    /// How long frames take on their way.
    #[serde(default)]
    pub latency: LatencyStatus,
    /// Whether this is what viewers see, where administrators see more: what is absent may be there. Absent where all is told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restricted: bool,
}

impl StreamStatus {
    /// What of it is for viewers, where administrators see more: nothing of processes, users, sources and their errors.
    #[must_use]
    pub fn for_viewers(self) -> Self {
        let audio = self.audio.map(|audio| AudioStatus {
            source: String::new(),
            detail: None,
            session: None,
            encoder_pid: None,
            source_pid: None,
            ..audio
        });
        let renditions = self.renditions.into_iter();
        Self {
            detail: None,
            source: None,
            session: None,
            encoder: EncoderStatus {
                pid: None,
                last_error: Vec::new(),
                ..self.encoder
            },
            renditions: renditions
                .map(|rendition| RenditionStatus {
                    fallback: None,
                    ..rendition
                })
                .collect(),
            audio,
            record: self.record.map(|record| RecordStatus {
                error: None,
                ..record
            }),
            restricted: true,
            ..self
        }
    }
}

/// What is kept of a live stream's past.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordStatus {
    /// Why nothing is recorded, with the mend; absent when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When what is kept begins, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
    /// When it ends, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,
    /// Segments that are kept, in each track.
    pub segments: u64,
    /// The bytes of all of them.
    pub bytes: u64,
    /// How much is missing since the start because the disk was too slow or full.
    pub missed_seconds: f64,
}

/// A stream's sound.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AudioStatus {
    /// What it is read from.
    pub source: String,
    /// Whether something comes from there; else there is silence.
    pub playing: bool,
    /// Why not, for people; absent when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How much faster the source's clock runs than ours, in millionths; 0 for a file, which is read at our pace.
    pub drift_ppm: f64,
    /// How often the sound was moved at once, because it was further off than a clock can drift.
    pub jumps: u64,
    /// How often the source was begun again.
    pub source_restarts: u64,
    /// How often the encoder was started again.
    pub encoder_restarts: u64,
    /// Who feeds it, where that is a producer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SoundSessionStatus>,
    /// The encoder's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder_pid: Option<u32>,
    /// The process that reads the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_pid: Option<u32>,
}

/// The session of a producer of sound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoundSessionStatus {
    /// Its number.
    pub id: u64,
    /// The producer's process, as the kernel says.
    pub pid: i32,
    /// The producer's user, as the kernel says.
    pub uid: u32,
    /// The client's name and version, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// How its samples are stored.
    pub format: String,
    /// Samples a second.
    pub rate: u32,
    /// How many channels a sample has.
    pub channels: u32,
    /// When it was opened, RFC 3339.
    pub opened: String,
    /// Blocks committed by the producer in this session.
    pub committed: u64,
    /// Blocks that were passed over, because it committed more than is heard, or the daemon was late.
    pub superseded: u64,
    /// Capture times that can't be, so that the block counted as heard when it came.
    pub disbelieved: u64,
}

/// How long frames take, since the stream's start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyStatus {
    /// From a tick's deadline until its picture is given to the encoder; 0 for one that is given before it.
    pub tick_lateness: Distribution,
    /// From a picture's way into the encoder until the last rendition's sample has come out.
    pub encoder_delay: Distribution,
    /// From the commit of a part's first frame (or its capture, where the producer says when that was) until viewers can fetch the part:
    /// its own length, and all that is added. A repeated picture counts from its tick. One count for each part of each rendition.
    pub commit_to_part: Distribution,
}

/// Durations as a histogram.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many.
    pub count: u64,
    /// All of them together.
    pub sum_seconds: f64,
    /// Half of them are shorter: an estimate within its bucket, as the two below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_seconds: Option<f64>,
    /// 95 % of them are shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_seconds: Option<f64>,
    /// 99 % of them are shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_seconds: Option<f64>,
    /// How many are at most so long, by rising bounds.
    pub buckets: Vec<Bucket>,
}

/// How many durations are at most so long.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// The bound; none in the last bucket, which counts all.
    pub le_seconds: Option<f64>,
    /// How many, those of the buckets before included.
    pub count: u64,
}

/// The producer's session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Its number.
    pub id: u64,
    /// The producer's process, as the kernel says.
    pub pid: i32,
    /// The producer's user, as the kernel says.
    pub uid: u32,
    /// The client's name and version, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The frames' format.
    pub format: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// When it was opened, RFC 3339.
    pub opened: String,
    /// Frames committed by the producer in this session.
    pub committed: u64,
}

/// What a source is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// FFmpeg opens it.
    #[default]
    Connecting,
    /// Pictures come.
    Running,
    /// It has failed, and is opened again soon.
    Waiting,
    /// It came to its end, and is not opened again.
    Ended,
}

impl std::fmt::Display for SourceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Ended => "ended",
        })
    }
}

/// A stream's source, and what FFmpeg has found in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// The file, device or URL, without passwords.
    pub source: String,
    /// What it is doing.
    pub state: SourceState,
    /// FFmpeg's process, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How often it was opened and gave pictures.
    pub openings: u64,
    /// How often it has failed.
    pub failures: u64,
    /// When it is opened again, RFC 3339, while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<String>,
    /// Why it gives no pictures, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// FFmpeg's last complaints when it last ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_error: Vec<String>,
    /// The container or protocol, by FFmpeg's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The pictures' codec, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// The codec of its sound, likewise; absent for what has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_codec: Option<String>,
    /// How they are stored there, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_format: Option<String>,
    /// The size that they have here, in pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// How many it has a second, as far as FFmpeg can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framerate: Option<f64>,
    /// How far apart its keyframes are at most, if it is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyframe_seconds: Option<f64>,
    /// How long it is, if it has an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
}

/// Frames: `received` = `used` + `superseded` + `late` + those waiting in the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FrameStatus {
    /// Committed by producers.
    pub received: u64,
    /// Shown by a tick.
    pub used: u64,
    /// Passed over for a newer one.
    pub superseded: u64,
    /// Committed after their session's end.
    pub late: u64,
    /// Fresh frames per second over the last seconds.
    pub per_second: f64,
}

/// Ticks: `total` = `fresh` + `repeated` + `slate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TickStatus {
    /// Ticks fed.
    pub total: u64,
    /// With a frame of their own.
    pub fresh: u64,
    /// With the picture before.
    pub repeated: u64,
    /// With the slate.
    pub slate: u64,
    /// Fed after the next tick's deadline.
    pub overdue: u64,
    /// Never fed, nor backfilled.
    pub missed: u64,
    /// The newest tick fed.
    pub last: u64,
}

/// The encoder process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EncoderStatus {
    /// Its process, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u64,
    /// Pictures given to it and not yet returned as samples.
    pub pending: u64,
    /// Picture in to the last rendition's sample out, mean over the last second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_seconds: Option<f64>,
    /// Pictures shown again because more waited for the encoder than memory is kept for.
    pub replaced: u64,
    /// Ticks that show the slate instead of their picture, because the encoder had failed. They are not `missed`.
    #[serde(default)]
    pub slate: u64,
    /// Ticks that show the picture before, because the encoder is too slow for all of them.
    #[serde(default)]
    pub skipped: u64,
    /// Pictures that it is given a second, while those are fewer than the framerate's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduced_to_per_second: Option<f64>,
    /// What it was measured to reach, while that is too little: `720p at veryfast reaches 21 of 30 fps here`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub too_slow: Option<String>,
    /// How often it has failed in a row; the stream is `failed` after as many as the config says.
    #[serde(default)]
    pub failures: u64,
    /// When it is started again, RFC 3339, while it does not run because it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<String>,
    /// FFmpeg's last words when it last died.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_error: Vec<String>,
}

/// One rendition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RenditionStatus {
    /// Its name; its folder.
    pub name: String,
    /// The encoder that is used.
    pub codec: String,
    /// Why that is the fallback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// RFC 6381, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codecs: Option<String>,
    /// Pixels, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// What the config asks for, if it names a bitrate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured_bits_per_second: Option<u64>,
    /// Measured over the window.
    pub average_bits_per_second: u64,
    /// The window's highest segment.
    pub peak_bits_per_second: u64,
}

/// The window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowStatus {
    /// The first listed segment.
    pub first_segment: u64,
    /// The last listed segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_segment: Option<u64>,
    /// Listed segments.
    pub segments: u64,
    /// What the listed segments last.
    pub seconds: f64,
    /// Bytes of all tracks, retained segments included.
    pub bytes: u64,
    /// Requests answered with media or a playlist in the last ten seconds, by distinct client address.
    pub viewers: u64,
    /// When the first picture of the newest part was captured, as RFC 3339 has it: how old what viewers get is. Of a picture that is
    /// shown again, the time of its tick. Ticks that were missed while the daemon was away don't count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_captured: Option<String>,
}
