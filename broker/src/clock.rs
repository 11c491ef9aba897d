//! Time as a broker sees it: microseconds since 1970, UTC, never going back.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Microseconds in a second.
pub(crate) const SECOND: i64 = 1_000_000;

/// Beyond this (the year 9000) the clock is not moved.
const LAST: i64 = 221_845_392_000 * SECOND;

/// The clock of one broker. Clones are the same clock.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<Hands>);

#[derive(Default)]
struct Hands {
    /// The latest time that was told.
    latest: AtomicI64,
    /// How far the clock has been moved ahead of the system's.
    ahead: AtomicI64,
    /// The time at which it stands still; 0 while it runs.
    still: AtomicI64,
    /// Held by whoever moves the hands.
    moving: Mutex<()>,
}

impl Clock {
    /// The present. Leases are compared with it, so a system clock set back must not bring dead leases to life.
    pub(crate) fn now(&self) -> i64 {
        let hands = &*self.0;
        let time = match hands.still.load(Ordering::Acquire) {
            0 => wall().saturating_add(hands.ahead.load(Ordering::Relaxed)),
            still => still,
        };
        hands.latest.fetch_max(time, Ordering::Relaxed).max(time)
    }

    /// Moves the clock forward, whether it runs or stands still.
    pub(crate) fn advance(&self, by: Duration) {
        let _moving = self.moving();
        let now = self.now();
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        let by = now.saturating_add(by).min(LAST).saturating_sub(now).max(0);
        match self.is_still() {
            true => self.0.still.store(now + by, Ordering::Release),
            false => drop(self.0.ahead.fetch_add(by, Ordering::Relaxed)),
        }
    }

    /// Stops the clock; only [`Clock::advance`] moves it from here on.
    pub(crate) fn freeze(&self) {
        let _moving = self.moving();
        if !self.is_still() {
            self.0.still.store(self.now(), Ordering::Release);
        }
    }

    /// Lets a clock that stands still run on from where it stands.
    pub(crate) fn resume(&self) {
        let _moving = self.moving();
        if self.is_still() {
            let ahead = self.now().saturating_sub(wall());
            self.0.ahead.store(ahead, Ordering::Relaxed);
            self.0.still.store(0, Ordering::Release);
        }
    }

    /// How far it is ahead of the system's.
    pub(crate) fn ahead(&self) -> Duration {
        let ahead = self.now().saturating_sub(wall());
        Duration::from_micros(u64::try_from(ahead).unwrap_or(0))
    }

    /// Whether it stands still.
    pub(crate) fn is_still(&self) -> bool {
        self.0.still.load(Ordering::Acquire) != 0
    }

    fn moving(&self) -> std::sync::MutexGuard<'_, ()> {
        self.0.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wall() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as i64)
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
        let now = Clock::default().now();
        assert_eq!(parse(&iso(now)), Some(now));
    }

    #[test]
    fn huge_times_do_not_overflow() {
        let now = Clock::default().now();
        assert!(after_seconds(now, i64::MAX) > now);
        assert!(iso(i64::MAX / 4).ends_with('Z'));
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_clock_moves_forward_alone_and_never_back() {
        let (moved, other) = (Clock::default(), Clock::default());
        let before = moved.now();
        moved.advance(HOUR);
        assert!(moved.now() - before >= 3600 * SECOND);
        assert!(other.now() - before < 3600 * SECOND);
        moved.advance(Duration::MAX);
        moved.advance(HOUR);
        assert!(other.ahead() < HOUR && moved.ahead() > HOUR);
        assert!(iso(moved.now()).starts_with("9000-"));
        moved.freeze();
        let still = moved.now();
        moved.resume();
        assert!(moved.now() >= still);
    }

    #[test]
    fn a_clock_that_stands_still_goes_only_where_it_is_moved() {
        let clock = Clock::default();
        clock.freeze();
        let still = clock.now();
        std::thread::sleep(Duration::from_millis(3));
        clock.freeze();
        assert_eq!(clock.now(), still);
        clock.advance(Duration::from_micros(5));
        assert_eq!(clock.now(), still + 5);
        clock.advance(HOUR);
        clock.resume();
        let resumed = clock.now();
        assert!(resumed >= still + 5 + 3600 * SECOND);
        std::thread::sleep(Duration::from_millis(3));
        assert!(clock.now() > resumed);
    }
}
