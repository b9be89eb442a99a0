//! `/metrics` in Prometheus' text format: what `/api/v1/streams` says, in base units, named by Prometheus' conventions. Pure.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{TEXT_FORMAT, TextEncoder};

use crate::status::{Distribution, StreamState, StreamStatus, StreamsStatus};

/// The text's media type.
pub(super) const MEDIA_TYPE: &str = TEXT_FORMAT;

const STATES: [(StreamState, &str); 6] = [
    (StreamState::Waiting, "waiting"),
    (StreamState::Starting, "starting"),
    (StreamState::Live, "live"),
    (StreamState::NoSignal, "no_signal"),
    (StreamState::Failed, "failed"),
    (StreamState::Ended, "ended"),
];

/// All metrics of a daemon whose status this is.
pub(super) fn text(status: &StreamsStatus) -> String {
    let mut families = Vec::new();
    let build = gauge(&[("version", &status.version)], 1.0);
    let help = "Always 1; the label says which version runs.";
    put(
        &mut families,
        "ringgear_build_info",
        help,
        MetricType::GAUGE,
        vec![build],
    );
    let up = gauge(&[], status.uptime_seconds);
    let help = "How long the daemon has run.";
    put(
        &mut families,
        "ringgear_uptime_seconds",
        help,
        MetricType::GAUGE,
        vec![up],
    );
    for family in STREAM_FAMILIES {
        let metrics = status
            .streams
            .iter()
            .flat_map(|stream| (family.metrics)(stream));
        put(
            &mut families,
            family.name,
            family.help,
            family.kind,
            metrics.collect(),
        );
    }
    // It fails only for a family without metrics, which `put` leaves out.
    TextEncoder::new()
        .encode_to_string(&families)
        .unwrap_or_default()
}

/// What each stream has of one name.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    metrics: fn(&StreamStatus) -> Vec<Metric>,
}

/// A family with one metric for each stream.
macro_rules! one {
    ($kind:ident, $metric:ident, $name:literal, $help:literal, $value:expr) => {
        Family {
            name: $name,
            help: $help,
            kind: MetricType::$kind,
            metrics: |stream| vec![$metric(&[("stream", &stream.name)], $value(stream))],
        }
    };
}

macro_rules! count {
    ($name:literal, $help:literal, |$stream:ident| $value:expr) => {
        one!(COUNTER, counter, $name, $help, |$stream: &StreamStatus| {
            $value
        })
    };
}

macro_rules! level {
    ($name:literal, $help:literal, |$stream:ident| $value:expr) => {
        one!(GAUGE, gauge, $name, $help, |$stream: &StreamStatus| $value)
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

const STREAM_FAMILIES: &[Family] = &[
    Family {
        name: "ringgear_stream_state",
        help: "1 for the state that the stream is in, 0 for the others.",
        kind: MetricType::GAUGE,
        metrics: |stream| {
            let state = |(state, name): &(StreamState, &str)| {
                let labels = [("stream", stream.name.as_str()), ("state", *name)];
                gauge(&labels, f64::from(u8::from(*state == stream.state)))
            };
            STATES.iter().map(state).collect()
        },
    },
    count!(
        "ringgear_stream_restarts_total",
        "How often the stream was started again after a fault in its own code.",
        |stream| stream.restarts
    ),
    level!(
        "ringgear_producer_connected",
        "1 while a producer feeds the stream.",
        |stream| f64::from(u8::from(stream.session.is_some()))
    ),
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
                |(kind, count)| counter(&[("stream", &stream.name), ("kind", kind)], count);
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
    distribution!(
        "ringgear_tick_lateness_seconds",
        "From a tick's deadline until its picture is given to the encoder.",
        tick_lateness
    ),
    level!(
        "ringgear_encoder_running",
        "1 while the encoder process runs.",
        |stream| f64::from(u8::from(stream.encoder.pid.is_some()))
    ),
    count!(
        "ringgear_encoder_restarts_total",
        "How often the encoder was started again.",
        |stream| stream.encoder.restarts
    ),
    level!(
        "ringgear_encoder_pending_pictures",
        "Pictures given to the encoder and not yet returned as samples.",
        |stream| stream.encoder.pending as f64
    ),
    count!(
        "ringgear_encoder_replaced_pictures_total",
        "Pictures shown again because more waited for the encoder than memory is kept for.",
        |stream| stream.encoder.replaced
    ),
    count!(
        "ringgear_encoder_skipped_ticks_total",
        "Ticks that show the picture before because the encoder is too slow for all of them.",
        |stream| stream.encoder.skipped
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
    level!(
        "ringgear_window_segments",
        "Segments that the playlists list.",
        |stream| stream.window.segments as f64
    ),
    level!(
        "ringgear_window_seconds",
        "How long the listed segments last.",
        |stream| stream.window.seconds
    ),
    level!(
        "ringgear_window_bytes",
        "Media in memory, of all renditions, retained segments included.",
        |stream| stream.window.bytes as f64
    ),
    level!(
        "ringgear_viewers",
        "Client addresses that were answered with media or a playlist in the last ten seconds.",
        |stream| stream.window.viewers as f64
    ),
    Family {
        name: "ringgear_rendition_bits_per_second",
        help: "The window's average bitrate.",
        kind: MetricType::GAUGE,
        metrics: |stream| {
            let rendition = |rendition: &crate::status::RenditionStatus| {
                let labels = [
                    ("stream", stream.name.as_str()),
                    ("rendition", rendition.name.as_str()),
                ];
                gauge(&labels, rendition.average_bits_per_second as f64)
            };
            stream.renditions.iter().map(rendition).collect()
        },
    },
];

fn put(
    families: &mut Vec<MetricFamily>,
    name: &str,
    help: &str,
    kind: MetricType,
    metrics: Vec<Metric>,
) {
    if metrics.is_empty() {
        return;
    }
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    families.push(family);
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

fn counter(labels: &[(&str, &str)], value: u64) -> Metric {
    let (mut metric, mut counter) = (labelled(labels), Counter::default());
    counter.set_value(value as f64);
    metric.set_counter(counter);
    metric
}

fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let (mut metric, mut gauge) = (labelled(labels), Gauge::default());
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

fn histogram(labels: &[(&str, &str)], distribution: &Distribution) -> Metric {
    let (mut metric, mut histogram) = (labelled(labels), Histogram::default());
    // The last one, without a bound, is written from the count.
    let bucket = |bucket: &crate::status::Bucket| {
        let mut told = Bucket::default();
        told.set_upper_bound(bucket.le_seconds?);
        told.set_cumulative_count(bucket.count);
        Some(told)
    };
    let buckets = distribution.buckets.iter().filter_map(bucket);
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(distribution.count);
    histogram.set_sample_sum(distribution.sum_seconds);
    metric.set_histogram(histogram);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
}
