//! New message ids.

use uuid::Uuid;

/// The bits of a UUIDv7 that are neither time, version nor variant and may be counted up.
const COUNTER: u128 = (1 << 62) - 1;

/// Makes the ids of one transaction. The first is random; the others follow it, as RFC 9562 (6.2) allows, because
/// asking the kernel for random bytes costs more than to store a small message.
#[derive(Default)]
pub(super) struct Ids(Option<u128>);

impl Ids {
    pub(super) fn next(&mut self) -> Uuid {
        let next = match self.0 {
            Some(last) if last & COUNTER != COUNTER => last + 1,
            _ => Uuid::now_v7().as_u128(),
        };
        self.0 = Some(next);
        Uuid::from_u128(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_and_stay_version_7() {
        let mut ids = Ids::default();
        let mut last = ids.next();
        for _ in 0..1000 {
            let next = ids.next();
            assert!(next > last, "{last} {next}");
            assert_eq!(
                (next.get_version_num(), next.get_variant()),
                (7, uuid::Variant::RFC4122)
            );
            last = next;
        }
    }

    #[test]
    fn a_full_counter_starts_anew() {
        let full = Uuid::now_v7().as_u128() | COUNTER;
        let next = Ids(Some(full)).next();
        assert_eq!(
            (next.get_version_num(), next.get_variant()),
            (7, uuid::Variant::RFC4122)
        );
        assert_ne!(next.as_u128() & COUNTER, 0);
    }
}
