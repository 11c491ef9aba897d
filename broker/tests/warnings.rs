//! What operators are told, and what a broker's settings change.

mod common;

use std::io::Read;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::server::{Server, agent, post, program};
use common::{Api, txns};
use queen_broker::{Broker, DefaultSubscription, Options, Store, Warning};
use serde_json::{Value, json};

#[tokio::test]
async fn a_queue_that_wants_encryption_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let heard: Arc<Mutex<Vec<Warning>>> = Arc::default();
    let open = || {
        let heard = heard.clone();
        let hook = move |warning: &Warning| heard.lock().unwrap().push(warning.clone());
        let options = Options {
            store: Store::File(path.clone()),
            on_warning: Some(Arc::new(hook)),
            ..Options::default()
        };
        Api(Broker::open(options).unwrap())
    };
    let told = || std::mem::take(&mut *heard.lock().unwrap());
    let about = |queue: &str| Warning::PlainText {
        queue: queue.into(),
    };
    let api = open();
    api.configure("plain", json!({})).await;
    for _ in 0..2 {
        api.configure("secret", json!({"encryptionEnabled": true}))
            .await;
    }
    assert_eq!(told(), [about("secret")]);
    api.push("secret", "p", "a").await;
    assert_eq!(txns(&api.pop("secret", "").await), ["a"]);
    let (status, _) = api
        .send(
            "POST",
            "/api/v1/configure",
            json!({"queue": "bad", "options": {"encryptionEnabled": true, "ttl": []}}),
        )
        .await;
    assert_eq!((status, told()), (400, vec![]));
    api.0.close();
    drop(api);

    let api = open();
    assert_eq!(told(), [about("secret")], "the next operator is told too");
    api.configure("secret", json!({})).await;
    api.0.close();
    drop(api);
    open();
    assert_eq!(told(), []);
}

#[test]
fn the_program_says_it_in_one_line() {
    let mut server = Server::launch(program().stderr(Stdio::piped()), &[]);
    let body = json!({"queue": "pay\nroll", "options": {"encryptionEnabled": true}});
    let refused = post(
        &agent(),
        &format!("{}/api/v1/configure", server.base),
        &body,
    )
    .unwrap();
    assert_eq!(refused.0, 400);
    let body = json!({"queue": "payroll", "options": {"encryptionEnabled": true}});
    for _ in 0..2 {
        post(
            &agent(),
            &format!("{}/api/v1/configure", server.base),
            &body,
        )
        .unwrap();
    }
    assert!(server.terminate().success());
    let mut said = String::new();
    let errors = server.child.stderr.as_mut().unwrap();
    errors.read_to_string(&mut said).unwrap();
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("warning"))
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(
        lines[0].starts_with("queen-broker: warning: queue \"payroll\""),
        "{said}"
    );
}

#[tokio::test]
async fn groups_start_where_the_broker_says() {
    for (default, first) in [
        (DefaultSubscription::New, vec![]),
        (DefaultSubscription::All, vec!["a"]),
    ] {
        let options = Options {
            default_subscription: default,
            ..Options::default()
        };
        let api = Api(Broker::open(options).unwrap());
        api.configure("q", json!({"namespace": "n"})).await;
        api.push("q", "p", "a").await;
        for (group, target) in [
            ("any", "queue/q?"),
            ("one", "queue/q/partition/p?"),
            ("found", "?namespace=n&"),
        ] {
            let target =
                format!("/api/v1/pop/{target}consumerGroup={group}").replace("pop/?", "pop?");
            let (_, delivery) = api.send("GET", &target, Value::Null).await;
            assert_eq!(txns(&delivery), first, "{default:?} {group}");
        }
        let explicit = api.pop("q", "consumerGroup=new&subscriptionMode=new").await;
        assert!(explicit.is_null(), "{explicit}");
        let explicit = api.pop("q", "consumerGroup=all&subscriptionMode=all").await;
        assert_eq!(txns(&explicit), ["a"]);
        assert_eq!(
            txns(&api.pop("q", "").await),
            ["a"],
            "queue mode reads everything"
        );
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_and_changes_nothing() {
    let options = Options {
        max_body_bytes: 1000,
        ..Options::default()
    };
    let broker = Broker::open(options).unwrap();
    let api = Api(broker.clone());
    let item =
        |fill: usize| json!({"items": [{"queue": "q", "payload": "x".repeat(fill)}]}).to_string();
    let room = 1000 - item(0).len();
    for (fill, status) in [(room, 201), (room + 1, 413), (50_000, 413)] {
        let request = http::Request::post("/api/v1/push")
            .body(Bytes::from(item(fill)))
            .unwrap();
        let answer = broker.handle(request).await;
        assert_eq!(answer.status(), status, "{fill}");
    }
    assert_eq!(api.describe("q").await["totals"]["total"], 1);
}
