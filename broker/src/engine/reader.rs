//! Fetches payloads and builds answers, beside the writer.

use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use crossbeam_channel::Sender;
use uuid::Uuid;

use super::command::{ClaimGuard, DeadLetterRequest, Delivery, Failure, PopReply, Reply, View};
use super::history::{Counts, History};
use super::model::PartId;
use super::windows::{self, WindowClaim};
use crate::clock::{self, Clock};
use crate::store::{Db, Result};
use crate::work::Meter;

/// How long a consumer that does not wait should pause after an empty answer, in milliseconds.
const PAUSE: i64 = 100;

/// What was claimed; the messages are still in the store.
pub(crate) struct Claim {
    pub(crate) queue: Arc<str>,
    pub(crate) group: Arc<str>,
    pub(crate) lease: Option<Uuid>,
    pub(crate) parts: Vec<ClaimedPart>,
    /// Batch and partitions to tell the client that left them open.
    pub(crate) echo: Option<(i64, i64)>,
}

/// The claimed span of one partition, both ends included.
pub(crate) struct ClaimedPart {
    pub(crate) id: PartId,
    pub(crate) uuid: Uuid,
    pub(crate) name: Arc<str>,
    /// The queue it belongs to.
    pub(crate) queue: Arc<str>,
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// Work that needs the store but not the writer.
pub(crate) enum Job {
    Claim(Claim, ClaimGuard, PopReply),
    Window(WindowClaim, ClaimGuard, PopReply),
    DeadLetters(DeadLetterRequest, Reply<Bytes>),
    View(View, Reply<Option<String>>),
}

impl Job {
    fn run(self, db: &Db, log: &DeliveryLog) {
        match self {
            Job::Claim(claim, guard, reply) => {
                // When nobody listens any more the delivery comes back, and its guard gives the claim back.
                let answer = match messages(db, &claim, log) {
                    Ok(Some(body)) => Ok(Some(Delivery { body, guard })),
                    // The queue was deleted in between.
                    Ok(None) => Ok(None),
                    Err(e) => Err(Failure::from(&e)),
                };
                let _ = reply.send(answer);
            }
            Job::Window(claim, guard, reply) => {
                let body = windows::window(db, &claim);
                let answer = body.map(|body| Some(Delivery { body, guard }));
                let _ = reply.send(answer.map_err(|e| Failure::from(&e)));
            }
            Job::View(view, reply) => {
                let _ = reply.send(view(db).map_err(|e| Failure::from(&e)));
            }
            Job::DeadLetters(request, reply) => {
                let _ = reply.send(dead_letters(db, &request).map_err(|e| Failure::from(&e)));
            }
        }
    }
}

/// Where deliveries are counted.
#[derive(Clone, Default)]
pub(crate) struct DeliveryLog {
    pub(crate) history: Arc<History>,
    pub(crate) clock: Clock,
}

/// The reader threads, or none.
pub(crate) struct Readers {
    log: DeliveryLog,
    jobs: Option<Sender<Job>>,
    inbox: Option<crossbeam_channel::Receiver<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(crate) fn none(log: DeliveryLog) -> Readers {
        Readers {
            log,
            jobs: None,
            inbox: None,
            threads: Vec::new(),
        }
    }

    pub(crate) fn start(&mut self, n: usize, db: Db, counting: Option<Meter>) -> io::Result<()> {
        if self.jobs.is_none() {
            let (jobs, inbox) = crossbeam_channel::unbounded();
            (self.jobs, self.inbox) = (Some(jobs), Some(inbox));
        }
        let Some(inbox) = self.inbox.clone() else {
            return Ok(());
        };
        let log = self.log.clone();
        let work = move || {
            if let Some(meter) = counting {
                db.count_work(&meter);
            }
            inbox.iter().for_each(|job: Job| job.run(&db, &log));
        };
        self.threads.push(
            thread::Builder::new()
                .name(format!("queen-reader-{n}"))
                .spawn(work)?,
        );
        Ok(())
    }

    /// Runs a job on a reader thread, or here when there is none.
    pub(crate) fn run(&self, job: Job, db: &Db) {
        match &self.jobs {
            None => job.run(db, &self.log),
            Some(jobs) => {
                if let Err(refused) = jobs.send(job) {
                    refused.0.run(db, &self.log);
                }
            }
        }
    }

    /// Lets the threads finish their work and waits for them.
    pub(crate) fn join(&mut self) {
        self.jobs = None;
        self.inbox = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.join();
    }
}

/// The body of a pop, built by hand so that payloads are copied and never parsed.
fn messages(db: &Db, claim: &Claim, log: &DeliveryLog) -> Result<Option<Bytes>> {
    let Some(first) = claim.parts.first() else {
        return Ok(None);
    };
    let lease = claim.lease.map_or_else(String::new, |id| id.to_string());
    let group = quote(&claim.group);
    let mut out = String::with_capacity(1024);
    let _ = write!(
        out,
        r#"{{"success":true,"queue":{},"partition":{},"partitionId":"{}","leaseId":"{lease}","consumerGroup":{group},"messages":["#,
        quote(&claim.queue),
        quote(&first.name),
        first.uuid,
    );
    let start = out.len();
    for part in &claim.parts {
        let tail = format!(
            r#""partitionId":"{}","partition":{},"leaseId":"{lease}","consumerGroup":{group}}}"#,
            part.uuid,
            quote(&part.name),
        );
        // The messages of a segment share their time, so it is written once.
        let mut time = (i64::MIN, String::new());
        let now = log.clock.now();
        let mut counts = Counts::default();
        db.each(part.id, part.from, part.to, |_, created, record| {
            let age = now.saturating_sub(created).max(0) as u64 / 1000;
            counts.pop_messages += 1;
            counts.lag_sum += age;
            counts.lag_max = counts.lag_max.max(age);
            if time.0 != created {
                time = (created, clock::iso(created));
            }
            if out.len() > start {
                out.push(',');
            }
            let _ = write!(out, r#"{{"id":"{}","transactionId":"#, record.id);
            push_quoted(&mut out, record.txn);
            out.push(',');
            let _ = match record.trace {
                Some(trace) => write!(out, r#""traceId":"{trace}","data":"#),
                None => write!(out, r#""traceId":null,"data":"#),
            };
            out.push_str(record.payload);
            let producer = record.producer.map_or_else(|| "null".into(), quote);
            let _ = write!(
                out,
                r#","producerSub":{producer},"createdAt":"{}",{tail}"#,
                time.1
            );
        })?;
        log.history.delivered(now, &part.queue, &counts);
    }
    if out.len() == start {
        return Ok(None);
    }
    let _ = write!(out, r#"],"partitionsClaimed":{}"#, claim.parts.len());
    if let Some((batch, parts)) = claim.echo {
        let _ = write!(
            out,
            r#","autopilot":{{"partitions":{parts},"batch":{batch},"waitMs":{PAUSE}}}"#
        );
    }
    out.push('}');
    Ok(Some(out.into()))
}

fn dead_letters(db: &Db, request: &DeadLetterRequest) -> Result<Bytes> {
    let rows = db.dead_letters(request)?;
    let mut out = String::from(r#"{"messages":["#);
    for (n, row) in rows.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        let failed = clock::iso(row.failed);
        let _ = write!(
            out,
            r#"{{"id":"{}","transactionId":{},"partitionId":"{}","queue":{},"partition":{},"consumerGroup":{},"errorMessage":{},"retryCount":{},"data":{},"producerSub":null,"createdAt":"{failed}","failedAt":"{failed}"}}"#,
            row.id,
            quote(&row.txn),
            row.part_id,
            quote(&row.queue),
            quote(&row.part),
            quote(&row.group),
            quote(&row.error),
            row.retries,
            row.payload,
        );
    }
    let (limit, offset, total) = (request.limit, request.offset, rows.len());
    let _ = write!(
        out,
        r#"],"pagination":{{"limit":{limit},"offset":{offset}}},"total":{total}}}"#
    );
    Ok(out.into())
}

/// Adds a text as JSON.
pub(crate) fn push_quoted(out: &mut String, text: &str) {
    if text
        .bytes()
        .any(|byte| byte < b' ' || byte == b'"' || byte == b'\\')
    {
        return out.push_str(&quote(text));
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

/// A text as JSON. Writing a string to a string cannot fail.
pub(crate) fn quote(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}
