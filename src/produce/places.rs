//! Transactions among the pushes: a place in the line of each partition that they push to.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Producer;
use super::address::Address;
use crate::pending::Pending;

impl Producer {
    /// Lines up in several partitions at once, with that many messages for each: behind everything that was pushed there
    /// before. Where several take the same partitions, all see the others in the same order.
    pub(crate) fn line_up<T: Clone + Send + Sync + 'static>(
        self: &Arc<Producer>,
        places: BTreeMap<(String, String), usize>,
        ended: &Pending<T>,
    ) -> Places {
        let mut tickets = Vec::with_capacity(places.len());
        let places = self.change(|state, now| {
            let join = |((queue, partition), messages): ((String, String), usize)| {
                let (address, ticket, turn) =
                    state.join(Address::new(&queue, &partition), messages, now);
                tickets.push(ticket);
                Place::new(self, address, turn)
            };
            places.into_iter().map(join).collect()
        });
        let producer = self.clone();
        ended.when_complete(move || {
            producer.change(|state, now| {
                for ticket in &tickets {
                    state.settled(*ticket, now);
                }
            });
            producer.changed.notify_waiters();
        });
        Places(places)
    }
}

/// A transaction's place in the line of a partition. Dropping it lets the next one go.
struct Place {
    producer: Arc<Producer>,
    address: Arc<Address>,
    /// Empty when the turn came at once.
    turn: tokio::sync::Mutex<Option<oneshot::Receiver<()>>>,
}

/// The places of a transaction in the lines of its partitions. Dropping them lets the next ones go.
pub(crate) struct Places(Vec<Place>);

impl Places {
    /// Waits for the turn in every line.
    pub(crate) async fn turn(&self) {
        for place in &self.0 {
            place.turn().await;
        }
    }
}

impl Place {
    fn new(
        producer: &Arc<Producer>,
        address: Arc<Address>,
        turn: Option<oneshot::Receiver<()>>,
    ) -> Place {
        Place {
            producer: producer.clone(),
            address,
            turn: tokio::sync::Mutex::new(turn),
        }
    }

    async fn turn(&self) {
        let mut turn = self.turn.lock().await;
        if let Some(receiver) = turn.as_mut() {
            let _ = receiver.await;
            *turn = None;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (turn, address) = (self.turn.get_mut(), &self.address);
        self.producer.change(|state, now| {
            let had_turn = match turn {
                None => true,
                // Turns are given under the lock, so after the close none can come any more.
                Some(receiver) => {
                    receiver.close();
                    receiver.try_recv().is_ok()
                }
            };
            if had_turn {
                state.pass_on(address, now);
            }
        });
    }
}
