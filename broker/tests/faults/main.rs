//! Faults on demand: every action, in process and over TCP, by count and by share.

mod doors;
mod routes;

use std::time::{Duration, Instant};

use doors::{Came, Door, both, both_with, served};
use queen_broker::{Action, Broker, Fault, Options};
use serde_json::json;

const PAUSE: Duration = Duration::from_millis(100);

fn once(route: &str, action: Action) -> Fault {
    Fault::new(route, action).times(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_any_status_comes_instead() {
    for door in both().await {
        let fault = r#"{"route": "push", "times": 2, "action": "status", "status": 429,
            "headers": {"Retry-After": "7"}, "body": {"error": "slow down"}}"#;
        door.fault(Fault::parse(fault).unwrap());
        for txn in ["a", "b"] {
            let came = door.push("q", txn).await;
            assert_eq!(
                (came.status(), came.header("retry-after")),
                (429, Some("7"))
            );
            assert_eq!(came.json(), json!({"error": "slow down"}));
            assert_eq!(came.header("content-type"), Some("application/json"));
        }
        assert_eq!(door.push("q", "c").await.status(), 201);
        assert_eq!(door.pop("q").await, ["c"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_may_hide_work_that_was_done() {
    for door in both().await {
        let fault = r#"{"route": "push", "times": 1, "action": "status", "status": 504, "afterCommit": true,
            "headers": {"Content-Type": "text/plain"}, "body": "gateway"}"#;
        door.fault(Fault::parse(fault).unwrap());
        let came = door.push("q", "a").await;
        assert_eq!((came.status(), came.text()), (504, "gateway"));
        assert_eq!(came.header("content-type"), Some("text/plain"));
        assert_eq!(door.pop("q").await, ["a"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_before_the_commit_does_nothing() {
    for door in both().await {
        door.fault(once("push", Action::CutBeforeCommit));
        assert_eq!(door.push("q", "a").await, Came::Cut);
        assert!(door.pop("q").await.is_empty());
        assert_eq!(door.push("q", "a").await.json()[0]["status"], "queued");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_after_the_commit_does_it_all() {
    for door in both().await {
        door.fault(once("push", Action::CutAfterCommit));
        assert_eq!(door.push("q", "a").await, Came::Cut);
        assert_eq!(door.push("q", "a").await.json()[0]["status"], "duplicate");
        assert_eq!(door.pop("q").await, ["a"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pop_cut_after_the_commit_keeps_its_lease() {
    for door in both().await {
        door.push("q", "a").await;
        for action in [Action::CutAfterCommit, Action::CutInBody, Action::NotHttp] {
            door.fault(once("pop", action));
            let came = door.get("/api/v1/pop/queue/q?leaseSeconds=60").await;
            assert!(!matches!(came, Came::Answer(..)), "{came:?}");
            assert!(door.pop("q").await.is_empty());
            door.testing().advance_clock(Duration::from_secs(60)).await;
        }
        assert_eq!(door.pop("q").await, ["a"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_end_in_its_middle() {
    for door in both().await {
        door.fault(once("push", Action::CutInBody));
        assert_eq!(door.push("q", "a").await, Came::CutInBody);
        assert_eq!(door.pop("q").await, ["a"]);
        // Where there is no body, nothing comes.
        door.fault(once("pop", Action::CutInBody));
        assert_eq!(door.get("/api/v1/pop/queue/none").await, Came::Cut);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_be_garbage() {
    for door in both().await {
        door.fault(once("push", Action::NotJson));
        door.fault(once("push", Action::NotHttp));
        let came = door.push("q", "a").await;
        assert_eq!(
            (came.status(), came.header("content-type")),
            (200, Some("text/html"))
        );
        assert!(came.text().contains("<html>"));
        assert_eq!(door.push("q", "b").await, Came::NotHttp);
        assert_eq!(door.pop("q").await, ["a", "b"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_come_late() {
    for door in both().await {
        door.fault(once("push", Action::Delay { millis: 300 }));
        let began = Instant::now();
        let late = tokio::spawn({
            let door = door.clone();
            async move { door.push("q", "a").await }
        });
        // The work is done at once.
        while door.pop("q").await.is_empty() {
            assert!(began.elapsed() < Duration::from_secs(30));
        }
        assert_eq!(late.await.unwrap().status(), 201);
        assert!(began.elapsed() >= Duration::from_millis(300));
    }
}

async fn hanging(door: &Door, txn: &'static str) -> tokio::task::JoinHandle<Came> {
    let asked = door.testing().requests().get("push").copied();
    let asker = door.clone();
    let hanging = tokio::spawn(async move { asker.push("q", txn).await });
    while door.testing().requests().get("push").copied() == asked {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    hanging
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_hangs_until_its_fault_is_removed() {
    for door in both().await {
        let id = door.fault(Fault::new("push", Action::Hang).times(1));
        let first = hanging(&door, "a").await;
        assert_eq!(door.push("q", "b").await.status(), 201);
        tokio::time::sleep(PAUSE).await;
        assert!(!first.is_finished());
        assert_eq!(door.pop("q").await, ["b"]);
        assert!(door.testing().remove_fault(id));
        assert_eq!(first.await.unwrap().status(), 201);

        door.fault(Fault::new("push", Action::Hang));
        let second = hanging(&door, "c").await;
        door.testing().clear_faults();
        assert_eq!(second.await.unwrap().status(), 201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_leave_a_request_that_hangs() {
    let [door, _] = both().await;
    let id = door.fault(Fault::new("push", Action::Hang));
    let gone = hanging(&door, "a").await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    door.testing().remove_fault(id);
    assert!(door.pop("q").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_broker_ends_what_hangs() {
    let options = || Options {
        testing: true,
        ..Options::default()
    };
    let [inside, _] = both().await;
    inside.fault(Fault::new("*", Action::Hang));
    let caught = hanging(&inside, "a").await;
    let broker = inside.broker.clone();
    tokio::task::spawn_blocking(move || broker.close())
        .await
        .unwrap();
    assert_eq!(caught.await.unwrap().status(), 503);

    let (door, (end, serving)) = served(options()).await;
    door.fault(Fault::new("*", Action::Hang));
    let caught = hanging(&door, "a").await;
    end.send(()).unwrap();
    assert_eq!(caught.await.unwrap().status(), 201);
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_choose_by_method_path_and_queue() {
    for door in both().await {
        let status = |route: &str, status| Fault::new(route, Action::status(status));
        door.fault(status("/api/v1/pop/queue/*/partition/*", 501));
        door.fault(status("*", 502).queue("sick"));
        door.fault(status("resources", 503).method("DELETE"));
        let get = async |target: &str| door.get(target).await.status();
        assert_eq!(get("/api/v1/pop/queue/q/partition/p").await, 501);
        assert_eq!(get("/api/v1/pop/queue/q").await, 204);
        assert_eq!(get("/api/v1/pop/queue/sick?x=1").await, 502);
        assert_eq!(door.push("sick", "a").await.status(), 502);
        assert_eq!(door.push("q", "a").await.status(), 201);
        assert_eq!(get("/api/v1/resources/queues/q").await, 200);
        let delete = door.send("DELETE", "/api/v1/resources/queues/q", String::new());
        assert_eq!(delete.await.status(), 503);
        let configure = json!({"queue": "sick", "options": {}});
        assert_eq!(
            door.post("/api/v1/configure", configure).await.status(),
            502
        );
        let operations = json!([{"type": "push", "items": [{"queue": "sick", "payload": 1}]}]);
        let transaction = json!({"operations": operations});
        assert_eq!(
            door.post("/api/v1/transaction", transaction).await.status(),
            502
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skip_and_times_choose_by_count() {
    for door in both().await {
        door.fault(Fault::new("push", Action::status(500)).skip(2).times(2));
        let mut statuses = Vec::new();
        for n in 0..6 {
            statuses.push(door.push("q", &n.to_string()).await.status());
        }
        assert_eq!(statuses, [201, 201, 500, 500, 201, 201]);
        let active = &door.testing().faults()[0];
        assert_eq!((active.matched, active.applied), (6, 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_gives_the_same_run() {
    let mut runs = Vec::new();
    for door in both().await.into_iter().chain(both().await) {
        door.fault(Fault::new("push", Action::CutAfterCommit).share(0.3, 42));
        let mut run = Vec::new();
        for n in 0..60 {
            run.push(door.push("q", &n.to_string()).await == Came::Cut);
        }
        let active = &door.testing().faults()[0];
        let cut = run.iter().filter(|cut| **cut).count();
        assert_eq!((active.matched, active.applied), (60, cut as u64));
        assert!((5..40).contains(&cut), "{cut} of 60");
        // Whatever was cut, all were stored.
        assert_eq!(door.pop("q").await.len(), 60);
        runs.push(run);
    }
    assert!(runs.iter().all(|run| *run == runs[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_may_be_there_from_the_start() {
    let options = || Options {
        faults: vec![once("push", Action::CutBeforeCommit)],
        ..Options::default()
    };
    for door in both_with(options).await {
        assert_eq!(door.push("q", "a").await, Came::Cut);
        assert_eq!(door.push("q", "a").await.status(), 201);
    }
    let bad = Options {
        faults: vec![Fault::new("psuh", Action::Hang)],
        ..Options::default()
    };
    let refused = Broker::open(bad).unwrap_err().to_string();
    assert!(refused.contains("\"psuh\""), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_ends_one_connection_and_no_other() {
    let [_, door] = both().await;
    door.testing().freeze_clock();
    door.fault(once("push", Action::CutBeforeCommit));
    let asker = door.clone();
    let waiting = tokio::spawn(async move {
        asker
            .get("/api/v1/pop/queue/q?wait=true&timeout=60000")
            .await
    });
    while !door.testing().requests().contains_key("pop") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(door.push("q", "a").await, Came::Cut);
    assert_eq!(door.push("q", "b").await.status(), 201);
    let came = waiting.await.unwrap();
    assert_eq!(came.json()["messages"][0]["transactionId"], "b");
}
