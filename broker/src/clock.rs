//! Time as the broker sees it: microseconds since 1970, UTC, never going back.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Microseconds in a second.
pub(crate) const SECOND: i64 = 1_000_000;

static LATEST: AtomicI64 = AtomicI64::new(0);

/// The present. Leases are compared with it, so a system clock set back must not bring dead leases to life.
pub(crate) fn now() -> i64 {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as i64);
    LATEST.fetch_max(wall, Ordering::Relaxed).max(wall)
}

/// `now` plus a number of seconds from a request, without overflow.
pub(crate) fn after_seconds(now: i64, seconds: i64) -> i64 {
    now.saturating_add(seconds.saturating_mul(SECOND))
        .min(i64::MAX / 4)
}

/// ISO-8601 with microseconds and `Z`.
pub(crate) fn iso(micros: i64) -> String {
    match Timestamp::from_microsecond(micros) {
        Ok(ts) => format!("{ts:.6}"),
        Err(_) => format!("{:.6}", Timestamp::MAX),
    }
}

/// Reads an ISO-8601 time; one without a zone counts as UTC.
pub(crate) fn parse(text: &str) -> Option<i64> {
    if let Ok(ts) = text.parse::<Timestamp>() {
        return Some(ts.as_microsecond());
    }
    let civil: DateTime = text.parse().ok()?;
    Some(
        civil
            .to_zoned(TimeZone::UTC)
            .ok()?
            .timestamp()
            .as_microsecond(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_round_trip() {
        assert_eq!(iso(1_000_000), "1970-01-01T00:00:01.000000Z");
        assert_eq!(parse("1970-01-01T00:00:01.5Z"), Some(1_500_000));
        assert_eq!(parse("1970-01-01T01:00:01+01:00"), Some(SECOND));
        assert_eq!(parse("1970-01-02"), Some(86_400 * SECOND));
        assert_eq!(parse("yesterday-ish"), None);
        let now = now();
        assert_eq!(parse(&iso(now)), Some(now));
    }

    #[test]
    fn huge_times_do_not_overflow() {
        assert!(after_seconds(now(), i64::MAX) > now());
        assert!(iso(i64::MAX / 4).ends_with('Z'));
    }
}
