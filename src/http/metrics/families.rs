//! What each stream has, by name. Prometheus' base units: seconds, bytes, ratios; times are seconds since the epoch.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::proto::{Metric, MetricType};

use super::{counter, gauge, histogram};
use crate::status::{
    AudioStatus, RecordStatus, RenditionStatus, SessionStatus, SoundSessionStatus, SourceState,
    SourceStatus, StreamState, StreamStatus,
};

const STATES: [(StreamState, &str); 6] = [
    (StreamState::Waiting, "waiting"),
    (StreamState::Starting, "starting"),
    (StreamState::Live, "live"),
    (StreamState::NoSignal, "no_signal"),
    (StreamState::Failed, "failed"),
    (StreamState::Ended, "ended"),
];

const SOURCE_STATES: [(SourceState, &str); 4] = [
    (SourceState::Connecting, "connecting"),
    (SourceState::Running, "running"),
    (SourceState::Waiting, "waiting"),
    (SourceState::Ended, "ended"),
];

/// What each stream has of one name.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricType,
    pub(super) metrics: fn(&StreamStatus) -> Vec<Metric>,
}

/// What a metric can be: nothing, where there is nothing to tell.
trait Number {
    fn number(self) -> Option<f64>;
}

impl Number for f64 {
    fn number(self) -> Option<f64> {
        Some(self)
    }
}

impl Number for u32 {
    fn number(self) -> Option<f64> {
        Some(f64::from(self))
    }
}

impl Number for u64 {
    fn number(self) -> Option<f64> {
        Some(self as f64)
    }
}

impl Number for usize {
    fn number(self) -> Option<f64> {
        Some(self as f64)
    }
}

impl Number for bool {
    fn number(self) -> Option<f64> {
        Some(f64::from(u8::from(self)))
    }
}

impl<T: Number> Number for Option<T> {
    fn number(self) -> Option<f64> {
        self?.number()
    }
}

/// A family with at most one metric for each stream.
macro_rules! one {
    ($kind:ident, $metric:ident, $name:literal, $help:literal, $value:expr) => {
        Family {
            name: $name,
            help: $help,
            kind: MetricType::$kind,
            metrics: |stream| {
                let value = $value(stream).number();
                let metric = |value| $metric(&[("stream", &stream.name)], value);
                value.map(metric).into_iter().collect()
            },
        }
    };
}

/// What only rises.
macro_rules! count {
    ($name:literal, $help:literal, |$stream:ident| $value:expr) => {
        one!(COUNTER, counter, $name, $help, |$stream: &StreamStatus| {
            $value
        })
    };
}

/// What rises and falls.
macro_rules! level {
    ($name:literal, $help:literal, |$stream:ident| $value:expr) => {
        one!(GAUGE, gauge, $name, $help, |$stream: &StreamStatus| $value)
    };
}

/// The same for each rendition.
macro_rules! rendition {
    ($name:literal, $help:literal, |$rendition:ident| $value:expr) => {
        Family {
            name: $name,
            help: $help,
            kind: MetricType::GAUGE,
            metrics: |stream| {
                let metric = |$rendition: &RenditionStatus| {
                    let labels = [
                        ("stream", stream.name.as_str()),
                        ("rendition", $rendition.name.as_str()),
                    ];
                    $value.number().map(|value| gauge(&labels, value))
                };
                stream.renditions.iter().filter_map(metric).collect()
            },
        }
    };
}

/// 1, with words in labels; nothing, where there are none.
macro_rules! words {
    ($name:literal, $help:literal, |$stream:ident| $labels:expr) => {
        Family {
            name: $name,
            help: $help,
            kind: MetricType::GAUGE,
            metrics: |$stream| {
                let metric = |labels: Vec<(&str, &str)>| {
                    let own = [("stream", $stream.name.as_str())];
                    gauge(&[&own, labels.as_slice()].concat(), 1.0)
                };
                $labels.map(metric).into_iter().collect()
            },
        }
    };
}

macro_rules! distribution {
    ($name:literal, $help:literal, $field:ident) => {
        Family {
            name: $name,
            help: $help,
            kind: MetricType::HISTOGRAM,
            metrics: |stream| {
                vec![histogram(
                    &[("stream", &stream.name)],
                    &stream.latency.$field,
                )]
            },
        }
    };
}

pub(super) const STREAM_FAMILIES: &[Family] = &[
    // The stream.
    words!(
        "ringgear_stream_info",
        "Always 1; the labels say how the stream was set up.",
        |stream| Some(vec![
            ("mode", stream.mode.as_str()),
            ("framerate", &stream.framerate)
        ])
    ),
    Family {
        name: "ringgear_stream_state",
        help: "1 for the state that the stream is in, 0 for the others.",
        kind: MetricType::GAUGE,
        metrics: |stream| states(stream, &STATES, stream.state),
    },
    level!(
        "ringgear_stream_framerate_hertz",
        "Ticks a second.",
        |stream| rate(&stream.framerate)
    ),
    level!(
        "ringgear_stream_started_timestamp_seconds",
        "When the first tick of this run was fed.",
        |stream| stream.started.as_deref().and_then(timestamp)
    ),
    count!(
        "ringgear_stream_restarts_total",
        "How often the stream was started again after a fault in its own code.",
        |stream| stream.restarts
    ),
    // What feeds it.
    words!(
        "ringgear_source_info",
        "Always 1; the labels say what the source is and what was found in it.",
        |stream| stream.source.as_ref().map(source_words)
    ),
    Family {
        name: "ringgear_source_state",
        help: "1 for the state that the source is in, 0 for the others.",
        kind: MetricType::GAUGE,
        metrics: |stream| {
            let source = stream.source.as_ref();
            source.map_or_else(Vec::new, |source| {
                states(stream, &SOURCE_STATES, source.state)
            })
        },
    },
    count!(
        "ringgear_source_openings_total",
        "How often the source was opened and gave pictures.",
        |stream| source(stream).map(|source| source.openings)
    ),
    count!(
        "ringgear_source_failures_total",
        "How often the source has failed.",
        |stream| source(stream).map(|source| source.failures)
    ),
    level!(
        "ringgear_source_next_try_timestamp_seconds",
        "When the source is opened again, while it waits.",
        |stream| source(stream).and_then(|source| timestamp(source.next_try.as_deref()?))
    ),
    level!(
        "ringgear_source_width_pixels",
        "How wide the source's pictures are.",
        |stream| source(stream).and_then(|source| source.width)
    ),
    level!(
        "ringgear_source_height_pixels",
        "How high the source's pictures are.",
        |stream| source(stream).and_then(|source| source.height)
    ),
    level!(
        "ringgear_source_framerate_hertz",
        "How many pictures the source has a second, as far as it says.",
        |stream| source(stream).and_then(|source| source.framerate)
    ),
    level!(
        "ringgear_source_keyframe_interval_seconds",
        "How far apart a copied source's keyframes are at most.",
        |stream| source(stream).and_then(|source| source.keyframe_seconds)
    ),
    level!(
        "ringgear_source_duration_seconds",
        "How long the source is, if it has an end.",
        |stream| source(stream).and_then(|source| source.duration_seconds)
    ),
    level!(
        "ringgear_producer_connected",
        "1 while a producer feeds the stream.",
        |stream| stream.session.is_some()
    ),
    words!(
        "ringgear_session_info",
        "Always 1 while a producer feeds the stream; the labels say with what.",
        |stream| session(stream).map(|session| vec![
            ("client", word(&session.client)),
            ("format", &session.format)
        ])
    ),
    level!(
        "ringgear_session_width_pixels",
        "How wide the producer's frames are.",
        |stream| session(stream).map(|session| session.width)
    ),
    level!(
        "ringgear_session_height_pixels",
        "How high the producer's frames are.",
        |stream| session(stream).map(|session| session.height)
    ),
    level!(
        "ringgear_session_opened_timestamp_seconds",
        "When the producer came.",
        |stream| session(stream).and_then(|session| timestamp(&session.opened))
    ),
    count!(
        "ringgear_session_frames_committed_total",
        "Frames committed in the present session.",
        |stream| session(stream).map(|session| session.committed)
    ),
    // Frames and ticks.
    count!(
        "ringgear_frames_received_total",
        "Frames committed by producers.",
        |stream| stream.frames.received
    ),
    count!(
        "ringgear_frames_used_total",
        "Frames shown by a tick.",
        |stream| stream.frames.used
    ),
    count!(
        "ringgear_frames_superseded_total",
        "Frames passed over for a newer one.",
        |stream| stream.frames.superseded
    ),
    count!(
        "ringgear_frames_late_total",
        "Frames committed after the end of their session.",
        |stream| stream.frames.late
    ),
    level!(
        "ringgear_frames_used_per_second",
        "Frames shown by a tick over the last seconds.",
        |stream| stream.frames.per_second
    ),
    Family {
        name: "ringgear_ticks_total",
        help: "Ticks by what they showed: a frame of their own, the picture before, or no signal.",
        kind: MetricType::COUNTER,
        metrics: |stream| {
            let ticks = &stream.ticks;
            let kinds = [
                ("fresh", ticks.fresh),
                ("repeated", ticks.repeated),
                ("slate", ticks.slate),
            ];
            let metric =
                |(kind, count)| counter(&[("stream", &stream.name), ("kind", kind)], count as f64);
            kinds.map(metric).into()
        },
    },
    count!(
        "ringgear_ticks_overdue_total",
        "Ticks given to the encoder after the deadline of the next one.",
        |stream| stream.ticks.overdue
    ),
    count!(
        "ringgear_ticks_missed_total",
        "Ticks that were never published.",
        |stream| stream.ticks.missed
    ),
    level!(
        "ringgear_last_tick",
        "The number of the newest tick that was fed.",
        |stream| stream.ticks.last
    ),
    distribution!(
        "ringgear_tick_lateness_seconds",
        "From a tick's deadline until its picture is given to the encoder.",
        tick_lateness
    ),
    // The encoder.
    level!(
        "ringgear_encoder_running",
        "1 while the encoder process runs.",
        |stream| stream.encoder.pid.is_some()
    ),
    count!(
        "ringgear_encoder_restarts_total",
        "How often the encoder was started again.",
        |stream| stream.encoder.restarts
    ),
    level!(
        "ringgear_encoder_failures",
        "How often the encoder has failed in a row.",
        |stream| stream.encoder.failures
    ),
    level!(
        "ringgear_encoder_next_try_timestamp_seconds",
        "When a failed encoder is started again.",
        |stream| stream.encoder.next_try.as_deref().and_then(timestamp)
    ),
    level!(
        "ringgear_encoder_pending_pictures",
        "Pictures given to the encoder and not yet returned as samples.",
        |stream| stream.encoder.pending
    ),
    count!(
        "ringgear_encoder_replaced_pictures_total",
        "Pictures shown again because more waited for the encoder than memory is kept for.",
        |stream| stream.encoder.replaced
    ),
    count!(
        "ringgear_encoder_slate_ticks_total",
        "Ticks that show the slate because the encoder had failed.",
        |stream| stream.encoder.slate
    ),
    count!(
        "ringgear_encoder_skipped_ticks_total",
        "Ticks that show the picture before because the encoder is too slow for all of them.",
        |stream| stream.encoder.skipped
    ),
    level!(
        "ringgear_encoder_too_slow",
        "1 while the encoder does not reach the framerate on this machine.",
        |stream| stream.encoder.too_slow.is_some()
    ),
    level!(
        "ringgear_encoder_reduced_pictures_per_second",
        "Pictures that the encoder is given a second, while those are fewer than the framerate's.",
        |stream| stream.encoder.reduced_to_per_second
    ),
    level!(
        "ringgear_encoder_recent_delay_seconds",
        "From a picture's way into the encoder until the last rendition's sample has come out, mean of the last second.",
        |stream| stream.encoder.delay_seconds
    ),
    distribution!(
        "ringgear_encoder_delay_seconds",
        "From a picture's way into the encoder until the last rendition's sample has come out.",
        encoder_delay
    ),
    distribution!(
        "ringgear_commit_to_part_seconds",
        "From the capture of a part's first frame, which is its commit unless the producer says more, until viewers can fetch the part, its own length included.",
        commit_to_part
    ),
    // The renditions.
    Family {
        name: "ringgear_rendition_info",
        help: "Always 1; the labels say how the rendition is encoded.",
        kind: MetricType::GAUGE,
        metrics: |stream| {
            let metric = |rendition: &RenditionStatus| {
                let labels = [
                    ("stream", stream.name.as_str()),
                    ("rendition", &rendition.name),
                    ("codec", &rendition.codec),
                    ("codecs", word(&rendition.codecs)),
                ];
                gauge(&labels, 1.0)
            };
            stream.renditions.iter().map(metric).collect()
        },
    },
    rendition!(
        "ringgear_rendition_fallback",
        "1 while the fallback encodes the rendition.",
        |rendition| rendition.fallback.is_some()
    ),
    rendition!(
        "ringgear_rendition_width_pixels",
        "How wide the rendition is.",
        |rendition| rendition.width
    ),
    rendition!(
        "ringgear_rendition_height_pixels",
        "How high the rendition is.",
        |rendition| rendition.height
    ),
    rendition!(
        "ringgear_rendition_configured_bytes_per_second",
        "What the config asks for.",
        |rendition| rendition.configured_bits_per_second.map(bytes)
    ),
    rendition!(
        "ringgear_rendition_average_bytes_per_second",
        "The window's average.",
        |rendition| bytes(rendition.average_bits_per_second)
    ),
    rendition!(
        "ringgear_rendition_peak_bytes_per_second",
        "The window's highest segment.",
        |rendition| bytes(rendition.peak_bits_per_second)
    ),
    // The sound.
    words!(
        "ringgear_audio_info",
        "Always 1 for a stream with sound; the label says what it is read from.",
        |stream| audio(stream).map(|audio| vec![("source", audio.source.as_str())])
    ),
    level!(
        "ringgear_audio_playing",
        "1 while sound comes from its source; else there is silence.",
        |stream| audio(stream).map(|audio| audio.playing)
    ),
    level!(
        "ringgear_audio_drift_ratio",
        "How much faster the clock of the sound's source runs than ours, as a fraction.",
        |stream| audio(stream).map(|audio| audio.drift_ppm / 1e6)
    ),
    count!(
        "ringgear_audio_jumps_total",
        "How often the sound was moved at once.",
        |stream| audio(stream).map(|audio| audio.jumps)
    ),
    level!(
        "ringgear_audio_source_running",
        "1 while a process reads the sound's source.",
        |stream| audio(stream).map(|audio| audio.source_pid.is_some())
    ),
    count!(
        "ringgear_audio_source_restarts_total",
        "How often the sound's source was begun again.",
        |stream| audio(stream).map(|audio| audio.source_restarts)
    ),
    level!(
        "ringgear_audio_encoder_running",
        "1 while the sound's encoder runs.",
        |stream| audio(stream).map(|audio| audio.encoder_pid.is_some())
    ),
    count!(
        "ringgear_audio_encoder_restarts_total",
        "How often the sound's encoder was started again.",
        |stream| audio(stream).map(|audio| audio.encoder_restarts)
    ),
    words!(
        "ringgear_sound_session_info",
        "Always 1 while a producer of sound feeds the stream; the labels say with what.",
        |stream| sound(stream).map(|session| vec![
            ("client", word(&session.client)),
            ("format", &session.format)
        ])
    ),
    level!(
        "ringgear_sound_session_sample_rate_hertz",
        "Samples a second.",
        |stream| sound(stream).map(|session| session.rate)
    ),
    level!(
        "ringgear_sound_session_channels",
        "How many channels a sample has.",
        |stream| sound(stream).map(|session| session.channels)
    ),
    level!(
        "ringgear_sound_session_opened_timestamp_seconds",
        "When the producer of sound came.",
        |stream| sound(stream).and_then(|session| timestamp(&session.opened))
    ),
    count!(
        "ringgear_sound_session_blocks_committed_total",
        "Blocks committed in the present session.",
        |stream| sound(stream).map(|session| session.committed)
    ),
    count!(
        "ringgear_sound_session_blocks_superseded_total",
        "Blocks that were passed over.",
        |stream| sound(stream).map(|session| session.superseded)
    ),
    count!(
        "ringgear_sound_session_blocks_disbelieved_total",
        "Blocks with a capture time that can't be.",
        |stream| sound(stream).map(|session| session.disbelieved)
    ),
    // What viewers may fetch.
    level!(
        "ringgear_window_first_segment",
        "The number of the first listed segment.",
        |stream| stream.window.first_segment
    ),
    level!(
        "ringgear_window_last_segment",
        "The number of the last listed segment.",
        |stream| stream.window.last_segment
    ),
    level!(
        "ringgear_window_segments",
        "Segments that the playlists list.",
        |stream| stream.window.segments
    ),
    level!(
        "ringgear_window_seconds",
        "How long the listed segments last.",
        |stream| stream.window.seconds
    ),
    level!(
        "ringgear_window_bytes",
        "Media in memory, of all renditions, retained segments included.",
        |stream| stream.window.bytes
    ),
    level!(
        "ringgear_window_newest_captured_timestamp_seconds",
        "When the first picture of the newest part was captured.",
        |stream| stream.window.newest_captured.as_deref().and_then(timestamp)
    ),
    level!(
        "ringgear_viewers",
        "Client addresses that were answered with media or a playlist in the last ten seconds.",
        |stream| stream.window.viewers
    ),
    level!(
        "ringgear_recording",
        "1 while a recording is under way, of a stream that records.",
        |stream| (stream.mode != "live").then_some(stream.recording.is_some())
    ),
    level!(
        "ringgear_recordings",
        "How many recordings there are, of a stream that records.",
        |stream| (stream.mode != "live").then_some(stream.recordings.len())
    ),
    // What is kept of a live stream's past.
    level!(
        "ringgear_record_failing",
        "1 while nothing of a stream is kept that should be.",
        |stream| record(stream).map(|record| record.error.is_some())
    ),
    level!(
        "ringgear_record_oldest_timestamp_seconds",
        "When what is kept begins.",
        |stream| record(stream).and_then(|record| timestamp(record.oldest.as_deref()?))
    ),
    level!(
        "ringgear_record_newest_timestamp_seconds",
        "When what is kept ends.",
        |stream| record(stream).and_then(|record| timestamp(record.newest.as_deref()?))
    ),
    level!(
        "ringgear_record_segments",
        "Segments that are kept, in each track.",
        |stream| record(stream).map(|record| record.segments)
    ),
    level!(
        "ringgear_record_bytes",
        "The bytes of all segments that are kept.",
        |stream| record(stream).map(|record| record.bytes)
    ),
    count!(
        "ringgear_record_missed_seconds_total",
        "What was not kept because the disk was too slow or full.",
        |stream| record(stream).map(|record| record.missed_seconds)
    ),
];

fn source(stream: &StreamStatus) -> Option<&SourceStatus> {
    stream.source.as_ref()
}

fn session(stream: &StreamStatus) -> Option<&SessionStatus> {
    stream.session.as_ref()
}

fn audio(stream: &StreamStatus) -> Option<&AudioStatus> {
    stream.audio.as_ref()
}

fn sound(stream: &StreamStatus) -> Option<&SoundSessionStatus> {
    audio(stream)?.session.as_ref()
}

fn record(stream: &StreamStatus) -> Option<&RecordStatus> {
    stream.record.as_ref()
}

fn source_words(source: &SourceStatus) -> Vec<(&str, &str)> {
    vec![
        ("source", source.source.as_str()),
        ("container", word(&source.container)),
        ("codec", word(&source.codec)),
        ("audio_codec", word(&source.audio_codec)),
        ("pixel_format", word(&source.pixel_format)),
    ]
}

/// What is not known yet has an empty label, which Prometheus takes for none.
fn word(known: &Option<String>) -> &str {
    known.as_deref().unwrap_or_default()
}

/// One metric for each state, of which one is 1.
fn states<S: PartialEq + Copy>(
    stream: &StreamStatus,
    all: &[(S, &str)],
    present: S,
) -> Vec<Metric> {
    let metric = |(state, name): &(S, &str)| {
        let labels = [("stream", stream.name.as_str()), ("state", *name)];
        gauge(&labels, f64::from(u8::from(*state == present)))
    };
    all.iter().map(metric).collect()
}

fn bytes(bits: u64) -> f64 {
    bits as f64 / 8.0
}

/// Seconds since the epoch of a time in RFC 3339.
fn timestamp(text: &str) -> Option<f64> {
    let time: SystemTime = humantime::parse_rfc3339(text).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}

/// `30` or `30000/1001`.
fn rate(text: &str) -> Option<f64> {
    let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
    let (numerator, denominator): (f64, f64) = (numerator.parse().ok()?, denominator.parse().ok()?);
    Some(numerator / denominator)
}
