//! Which backend gets a request.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Round-robin over the backends.
#[derive(Default)]
pub(crate) struct Balancer(AtomicUsize);

impl Balancer {
    /// Every backend once, starting with the next in turn.
    pub(crate) fn order(&self, backends: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.0.fetch_add(1, Ordering::Relaxed);
        (0..backends).map(move |step| first.wrapping_add(step) % backends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_and_names_each_backend_once() {
        let balancer = Balancer::default();
        assert_eq!(balancer.order(3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(balancer.order(3).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(balancer.order(1).collect::<Vec<_>>(), [0]);
    }
}
