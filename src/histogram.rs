//! Distributions of durations, counted for as long as a stream runs: bounded, and written without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::status::{Bucket, Distribution};

/// The buckets' upper bounds in microseconds: six a decade, from a tenth of a millisecond to twenty seconds, but four times as many where the ages of parts lie.
const BOUNDS: [u64; 51] = [
    100, 150, 200, 300, 500, 700, //
    1_000, 1_500, 2_000, 3_000, 5_000, 7_000, //
    10_000, 15_000, 20_000, 30_000, 50_000, 70_000, //
    100_000, 120_000, 140_000, 160_000, 180_000, 200_000, //
    220_000, 240_000, 260_000, 280_000, 300_000, 320_000, //
    340_000, 360_000, 380_000, 400_000, 450_000, 500_000, //
    550_000, 600_000, 650_000, 700_000, 800_000, 900_000, //
    1_000_000, 1_500_000, 2_000_000, 3_000_000, 5_000_000, 7_000_000, //
    10_000_000, 15_000_000, 20_000_000,
];

/// A count for each bucket, and the sum.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// One for each bound, and one for what is longer.
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_nanos: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts one.
    pub(crate) fn record(&self, duration: Duration) {
        let bucket = BOUNDS.partition_point(|bound| Duration::from_micros(*bound) < duration);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was counted. While others count, one of them may be in the sum and not yet in a bucket, or the other way round.
    pub(crate) fn distribution(&self) -> Distribution {
        let mut count = 0;
        let bounds = BOUNDS.iter().map(|micros| Some(*micros as f64 / 1e6));
        let buckets: Vec<Bucket> = bounds
            .chain([None])
            .zip(&self.counts)
            .map(|(le_seconds, own)| {
                count += own.load(Ordering::Relaxed);
                Bucket { le_seconds, count }
            })
            .collect();
        Distribution {
            count,
            sum_seconds: self.sum_nanos.load(Ordering::Relaxed) as f64 / 1e9,
            p50_seconds: quantile(&buckets, 0.5),
            p95_seconds: quantile(&buckets, 0.95),
            p99_seconds: quantile(&buckets, 0.99),
            buckets,
        }
    }
}

/// The duration below which a `share` of what was counted lies, as if each bucket were filled evenly; none without any. What is beyond the
/// last bound counts as the bound.
fn quantile(buckets: &[Bucket], share: f64) -> Option<f64> {
    let all = buckets.last()?.count;
    if all == 0 {
        return None;
    }
    let wanted = share * all as f64;
    let at = buckets
        .iter()
        .position(|bucket| bucket.count as f64 >= wanted)?;
    let (lower, below) = match at.checked_sub(1) {
        Some(before) => (buckets[before].le_seconds?, buckets[before].count),
        None => (0.0, 0),
    };
    let Some(upper) = buckets[at].le_seconds else {
        return Some(lower);
    };
    let own = (buckets[at].count - below).max(1) as f64;
    Some(lower + (upper - lower) * (wanted - below as f64) / own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_is_not_below_it() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 20_000_000, 20_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        let all = histogram.distribution();
        let at = |le: f64| {
            let mut buckets = all.buckets.iter();
            buckets
                .find(|bucket| bucket.le_seconds == Some(le))
                .unwrap()
                .count
        };
        assert_eq!((at(0.0001), at(0.00015), at(15.0), at(20.0)), (2, 3, 3, 4));
        assert_eq!((all.count, all.buckets.last().unwrap().count), (5, 5));
        assert!(
            (all.sum_seconds - 40.000_202).abs() < 1e-9,
            "{}",
            all.sum_seconds
        );
    }

    #[test]
    fn quantiles_are_within_their_bucket() {
        let histogram = Histogram::default();
        assert_eq!(histogram.distribution().p50_seconds, None);
        for millis in 1..=1000 {
            histogram.record(Duration::from_millis(millis));
        }
        let all = histogram.distribution();
        for (said, true_one) in [
            (all.p50_seconds, 0.5),
            (all.p95_seconds, 0.95),
            (all.p99_seconds, 0.99),
        ] {
            let said = said.unwrap();
            assert!((said - true_one).abs() < 0.02, "{said} for {true_one}");
        }
    }

    #[test]
    fn what_is_beyond_the_last_bound_counts_as_the_bound() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_secs(100));
        assert_eq!(histogram.distribution().p99_seconds, Some(20.0));
    }
}
