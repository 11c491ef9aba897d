//! How long to wait before a failed request is sent again.

use std::time::Duration;

use crate::transport::jittered;

/// The pause after the first failure, and after every one while somebody waits for a flush.
pub(super) const FIRST: Duration = Duration::from_millis(250);

const LAST: Duration = Duration::from_secs(10);

/// The pause after so many failures in a row.
pub(super) fn pause(failures: u32, hurried: bool) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let pause = match hurried {
        true => FIRST,
        false => doubled.min(LAST),
    };
    jittered(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b11_pauses_double_up_to_a_bound() {
        let within = |failures, hurried, millis: u64| {
            let pause = pause(failures, hurried).as_millis() as u64;
            assert!(
                (millis * 4 / 5..=millis * 6 / 5).contains(&pause),
                "{pause} ms after {failures} failures"
            );
        };
        within(1, false, 250);
        within(2, false, 500);
        within(3, false, 1000);
        within(9, false, 10_000);
        within(u32::MAX, false, 10_000);
        within(9, true, 250);
    }
}
