//! The routes below `/testing`.

use queen_broker::{Action, Fault, Options};
use serde_json::{Value, json};

use crate::doors::{Came, Door, both, both_with};

async fn delete(door: &Door, target: &str) -> u16 {
    door.send("DELETE", target, String::new()).await.status()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_testing_there_are_no_such_routes() {
    for door in both_with(Options::default).await {
        let not_found = json!({"error": "Not Found", "code": "no_such_route"});
        for target in [
            "/testing/faults",
            "/testing/clock",
            "/testing/requests",
            "/testing/faults/1",
        ] {
            for method in ["GET", "POST", "DELETE"] {
                let came = door.send(method, target, "{}".into()).await;
                assert_eq!(
                    (came.status(), came.json()),
                    (404, not_found.clone()),
                    "{method} {target}"
                );
            }
        }
        assert!(door.broker.testing().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_added_listed_and_removed() {
    for door in both().await {
        let one = json!({"route": "push", "times": 1, "action": "cutBeforeCommit"});
        let came = door.post("/testing/faults", one).await;
        let mut listed = json!({"id": 1, "route": "push", "times": 1, "action": "cutBeforeCommit", "matched": 0, "applied": 0});
        assert_eq!(
            (came.status(), &came.json()["faults"]),
            (201, &json!([listed]))
        );
        let two =
            json!([{"route": "ack", "action": "hang"}, {"action": "delay", "delayMillis": 1}]);
        let came = door.post("/testing/faults", two).await;
        assert_eq!(came.json()["faults"][1]["id"], 3);

        assert_eq!(door.push("q", "a").await, Came::Cut);
        listed["matched"] = json!(1);
        listed["applied"] = json!(1);
        let faults = door.get("/testing/faults").await.json()["faults"].clone();
        assert_eq!((&faults[0], faults.as_array().unwrap().len()), (&listed, 3));

        assert_eq!(delete(&door, "/testing/faults/1").await, 204);
        assert_eq!(delete(&door, "/testing/faults/1").await, 404);
        assert_eq!(delete(&door, "/testing/faults/x").await, 404);
        assert_eq!(door.testing().faults()[0].id, 2);
        assert_eq!(delete(&door, "/testing/faults").await, 204);
        assert_eq!(
            door.get("/testing/faults").await.json(),
            json!({"faults": []})
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_and_nothing_happens() {
    let [door, _] = both().await;
    for (target, body, word) in [
        (
            "/testing/faults",
            json!([{"action": "hang"}, {"action": "bang"}]),
            "number 1: action is \"bang\"",
        ),
        ("/testing/faults", json!("hang"), "hang"),
        ("/testing/clock", json!({"advanceMillis": -5}), "-5"),
        ("/testing/clock", json!({"advance": 5}), "`advance`"),
    ] {
        let came = door.post(target, body).await;
        let error = came.json()["error"].as_str().unwrap().to_owned();
        assert!(came.status() == 400 && error.contains(word), "{error}");
    }
    assert_eq!(
        door.send("POST", "/testing/faults", "{".into())
            .await
            .status(),
        400
    );
    assert!(door.testing().faults().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_route() {
    for door in both().await {
        door.push("q", "a").await;
        door.fault(Fault::new("push", Action::CutBeforeCommit).times(1));
        assert_eq!(door.push("q", "b").await, Came::Cut);
        door.pop("q").await;
        door.get("/api/v1/lease/x/extend").await;
        door.get("/nowhere").await;
        let counted = json!({"requests": {"lease": 1, "other": 1, "pop": 1, "push": 2}});
        assert_eq!(door.get("/testing/requests").await.json(), counted);
        assert_eq!(delete(&door, "/testing/requests").await, 204);
        assert_eq!(
            door.get("/testing/requests").await.json(),
            json!({"requests": {}})
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_is_moved_stopped_and_let_go() {
    for door in both().await {
        let set = async |body: Value| door.post("/testing/clock", body).await.json();
        door.push("q", "a").await;
        door.get("/api/v1/pop/queue/q?leaseSeconds=3600").await;
        assert!(door.pop("q").await.is_empty());
        let stopped = set(json!({"frozen": true})).await;
        assert_eq!(stopped["frozen"], true);
        assert_eq!(door.get("/testing/clock").await.json(), stopped);
        let moved = set(json!({"advanceMillis": 3_600_000})).await;
        assert!(moved["now"].as_str() > stopped["now"].as_str());
        assert_eq!(door.pop("q").await, ["a"]);
        assert_eq!(set(json!({"frozen": false})).await["frozen"], false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routes_of_testing_want_the_token_and_no_fault_stops_them() {
    let options = || Options {
        tokens: vec!["secret".into()],
        testing: true,
        ..Options::default()
    };
    for door in both_with(options).await {
        assert_eq!(door.get("/testing/faults").await.status(), 401);
    }
    for door in both().await {
        door.fault(Fault::new("*", Action::CutBeforeCommit));
        door.fault(Fault::new("/testing/*", Action::CutBeforeCommit));
        assert_eq!(delete(&door, "/testing/faults").await, 204);
        assert_eq!(door.push("q", "a").await.status(), 201);
    }
}
