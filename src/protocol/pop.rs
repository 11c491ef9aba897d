//! `GET /api/v1/pop/…`.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::plain::{self, Plain};
use super::{QUEUE_MODE, Text, bad_answer, query_pair, segment};
use crate::error::{Error, ErrorCode, Outcome, Result};

/// What to pop, as it goes on the wire.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pub(crate) queue: Option<String>,
    pub(crate) partition: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) task: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) batch: u64,
    pub(crate) wait_millis: Option<u64>,
    pub(crate) auto_ack: bool,
    pub(crate) lease_seconds: Option<u64>,
    pub(crate) partitions: u64,
    pub(crate) subscription_mode: Option<String>,
    pub(crate) subscription_from: Option<String>,
}

impl Query {
    /// What is polled: pops with the same key are best served by the same broker. One spelling for pops and consumers of
    /// all clients.
    pub(crate) fn affinity_key(&self) -> String {
        let (first, second) = match &self.queue {
            Some(queue) => (Some(queue), &self.partition),
            None => (self.namespace.as_ref(), &self.task),
        };
        format!(
            "{}:{}:{}",
            first.map_or("*", String::as_str),
            second.as_deref().unwrap_or("*"),
            self.group.as_deref().unwrap_or(QUEUE_MODE)
        )
    }

    /// The path with its query string. Keys that would say no more than the broker's default are not sent.
    pub(crate) fn path(&self) -> Result<String> {
        let mut path = match (&self.queue, &self.partition) {
            (Some(queue), Some(partition)) => {
                format!(
                    "/api/v1/pop/queue/{}/partition/{}",
                    segment("queue", queue)?,
                    segment("partition", partition)?
                )
            }
            (Some(queue), None) => format!("/api/v1/pop/queue/{}", segment("queue", queue)?),
            (None, None) if self.namespace.is_some() || self.task.is_some() => "/api/v1/pop".into(),
            (None, _) => {
                return Err(Error::argument(
                    "queue is missing; name a queue, or a namespace or task",
                ));
            }
        };
        let mut pair = |key: &str, value: &str| query_pair(&mut path, key, value);
        pair("batch", &self.batch.to_string());
        if let Some(millis) = self.wait_millis {
            pair("wait", "true");
            pair("timeout", &millis.to_string());
        }
        if self.auto_ack {
            pair("autoAck", "true");
        }
        if let Some(seconds) = self.lease_seconds {
            pair("leaseSeconds", &seconds.to_string());
        }
        if self.partitions > 1 {
            pair("partitions", &self.partitions.to_string());
        }
        let texts = [
            ("consumerGroup", &self.group),
            ("namespace", &self.namespace),
            ("task", &self.task),
            ("subscriptionMode", &self.subscription_mode),
            ("subscriptionFrom", &self.subscription_from),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                pair(key, text);
            }
        }
        Ok(path)
    }
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug))]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    success: Option<bool>,
    error: Option<Cow<'a, str>>,
    #[serde(borrow)]
    messages: Option<Vec<Option<WireMessage<'a>>>>,
    partitions_claimed: Option<u64>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug))]
#[serde(rename_all = "camelCase")]
struct WireMessage<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    transaction_id: Text<'a>,
    #[serde(borrow)]
    partition_id: Text<'a>,
    #[serde(borrow, default)]
    partition: Option<Text<'a>>,
    #[serde(borrow)]
    lease_id: Option<Text<'a>>,
    #[serde(borrow)]
    trace_id: Option<Text<'a>>,
    #[serde(borrow)]
    producer_sub: Option<Text<'a>>,
    #[serde(borrow)]
    queue: Option<Text<'a>>,
    #[serde(borrow, default)]
    created_at: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// An answer with messages as brokers of generation 1.x write it.
fn plain<'a>(answer: &mut Plain<'a>, count: usize) -> Option<Envelope<'a>> {
    answer.literal("{\"success\":true,\"queue\":")?;
    answer.nullable()?;
    // Of the first message, which says so itself.
    for key in [
        ",\"partition\":",
        ",\"partitionId\":",
        ",\"leaseId\":",
        ",\"consumerGroup\":",
    ] {
        answer.literal(key)?;
        answer.nullable()?;
    }
    answer.literal(",\"messages\":")?;
    let messages = answer.list(count, |answer| plain_message(answer).map(Some))?;
    answer.literal(",\"partitionsClaimed\":")?;
    let partitions_claimed = answer.number()?;
    answer.literal("}")?;
    Some(Envelope {
        success: Some(true),
        error: None,
        messages: Some(messages),
        partitions_claimed: Some(partitions_claimed),
    })
}

fn plain_message<'a>(answer: &mut Plain<'a>) -> Option<WireMessage<'a>> {
    answer.literal("{\"id\":")?;
    let id = answer.text()?;
    answer.literal(",\"transactionId\":")?;
    let transaction_id = answer.text()?;
    answer.literal(",\"traceId\":")?;
    let trace_id = answer.nullable()?;
    answer.literal(",\"data\":")?;
    let data = answer.value()?;
    answer.literal(",\"producerSub\":")?;
    let producer_sub = answer.nullable()?;
    answer.literal(",\"createdAt\":")?;
    let created_at = answer.text()?;
    answer.literal(",\"partitionId\":")?;
    let partition_id = answer.text()?;
    answer.literal(",\"partition\":")?;
    let partition = answer.text()?;
    answer.literal(",\"leaseId\":")?;
    let lease_id = answer.nullable()?;
    answer.literal(",\"consumerGroup\":")?;
    answer.text()?;
    answer.literal("}")?;
    Some(WireMessage {
        id: Some(id),
        transaction_id,
        partition_id,
        partition: Some(partition),
        lease_id,
        trace_id,
        producer_sub,
        queue: None,
        created_at: Some(created_at),
        data: Some(data),
    })
}

/// One message as delivered. The payload is the JSON text that was pushed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Message {
    /// The broker's id.
    pub id: String,
    /// The producer's id, the key of acks and of de-duplication.
    pub transaction_id: String,
    /// Set for messages pushed in a transaction alone (brokers 1.x).
    pub trace_id: Option<String>,
    /// The authenticated producer, if the broker knows one.
    pub producer_sub: Option<String>,
    /// When the push was committed, ISO 8601 in UTC.
    pub created_at: String,
    /// What all messages of one partition and lease share.
    pub source: Arc<Source>,
    payload: Bytes,
}

/// Where messages come from and under which lease.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Source {
    /// The queue; empty when it was found by namespace or task and the broker does not tell.
    pub queue: String,
    /// The partition's name.
    pub partition: String,
    /// The partition's id, opaque.
    pub partition_id: String,
    /// The lease; empty when the pop was acked by the broker itself.
    pub lease_id: String,
    /// The consumer group, `__QUEUE_MODE__` without one.
    pub consumer_group: String,
}

impl Message {
    /// The payload: JSON text, byte for byte as pushed.
    pub fn payload(&self) -> &str {
        // Checked to be UTF-8 when the answer was parsed.
        std::str::from_utf8(&self.payload).unwrap_or("null")
    }

    /// The payload as a value of the caller's type.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_str(self.payload()).map_err(|error| {
            Error::new(
                ErrorCode::InvalidJson,
                format!("payload of {}: {error}", self.transaction_id),
            )
        })
    }
}

/// A message in the wire's spelling, for documents that libqueen writes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MessageDocument<'a> {
    id: &'a str,
    transaction_id: &'a str,
    trace_id: Option<&'a str>,
    data: &'a RawValue,
    producer_sub: Option<&'a str>,
    created_at: &'a str,
    queue: &'a str,
    partition_id: &'a str,
    partition: &'a str,
    lease_id: &'a str,
    consumer_group: &'a str,
}

impl<'a> MessageDocument<'a> {
    pub(crate) fn new(message: &'a Message) -> MessageDocument<'a> {
        let source = &*message.source;
        MessageDocument {
            id: &message.id,
            transaction_id: &message.transaction_id,
            trace_id: message.trace_id.as_deref(),
            data: serde_json::from_str(message.payload()).unwrap_or(RawValue::NULL),
            producer_sub: message.producer_sub.as_deref(),
            created_at: &message.created_at,
            queue: &source.queue,
            partition_id: &source.partition_id,
            partition: &source.partition,
            lease_id: &source.lease_id,
            consumer_group: &source.consumer_group,
        }
    }
}

/// Texts of brokers 0.15 that report an empty pop as a failure.
const EMPTY: &[&str] = &[
    "lease_held",
    "no_available_partition",
    "partition_not_found",
    "lease_race_condition",
];

/// What a pop brought.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The messages of each partition, in the order of the answer.
    pub(crate) partitions: Vec<Vec<Message>>,
    /// Whether the broker takes the verdict `retry` as "not charged": generation 1.x does, older ones read a failure.
    pub(crate) takes_retry: bool,
}

/// Reads an answer of status 200.
pub(crate) fn parse(body: &Bytes, query: &Query) -> Result<Answer> {
    if body.is_empty() {
        return Ok(Answer::default());
    }
    let text = std::str::from_utf8(body).map_err(|error| bad_answer("pop", error))?;
    let count = query.batch.min(1024) as usize;
    let envelope = plain::read(text, |answer| plain(answer, count))
        .map_err(|error| bad_answer("pop", error))?;
    let reason = match (envelope.success, envelope.error) {
        (Some(true), _) | (None, None) => None,
        (_, Some(error)) => Some(error),
        (Some(false), None) => Some("no reason given".into()),
    };
    if let Some(reason) = reason {
        if EMPTY.contains(&&*reason) {
            return Ok(Answer::default());
        }
        return Err(Error::new(
            ErrorCode::Broker,
            format!("the broker refused the pop: {reason}"),
        )
        .with_outcome(Outcome::Refused));
    }
    let Some(messages) = envelope.messages else {
        return Err(bad_answer("pop", "it has no `messages`"));
    };
    let mut partitions: Vec<Vec<Message>> = Vec::new();
    for wire in messages.into_iter().flatten() {
        // Those of a partition stand together as a rule.
        let place = partitions
            .iter()
            .rposition(|messages| messages[0].source.partition_id == wire.partition_id.0);
        let source = match place {
            Some(place) => partitions[place][0].source.clone(),
            None => Arc::new(Source {
                queue: wire
                    .queue
                    .map(Text::into_owned)
                    .or_else(|| query.queue.clone())
                    .unwrap_or_default(),
                partition: wire.partition.map(Text::into_owned).unwrap_or_default(),
                partition_id: wire.partition_id.into_owned(),
                lease_id: wire.lease_id.map(Text::into_owned).unwrap_or_default(),
                consumer_group: query.group.clone().unwrap_or_else(|| QUEUE_MODE.to_owned()),
            }),
        };
        let payload = match wire.data {
            Some(data) => body.slice_ref(data.get().as_bytes()),
            None => Bytes::from_static(b"null"),
        };
        let message = Message {
            id: wire.id.map(Text::into_owned).unwrap_or_default(),
            transaction_id: wire.transaction_id.into_owned(),
            trace_id: wire.trace_id.map(Text::into_owned),
            producer_sub: wire.producer_sub.map(Text::into_owned),
            created_at: wire.created_at.map(Text::into_owned).unwrap_or_default(),
            source,
            payload,
        };
        match place {
            Some(place) => partitions[place].push(message),
            None => partitions.push(vec![message]),
        }
    }
    Ok(Answer {
        partitions,
        takes_retry: envelope.partitions_claimed.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> Query {
        Query {
            queue: Some("a/b".into()),
            batch: 5,
            partitions: 1,
            ..Query::default()
        }
    }

    #[test]
    fn q10_q12_q15_x29_x31_paths_carry_what_differs_from_the_default() {
        assert_eq!(query().path().unwrap(), "/api/v1/pop/queue/a%2Fb?batch=5");
        let full = Query {
            partition: Some("p 1".into()),
            group: Some("g&x".into()),
            wait_millis: Some(30_000),
            auto_ack: true,
            lease_seconds: Some(9),
            partitions: 3,
            subscription_mode: Some("all".into()),
            ..query()
        };
        assert_eq!(
            full.path().unwrap(),
            "/api/v1/pop/queue/a%2Fb/partition/p%201?batch=5&wait=true&timeout=30000&autoAck=true&leaseSeconds=9\
             &partitions=3&consumerGroup=g%26x&subscriptionMode=all"
        );
        // A mode that only the broker knows goes through.
        let later = Query {
            subscription_mode: Some("some-day".into()),
            ..query()
        };
        assert!(
            later
                .path()
                .unwrap()
                .ends_with("&subscriptionMode=some-day")
        );
        assert!(Query::default().path().is_err());
    }

    #[test]
    fn messages_are_grouped_by_partition_and_payloads_kept() {
        let body = Bytes::from_static(
            br#"{"success":true,"messages":[
            {"id":"1","transactionId":"a","partitionId":"P1","partition":"x","leaseId":"L","data":{"n": 1.0}},
            {"id":"2","transactionId":"b","partitionId":"P2","partition":"y","leaseId":"L","data":null},
            null,
            {"id":"3","transactionId":"c","partitionId":"P1","partition":"x","leaseId":"L","data":[1]}]}"#,
        );
        let Answer {
            partitions,
            takes_retry,
        } = parse(&body, &query()).unwrap();
        assert!(!takes_retry, "this is how 0.15 answers");
        assert_eq!(partitions.len(), 2);
        assert_eq!(partitions[0].len(), 2);
        assert_eq!(partitions[0][0].payload(), r#"{"n": 1.0}"#);
        assert_eq!(partitions[1][0].payload(), "null");
        assert_eq!(partitions[0][0].source.consumer_group, QUEUE_MODE);
        assert_eq!(partitions[0][1].json::<Vec<u8>>().unwrap(), [1]);
    }

    #[test]
    fn answers_are_read_as_serde_would() {
        let text = r#"{"success":true,"queue":"q","partition":"p","partitionId":"P","leaseId":"L","consumerGroup":"g","messages":[{"id":"1","transactionId":"é","traceId":null,"data":{"n": 1.0,"a":["}"]},"producerSub":"me","createdAt":"2026-01-01T00:00:00Z","partitionId":"P","partition":"p","leaseId":"L","consumerGroup":"g"},{"id":"2","transactionId":"t","traceId":"T","data":null,"producerSub":null,"createdAt":"2026-01-01T00:00:00Z","partitionId":"P2","partition":"p2","leaseId":null,"consumerGroup":"g"}],"partitionsClaimed":2}"#;
        let shown = |envelope: Envelope<'_>| format!("{envelope:?}");
        let short = |text: &str| Some(format!("{:?}", plain(&mut Plain::new(text), 2)?));
        // With or without a value, a null is none.
        let read = shown(serde_json::from_str(text).unwrap());
        assert_eq!(
            short(text),
            Some(read.replace("data: None", "data: Some(RawValue(null))"))
        );
        for (from, to) in [
            ("true,", "false,"),
            ("\"partitionsClaimed\"", "\"new\":1,\"partitionsClaimed\""),
            ("\"data\"", "\"queue\":\"other\",\"data\""),
        ] {
            assert_eq!(short(&text.replace(from, to)), None, "{to}");
        }
    }

    #[test]
    fn q24_e5_c26_one_affinity_key_for_pops_and_consumers() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/affinity.json")).unwrap();
        for vector in vectors["pops"].as_array().unwrap() {
            let text = |key: &str| vector[key].as_str().map(str::to_owned);
            let query = Query {
                queue: text("queue"),
                partition: text("partition"),
                namespace: text("namespace"),
                task: text("task"),
                group: text("group"),
                ..Query::default()
            };
            assert_eq!(Some(query.affinity_key()), text("key"));
        }
    }

    #[test]
    fn all_ways_to_say_nothing_and_no() {
        let empty = |body: &'static str| {
            parse(&Bytes::from_static(body.as_bytes()), &query())
                .map(|answer| answer.partitions.len())
        };
        assert_eq!(empty("").unwrap(), 0);
        assert_eq!(empty(r#"{"messages":[]}"#).unwrap(), 0);
        assert_eq!(
            empty(r#"{"success":false,"error":"lease_held","messages":[]}"#).unwrap(),
            0
        );
        assert!(
            empty(r#"{"success":false,"error":"boom","messages":[]}"#)
                .unwrap_err()
                .message()
                .contains("boom")
        );
        assert_eq!(empty("<html>").unwrap_err().code(), ErrorCode::BadAnswer);
    }
}
