//! A pop: options, the request, and claims made of the answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::claim::{Claim, OnLost};
use super::delivery::{Delivery, DeliveryDocument};
use super::hub::Hub;
use super::lease::{Lease, Renew};
use crate::error::{Error, ErrorCode, Result};
use crate::options;
use crate::pending::Pending;
use crate::protocol::pop::{self, Query};
use crate::protocol::{QUEUE_MODE, check_name};
use crate::runtime::lock;
use crate::transport::{self, Repeat, Request};

/// How to pop. Every field has a default.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PopOptions {
    /// Queues to pop from by namespace, where no queue is named.
    pub namespace: Option<String>,
    /// Queues to pop from by task, where no queue is named.
    pub task: Option<String>,
    /// The consumer group; without one the queue has a single cursor for everybody.
    #[serde(rename = "consumerGroup")]
    pub group: Option<String>,
    /// The most messages, over all partitions. Default 1.
    pub batch: u64,
    /// Whether to wait for messages at the broker. Default false.
    pub wait: bool,
    /// How long to wait there, where it waits. Default 30 000.
    pub poll_timeout_millis: u64,
    /// Whether the broker counts the messages as acked when it hands them out. Default false.
    pub auto_ack: bool,
    /// The length of the lease; the queue's own when missing.
    pub lease_seconds: Option<u64>,
    /// Whether to renew the lease until the messages are settled (needs `lease_seconds`). Default false.
    pub renew_lease: bool,
    /// The most partitions to take messages from. Default 1.
    pub partitions: u64,
    /// Where a group that is new starts: `all` or `new`. The broker's default is `new`.
    pub subscription_mode: Option<String>,
    /// Where a group that is new starts: `now` or an ISO 8601 time.
    pub subscription_from: Option<String>,
    /// Deadline of the call beyond the waiting. Default: the client's `timeoutMillis`.
    pub timeout_millis: Option<u64>,
}

impl Default for PopOptions {
    fn default() -> Self {
        PopOptions {
            namespace: None,
            task: None,
            group: None,
            batch: 1,
            wait: false,
            poll_timeout_millis: 30_000,
            auto_ack: false,
            lease_seconds: None,
            renew_lease: false,
            partitions: 1,
            subscription_mode: None,
            subscription_from: None,
            timeout_millis: None,
        }
    }
}

impl PopOptions {
    /// Reads an options object with the keys in camelCase.
    pub fn parse(json: &str) -> Result<PopOptions> {
        options::parse("pop", json)
    }

    fn query(&self, queue: Option<&str>, partition: Option<&str>) -> Result<Query> {
        let least_one = |name: &str, value: u64| match value {
            0 => Err(options::invalid("pop", name, "0", "must be at least 1")),
            value => Ok(value),
        };
        if self.renew_lease && self.lease_seconds.is_none() {
            return Err(options::invalid(
                "pop",
                "renewLease",
                "true",
                "needs leaseSeconds",
            ));
        }
        if self.lease_seconds == Some(0) {
            return Err(options::invalid(
                "pop",
                "leaseSeconds",
                "0",
                "must be at least 1",
            ));
        }
        if let Some(queue) = queue {
            check_name("queue", queue, false)?;
        }
        let query = Query {
            queue: queue.map(str::to_owned),
            partition: partition.map(str::to_owned),
            namespace: self.namespace.clone(),
            task: self.task.clone(),
            group: self.group.clone().filter(|group| group != QUEUE_MODE),
            batch: least_one("batch", self.batch)?,
            wait_millis: self.wait.then_some(self.poll_timeout_millis),
            auto_ack: self.auto_ack,
            lease_seconds: self.lease_seconds,
            partitions: least_one("partitions", self.partitions)?,
            subscription_mode: self.subscription_mode.clone(),
            subscription_from: self.subscription_from.clone(),
        };
        query.path()?;
        Ok(query)
    }
}

/// What a pop brought: one delivery for each partition. Those that are not taken out go back to the broker when the
/// last clone is dropped.
#[derive(Clone)]
pub struct Popped(Arc<Inner>);

struct Inner {
    deliveries: Mutex<VecDeque<Delivery>>,
    claims: Vec<Arc<Claim>>,
}

impl Popped {
    fn new(deliveries: Vec<Delivery>) -> Popped {
        let claims = deliveries
            .iter()
            .map(|delivery| delivery.claim().clone())
            .collect();
        Popped(Arc::new(Inner {
            deliveries: Mutex::new(deliveries.into()),
            claims,
        }))
    }

    /// Takes out the next delivery.
    pub fn take(&self) -> Option<Delivery> {
        let delivery = lock(&self.0.deliveries).pop_front()?;
        delivery.take();
        Some(delivery)
    }

    /// How many messages came, taken out or not.
    pub fn len(&self) -> usize {
        self.0.claims.iter().map(|claim| claim.messages.len()).sum()
    }

    /// Whether nothing came.
    pub fn is_empty(&self) -> bool {
        self.0.claims.is_empty()
    }

    /// Everything that came as a JSON object `{"deliveries": [..]}`, each as [`Delivery::to_json`] writes it.
    pub fn to_json(&self) -> String {
        let deliveries: Vec<_> = self
            .0
            .claims
            .iter()
            .map(|claim| DeliveryDocument::new(&claim.messages))
            .collect();
        serde_json::to_string(&Document { deliveries }).unwrap_or_else(|_| "null".into())
    }
}

#[derive(serde::Serialize)]
struct Document<'a> {
    deliveries: Vec<DeliveryDocument<'a>>,
}

impl std::fmt::Debug for Popped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Popped({} messages)", self.len())
    }
}

impl Hub {
    /// Pops once.
    pub(crate) fn pop(
        self: &Arc<Hub>,
        queue: Option<&str>,
        partition: Option<&str>,
        options: &PopOptions,
    ) -> Pending<Popped> {
        let query = match options.query(queue, partition) {
            Ok(query) => query,
            Err(error) => return Pending::finished(Err(error)),
        };
        let wait = query.wait_millis.unwrap_or(0);
        let patience = options
            .timeout_millis
            .unwrap_or(self.core.config.timeout_millis);
        let deadline = transport::after(wait.saturating_add(patience));
        let renew = options.lease_seconds.filter(|_| options.renew_lease);
        let renew = renew.map(|lease_seconds| Renew {
            lease_seconds,
            max_handling_seconds: 3600,
            unsure: false,
        });
        let hub = self.clone();
        // The request has its own deadline; the call's is a little later so that the request's tells more.
        self.core.start(
            (1, 0),
            deadline + Duration::from_secs(1),
            move |pending| async move {
                let grace = hub.core.cancel_grace();
                let poll = hub.poll(&query, deadline, || pending.mark_sent(), renew, None);
                tokio::pin!(poll);
                tokio::select! {
                    claims = &mut poll => claims.map(Popped::new),
                    _ = pending.ended() => match tokio::time::timeout(grace, poll).await {
                        // Nobody waits any more: what still came goes back when this is dropped.
                        Ok(claims) => claims.map(Popped::new),
                        Err(_) => Ok(Popped::new(Vec::new())),
                    },
                }
            },
        )
    }

    /// A place among the polls that wait at the brokers, and what is left of the wait then. Where none becomes free in that
    /// time the poll only looks.
    async fn parking_place(&self, asked_millis: u64) -> (Option<SemaphorePermit<'_>>, Option<u64>) {
        let began = Instant::now();
        let asked = Duration::from_millis(asked_millis);
        match tokio::time::timeout(asked, self.core.transport.parking_place()).await {
            Ok(place) => {
                let waited = transport::ms(began.elapsed());
                (place, Some(asked_millis.saturating_sub(waited)))
            }
            Err(_) => (None, None),
        }
    }

    /// One request of a pop or a consumer, and the deliveries it brought. `may_send` is asked right before it leaves.
    pub(crate) async fn poll(
        self: &Arc<Hub>,
        query: &Query,
        deadline: Instant,
        may_send: impl Fn() -> bool,
        renew: Option<Renew>,
        on_lost: OnLost,
    ) -> Result<Vec<Delivery>> {
        let near: Arc<str> = query.affinity_key().into();
        let (_place, wait_millis) = match query.wait_millis {
            Some(asked) => self.parking_place(asked).await,
            None => (None, None),
        };
        let query = &Query {
            wait_millis,
            ..query.clone()
        };
        let request = Request::get(query.path()?, deadline)
            .repeat(Repeat::IfNotSent)
            .waiting(wait_millis.is_some())
            .near(&near);
        if !may_send() {
            return Err(Error::new(ErrorCode::Cancelled, "the call was cancelled"));
        }
        let parked = wait_millis.map(|_| self.core.stats.parked_polls.enter());
        let body = self.core.send(&request).await?.success()?;
        drop(parked);
        let answer = pop::parse(&body, query)?;
        self.core
            .stats
            .popped
            .add(answer.partitions.iter().map(Vec::len).sum());
        let mut leases: Vec<Arc<Lease>> = Vec::new();
        let mut deliveries = Vec::with_capacity(answer.partitions.len());
        for messages in answer.partitions {
            let id = messages[0].source.lease_id.clone();
            // What the broker has acked at delivery is never acked again, whatever it says of a lease.
            let lease = (!query.auto_ack && !id.is_empty()).then(|| {
                match leases.iter().find(|lease| lease.id() == id) {
                    Some(lease) => lease.clone(),
                    None => {
                        let lease = Lease::new(id);
                        leases.push(lease.clone());
                        lease
                    }
                }
            });
            let claim = Claim::new(
                self,
                messages,
                lease,
                near.clone(),
                answer.takes_retry,
                on_lost.clone(),
            );
            deliveries.push(Delivery::new(claim));
        }
        if let Some(renew) = renew {
            // Brokers of generations 0.7 and 0.15 give the lease time of the queue.
            let unsure = !answer.takes_retry;
            let renew = Renew { unsure, ..renew };
            for lease in leases {
                self.core.detach(lease.keep(self.clone(), renew));
            }
        }
        Ok(deliveries)
    }
}
