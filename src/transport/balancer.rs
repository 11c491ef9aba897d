//! Which backend gets a request.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Round-robin over the backends.
pub(super) struct Balancer {
    backends: usize,
    turn: AtomicUsize,
}

impl Balancer {
    pub(super) fn new(backends: usize) -> Balancer {
        Balancer {
            backends,
            turn: AtomicUsize::new(0),
        }
    }

    /// The next backend in turn that was not tried; none when all were.
    pub(super) fn pick(&self, tried: &[usize]) -> Option<usize> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..self.backends)
            .map(|step| first.wrapping_add(step) % self.backends)
            .find(|backend| !tried.contains(backend))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_and_names_each_backend_once() {
        let balancer = Balancer::new(3);
        assert_eq!(balancer.pick(&[]), Some(0));
        assert_eq!(balancer.pick(&[]), Some(1));
        assert_eq!(balancer.pick(&[2, 0]), Some(1));
        assert_eq!(balancer.pick(&[0, 1, 2]), None);
    }
}
