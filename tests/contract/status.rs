//! Counters, status and the broker itself.

use super::*;

pub(crate) const TESTS: Tests = tests![
    x50_overview_namespaces_and_tasks,
    x51_queues_are_listed_and_told,
    x52_the_depth_of_a_queue,
    x58_status_of_the_broker_and_its_queues,
    x59_x60_analytics_answer,
    x61_numbers_of_the_database,
    x62_maintenance_is_told_and_switched,
    x63_x64_health_and_metrics,
    an_inspection,
];

/// The entry of a list whose `key` is that.
fn entry<'a>(list: &'a Value, key: &str, value: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|one| one[key] == value)
}

/// A queue with three messages, of which the group `readers` has done one, in a namespace and a task of its own.
fn used(client: &Client) -> Queue {
    let queue = fresh(client);
    let name = queue.name().to_owned();
    let options = QueueOptions::new()
        .namespace(format!("ns-{name}"))
        .task(format!("task-{name}"));
    told(queue.create(options));
    push(&queue, 0..3);
    let all = PopOptions {
        wait: true,
        subscription_mode: Some("all".into()),
        ..PopOptions::default()
    };
    let reader = queue.clone().group("readers");
    let delivery = reader.pop_with(&all).wait(LONG).unwrap().take().unwrap();
    delivery.ack().wait(LONG).unwrap();
    queue
}

/// Looks again until it holds: brokers count some of their numbers every few seconds.
fn until(what: &str, look: impl Fn() -> bool) {
    let began = Instant::now();
    while !look() {
        assert!(began.elapsed() < LONG, "{what}: not within {LONG:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn x50_overview_namespaces_and_tasks(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = used(&client);
    told(client.system().refresh_stats());
    let overview = told(client.queues().overview());
    for key in ["queues", "partitions", "namespaces", "tasks"] {
        assert!(overview[key].as_u64().unwrap() > 0, "{key} of {overview}");
    }
    assert!(overview["messages"].is_object(), "{overview}");
    let name = queue.name();
    let spaces = told(client.queues().namespaces());
    let space = entry(&spaces["namespaces"], "namespace", &format!("ns-{name}"));
    assert_eq!(space.unwrap()["queues"], 1);
    let tasks = told(client.queues().tasks());
    let task = entry(&tasks["tasks"], "task", &format!("task-{name}"));
    assert_eq!(task.unwrap()["queues"], 1);
    close(client)
}

fn x51_queues_are_listed_and_told(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = used(&client);
    let list = told(client.queues().list());
    let listed = entry(&list["queues"], "name", queue.name()).expect("the queue in the list");
    assert_eq!(listed["namespace"], format!("ns-{}", queue.name()));
    let one = told(queue.get());
    assert_eq!(one["name"], queue.name());
    assert_eq!(one["partitions"][0]["name"], "Default");
    close(client)
}

fn x52_the_depth_of_a_queue(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = used(&client);
    let depth = |queue: &Queue| told(queue.depth())["pending"].as_u64();
    until("two messages wait for the group", || {
        depth(&queue.clone().group("readers")) == Some(2)
    });
    let all = told(queue.depth());
    assert_eq!(all["queue"], queue.name());
    assert!(all["effectivePending"].is_u64(), "{all}");
    assert!(all["partitions"].is_array(), "{all}");
    close(client)
}

fn x58_status_of_the_broker_and_its_queues(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = used(&client);
    let status = told(client.status().get());
    for key in [
        "timeRange",
        "queues",
        "messages",
        "leases",
        "deadLetterQueue",
    ] {
        assert!(!status[key].is_null(), "{key} of {status}");
    }
    let mine = client.status().namespace(&format!("ns-{}", queue.name()));
    let page = told(mine.queues(10, 0));
    assert!(
        entry(&page["queues"], "name", queue.name()).is_some(),
        "{page}"
    );
    assert_eq!(page["queues"].as_array().map(Vec::len), Some(1));
    let one = told(client.status().queue(queue.name()));
    assert_eq!(one["queue"]["name"], queue.name());
    assert!(one["partitions"].is_array(), "{one}");
    let points = told(client.status().history("hour"));
    assert!(points["dataPoints"].is_array(), "{points}");
    assert!(told(client.status().buffers())["pending"].is_u64());
    close(client)
}

fn x59_x60_analytics_answer(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = used(&client);
    let all = client
        .analytics()
        .from("2026-01-01T00:00:00Z")
        .to("2036-01-01T00:00:00Z");
    for answer in [
        all.system_metrics(),
        all.worker_metrics(None),
        all.queue_lag(Some(queue.name())),
        all.queue_ops(Some(queue.name())),
        all.queue_parked_replicas(Some(queue.name())),
        all.retention(Some(queue.name())),
    ] {
        let document = told(answer);
        assert!(document.is_object() || document.is_array(), "{document}");
    }
    close(client)
}

fn x61_numbers_of_the_database(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let asked = client.analytics().postgres_stats();
    match broker.name {
        "official" => assert!(told(asked).is_object()),
        // There is no PostgreSQL.
        _ => assert_eq!(refused(asked).code(), ErrorCode::Unsupported),
    }
    close(client)
}

fn x62_maintenance_is_told_and_switched(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let system = client.system();
    assert_eq!(told(system.maintenance())["maintenanceMode"], false);
    assert_eq!(told(system.pop_maintenance())["popMaintenanceMode"], false);
    // Other brokers are used by other tests meanwhile.
    if broker.name == "embedded" {
        let queue = fresh(&client);
        assert_eq!(told(system.set_maintenance(true))["maintenanceMode"], true);
        let pushed = queue.push(&[Item::raw("1")?]).wait(LONG)?;
        assert_eq!(pushed[0].status, "buffered");
        assert_eq!(
            told(system.set_pop_maintenance(true))["popMaintenanceMode"],
            true
        );
        assert!(queue.pop().wait(LONG)?.is_empty());
        told(system.set_maintenance(false));
        told(system.set_pop_maintenance(false));
        assert_eq!(numbers(&pop(&queue, 1)), [1]);
    }
    assert_eq!(
        told(system.set_maintenance(false))["maintenanceMode"],
        false
    );
    assert_eq!(
        told(system.set_pop_maintenance(false))["popMaintenanceMode"],
        false
    );
    close(client)
}

fn x63_x64_health_and_metrics(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let health = told(client.system().health());
    assert_eq!(health["status"], "healthy");
    assert!(health["version"].is_string());
    assert!(told(client.system().metrics())["uptime"].is_number());
    let text = told(client.system().prometheus());
    assert!(text.as_str().unwrap().contains("# TYPE queen_"), "{text}");
    close(client)
}

/// `queen-broker inspect`: of the file where the broker is embedded, else of the broker at its URL.
fn an_inspection(broker: &TestBroker) -> Tested {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let url = match broker.name {
        "embedded" => format!("embedded://{}", file.display()),
        _ => broker.client_url.clone(),
    };
    let client = Client::new(&url).unwrap();
    let name = format!("contract-{}", uuid::Uuid::now_v7());
    for (part, count) in [("a", 3), ("b", 1)] {
        let items = vec![Item::json("1").unwrap(); count];
        let pushed = client.queue(&name).partition(part).push(&items);
        pushed.wait(LONG).unwrap();
    }
    let options = PopOptions {
        wait: false,
        lease_seconds: Some(600),
        batch: 2,
        group: Some("g".into()),
        subscription_mode: Some("all".into()),
        ..PopOptions::default()
    };
    let queue = client.queue(&name).partition("a");
    let delivery = queue.pop_with(&options).wait(LONG)?.take().unwrap();
    let lease = delivery.source().lease_id.clone();
    let look = |queue: &str| match broker.name {
        "embedded" => {
            // Its own process must not read the file beside it; a copy of it will do, while nobody works on it.
            let copy = tempfile::tempdir().unwrap();
            for name in ["store.db", "store.db-wal"] {
                std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
            }
            queen_broker::inspect(&copy.path().join("store.db"), Some(queue))
        }
        _ => queen_broker::inspect_server(&broker.client_url, None, Some(queue)),
    };
    let seen = look(&name)?;
    let [queue] = &seen.queues[..] else {
        panic!("{seen}")
    };
    assert_eq!(queue.name, name);
    let numbers = |m: &queen_broker::Messages| (m.total, m.waiting, m.leased, m.dead_letters);
    let parts: Vec<_> = queue
        .partitions
        .iter()
        .map(|p| (p.name.as_str(), numbers(&p.messages)))
        .collect();
    assert_eq!(parts, [("a", (3, 3, 2, 0)), ("b", (1, 1, 0, 0))]);
    assert_eq!(numbers(&queue.messages), (4, 4, 2, 0));
    let group = queue.groups.iter().find(|group| group.name == "g").unwrap();
    let stands = |part: &str| group.partitions.iter().find(|found| found.name == part);
    let a = stands("a").unwrap();
    assert_eq!((a.lag, a.lease_id.as_deref()), (3, Some(lease.as_str())));
    let error = look("contract-none").unwrap_err();
    assert_eq!(error.to_string(), "there is no queue \"contract-none\"");
    delivery.ack().wait(LONG)?;
    close(client)
}
