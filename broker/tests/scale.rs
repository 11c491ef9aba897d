//! Many partitions and many waiting consumers: no request looks at those it does not concern. Work is counted, not timed.

mod common;

use std::time::Duration;

use common::{Api, ack_of, txns};
use queen_broker::Work;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// What was done in between.
fn since(api: &Api, before: Work) -> [u64; 4] {
    let now = api.clock().work();
    [
        now.statements - before.statements,
        now.sql_steps - before.sql_steps,
        now.partitions - before.partitions,
        now.polls - before.polls,
    ]
}

/// Pushes one message to each of so many partitions.
async fn fill(api: &Api, queue: &str, parts: usize) {
    for first in (0..parts).step_by(1000) {
        let item = |n: usize| json!({"queue": queue, "partition": format!("p{n}"), "transactionId": n.to_string(), "payload": n});
        let items: Vec<Value> = (first..parts.min(first + 1000)).map(item).collect();
        let (status, answer) = api
            .send("POST", "/api/v1/push", json!({"items": items}))
            .await;
        assert_eq!(status, 201, "{answer}");
    }
}

/// What each kind of request costs in a queue with so many partitions, all of which hold a message.
async fn costs(parts: usize) -> Vec<(&'static str, [u64; 4])> {
    let api = Api::testing();
    let mut costs = Vec::new();
    let mut before = api.clock().work();
    let mut note = |api: &Api, what: &'static str| {
        if !what.is_empty() {
            costs.push((what, since(api, before)));
        }
        before = api.clock().work();
    };
    // A full row of everything that could be looked through: groups, leases, a bound, consumers that wait.
    api.configure("q", json!({"maxSize": 1_000_000})).await;
    for group in ["idle", "g"] {
        let query = format!("consumerGroup={group}&subscriptionMode=all");
        assert!(api.pop("q", &query).await.is_null());
    }
    fill(&api, "q", parts).await;
    let mut lease = Value::Null;
    for _ in 0..4 {
        let query = "consumerGroup=g&batch=20&partitions=20";
        let delivery = api.pop("q", query).await;
        assert_eq!(txns(&delivery).len(), 20);
        lease = delivery["leaseId"].clone();
    }
    let waiting = wait_on(&api, "q", "consumerGroup=late&subscriptionMode=new").await;

    note(&api, "");
    api.push("q", "p50", "one").await;
    note(&api, "push");
    assert_eq!(txns(&waiting.await.unwrap()), ["one"]);
    note(&api, "");
    api.push("q", "p51", "two").await;
    note(&api, "push without a consumer");
    let any = api.pop("q", "consumerGroup=g&batch=1").await;
    assert_eq!(txns(&any).len(), 1);
    note(&api, "pop");
    api.ack(&any, "completed").await;
    note(&api, "ack");
    let named = api.pop("q/partition/p99", "consumerGroup=g&batch=1").await;
    assert_eq!(txns(&named), ["99"]);
    note(&api, "pop of a partition");
    let nack = ack_of(&named["messages"][0], "failed");
    let body = json!({"acknowledgments": [nack], "consumerGroup": "g"});
    assert_eq!(api.send("POST", "/api/v1/ack/batch", body).await.0, 200);
    note(&api, "nack");
    let route = format!("/api/v1/lease/{}/extend", lease.as_str().unwrap());
    let (_, extended) = api.send("POST", &route, json!({"seconds": 600})).await;
    assert_eq!(extended["renewed"], 20, "{extended}");
    note(&api, "extend");
    let item = json!({"type": "push", "items": [{"queue": "q", "partition": "p50", "payload": 1}]});
    let body = json!({"operations": [item]});
    let (status, answer) = api.send("POST", "/api/v1/transaction", body).await;
    assert_eq!(status, 200, "{answer}");
    note(&api, "transaction");
    assert_eq!(api.clock().disagreements().await, [""; 0]);
    costs
}

#[tokio::test]
async fn a_request_costs_the_same_among_ten_thousand_partitions() {
    let (few, many) = (costs(100).await, costs(10_000).await);
    println!("statements, SQL steps, partitions, waiting pops\n{few:?}\n{many:?}");
    for ((what, few), (_, many)) in few.into_iter().zip(many) {
        let bound = few.map(|n| n + n / 4 + 4);
        assert!(
            many.iter().zip(bound).all(|(n, bound)| *n <= bound),
            "{what}: {few:?} among 100, {many:?} among 10 000"
        );
        // The measure itself is at work.
        assert!(many[0] > 0 && many[1] > 0, "{what}: {many:?}");
    }
}

/// Starts a pop that waits, and returns when it is parked.
async fn wait_on(api: &Api, queue: &str, query: &str) -> JoinHandle<Value> {
    let waiting = {
        let (api, queue) = (api.clone(), queue.to_owned());
        let query = format!("{query}&wait=true&timeout=3600000");
        tokio::spawn(async move { api.pop(&queue, &query).await })
    };
    // The writer takes commands in their order: what it answers now came behind the pop.
    tokio::task::yield_now().await;
    api.send("GET", "/health", Value::Null).await;
    waiting
}

/// A thousand consumers that wait: for queues of their own, for partitions of one queue, as one group, as many groups.
async fn thousand(api: &Api) -> Vec<(&'static str, Vec<JoinHandle<Value>>)> {
    let mut kinds = Vec::new();
    for kind in ["queues", "parts", "group", "groups"] {
        let mut waiting = Vec::new();
        for n in 0..250 {
            let (queue, query) = match kind {
                "queues" => (format!("queue{n}"), String::new()),
                "parts" => (format!("parts/partition/p{n}"), String::new()),
                "group" => ("group".into(), "consumerGroup=g".into()),
                _ => ("groups".into(), format!("consumerGroup=g{n}")),
            };
            waiting.push(wait_on(api, &queue, &format!("{query}&subscriptionMode=all")).await);
        }
        kinds.push((kind, waiting));
    }
    kinds
}

/// Waits until so many of some tasks are done.
async fn until_done(waiting: &[JoinHandle<Value>], wanted: usize) {
    let done = || waiting.iter().filter(|task| task.is_finished()).count();
    let enough = async {
        while done() < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), enough).await;
    assert!(waited.is_ok(), "{} of {wanted} got something", done());
}

#[tokio::test]
async fn a_push_looks_at_the_waiting_pops_it_concerns_and_at_no_other() {
    let api = Api::testing();
    let kinds = thousand(&api).await;
    let pushes = [
        ("queues", "queue7", "p", 1),
        ("parts", "parts", "p7", 1),
        ("group", "group", "p", 1),
        ("groups", "groups", "p", 250),
    ];
    for (kind, queue, part, concerned) in pushes {
        let before = api.clock().work();
        api.push(queue, part, "t").await;
        let waiting = &kinds.iter().find(|(name, _)| *name == kind).unwrap().1;
        until_done(waiting, concerned).await;
        let polls = since(&api, before)[3] as usize;
        // One look more where others of the same group wait: it finds that nothing is left for them.
        let more = usize::from(kind == "group");
        assert_eq!(polls, concerned + more, "{kind}");
    }
    // Nobody else woke up.
    api.send("GET", "/health", Value::Null).await;
    let still = kinds.iter().flat_map(|(_, waiting)| waiting);
    let still = still.filter(|task| !task.is_finished()).count();
    assert_eq!(still, 1000 - 1 - 1 - 1 - 250);
    api.0.close();
}

#[tokio::test]
async fn a_broker_does_nothing_while_a_thousand_consumers_wait() {
    let folder = tempfile::tempdir().unwrap();
    let options = queen_broker::Options {
        store: queen_broker::Store::File(folder.path().join("store.db")),
        durability: queen_broker::Durability::Memory,
        testing: true,
        ..queen_broker::Options::default()
    };
    let api = Api(queen_broker::Broker::open(options).unwrap());
    fill(&api, "full", 10_000).await;
    // Leases run, and will end some day.
    api.pop("full", "batch=50&partitions=50&leaseSeconds=3600")
        .await;
    let waiting = thousand(&api).await;
    // What was begun is finished.
    let mut last = api.clock().work();
    let quiet = async {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = api.clock().work();
            if std::mem::replace(&mut last, now) == now {
                return;
            }
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(60), quiet).await;
    assert!(settled.is_ok(), "the broker does not come to rest");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(api.clock().work(), last);
    assert!(
        waiting
            .iter()
            .flat_map(|(_, tasks)| tasks)
            .all(|task| !task.is_finished())
    );
    api.0.close();
}
