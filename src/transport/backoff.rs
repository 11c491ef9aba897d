//! How long to wait before another attempt.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

/// `first`, doubled for each time after the first.
pub(crate) fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(
        1u32.checked_shl(times.saturating_sub(1))
            .unwrap_or(u32::MAX),
    )
}

/// A number from 0 to 1.
pub(super) fn noise() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

/// The pause with up to a fifth more or less, so that many clients do not come back at the same moment.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.8 + 0.4 * noise())
}

/// The pause that was asked for, or up to a fifth more.
pub(crate) fn later(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + 0.2 * noise())
}

/// The value of a `Retry-After` header: seconds, or a date.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let at = httpdate::parse_http_date(value).ok()?;
            Some(at.duration_since(now).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x5_retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |value| retry_after(value, now);
        assert_eq!(read(" 120 "), Some(Duration::from_secs(120)));
        assert_eq!(
            read("Sun, 06 Nov 1994 08:50:37 GMT"),
            Some(Duration::from_secs(60))
        );
        assert_eq!(
            read("Sun, 06 Nov 1994 08:00:00 GMT"),
            Some(Duration::ZERO),
            "a date in the past"
        );
        assert_eq!(read("-1"), None);
        assert_eq!(read("soon"), None);
        assert_eq!(read("99999999999999999999"), None);
    }

    #[test]
    fn pauses_stay_finite() {
        assert_eq!(doubled(Duration::from_secs(1), 3), Duration::from_secs(4));
        assert!(doubled(Duration::MAX, 1000) == Duration::MAX);
        assert_eq!(later(Duration::ZERO), Duration::ZERO);
    }
}
