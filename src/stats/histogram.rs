//! Latencies, counted in buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::statistics::Latency;

/// Buckets of a power of two are cut into so many.
const STEPS: usize = 8;
const BUCKETS: usize = 37 * STEPS;

/// How long something took: counted in buckets that are at most an eighth wide.
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    longest: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            longest: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(crate) fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket(micros)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.longest.fetch_max(micros, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Latency {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .collect();
        let count: u64 = counts.iter().sum();
        let longest = self.longest.load(Ordering::Relaxed);
        let quantile = |share: f64| {
            let rank = (count as f64 * share).ceil().max(1.0) as u64;
            let mut seen = 0;
            let found = counts.iter().position(|in_bucket| {
                seen += in_bucket;
                seen >= rank
            });
            // The upper end of the bucket: never less than the truth.
            found.map_or(0, |bucket| (bucket_end(bucket)).min(longest))
        };
        Latency {
            count,
            p50_micros: quantile(0.5),
            p90_micros: quantile(0.9),
            p99_micros: quantile(0.99),
            max_micros: longest,
        }
    }
}

/// Below `STEPS` each number has a bucket; above it each power of two has `STEPS`.
fn bucket(micros: u64) -> usize {
    let steps = STEPS as u64;
    if micros < steps {
        return micros as usize;
    }
    let power = micros.ilog2() as usize;
    let first = STEPS.ilog2() as usize;
    let step = (micros >> (power - first)) as usize - STEPS;
    ((power - first + 1) * STEPS + step).min(BUCKETS - 1)
}

/// The largest number in a bucket.
fn bucket_end(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let shift = bucket / STEPS - 1;
    ((((bucket % STEPS) + STEPS + 1) as u64) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_belongs_to_them() {
        let mut last = 0;
        for micros in (0..100_000).chain((100_000..1 << 36).step_by(7_654_321)) {
            let bucket = bucket(micros);
            assert!(bucket >= last && bucket < BUCKETS, "{micros}");
            assert!(bucket_end(bucket) >= micros, "{micros}");
            assert!(
                bucket_end(bucket) as f64 <= micros as f64 * 1.125 + 1.0,
                "{micros}"
            );
            last = bucket;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_close_and_never_beyond_the_longest() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot(), Latency::default());
        for micros in 1..=1000 {
            histogram.note(Duration::from_micros(micros));
        }
        let latency = histogram.snapshot();
        assert_eq!((latency.count, latency.max_micros), (1000, 1000));
        for (got, wanted) in [
            (latency.p50_micros, 500),
            (latency.p90_micros, 900),
            (latency.p99_micros, 990),
        ] {
            assert!(
                got >= wanted && got <= wanted + wanted / 8,
                "{got} {wanted}"
            );
        }
    }
}
