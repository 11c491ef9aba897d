//! The ids that libqueen makes: UUIDs of version 7, without a system call or a lock for each.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::sys;

/// What a thread makes ids from.
struct Source {
    /// The process that seeded it: a child of a fork must not repeat its parent.
    generation: u32,
    state: [u64; 4],
    /// The last timestamp, and the ids made with it.
    millis: u64,
    count: u16,
}

thread_local! {
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
}

/// An id that nothing else has. Those of one thread grow.
pub(super) fn mint() -> Uuid {
    let millis = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    SOURCE.with_borrow_mut(|source| {
        let generation = sys::generation();
        match source {
            Some(source) if source.generation == generation => source.next(millis),
            _ => source.insert(Source::new(generation)).next(millis),
        }
    })
}

impl Source {
    /// Seeded from the system: 244 random bits, which no other thread or process has.
    fn new(generation: u32) -> Source {
        let (first, second) = (Uuid::new_v4().as_u64_pair(), Uuid::new_v4().as_u64_pair());
        Source {
            generation,
            state: [first.0, first.1, second.0, second.1],
            millis: 0,
            count: 0,
        }
    }

    fn next(&mut self, millis: u64) -> Uuid {
        if millis > self.millis {
            // A few bits are left free, so that there is room to count.
            (self.millis, self.count) = (millis, (self.random() >> 54) as u16);
        } else {
            self.count += 1;
            if self.count > 0xfff {
                (self.millis, self.count) = (self.millis + 1, 0);
            }
        }
        let high = (self.millis << 16) | 0x7000 | u64::from(self.count);
        let low = (0b10 << 62) | (self.random() >> 2);
        Uuid::from_u64_pair(high, low)
    }

    /// xoshiro256++ by Blackman and Vigna.
    fn random(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_unique_among_threads_and_grow_in_each() {
        let made: Vec<Vec<Uuid>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..20_000).map(|_| mint()).collect()))
                .collect();
            threads.into_iter().map(|one| one.join().unwrap()).collect()
        });
        for ids in &made {
            assert!(ids.is_sorted());
        }
        let all: HashSet<_> = made.concat().into_iter().collect();
        assert_eq!(all.len(), 80_000);
        for id in &all {
            assert_eq!(
                (id.get_version_num(), id.get_variant()),
                (7, uuid::Variant::RFC4122)
            );
        }
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_does_not_repeat_ids() {
        let mut source = Source::new(0);
        let ids: Vec<_> = (0..10_000u64)
            .map(|n| source.next(1_000_000 - n % 3))
            .collect();
        assert!(ids.is_sorted());
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }
}
