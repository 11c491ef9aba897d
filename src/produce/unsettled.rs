//! What a flush waits for.

use std::sync::Arc;

use super::address::{Address, Scope};
use super::state::State;
use crate::pending::Ticket;

/// What a flush waits for: emptied from the back.
#[derive(Default)]
pub(super) struct Unsettled {
    last: u64,
    calls: Vec<Ticket>,
    buffers: Vec<Arc<Address>>,
    pub(super) messages: usize,
}

impl Unsettled {
    pub(super) fn calls(&self) -> usize {
        self.calls.len()
    }
}

impl State {
    /// What of these places is not settled now.
    pub(super) fn unsettled(&self, scope: &Scope) -> Unsettled {
        let calls = self
            .calls
            .iter()
            .filter(|(_, call)| scope.has(&call.address));
        let buffers = self.lines.iter().filter(|(address, line)| {
            scope.has(address) && line.buffer.as_ref().is_some_and(|buffer| !buffer.is_idle())
        });
        let mut unsettled = Unsettled {
            last: self.last_call,
            calls: calls.map(|(ticket, _)| ticket).collect(),
            buffers: buffers.map(|(address, _)| address.clone()).collect(),
            messages: 0,
        };
        unsettled.messages = self.left_of(&unsettled);
        unsettled
    }

    /// Whether all of that is settled.
    pub(super) fn is_settled(&self, unsettled: &mut Unsettled) -> bool {
        while let Some(ticket) = unsettled.calls.last() {
            if self.calls.get(*ticket).is_some() {
                return false;
            }
            unsettled.calls.pop();
        }
        while let Some(address) = unsettled.buffers.last() {
            let line = self.lines.get(address);
            let buffer = line.and_then(|line| line.buffer.as_ref());
            if buffer.is_some_and(|buffer| buffer.has_up_to(unsettled.last)) {
                return false;
            }
            unsettled.buffers.pop();
        }
        true
    }

    /// How many messages of that are not settled.
    pub(super) fn left_of(&self, unsettled: &Unsettled) -> usize {
        let calls = unsettled
            .calls
            .iter()
            .filter_map(|ticket| self.calls.get(*ticket));
        let buffers = unsettled
            .buffers
            .iter()
            .filter_map(|address| self.lines.get(address)?.buffer.as_ref());
        calls.map(|call| call.messages).sum::<usize>()
            + buffers
                .map(|buffer| buffer.count_up_to(unsettled.last))
                .sum::<usize>()
    }

    /// How many messages of direct pushes are not settled.
    pub(super) fn direct_messages(&self) -> usize {
        self.calls.messages()
    }
}
