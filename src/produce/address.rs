//! Places: a queue and a partition.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    pub(super) queue: Box<str>,
    pub(super) partition: Box<str>,
}

/// A place as a key that is looked for, without a copy of its names.
pub(super) trait Place {
    fn names(&self) -> (&str, &str);
}

impl Place for (&str, &str) {
    fn names(&self) -> (&str, &str) {
        *self
    }
}

impl Place for Arc<Address> {
    fn names(&self) -> (&str, &str) {
        (&self.queue, &self.partition)
    }
}

impl<'a> Borrow<dyn Place + 'a> for Arc<Address> {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

/// As that of an [`Address`].
impl Hash for dyn Place + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (queue, partition) = self.names();
        queue.hash(state);
        partition.hash(state);
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for dyn Place + '_ {}

impl Address {
    pub(super) fn new(queue: &str, partition: &str) -> Address {
        Address {
            queue: queue.into(),
            partition: partition.into(),
        }
    }

    /// Fields of a log record about this place.
    pub(super) fn fields<'a>(&self, more: &[(&'a str, Value)]) -> Vec<(&'a str, Value)> {
        let mut fields = vec![
            ("queue", Value::from(&*self.queue)),
            ("partition", Value::from(&*self.partition)),
        ];
        fields.extend(more.iter().cloned());
        fields
    }
}

/// Which places a flush is for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub(crate) queue: Option<String>,
    pub(crate) partition: Option<String>,
}

impl Scope {
    pub(super) fn has(&self, address: &Address) -> bool {
        self.queue
            .as_deref()
            .is_none_or(|queue| *queue == *address.queue)
            && self
                .partition
                .as_deref()
                .is_none_or(|partition| *partition == *address.partition)
    }
}
