//! Who the client says that it is: tokens, headers, the name of the host.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use queen::{Client, ErrorCode, Level, Outcome, Secret, TokenWanted};

use crate::script::{Reply, Script, Seen, json, nobody};
use crate::{LONG, client, push, push_fails, well};

fn guarded(token: &'static str) -> Script {
    Script::start(move |seen| match seen.header("authorization") {
        Some(found) if found == format!("Bearer {token}") => well(seen),
        _ => json(401, r#"{"error":"Token has expired"}"#),
    })
}

/// Questions for a token, as they come.
fn questions(client: &Client) -> mpsc::Receiver<TokenWanted> {
    let (ask, asked) = mpsc::channel();
    client.set_token_wanted(Some(Arc::new(move |wanted: &TokenWanted| {
        let _ = ask.send(*wanted);
    })));
    asked
}

fn secret(text: &str) -> Secret {
    Secret::new(text)
}

#[test]
fn x1_c59_a_static_token_goes_with_every_request() {
    let server = guarded("t0p");
    let client = client(&[&server.url], r#""bearerToken":"t0p""#);
    push(&client).wait(LONG).unwrap();
    client.queue("q").pop().wait(LONG).unwrap();
    assert_eq!(server.count(), 2);
}

#[test]
fn x1_a_refused_token_is_told_at_once_where_nobody_can_be_asked() {
    let server = guarded("t0p");
    let client = client(&[&server.url], r#""bearerToken":"0ld""#);
    let error = push_fails(&client);
    assert_eq!(
        (error.code(), error.http_status(), error.outcome()),
        (ErrorCode::Unauthorized, Some(401), Outcome::Refused)
    );
    assert!(error.message().contains("expired"));
    assert_eq!(server.count(), 1);
    client.set_token(Some(&secret("t0p"))).unwrap();
    push(&client).wait(LONG).unwrap();
}

#[test]
fn x1_requests_wait_for_a_token_that_is_asked_for() {
    let server = guarded("t0p");
    let client = client(&[&server.url], "");
    let asked = questions(&client);
    let calls: Vec<_> = (0..20)
        .map(|n| client.queue(format!("q{n}")).pop())
        .collect();
    assert_eq!(asked.recv_timeout(LONG).unwrap(), TokenWanted::Missing);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.count(), 0, "nothing leaves without a token");
    client.set_token(Some(&secret("t0p"))).unwrap();
    for call in calls {
        call.wait(LONG).unwrap();
    }
    assert_eq!(server.count(), 20);
    assert!(asked.try_recv().is_err(), "one question for all");
}

#[test]
fn x1_a_refused_token_is_asked_for_anew() {
    let server = guarded("new");
    let client = client(&[&server.url], r#""bearerToken":"0ld""#);
    let asked = questions(&client);
    let calls: Vec<_> = (0..20)
        .map(|n| client.queue(format!("q{n}")).pop())
        .collect();
    assert_eq!(asked.recv_timeout(LONG).unwrap(), TokenWanted::Refused);
    client.set_token(Some(&secret("new"))).unwrap();
    for call in calls {
        call.wait(LONG).unwrap();
    }
    assert!(asked.try_recv().is_err(), "one question for all");
}

#[test]
fn x1_a_host_that_gives_bad_tokens_is_asked_once_per_call() {
    let server = guarded("t0p");
    let client = client(&[&server.url], "");
    let giver = client.clone();
    let asked = Arc::new(Mutex::new(0));
    let count = asked.clone();
    client.set_token_wanted(Some(Arc::new(move |_: &TokenWanted| {
        *count.lock().unwrap() += 1;
        giver.set_token(Some(&Secret::new("bad"))).unwrap();
    })));
    let error = push_fails(&client);
    assert_eq!(
        (error.code(), error.http_status()),
        (ErrorCode::Unauthorized, Some(401))
    );
    assert_eq!((*asked.lock().unwrap(), server.count()), (2, 2));
    client.set_token_wanted(None);
}

#[test]
fn x1_a_question_without_an_answer_ends_with_the_deadline() {
    let server = guarded("t0p");
    let client = client(&[&server.url], r#""timeoutMillis":300"#);
    let asked = questions(&client);
    let error = push_fails(&client);
    assert_eq!(
        (error.code(), error.outcome()),
        (ErrorCode::Unauthorized, Outcome::NotApplied)
    );
    assert!(error.message().contains("queen_client_set_token"));
    asked.recv_timeout(LONG).unwrap();
    // The host may also say that it has none.
    let call = client.queue("q").pop();
    std::thread::sleep(Duration::from_millis(50));
    client.set_token(None).unwrap();
    let error = call.wait(LONG).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unauthorized);
    assert_eq!(server.count(), 0);
    assert!(client.backends().backends[0].healthy, "no broker's fault");
}

#[test]
fn x1_a_consumer_lives_through_a_change_of_tokens() {
    let tokens = Arc::new(Mutex::new("one".to_owned()));
    let valid = tokens.clone();
    let server = Script::start(move |seen: &Seen| {
        let valid = format!("Bearer {}", valid.lock().unwrap());
        match seen.header("authorization") == Some(&valid) {
            true => well(seen),
            false => json(401, r#"{"error":"Token has expired"}"#),
        }
    });
    let client = client(&[&server.url], "");
    let (giver, current) = (client.clone(), tokens.clone());
    client.set_token_wanted(Some(Arc::new(move |_: &TokenWanted| {
        let token = Secret::new(current.lock().unwrap().clone());
        giver.set_token(Some(&token)).unwrap();
    })));
    let consumer = client
        .queue("q")
        .consume(|_| queen::Settlement::Ack)
        .unwrap();
    for next in ["two", "three"] {
        let polls = server.count();
        while server.count() < polls + 3 {
            std::thread::sleep(Duration::from_millis(10));
        }
        *tokens.lock().unwrap() = next.to_owned();
    }
    let polls = server.count();
    while server.count() < polls + 3 {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!consumer.finished().is_complete());
    consumer.stop(LONG).wait(LONG).unwrap();
    client.set_token_wanted(None);
}

#[test]
fn x2_own_headers_go_with_every_request() {
    let server = Script::start(well);
    let client = client(
        &[&server.url],
        r#""headers":{"X-Tenant":"acme","Cookie":"a=b; c=d","Authorization":"Basic eA=="}"#,
    );
    push(&client).wait(LONG).unwrap();
    client.queue("q").pop().wait(LONG).unwrap();
    for seen in server.seen() {
        assert_eq!(seen.header("x-tenant"), Some("acme"));
        assert_eq!(seen.header("cookie"), Some("a=b; c=d"));
        assert_eq!(seen.header("authorization"), Some("Basic eA=="));
        assert!(server.url.ends_with(seen.header("host").unwrap()));
    }
    for (bad, named) in [
        (r#"{"url":"http://a","headers":{"Host":"b"}}"#, "hostHeader"),
        (r#"{"url":"http://a","headers":{"Upgrade":"b"}}"#, "Upgrade"),
        (
            r#"{"url":"http://a","bearerToken":"t","headers":{"authorization":"s3cret"}}"#,
            "bearerToken",
        ),
    ] {
        let error = Client::new(bad).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidConfig);
        assert!(error.message().contains(named), "{error}");
        assert!(!error.message().contains("s3cret"));
    }
}

#[test]
fn x3_the_host_to_name_is_not_the_host_to_dial() {
    let server = Script::start(well);
    let client = client(&[&server.url], r#""hostHeader":"acme.example.com:8443""#);
    push(&client).wait(LONG).unwrap();
    assert_eq!(
        server.seen()[0].header("host"),
        Some("acme.example.com:8443")
    );
}

#[test]
fn c16_secrets_are_in_no_log_and_no_error() {
    let refusing = Script::start(|_| json(401, r#"{"error":"no"}"#));
    let failing = Script::start(|_| Reply::Reset);
    let lines = Arc::new(Mutex::new(String::new()));
    let config = r#""bearerToken":"s3cret-1","headers":{"X-Key":"s3cret-2"}"#;
    for url in [&refusing.url, &failing.url, &nobody()] {
        let client = client(&[url], config);
        let log = lines.clone();
        client.set_log(
            Level::Debug,
            Some(Arc::new(move |_, line| log.lock().unwrap().push_str(line))),
        );
        client.set_token(Some(&secret("s3cret-3"))).unwrap();
        let error = push_fails(&client);
        let shown = format!("{error:?} {} {client:?}", error.to_json());
        assert!(!shown.contains("s3cret"), "{shown}");
        client.close(LONG).wait(LONG).unwrap();
    }
    let lines = lines.lock().unwrap();
    assert!(lines.contains("transport"), "something was logged: {lines}");
    assert!(!lines.contains("s3cret"), "{lines}");
}

#[test]
fn x15_the_subject_of_the_producers_token_is_on_the_message() {
    let server = Script::start(|seen| match seen.line.contains("/pop") {
        true => json(
            200,
            r#"{"success":true,"partitionsClaimed":1,"messages":[
                {"id":"m","transactionId":"t","partitionId":"P","partition":"p","data":1,"producerSub":"alice"}]}"#,
        ),
        false => well(seen),
    });
    let client = client(&[&server.url], "");
    let popped = client.queue("q").pop().wait(LONG).unwrap();
    let delivery = popped.take().unwrap();
    assert_eq!(
        delivery.messages()[0].producer_sub.as_deref(),
        Some("alice")
    );
}
