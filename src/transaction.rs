//! Verdicts and pushes that count together or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::client::Client;
use crate::consume::{AckOptions, Claim, Delivery, Hub, MessageVerdict, Taken, Verdict};
use crate::core::Core;
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::log::Level;
use crate::options::{ItemOptions, TransactionOptions};
use crate::pending::Pending;
use crate::produce::Producer;
use crate::protocol::DEFAULT_PARTITION;
use crate::protocol::ack::{Ack, Status};
use crate::protocol::push::Item;
use crate::protocol::transaction::{self, Committed, Draft, TransactionResult};
use crate::runtime::lock;
use crate::transport::{self, Request};

/// Verdicts and pushes, to many queues and partitions, that a broker applies together or not at all. Made by
/// [`Client::transaction`].
///
/// A verdict that was added belongs to the transaction: no other verdict on that message counts until it has ended.
/// Committed, the message is settled, whatever its handler answers; rolled back, or dropped without a commit, it is
/// unsettled again; with an outcome that is not known it is lost and comes again unless the commit was applied.
///
/// What is wrong with an addition is told by [`error`](Self::error) and by the commit, which then sends nothing.
///
/// ```
/// use queen::{Client, Item};
/// use std::time::Duration;
///
/// let wait = Duration::from_secs(10);
/// let client = Client::new("embedded:")?;
/// let orders = client.queue("orders");
/// orders.push(&[Item::json(&42)?]).wait(wait)?;
///
/// let delivery = orders.pop().wait(wait)?.take().expect("one delivery");
/// let bill = format!("bill for {}", delivery.messages()[0].payload());
/// let committed = client
///     .transaction()
///     .ack(&delivery)
///     .push("bills", "eu", &[Item::json(&bill)?])
///     .commit()
///     .wait(wait)?;
/// assert!(committed.results.iter().all(|result| result.is_success()));
/// # Ok::<(), queen::Error>(())
/// ```
pub struct Transaction {
    hub: Arc<Hub>,
    producer: Arc<Producer>,
    draft: Draft,
    taken: Vec<Taken>,
    /// How many messages go to which queue and partition.
    places: BTreeMap<(String, String), usize>,
    error: Option<Error>,
    over: bool,
}

impl Client {
    /// A transaction. Nothing is sent before its commit.
    pub fn transaction(&self) -> Transaction {
        Transaction {
            hub: self.hub().clone(),
            producer: self.producer().clone(),
            draft: Draft::default(),
            taken: Vec::new(),
            places: BTreeMap::new(),
            error: None,
            over: false,
        }
    }
}

impl Transaction {
    /// Finishes every message of a delivery that has no verdict yet. [`ErrorCode::AlreadySettled`] when each has one.
    pub fn ack(&mut self, delivery: &Delivery) -> &mut Transaction {
        let open = delivery.claim().unsettled(delivery.range());
        let verdicts = open.into_iter().map(|index| Verdict {
            index,
            status: Status::Completed,
            reason: None,
        });
        let verdicts: Vec<_> = verdicts.collect();
        self.add(|transaction| match verdicts.is_empty() {
            true => Err(Error::new(
                ErrorCode::AlreadySettled,
                "every message of the delivery has a verdict",
            )),
            false => transaction.take(delivery, verdicts),
        })
    }

    /// Gives a verdict on the message at `index` of a delivery.
    pub fn ack_message(
        &mut self,
        delivery: &Delivery,
        index: usize,
        status: Status,
    ) -> &mut Transaction {
        self.settle(
            delivery,
            vec![MessageVerdict {
                index,
                status,
                error: None,
            }],
        )
    }

    /// Gives verdicts on some messages of a delivery.
    pub fn settle(
        &mut self,
        delivery: &Delivery,
        verdicts: Vec<MessageVerdict>,
    ) -> &mut Transaction {
        self.add(|transaction| match verdicts.is_empty() {
            true => Err(Error::argument("verdicts is empty; give at least one")),
            false => transaction.take(delivery, delivery.verdicts(verdicts)?),
        })
    }

    /// As [`settle`](Self::settle), from a JSON array of `{"index", "status", "error"?}`.
    pub fn settle_json(&mut self, delivery: &Delivery, json: &str) -> &mut Transaction {
        match MessageVerdict::parse_list(json) {
            Ok(verdicts) => self.settle(delivery, verdicts),
            Err(error) => self.fail(error),
        }
    }

    /// Gives verdicts by ids. Those of a live delivery of this client take it over as [`settle`](Self::settle) does; the
    /// rest goes to the broker as written. The options' deadline does not matter here.
    pub fn ack_ids(&mut self, acks: Vec<Ack>, options: &AckOptions) -> &mut Transaction {
        self.add(|transaction| {
            options.check(&acks)?;
            for ack in acks {
                let group = options.group();
                match transaction.hub.live(&ack, group) {
                    Some((claim, index)) => {
                        let verdict = Verdict {
                            index,
                            status: ack.status,
                            reason: ack.error,
                        };
                        transaction.take_over(&claim, verdict)?;
                    }
                    None => transaction.draft.ack(&ack, group)?,
                }
            }
            Ok(())
        })
    }

    /// Pushes messages to a partition, `None` for `Default`. Missing ids are minted here, once.
    pub fn push<'p>(
        &mut self,
        queue: &str,
        partition: impl Into<Option<&'p str>>,
        items: &[Item<'_>],
    ) -> &mut Transaction {
        let partition = partition.into().unwrap_or(DEFAULT_PARTITION);
        self.add(|transaction| {
            transaction.draft.push(queue, partition, items)?;
            let place = (queue.to_owned(), partition.to_owned());
            *transaction.places.entry(place).or_default() += items.len();
            Ok(())
        })
    }

    /// As [`push`](Self::push), from a JSON array of `{payload, transactionId?, traceId?}`, or as the options say.
    pub fn push_json<'p>(
        &mut self,
        queue: &str,
        partition: impl Into<Option<&'p str>>,
        items: &str,
        options: &ItemOptions,
    ) -> &mut Transaction {
        match Item::read_list(items, options.classic_items) {
            Ok(items) => self.push(queue, partition, &items),
            Err(error) => self.fail(error),
        }
    }

    /// What was wrong with an addition, the first of them.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Sends it all in one request, which is never repeated once a broker may have seen it. Only the first commit counts.
    ///
    /// Before anything is sent: the first error of an addition; [`ErrorCode::Order`] where it would pass an earlier message
    /// of a partition that is unsettled; [`ErrorCode::LeaseLost`]. [`ErrorCode::RolledBack`]: nothing was applied, the
    /// result has an entry for each operation, and [`RollbackReason`](crate::RollbackReason) why. An error whose outcome is
    /// unknown lists the ids of the pushes: a second transaction with them is rolled back as `duplicate` if the first was
    /// applied.
    pub fn commit(&mut self) -> Pending<Committed> {
        self.commit_with(&TransactionOptions::default())
    }

    /// As [`commit`](Self::commit), with options.
    pub fn commit_with(&mut self, options: &TransactionOptions) -> Pending<Committed> {
        if std::mem::replace(&mut self.over, true) {
            return Pending::failed(committed());
        }
        let taken = std::mem::take(&mut self.taken);
        if let Some(error) = self.error.take() {
            return Pending::failed(error);
        }
        if self.draft.is_empty() {
            return Pending::failed(Error::argument(
                "the transaction has no operations to commit; add an ack or a push",
            ));
        }
        let commit = Commit {
            hub: self.hub.clone(),
            producer: self.producer.clone(),
            draft: std::mem::take(&mut self.draft),
            taken,
        };
        let places = std::mem::take(&mut self.places);
        commit.start(places, options)
    }

    /// Adds something, unless something was wrong before.
    fn add(&mut self, add: impl FnOnce(&mut Transaction) -> Result<()>) -> &mut Transaction {
        if self.over {
            return self.fail(committed());
        }
        if self.error.is_none()
            && let Err(error) = add(self)
        {
            return self.fail(error);
        }
        self
    }

    /// Notes that something could not be added, such as what a foreign language has handed over: the commit fails with the
    /// first of these errors and sends nothing.
    pub fn fail(&mut self, error: Error) -> &mut Transaction {
        self.error.get_or_insert(error);
        self
    }

    fn take(&mut self, delivery: &Delivery, verdicts: Vec<Verdict>) -> Result<()> {
        if !delivery.is_of(&self.hub) {
            return Err(Error::argument(
                "the delivery belongs to another client than the transaction",
            ));
        }
        for verdict in verdicts {
            self.take_over(delivery.claim(), verdict)?;
        }
        Ok(())
    }

    fn take_over(&mut self, claim: &Arc<Claim>, verdict: Verdict) -> Result<()> {
        let place = self.taken.iter().position(|one| one.is_of(claim));
        let place = place.unwrap_or_else(|| {
            self.taken.push(Taken::new(claim.clone()));
            self.taken.len() - 1
        });
        let ack = self.taken[place].take(verdict)?;
        self.draft.ack(&ack, &claim.source().consumer_group)
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transaction({} operations)", self.draft.cost().0)
    }
}

/// A transaction on its way.
struct Commit {
    hub: Arc<Hub>,
    producer: Arc<Producer>,
    draft: Draft,
    taken: Vec<Taken>,
}

impl Commit {
    fn start(
        mut self,
        places: BTreeMap<(String, String), usize>,
        options: &TransactionOptions,
    ) -> Pending<Committed> {
        let core = self.hub.core.clone();
        let millis = options.timeout_millis.unwrap_or(core.config.timeout_millis);
        let deadline = transport::after(millis);
        let counts = ("operations", Value::from(self.draft.cost().0));
        let committing = core.start(self.draft.cost(), deadline, move |pending| {
            pending.note_transaction_ids(self.draft.transaction_ids());
            let (producer, ended) = (self.producer.clone(), pending.clone());
            let entered = {
                // One after another, so that all transactions see the others in the same order wherever they meet.
                let _one = lock(&self.hub.commits);
                let entered = self.taken.iter_mut().try_for_each(Taken::enter);
                entered.map(|()| producer.line_up(places, &ended))
            };
            async move {
                let places = entered?;
                let turns = async {
                    places.turn().await;
                    for taken in &mut self.taken {
                        taken.turn().await?;
                    }
                    Ok::<(), Error>(())
                };
                tokio::select! {
                    turns = turns => turns?,
                    // Nobody waits any more, and nothing was sent.
                    () = pending.ended() => {}
                }
                if !pending.mark_sent() {
                    return Err(Error::new(ErrorCode::Cancelled, "the call was cancelled"));
                }
                self.send(deadline).await
            }
        });
        note_end(&core, &committing, counts);
        committing
    }

    async fn send(mut self, deadline: tokio::time::Instant) -> Result<Committed> {
        let core = self.hub.core.clone();
        // Not repeated once it may have been applied: a second time its ids would be duplicates.
        let mut request = Request::post(transaction::PATH, self.draft.body(), deadline);
        if let Some(taken) = self.taken.first() {
            request = request.near(taken.near());
        }
        self.taken.iter_mut().for_each(Taken::sent);
        let answer = core.send(&request).await;
        let result = answer.and_then(|answer| {
            // Generation 0.7 tells of a rollback with HTTP 400.
            let told =
                matches!(answer.status, 400..=499).then(|| self.draft.rollback(&answer.body));
            match told.flatten() {
                Some(error) => Err(error.with_http_status(answer.status)),
                None => self.draft.committed(&answer.success()?),
            }
        });
        let done = result.as_ref().map(|_| ()).map_err(Error::outcome);
        for taken in self.taken.drain(..) {
            match done {
                Ok(()) => taken.committed(),
                Err(Outcome::Unknown) => drop(taken),
                Err(Outcome::NotApplied | Outcome::Refused) => taken.released(),
            }
        }
        self.count(&core, &result);
        result.map_err(|error| error.with_transaction_ids(self.draft.transaction_ids()))
    }

    fn count(&self, core: &Core, result: &Result<Committed>) {
        let stats = &core.stats;
        match result {
            Ok(committed) => {
                stats.transactions.committed.add(1);
                for result in &committed.results {
                    if let TransactionResult::Push(push) = result {
                        stats.pushed.note(&push.status);
                    }
                }
                let statuses = self.draft.statuses();
                statuses.for_each(|status| stats.verdicts.note(status, true));
            }
            Err(error) if error.code() == ErrorCode::RolledBack => {
                stats.transactions.rolled_back.add(1);
                let failed = self.draft.transaction_ids().len();
                (0..failed).for_each(|_| stats.pushed.note("failed"));
                let statuses = self.draft.statuses();
                statuses.for_each(|status| stats.verdicts.note(status, false));
            }
            Err(error) if error.outcome() == Outcome::Unknown => stats.transactions.unknown.add(1),
            Err(_) => {}
        }
    }
}

/// Logs how the commit ends; nobody may be looking at the future.
fn note_end(core: &Arc<Core>, committing: &Pending<Committed>, counts: (&'static str, Value)) {
    let (core, ended) = (core.clone(), committing.clone());
    committing.when_complete(move || {
        let (level, message, outcome) = match ended.result() {
            Some(Err(error)) => (
                Level::Warn,
                "a transaction was not committed",
                Some(("error", Value::from(error.to_string()))),
            ),
            _ => (Level::Debug, "a transaction was committed", None),
        };
        if core.logger.wants(level) {
            let fields: Vec<_> = std::iter::once(counts).chain(outcome).collect();
            core.logger
                .log(level, "transaction.commit", message, &fields);
        }
    });
}

fn committed() -> Error {
    Error::new(
        ErrorCode::InvalidState,
        "the transaction is committed already; make a new one",
    )
}
