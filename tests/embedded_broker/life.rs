//! Several brokers, their ends and returns, and what they are started with.

use super::*;

#[test]
fn two_brokers_are_two_and_a_client_of_both_fails_over() {
    let [one, two] = [(); 2].map(|()| EmbeddedBroker::start(testing()).unwrap());
    assert_ne!(one.url(), two.url());
    let (first, second) = (client(one.url()), client(two.url()));
    push(&first.queue("q"), "x").unwrap();
    assert!(pop(&second.queue("q")).unwrap().is_none());
    assert_eq!(payloads(pop(&first.queue("q")).unwrap()), ["x"]);

    let urls = json!([one.url(), two.url()]).to_string();
    let both = Client::new(&urls).unwrap();
    one.add_fault(Fault::new("push", FaultAction::CutBeforeCommit))
        .unwrap();
    for _ in 0..6 {
        assert_eq!(push(&both.queue("q"), "y").unwrap(), "queued");
    }
    assert!(applied(&one)[0] >= 1);
    assert_eq!(two.requests().unwrap()["push"], 6);
}

#[test]
fn a_stop_in_good_order_answers_what_is_under_way() {
    each(|broker, client| {
        let slow = Fault::new("push", FaultAction::Delay { millis: 300 });
        broker.add_fault(slow).unwrap();
        let pushing = client.queue("q").push(&[Item::json("x").unwrap()]);
        let waiting = client.queue("empty").pop_with(&PopOptions {
            wait: true,
            ..PopOptions::default()
        });
        while broker.requests().unwrap().len() < 2 {
            std::thread::yield_now();
        }
        broker.stop(LONG).wait(LONG).unwrap();
        assert!(!broker.is_running());
        assert!(waiting.wait(LONG).unwrap().is_empty());
        assert_eq!(pushing.wait(LONG).unwrap()[0].status, "queued");
        broker.stop(LONG).wait(LONG).unwrap();
        assert_eq!(broker.faults().unwrap_err().code(), ErrorCode::InvalidState);
        let down =
            Client::new(&json!({"url": url(broker), "retryAttempts": 1}).to_string()).unwrap();
        let error = push(&down.queue("q"), "x").unwrap_err();
        assert_eq!(
            (error.code(), error.outcome()),
            (ErrorCode::Connect, Outcome::NotApplied),
            "{error}"
        );
    });
}

#[test]
fn a_stop_does_not_wait_beyond_its_deadline() {
    each(|broker, client| {
        let slow = Fault::new("pop", FaultAction::Delay { millis: 3_600_000 });
        broker.add_fault(slow).unwrap();
        let popping = client.queue("q").pop_with(&PopOptions {
            wait: false,
            ..PopOptions::default()
        });
        while applied(broker) == [0] {
            std::thread::yield_now();
        }
        broker.stop(Duration::from_millis(50)).wait(LONG).unwrap();
        let error = popping.wait(LONG).unwrap_err();
        assert_eq!(
            (error.code(), error.outcome()),
            (ErrorCode::Network, Outcome::Unknown),
            "{error}"
        );
    });
}

#[test]
fn a_kill_cuts_connections_and_a_restart_brings_all_back() {
    let folder = tempfile::tempdir().unwrap();
    for (n, listen) in [vec![], vec!["127.0.0.1:0".to_owned()]]
        .into_iter()
        .enumerate()
    {
        let broker = EmbeddedBroker::start(BrokerOptions {
            data: Some(folder.path().join(format!("{n}.db"))),
            listen,
            ..testing()
        })
        .unwrap();
        let client = client(url(&broker));
        let queue = client.queue("q");
        push(&queue, "before").unwrap();
        broker.advance_clock(HOUR).wait(LONG).unwrap();
        let hour_ahead = broker.clock().unwrap().now;
        let waiting = client.queue("empty").pop_with(&PopOptions {
            wait: true,
            ..PopOptions::default()
        });
        while !broker.requests().unwrap().contains_key("pop") {
            std::thread::yield_now();
        }
        broker.kill().wait(LONG).unwrap();
        let error = waiting.wait(LONG).unwrap_err();
        assert_eq!(
            (error.code(), error.outcome()),
            (ErrorCode::Network, Outcome::Unknown),
            "{error}"
        );
        // A push that finds nobody is repeated until somebody is there again.
        let pushing = queue.push(&[Item::json("meanwhile").unwrap()]);
        let address = url(&broker).to_owned();
        broker.restart().wait(LONG).unwrap();
        assert_eq!(url(&broker), address);
        assert_eq!(pushing.wait(LONG).unwrap()[0].status, "queued");
        assert_eq!(payloads(pop(&queue).unwrap()), ["before", "meanwhile"]);
        assert!(
            broker.clock().unwrap().now > hour_ahead,
            "the clock did not go back"
        );
        let error = broker.restart().wait(LONG).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidState);
    }
}

#[test]
fn faults_of_the_options_are_there_after_each_restart() {
    let broker = EmbeddedBroker::start(BrokerOptions {
        faults: vec![Fault::new("push", FaultAction::status(400)).times(1)],
        ..BrokerOptions::default()
    })
    .unwrap();
    let client = client(broker.url());
    for _ in 0..2 {
        broker
            .add_fault(Fault::new("ack", FaultAction::Hang))
            .unwrap();
        assert!(push(&client.queue("q"), "x").is_err());
        push(&client.queue("q"), "x").unwrap();
        assert_eq!(applied(&broker), [1, 0]);
        broker.stop(LONG).wait(LONG).unwrap();
        broker.restart().wait(LONG).unwrap();
        assert_eq!(applied(&broker), [0]);
    }
}

#[test]
fn a_store_file_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.db");
    let direct = Client::new(&format!("embedded://{}", file.display())).unwrap();
    let options = || BrokerOptions {
        name: Some("owner".into()),
        data: Some(file.clone()),
        ..testing()
    };
    let refused = |result: Result<EmbeddedBroker, Error>, word: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Locked);
        assert!(error.message().contains(word), "{error}");
    };
    push(&direct.queue("q"), "x").unwrap();
    refused(EmbeddedBroker::start(options()), "clients of this process");
    direct.close(LONG).wait(LONG).unwrap();

    let broker = EmbeddedBroker::start(options()).unwrap();
    let other = BrokerOptions {
        name: None,
        ..options()
    };
    refused(EmbeddedBroker::start(other), "broker `owner`");
    let direct = Client::new(&format!("embedded://{}", file.display())).unwrap();
    let error = push(&direct.queue("q"), "y").unwrap_err();
    assert_eq!(error.code(), ErrorCode::Locked);
    assert!(error.message().contains("broker `owner`"), "{error}");
    assert_eq!(
        payloads(pop(&client(broker.url()).queue("q")).unwrap()),
        ["x"]
    );
    broker.stop(LONG).wait(LONG).unwrap();
    push(&direct.queue("q"), "y").unwrap();
    refused(
        broker.restart().wait(LONG).map(|()| unreachable!()),
        "clients of this process",
    );
    direct.close(LONG).wait(LONG).unwrap();
    broker.restart().wait(LONG).unwrap();
}

#[test]
fn tokens_are_asked_for_inside_too() {
    let broker = EmbeddedBroker::start(BrokerOptions {
        tokens: vec![Secret::new("open-sesame")],
        listen: vec!["127.0.0.1:0".into()],
        ..testing()
    })
    .unwrap();
    for url in [broker.url(), &broker.addresses()[0]] {
        let client = client(url);
        let error = push(&client.queue("q"), "x").unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unauthorized);
        client.set_token(Some(&Secret::new("open-sesame"))).unwrap();
        push(&client.queue("q"), "x").unwrap();
    }
}

#[test]
fn wrong_starts_say_what_is_wrong() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new.db");
    let refused = |options: BrokerOptions, code: ErrorCode, words: &[&str]| {
        let error = EmbeddedBroker::start(options).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(
            words.iter().all(|word| error.message().contains(word)),
            "{error}"
        );
    };
    let listen = BrokerOptions {
        listen: vec![address.clone()],
        data: Some(file.clone()),
        ..BrokerOptions::default()
    };
    refused(
        listen,
        ErrorCode::InvalidConfig,
        &["`listen`", &address, "in use"],
    );
    assert!(!file.exists(), "a wrong address leaves no store behind");
    let nowhere = BrokerOptions {
        data: Some("/no/such/folder/x.db".into()),
        ..BrokerOptions::default()
    };
    refused(nowhere, ErrorCode::Store, &["/no/such/folder", "create it"]);
    let faulty = BrokerOptions {
        faults: vec![Fault::new("psuh", FaultAction::Hang)],
        ..BrokerOptions::default()
    };
    refused(faulty, ErrorCode::InvalidConfig, &["psuh"]);
    let named = || BrokerOptions {
        name: Some("twice".into()),
        ..BrokerOptions::default()
    };
    let first = EmbeddedBroker::start(named()).unwrap();
    refused(named(), ErrorCode::InvalidConfig, &["`name`", "twice"]);
    assert_eq!(first.faults().unwrap_err().code(), ErrorCode::InvalidState);
    assert!(first.faults().unwrap_err().message().contains("`testing`"));
    drop(first);
    EmbeddedBroker::start(named()).unwrap();
}

#[test]
fn dropping_it_leaves_its_clients_alone() {
    let broker = EmbeddedBroker::start(testing()).unwrap();
    let client =
        Client::new(&json!({"url": broker.url(), "retryAttempts": 1}).to_string()).unwrap();
    let waiting = client.queue("q").pop_with(&PopOptions {
        wait: true,
        ..PopOptions::default()
    });
    while broker.requests().unwrap().is_empty() {
        std::thread::yield_now();
    }
    drop(broker);
    assert_eq!(waiting.wait(LONG).unwrap_err().code(), ErrorCode::Network);
    assert_eq!(
        push(&client.queue("q"), "x").unwrap_err().code(),
        ErrorCode::Connect
    );
    client.close(LONG).wait(LONG).unwrap();
}

#[tokio::test]
async fn it_works_from_async_code() {
    let listen = vec!["127.0.0.1:0".to_owned()];
    let broker = EmbeddedBroker::start(BrokerOptions {
        listen,
        ..testing()
    })
    .unwrap();
    let client = client(url(&broker));
    let pushed = client
        .queue("q")
        .push(&[Item::json("x").unwrap()])
        .await
        .unwrap();
    assert_eq!(pushed[0].status, "queued");
    broker.kill().await.unwrap();
    broker.restart().await.unwrap();
    drop(broker);
    let listen = vec!["127.0.0.1:0".to_owned()];
    let failing = BrokerOptions {
        listen,
        data: Some("/no/such/folder/x.db".into()),
        ..testing()
    };
    assert!(EmbeddedBroker::start(failing).is_err());
}

#[test]
fn it_listens_on_a_socket_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.sock");
    let broker = EmbeddedBroker::start(BrokerOptions {
        listen: vec![format!("unix:{}", path.display()), "127.0.0.1:0".into()],
        ..BrokerOptions::default()
    })
    .unwrap();
    assert_eq!(broker.addresses().len(), 2);
    for _ in 0..2 {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream
            .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        broker.kill().wait(LONG).unwrap();
        assert!(!path.exists());
        broker.restart().wait(LONG).unwrap();
    }
}
