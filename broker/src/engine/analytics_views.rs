//! Status and analytics: the counts of a span of time, in buckets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::census::{Census, QueueCount, Tasks};
use super::history::{Counts, MINUTE, Minute};
use crate::clock;

/// A day of minutes and both its ends.
const MOST_POINTS: usize = 24 * 60 + 2;
const HOUR: i64 = 60 * MINUTE;

/// How long a point of a chart lasts.
#[derive(Clone, Copy)]
pub(crate) enum Interval {
    Minute,
    Hour,
    Day,
}

impl Interval {
    pub(crate) const ALL: [Interval; 3] = [Interval::Minute, Interval::Hour, Interval::Day];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Interval::Minute => "minute",
            Interval::Hour => "hour",
            Interval::Day => "day",
        }
    }
}

/// A span of time and the queues that are looked at.
pub(crate) struct Span {
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// Empty names mean any.
    pub(crate) queue: String,
    pub(crate) namespace: String,
    pub(crate) task: String,
}

/// The counts of a span.
pub(crate) struct Chart {
    span: Span,
    census: Arc<Census>,
    /// Minutes to six hours, hours beyond.
    bucket_minutes: i64,
    buckets: Vec<Minute>,
}

impl Chart {
    pub(crate) fn new(span: Span, census: Arc<Census>, minutes: Vec<Minute>) -> Chart {
        let bucket_minutes = if span.to - span.from <= 6 * HOUR {
            1
        } else {
            60
        };
        let mut chart = Chart {
            span,
            census,
            bucket_minutes,
            buckets: Vec::new(),
        };
        let wanted: Option<BTreeSet<Arc<str>>> = chart
            .is_filtered()
            .then(|| chart.queues().map(|queue| queue.name.clone()).collect());
        chart.buckets = gather(minutes, bucket_minutes, wanted.as_ref());
        chart
    }

    fn is_filtered(&self) -> bool {
        let Span {
            queue,
            namespace,
            task,
            ..
        } = &self.span;
        !(queue.is_empty() && namespace.is_empty() && task.is_empty())
    }

    /// The queues of the span, by name.
    fn queues(&self) -> impl Iterator<Item = &QueueCount> {
        let span = &self.span;
        let fits = |wanted: &str, name: &str| wanted.is_empty() || wanted == name;
        self.census.queues.iter().filter(move |queue| {
            fits(&span.queue, &queue.name)
                && fits(&span.namespace, &queue.namespace)
                && fits(&span.task, &queue.task)
        })
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / (self.bucket_minutes * 60) as f64
    }

    fn sum(&self) -> Counts {
        let mut sum = Counts::default();
        self.buckets.iter().for_each(|bucket| sum += &bucket.all);
        sum
    }

    /// The answer around a series: the span, the bucket's length, and what the route adds.
    fn answer(&self, body: Value) -> String {
        let head = json!({
            "timeRange": { "from": clock::iso(self.span.from), "to": clock::iso(self.span.to) },
            "bucketMinutes": self.bucket_minutes,
            "pointCount": self.buckets.len(),
        });
        let mut all = Map::new();
        for part in [head, body] {
            if let Value::Object(part) = part {
                all.extend(part);
            }
        }
        Value::from(all).to_string()
    }

    /// One entry per bucket, newest first.
    fn series(&self, entry: impl Fn(&Minute) -> Value) -> Value {
        self.buckets.iter().rev().map(entry).collect()
    }

    /// One entry per bucket and queue, newest first.
    fn series_by_queue(&self, entry: impl Fn(&Minute, &str, &Counts) -> Value) -> Value {
        let mut entries = Vec::new();
        for bucket in self.buckets.iter().rev() {
            let queues: BTreeMap<_, _> = bucket.queues.iter().collect();
            entries.extend(
                queues
                    .into_iter()
                    .map(|(name, counts)| entry(bucket, name, counts)),
            );
        }
        entries.into()
    }

    /// `GET /status`.
    pub(crate) fn status(&self) -> String {
        let sum = self.sum();
        let (mut tasks, mut leases) = (Tasks::default(), 0);
        for queue in self.queues() {
            tasks += queue.tasks;
            leases += queue.leases;
        }
        let queues = self.queues().map(|queue| {
            json!({
                "id": queue.uuid, "name": &*queue.name, "namespace": &*queue.namespace, "task": &*queue.task,
                "messages": { "total": queue.tasks.total, "pending": queue.tasks.pending, "processing": queue.tasks.processing },
            })
        });
        self.answer(json!({
            "throughput": self.series(|bucket| json!({
                "timestamp": clock::iso(bucket.start),
                "ingested": bucket.all.push_messages,
                "processed": bucket.all.processed,
                "popMessages": bucket.all.pop_messages,
                "ingestedPerSecond": self.per_second(bucket.all.push_messages),
                "processedPerSecond": self.per_second(bucket.all.processed),
                "popPerSecond": self.per_second(bucket.all.pop_messages),
                "ackFailed": bucket.all.ack_failed,
                "dlqCount": bucket.all.dead_letters,
                "avgLagMs": average_lag(&bucket.all),
                "maxLagMs": bucket.all.lag_max,
            })),
            "queues": Value::from_iter(queues),
            "messages": {
                "total": tasks.total, "pending": tasks.pending, "processing": tasks.processing,
                "completed": tasks.completed, "failed": 0, "deadLetter": tasks.dead,
                "requests": { "push": sum.push_requests, "pop": sum.pop_requests, "ack": sum.ack_requests },
                "batchEfficiency": {
                    "push": ratio(sum.push_messages, sum.push_requests),
                    "pop": ratio(sum.pop_messages, sum.pop_requests),
                    "ack": ratio(sum.ack_success + sum.ack_failed, sum.ack_requests),
                },
            },
            "leases": { "active": leases, "totalAcked": sum.ack_success },
            "deadLetterQueue": { "totalMessages": tasks.dead, "added": sum.dead_letters },
            "workers": [],
            "errors": { "ackFailed": sum.ack_failed, "dlqMessages": sum.dead_letters, "dbErrors": 0 },
            "statsAge": 0,
        }))
    }

    /// `GET /status/analytics`: pushed messages by minute, hour or day, buckets without any included.
    pub(crate) fn pushed(&self, interval: Interval) -> String {
        let step = match interval {
            Interval::Minute => MINUTE,
            Interval::Hour => HOUR,
            Interval::Day => 24 * HOUR,
        };
        let mut points = BTreeMap::new();
        let mut at = self.span.from - self.span.from.rem_euclid(step);
        while at <= self.span.to && points.len() < MOST_POINTS {
            points.insert(at, 0);
            at += step;
        }
        for bucket in &self.buckets {
            if let Some(point) = points.get_mut(&(bucket.start - bucket.start.rem_euclid(step))) {
                *point += bucket.all.push_messages;
            }
        }
        let points = points.into_iter();
        let points = points
            .map(|(at, messages)| json!({ "timestamp": clock::iso(at), "messages": messages }));
        json!({
            "from": clock::iso(self.span.from),
            "to": clock::iso(self.span.to),
            "interval": interval.name(),
            "dataPoints": Value::from_iter(points),
        })
        .to_string()
    }

    /// `GET /analytics/worker-metrics`: this broker is the one worker.
    pub(crate) fn workers(&self, host: &str) -> String {
        let sum = self.sum();
        let mut by_queue: BTreeMap<&Arc<str>, Counts> = BTreeMap::new();
        for (name, counts) in self.buckets.iter().flat_map(|bucket| &bucket.queues) {
            *by_queue.entry(name).or_default() += counts;
        }
        let queues = by_queue.iter().map(|(name, counts)| {
            json!({
                "queueName": &***name, "popCount": counts.pop_messages,
                "avgLagMs": average_lag(counts), "maxLagMs": counts.lag_max,
            })
        });
        let pending: i64 = self.queues().map(|queue| queue.tasks.pending).sum();
        self.answer(json!({
            "queues": Value::from_iter(queues),
            "summary": {
                "pendingMessages": pending,
                "totalPushRequests": sum.push_requests, "totalPushMessages": sum.push_messages,
                "totalPopRequests": sum.pop_requests, "totalPopMessages": sum.pop_messages,
                "totalAckRequests": sum.ack_requests, "totalAckMessages": sum.ack_success,
                "totalAckFailed": sum.ack_failed, "totalDlq": sum.dead_letters, "totalDbErrors": 0,
            },
            "workers": [{
                "workerId": 0, "hostname": host, "lastSeen": clock::iso(self.census.taken),
                "messagesProcessed": sum.processed,
            }],
            "timeSeries": self.series(|bucket| json!({
                "timestamp": clock::iso(bucket.start),
                "pushRequests": bucket.all.push_requests, "pushMessages": bucket.all.push_messages,
                "popRequests": bucket.all.pop_requests, "popMessages": bucket.all.pop_messages,
                "ackRequests": bucket.all.ack_requests, "ackMessages": bucket.all.ack_success,
                "ackSuccess": bucket.all.ack_success, "ackFailed": bucket.all.ack_failed,
                "dlqCount": bucket.all.dead_letters,
                "pushPerSecond": self.per_second(bucket.all.push_messages),
                "popPerSecond": self.per_second(bucket.all.pop_messages),
                "ackPerSecond": self.per_second(bucket.all.ack_success),
                "avgLagMs": average_lag(&bucket.all), "maxLagMs": bucket.all.lag_max,
            })),
        }))
    }

    /// `GET /analytics/queue-lag`.
    pub(crate) fn lag(&self) -> String {
        let minutes = self.bucket_minutes;
        let series = self.series_by_queue(|bucket, name, counts| {
            json!({
                "queueName": name, "bucketTime": clock::iso(bucket.start), "bucketMinutes": minutes,
                "popCount": counts.pop_messages, "avgLagMs": average_lag(counts), "maxLagMs": counts.lag_max,
            })
        });
        series.to_string()
    }

    /// `GET /analytics/queue-ops`.
    pub(crate) fn operations(&self) -> String {
        let names = self.buckets.iter().flat_map(|bucket| bucket.queues.keys());
        let names: BTreeSet<&str> = names.map(|name| &**name).collect();
        self.answer(json!({
            "queues": names,
            "series": self.series_by_queue(|bucket, name, counts| json!({
                "bucket": clock::iso(bucket.start), "queueName": name,
                "pushRequests": counts.push_requests, "pushMessages": counts.push_messages,
                "popRequests": counts.pop_requests, "popMessages": counts.pop_messages, "popEmpty": counts.pop_empty,
                "ackRequests": counts.ack_requests, "ackSuccess": counts.ack_success, "ackFailed": counts.ack_failed,
                "pushPerSecond": self.per_second(counts.push_messages),
                "popPerSecond": self.per_second(counts.pop_messages),
                "ackPerSecond": self.per_second(counts.ack_success),
                "emptyPerSecond": self.per_second(counts.pop_empty),
                "partitionsCreated": counts.partitions_created,
                "avgLagMs": average_lag(counts), "maxLagMs": counts.lag_max,
            })),
        }))
    }

    /// `GET /analytics/queue-parked-replicas`: the pops that wait now.
    pub(crate) fn parked(&self, host: &str) -> String {
        let now = self.census.taken;
        let waiting = self.queues().filter(|queue| queue.parked > 0);
        let series = waiting.map(|queue| {
            json!({
                "bucket": clock::iso(now - now.rem_euclid(MINUTE)), "queueName": &*queue.name,
                "hostname": host, "workerId": 0, "parkedCount": queue.parked,
            })
        });
        self.answer(json!({
            "replicas": [{ "hostname": host, "workerId": 0 }],
            "series": Value::from_iter(series),
        }))
    }

    /// `GET /analytics/retention`: messages that were removed.
    pub(crate) fn retention(&self) -> String {
        let entry = |counts: &Counts| {
            json!({
                "retentionMsgs": counts.retention,
                "completedRetentionMsgs": counts.completed_retention,
                "evictionMsgs": counts.evicted,
                "totalMsgs": counts.retention + counts.completed_retention + counts.evicted,
            })
        };
        self.answer(json!({
            "series": self.series(|bucket| {
                let mut entry = entry(&bucket.all);
                if let Some(entry) = entry.as_object_mut() {
                    entry.insert("bucket".into(), clock::iso(bucket.start).into());
                }
                entry
            }),
            "totals": entry(&self.sum()),
        }))
    }
}

/// Puts minutes together; with names, only what their queues have counted.
fn gather(minutes: Vec<Minute>, size: i64, wanted: Option<&BTreeSet<Arc<str>>>) -> Vec<Minute> {
    let mut buckets: Vec<Minute> = Vec::new();
    for mut minute in minutes {
        if let Some(names) = wanted {
            minute.queues.retain(|name, _| names.contains(name));
            minute.all = Counts::default();
            for counts in minute.queues.values() {
                minute.all += counts;
            }
        }
        minute.start -= minute.start.rem_euclid(size * MINUTE);
        match buckets.last_mut() {
            Some(last) if last.start == minute.start => {
                last.all += &minute.all;
                for (name, counts) in &minute.queues {
                    *last.queues.entry(name.clone()).or_default() += counts;
                }
            }
            _ => buckets.push(minute),
        }
    }
    buckets
}

fn average_lag(counts: &Counts) -> f64 {
    ratio(counts.lag_sum, counts.pop_messages)
}

fn ratio(sum: u64, count: u64) -> f64 {
    if count == 0 {
        0.0
    } else {
        sum as f64 / count as f64
    }
}
