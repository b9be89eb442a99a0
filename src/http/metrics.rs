//! `/metrics` in Prometheus' text format: what `/api/v1/streams` says, in base units, named by Prometheus' conventions. Pure.

mod families;
#[cfg(test)]
mod tests;

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{TEXT_FORMAT, TextEncoder};

use crate::status::{Distribution, StreamsStatus};
use families::STREAM_FAMILIES;

/// The text's media type.
pub(super) const MEDIA_TYPE: &str = TEXT_FORMAT;

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

fn counter(labels: &[(&str, &str)], value: f64) -> Metric {
    let (mut metric, mut counter) = (labelled(labels), Counter::default());
    counter.set_value(value);
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
