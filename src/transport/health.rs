//! Whether a backend answers as it should: healthy, unhealthy, or unhealthy and under probe.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::runtime::lock;

/// The health of one backend. It costs a healthy one a load per request.
pub(super) struct Health {
    healthy: AtomicBool,
    /// Whether a pause was asked for that may not be over.
    throttled: AtomicBool,
    record: Mutex<Record>,
}

/// What is known of a backend.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// Failures in a row.
    pub(super) failures: u32,
    /// The last failure, also of one that is healthy again.
    pub(super) last_failure: Option<Instant>,
    /// Since when it is unhealthy.
    pub(super) since: Option<Instant>,
    /// When the next probe is due.
    due: Option<Instant>,
    probing: bool,
    throttled_until: Option<Instant>,
}

impl Health {
    pub(super) fn new() -> Health {
        Health {
            healthy: AtomicBool::new(true),
            throttled: AtomicBool::new(false),
            record: Mutex::default(),
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Acquire)
    }

    pub(super) fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    /// Notes a failure; the next probe is due after `rest`. Tells how many failures in a row that makes.
    pub(super) fn failed(&self, rest: Duration) -> u32 {
        let now = Instant::now();
        let mut record = lock(&self.record);
        record.failures = record.failures.saturating_add(1);
        record.last_failure = Some(now);
        record.since.get_or_insert(now);
        record.due = now.checked_add(rest);
        record.probing = false;
        self.healthy.store(false, Ordering::Release);
        record.failures
    }

    /// Notes a success. Tells for how long the backend was unhealthy, if it was.
    pub(super) fn succeeded(&self) -> Option<Duration> {
        if self.is_healthy() {
            return None;
        }
        let mut record = lock(&self.record);
        let since = record.since.take();
        *record = Record {
            last_failure: record.last_failure,
            throttled_until: record.throttled_until,
            ..Record::default()
        };
        self.healthy.store(true, Ordering::Release);
        since.map(|since| since.elapsed())
    }

    /// Notes that it wants to be left alone until then.
    pub(super) fn throttled(&self, until: Instant) {
        let mut record = lock(&self.record);
        record.throttled_until = record.throttled_until.max(Some(until));
        self.throttled.store(true, Ordering::Release);
    }

    /// Until when it wants that, if the time is not over.
    pub(super) fn throttled_until(&self) -> Option<Instant> {
        if !self.throttled.load(Ordering::Acquire) {
            return None;
        }
        let mut record = lock(&self.record);
        if record
            .throttled_until
            .is_some_and(|until| until <= Instant::now())
        {
            record.throttled_until = None;
            self.throttled.store(false, Ordering::Release);
        }
        record.throttled_until
    }

    /// Whether the caller shall probe the backend now. It is asked of one caller at a time.
    pub(super) fn begin_probe(&self) -> bool {
        if self.is_healthy() {
            return false;
        }
        let mut record = lock(&self.record);
        let due = record.due.is_some_and(|due| Instant::now() >= due);
        if !due || record.probing {
            return false;
        }
        record.probing = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const REST: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn l6_a_backend_starts_healthy_and_counts_its_failures() {
        let health = Health::new();
        assert!(health.is_healthy());
        assert_eq!(health.succeeded(), None);
        assert_eq!((health.failed(REST), health.failed(REST)), (1, 2));
        assert!(!health.is_healthy());
        advance(Duration::from_secs(3)).await;
        assert_eq!(health.succeeded(), Some(Duration::from_secs(3)));
        assert!(health.is_healthy());
        assert_eq!(health.record().failures, 0);
        assert!(health.record().last_failure.is_some());
        assert_eq!(health.failed(REST), 1, "counted in a row");
    }

    #[tokio::test(start_paused = true)]
    async fn l8_one_probe_at_a_time_and_not_before_the_rest_is_over() {
        let health = Health::new();
        assert!(!health.begin_probe(), "a healthy one needs none");
        health.failed(REST);
        advance(REST - Duration::from_millis(1)).await;
        assert!(!health.begin_probe());
        advance(Duration::from_millis(1)).await;
        assert!(health.begin_probe());
        assert!(!health.begin_probe(), "one is under way");
        assert!(!health.is_healthy(), "until it has gone well");
        health.failed(REST);
        assert!(!health.begin_probe(), "the rest begins anew");
        advance(REST).await;
        assert!(health.begin_probe());
        health.succeeded();
        assert!(health.is_healthy() && !health.begin_probe());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_beyond_all_time_is_no_panic() {
        let health = Health::new();
        health.failed(Duration::MAX);
        advance(REST).await;
        assert!(!health.begin_probe());
    }
}
