use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::status::{
    self, AudioStatus, EncoderStatus, FrameStatus, LatencyStatus, RecordStatus, RenditionStatus,
    SessionStatus, SoundSessionStatus, SourceState, SourceStatus, StreamState, StreamStatus,
    TickStatus, WindowStatus,
};

#[test]
fn names_follow_the_conventions() {
    for family in STREAM_FAMILIES {
        let counts = family.kind == MetricType::COUNTER;
        assert_eq!(family.name.ends_with("_total"), counts, "{}", family.name);
        assert!(family.name.starts_with("ringgear_"), "{}", family.name);
        assert!(family.help.ends_with('.'), "{}", family.name);
    }
}

#[test]
fn the_docs_have_every_metric_with_its_kind_and_help() {
    let docs = include_str!("../../../docs/metrics.md");
    for families::Family {
        name, kind, help, ..
    } in STREAM_FAMILIES
    {
        let kind = format!("{kind:?}").to_lowercase();
        let row = format!("| `{name}` | {kind} | {help} |");
        assert!(docs.contains(&row), "docs/metrics.md lacks {row}");
    }
    let rows = docs.matches("| `ringgear_").count();
    assert_eq!(rows, STREAM_FAMILIES.len() + 2);
}

#[test]
fn a_daemon_without_streams_has_metrics_of_its_own() {
    let text = text(&StreamsStatus {
        version: "1.2.3".to_owned(),
        time: String::new(),
        uptime_seconds: 12.5,
        streams: Vec::new(),
    });
    assert!(
        text.contains("ringgear_build_info{version=\"1.2.3\"} 1\n"),
        "{text}"
    );
    assert!(
        text.contains("# TYPE ringgear_uptime_seconds gauge\nringgear_uptime_seconds 12.5\n"),
        "{text}"
    );
    assert!(!text.contains("ringgear_stream"), "{text}");
}

#[test]
fn a_histogram_counts_up_to_infinity() {
    let counted = crate::histogram::Histogram::default();
    counted.record(Duration::from_millis(2));
    counted.record(Duration::from_secs(60));
    let metric = histogram(&[("stream", "door")], &counted.distribution());
    let mut families = Vec::new();
    put(
        &mut families,
        "x_seconds",
        "X.",
        MetricType::HISTOGRAM,
        vec![metric],
    );
    let text = TextEncoder::new().encode_to_string(&families).unwrap();
    for line in [
        "x_seconds_bucket{stream=\"door\",le=\"0.0015\"} 0",
        "x_seconds_bucket{stream=\"door\",le=\"0.002\"} 1",
        "x_seconds_bucket{stream=\"door\",le=\"20\"} 1",
        "x_seconds_bucket{stream=\"door\",le=\"+Inf\"} 2",
        "x_seconds_sum{stream=\"door\"} 60.002",
        "x_seconds_count{stream=\"door\"} 2",
    ] {
        assert!(
            text.lines().any(|told| told == line),
            "{line} is not in\n{text}"
        );
    }
    assert_eq!(text.matches("+Inf").count(), 1, "{text}");
}

/// What status has and metrics have not.
const LEFT_TO_STATUS: &[(&str, &str)] = &[
    ("time", "Prometheus stamps what it reads"),
    ("streams.detail", "a text for people"),
    ("streams.session.id", "of no use as a number"),
    ("streams.session.pid", "ringgear_producer_connected"),
    ("streams.session.uid", "of no use as a number"),
    ("streams.source.pid", "ringgear_source_state"),
    ("streams.source.error", "a text for people"),
    ("streams.source.last_error", "a text for people"),
    ("streams.ticks.total", "the sum of ringgear_ticks_total"),
    ("streams.encoder.pid", "ringgear_encoder_running"),
    ("streams.encoder.too_slow", "ringgear_encoder_too_slow"),
    ("streams.encoder.last_error", "a text for people"),
    ("streams.renditions.fallback", "ringgear_rendition_fallback"),
    ("streams.recording", "ringgear_recording"),
    ("streams.recordings", "ringgear_recordings"),
    ("streams.record.error", "ringgear_record_failing"),
    ("streams.audio.playing", "ringgear_audio_playing"),
    ("streams.audio.detail", "a text for people"),
    ("streams.audio.session.id", "of no use as a number"),
    ("streams.audio.session.pid", "ringgear_sound_session_info"),
    ("streams.audio.session.uid", "of no use as a number"),
    (
        "streams.audio.encoder_pid",
        "ringgear_audio_encoder_running",
    ),
    ("streams.audio.source_pid", "ringgear_audio_source_running"),
    (
        "streams.latency.tick_lateness.p50_seconds",
        "from the buckets",
    ),
    (
        "streams.latency.tick_lateness.p95_seconds",
        "from the buckets",
    ),
    (
        "streams.latency.tick_lateness.p99_seconds",
        "from the buckets",
    ),
    (
        "streams.latency.encoder_delay.p50_seconds",
        "from the buckets",
    ),
    (
        "streams.latency.encoder_delay.p95_seconds",
        "from the buckets",
    ),
    (
        "streams.latency.encoder_delay.p99_seconds",
        "from the buckets",
    ),
    (
        "streams.latency.commit_to_part.p50_seconds",
        "from the buckets",
    ),
    (
        "streams.latency.commit_to_part.p95_seconds",
        "from the buckets",
    ),
    (
        "streams.latency.commit_to_part.p99_seconds",
        "from the buckets",
    ),
    ("streams.restricted", "of who asks, not of the stream"),
];

#[test]
fn everything_that_status_shows_is_in_the_metrics_or_is_said_to_be_missing() {
    let mut told = serde_json::to_value(everything()).unwrap();
    number_leaves(&mut told, &mut 1000);
    let status: StreamsStatus = serde_json::from_value(told.clone()).unwrap();
    let text = text(&status);
    let values: Vec<f64> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
        .collect();
    let mut leaves = Vec::new();
    leaves_of("", &told, &mut leaves);
    assert!(leaves.len() > 90, "{leaves:#?}");
    for (path, leaf) in &leaves {
        if LEFT_TO_STATUS.iter().any(|(left, _)| left == path) {
            continue;
        }
        let found = match leaf {
            Value::Number(number) => {
                let number = number.as_f64().unwrap();
                // Bits are told as bytes, millionths as a fraction.
                let forms = [number, number / 8.0, number / 1e6];
                values.iter().any(|value| forms.contains(value))
                    || text.contains(&format!("le=\"{number}\""))
            }
            Value::String(word) => match humantime::parse_rfc3339(word) {
                Ok(time) => {
                    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap();
                    values.contains(&since.as_secs_f64())
                }
                Err(_) => text.contains(&format!("=\"{word}\"")),
            },
            _ => false,
        };
        assert!(found, "{path}, {leaf}, is not in\n{text}");
    }
    for (left, _) in LEFT_TO_STATUS {
        assert!(
            leaves.iter().any(|(path, _)| path == left),
            "{left} is not in status"
        );
    }
    for (left, instead) in LEFT_TO_STATUS
        .iter()
        .filter(|(_, instead)| instead.starts_with("ringgear_"))
    {
        assert!(text.contains(instead), "{left} is told by no {instead}");
    }
}

/// Gives each number, time and word another value, so that it can be told from all others.
fn number_leaves(value: &mut Value, number: &mut u32) {
    *number += 1;
    match value {
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|value| number_leaves(value, number)),
        Value::Array(values) => values
            .iter_mut()
            .for_each(|value| number_leaves(value, number)),
        Value::Number(_) => *value = (*number).into(),
        Value::String(word) if word == "word" => *word = format!("word {number}"),
        Value::String(time) if time == TIME => {
            let time_at =
                std::time::UNIX_EPOCH + Duration::from_secs(u64::from(*number) + 1_700_000_000);
            *time = humantime::format_rfc3339_millis(time_at).to_string();
        }
        _ => {}
    }
}

/// Each field's path and value; lists have their elements' fields.
fn leaves_of(path: &str, value: &Value, leaves: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                leaves_of(&path, value, leaves);
            }
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| leaves_of(path, value, leaves)),
        leaf => leaves.push((path.to_owned(), leaf.clone())),
    }
}

const TIME: &str = "2026-01-02T03:04:05Z";

/// A status with every field that there is. None may be left to a default.
fn everything() -> StreamsStatus {
    let (word, time) = (|| "word".to_owned(), || TIME.to_owned());
    let distribution = || Distribution {
        count: 1,
        sum_seconds: 1.0,
        p50_seconds: Some(1.0),
        p95_seconds: Some(1.0),
        p99_seconds: Some(1.0),
        // Of the last bucket, which has no bound, the metrics have the count above.
        buckets: vec![status::Bucket {
            le_seconds: Some(1.0),
            count: 1,
        }],
    };
    let stream = StreamStatus {
        name: word(),
        state: StreamState::Live,
        detail: Some(word()),
        mode: "event".to_owned(),
        framerate: "30000/1001".to_owned(),
        started: Some(time()),
        restarts: 1,
        source: Some(SourceStatus {
            source: word(),
            state: SourceState::Running,
            pid: Some(1),
            openings: 1,
            failures: 1,
            next_try: Some(time()),
            error: Some(word()),
            last_error: vec![word()],
            container: Some(word()),
            codec: Some(word()),
            audio_codec: Some(word()),
            pixel_format: Some(word()),
            width: Some(1),
            height: Some(1),
            framerate: Some(1.0),
            keyframe_seconds: Some(1.0),
            duration_seconds: Some(1.0),
        }),
        session: Some(SessionStatus {
            id: 1,
            pid: 1,
            uid: 1,
            client: Some(word()),
            format: word(),
            width: 1,
            height: 1,
            opened: time(),
            committed: 1,
        }),
        frames: FrameStatus {
            received: 1,
            used: 1,
            superseded: 1,
            late: 1,
            per_second: 1.0,
        },
        ticks: TickStatus {
            total: 1,
            fresh: 1,
            repeated: 1,
            slate: 1,
            overdue: 1,
            missed: 1,
            last: 1,
        },
        encoder: EncoderStatus {
            pid: Some(1),
            restarts: 1,
            pending: 1,
            delay_seconds: Some(1.0),
            replaced: 1,
            slate: 1,
            skipped: 1,
            reduced_to_per_second: Some(1.0),
            too_slow: Some(word()),
            failures: 1,
            next_try: Some(time()),
            last_error: vec![word()],
        },
        renditions: vec![RenditionStatus {
            name: word(),
            codec: word(),
            fallback: Some(word()),
            codecs: Some(word()),
            width: Some(1),
            height: Some(1),
            configured_bits_per_second: Some(1),
            average_bits_per_second: 1,
            peak_bits_per_second: 1,
        }],
        recording: Some(word()),
        recordings: vec![word()],
        record: Some(RecordStatus {
            error: Some(word()),
            oldest: Some(time()),
            newest: Some(time()),
            segments: 1,
            bytes: 1,
            missed_seconds: 1.0,
        }),
        audio: Some(AudioStatus {
            source: word(),
            playing: true,
            detail: Some(word()),
            drift_ppm: 1.0,
            jumps: 1,
            source_restarts: 1,
            encoder_restarts: 1,
            session: Some(SoundSessionStatus {
                id: 1,
                pid: 1,
                uid: 1,
                client: Some(word()),
                format: word(),
                rate: 1,
                channels: 1,
                opened: time(),
                committed: 1,
                superseded: 1,
                disbelieved: 1,
            }),
            encoder_pid: Some(1),
            source_pid: Some(1),
        }),
        window: WindowStatus {
            first_segment: 1,
            last_segment: Some(1),
            segments: 1,
            seconds: 1.0,
            bytes: 1,
            viewers: 1,
            newest_captured: Some(time()),
        },
        latency: LatencyStatus {
            tick_lateness: distribution(),
            encoder_delay: distribution(),
            commit_to_part: distribution(),
        },
        restricted: true,
    };
    StreamsStatus {
        version: word(),
        time: time(),
        uptime_seconds: 1.0,
        streams: vec![stream],
    }
}
