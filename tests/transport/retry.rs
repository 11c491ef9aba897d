//! What is tried again, and how a call ends that does not go well.

use std::io::Write;
use std::time::{Duration, Instant};

use queen::{ErrorCode, Outcome, PopOptions};

use crate::script::{self, Reply, Script, answer, json, nobody, whole};
use crate::{LONG, client, push, push_fails, well};

/// The first requests get `first`, the others a good answer.
fn first(times: usize, first: impl Fn() -> Reply + Send + Sync + 'static) -> Script {
    Script::start(move |seen| match seen.number < times {
        true => first(),
        false => well(seen),
    })
}

#[test]
fn h1_a_push_is_sent_again_with_the_same_ids() {
    for failure in [
        || json(500, r#"{"error":"pool"}"#),
        || Reply::Reset,
        || Reply::Part(Vec::new()),
        || Reply::Part(b"HTTP/1.1 201 Created\r\ncontent-length: 40\r\n\r\n[{\"index\"".to_vec()),
        || Reply::Part(b"\x00\xff no HTTP \r\n\r\n".to_vec()),
    ] {
        let server = first(2, failure);
        let client = client(&[&server.url], "");
        let results = push(&client).wait(LONG).unwrap();
        assert_eq!(results[0].status, "queued");
        let seen = server.seen();
        assert_eq!(seen.len(), 3);
        assert!(seen[0].body.contains("t-1"));
        assert!(seen.iter().all(|later| later.body == seen[0].body));
    }
}

#[test]
fn h1_c46_retry_attempts_is_the_total() {
    for attempts in [1, 4] {
        let server = Script::start(|_| json(500, r#"{"error":"pool"}"#));
        let client = client(&[&server.url], &format!(r#""retryAttempts":{attempts}"#));
        let error = push_fails(&client);
        assert_eq!(
            (error.code(), error.http_status(), error.outcome()),
            (ErrorCode::Broker, Some(500), Outcome::Unknown)
        );
        assert!(error.message().contains("pool"));
        assert_eq!(error.transaction_ids(), ["t-1"]);
        assert_eq!(server.count(), attempts);
    }
}

#[test]
fn c46_the_attempts_of_a_broker_that_is_down_are_told() {
    let client = client(&[&nobody()], "");
    let error = push_fails(&client);
    assert_eq!(
        (error.code(), error.outcome()),
        (ErrorCode::Connect, Outcome::NotApplied)
    );
    assert!(error.message().contains("tried 3 times"), "{error}");
}

#[test]
fn c34_a_pop_is_not_repeated_once_it_was_sent() {
    for failure in [
        || Reply::Reset,
        || json(500, "{}"),
        || answer("503 Busy\r\nretry-after: 0", "{}"),
    ] {
        let server = first(1, failure);
        let client = client(&[&server.url], "");
        let error = client.queue("q").pop().wait(LONG).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert_eq!(server.count(), 1);
    }
}

#[test]
fn h2_a_pop_passes_over_a_broker_that_is_down() {
    let server = Script::start(well);
    let client = client(&[&nobody(), &server.url], "");
    for _ in 0..4 {
        assert!(client.queue("q").pop().wait(LONG).unwrap().is_empty());
    }
    assert_eq!(server.count_of("/pop"), 4);
}

#[test]
fn h2_c47_fails_over_among_three() {
    let broken = Script::start(|_| json(502, ""));
    let dropping = Script::start(|_| Reply::Part(Vec::new()));
    let good = Script::start(well);
    // With a pause of an hour only the failover can be in time.
    let client = client(
        &[&broken.url, &dropping.url, &good.url],
        r#""retryDelayMillis":3600000"#,
    );
    for _ in 0..6 {
        push(&client).wait(LONG).unwrap();
    }
    assert_eq!(good.count_of("/push"), 6);
}

#[test]
fn h2_failover_can_be_switched_off() {
    let broken = Script::start(|_| json(502, ""));
    let good = Script::start(well);
    let client = client(
        &[&broken.url, &good.url],
        r#""enableFailover":false,"retryAttempts":1"#,
    );
    let failed = (0..4).filter(|_| push(&client).wait(LONG).is_err()).count();
    assert!(failed <= 1, "after the first it is known to be down");
    assert_eq!(
        (failed, 4 - failed),
        (broken.count(), good.count_of("/push"))
    );
}

#[test]
fn h4_a_broker_that_hangs_is_left_for_another() {
    let silent = Script::start(|_| Reply::Silence);
    let good = Script::start(well);
    let client = client(&[&silent.url, &good.url], r#""requestTimeoutMillis":100"#);
    // Far beyond what this test takes: the limit of an attempt counts, however much time the call has.
    let options = queen::PushOptions {
        timeout_millis: Some(3_600_000),
        ..queen::PushOptions::default()
    };
    for _ in 0..2 {
        let item = queen::Item::raw("1").unwrap();
        client
            .queue("q")
            .push_with(&[item], &options)
            .wait(LONG)
            .unwrap();
    }
    assert_eq!(good.count_of("/push"), 2);
}

#[test]
fn h4_the_deadline_covers_a_slow_body() {
    let text = whole("200 OK\r\ncontent-type: application/json", &" ".repeat(600));
    let server = Script::start(move |_| Reply::Slow(text.clone(), Duration::from_millis(100)));
    let client = client(&[&server.url], r#""timeoutMillis":500,"retryAttempts":1"#);
    let began = Instant::now();
    let error = push_fails(&client);
    assert_eq!(
        (error.code(), error.outcome()),
        (ErrorCode::Timeout, Outcome::Unknown)
    );
    assert_eq!(error.transaction_ids(), ["t-1"]);
    // The whole answer would take over a minute.
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn c45_a_long_poll_may_last_longer_than_an_attempt() {
    let server = Script::start(|_| {
        std::thread::sleep(Duration::from_millis(1500));
        answer("204 No Content", "")
    });
    let client = client(
        &[&server.url],
        r#""timeoutMillis":30000,"requestTimeoutMillis":200"#,
    );
    let options = PopOptions {
        wait: true,
        poll_timeout_millis: 1500,
        ..PopOptions::default()
    };
    let popped = client.pop(Some("q"), None, &options).wait(LONG).unwrap();
    assert!(popped.is_empty());
    assert_eq!(server.count(), 1);
}

#[test]
fn h5_a_4xx_is_told_at_once_with_the_reason() {
    let server = Script::start(|_| json(403, r#"{"error":"not for you","code":"push_blocked"}"#));
    let client = client(&[&server.url, &nobody()], "");
    let error = push_fails(&client);
    assert_eq!(
        (error.code(), error.http_status(), error.outcome()),
        (ErrorCode::Forbidden, Some(403), Outcome::Refused)
    );
    assert_eq!(error.broker_code(), Some("push_blocked"));
    assert!(error.message().contains("not for you"));
    assert!(error.to_json().contains(r#""brokerCode":"push_blocked""#));
    assert_eq!(server.count(), 1);
}

#[test]
fn x6_a_403_ends_a_consumer_with_the_code_of_the_proxy() {
    let server = Script::start(|_| json(403, r#"{"error":"full","code":"quota_exceeded"}"#));
    let client = client(&[&server.url], "");
    let consumer = client
        .queue("q")
        .consume(|_| queen::Settlement::Ack)
        .unwrap();
    let error = consumer.finished().wait(LONG).unwrap_err();
    assert_eq!(
        (error.code(), error.broker_code()),
        (ErrorCode::Forbidden, Some("quota_exceeded"))
    );
    assert_eq!(server.count(), 1);
}

#[test]
fn c48_a_consumer_that_is_refused_asks_no_more() {
    for status in [400, 401, 404] {
        let server = Script::start(move |_| json(status, r#"{"error":"no"}"#));
        let client = client(&[&server.url], "");
        let consumer = client
            .queue("q")
            .consume(|_| queen::Settlement::Ack)
            .unwrap();
        let error = consumer.finished().wait(LONG).unwrap_err();
        assert_eq!(error.http_status(), Some(status));
        assert_eq!(server.count(), 1);
    }
}

#[test]
fn c39_a_consumer_rests_as_long_as_a_503_asks() {
    let server = first(1, || answer("503 Busy\r\nretry-after: 1", "{}"));
    let client = client(&[&server.url], "");
    let consumer = client
        .queue("q")
        .consume(|_| queen::Settlement::Ack)
        .unwrap();
    while server.count() < 2 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let seen = server.seen();
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(1));
    consumer.stop(LONG).wait(LONG).unwrap();
}

#[test]
fn h6_an_answer_without_a_body_is_an_empty_pop() {
    for reply in [
        || answer("204 No Content", ""),
        || answer("200 OK\r\ncontent-type: application/json", ""),
    ] {
        let server = Script::start(move |_| reply());
        let client = client(&[&server.url], "");
        assert!(client.queue("q").pop().wait(LONG).unwrap().is_empty());
        let document = client.queue("q").delete().wait(LONG).unwrap();
        assert_eq!(document.as_str(), "null");
        // What must be in an answer is missed.
        assert_eq!(push_fails(&client).code(), ErrorCode::BadAnswer);
    }
}

#[test]
fn h7_c52_connections_are_kept() {
    let server = Script::start(well);
    let client = client(&[&server.url], "");
    for _ in 0..20 {
        push(&client).wait(LONG).unwrap();
    }
    let last = server.seen().iter().map(|seen| seen.connection).max();
    assert_eq!(last, Some(0), "c52: one connection serves them all");
}

#[test]
fn h8_c4_bodies_are_json_and_never_missing() {
    let server = Script::start(|seen| match seen.line.contains("/extend") {
        true => json(200, r#"{"leaseId":"L","success":true,"renewed":1}"#),
        false => well(seen),
    });
    let client = client(&[&server.url], "");
    push(&client).wait(LONG).unwrap();
    client.queue("q").pop().wait(LONG).unwrap();
    client.queue("q").delete().wait(LONG).unwrap();
    // C-4: a lease is not renewed by a request without a body.
    let renewed = client.renew("L", 10, &Default::default());
    renewed.wait(LONG).unwrap();
    for seen in server.seen() {
        let has_body = seen.line.starts_with("POST ");
        let kind = has_body.then_some("application/json");
        assert_eq!(seen.header("content-type"), kind, "{}", seen.line);
        assert_eq!(seen.body.starts_with('{'), has_body, "{}", seen.line);
    }
    assert!(server.seen()[3].body.contains("10"));
}

#[test]
fn h9_a_slash_behind_the_url_changes_nothing() {
    let server = Script::start(well);
    let client = client(&[&format!("{}/base///", server.url)], "");
    push(&client).wait(LONG).unwrap();
    assert_eq!(server.seen()[0].line, "POST /base/api/v1/push");
}

#[test]
fn c15_every_segment_of_a_path_is_encoded() {
    let server = Script::start(|_| answer("204 No Content", ""));
    let client = client(&[&server.url], "");
    let name = "a/b c?d#é%+&=";
    let encoded = "a%2Fb%20c%3Fd%23%C3%A9%25%2B%26%3D";
    client.queue(name).get().wait(LONG).unwrap();
    client.queue(name).delete().wait(LONG).unwrap();
    let queue = client.queue(name);
    let partition = queue.partition(name);
    partition.pop().wait(LONG).unwrap();
    let options = PopOptions {
        wait: true,
        group: Some(name.into()),
        ..PopOptions::default()
    };
    client.pop(Some(name), None, &options).wait(LONG).unwrap();
    let renewed = client.renew(name, 10, &Default::default());
    let _ = renewed.wait(LONG);
    let lines: Vec<_> = server.seen().into_iter().map(|seen| seen.line).collect();
    assert_eq!(lines[0], format!("GET /api/v1/resources/queues/{encoded}"));
    assert_eq!(
        lines[1],
        format!("DELETE /api/v1/resources/queues/{encoded}")
    );
    let pop = format!("GET /api/v1/pop/queue/{encoded}/partition/{encoded}?");
    assert!(lines[2].starts_with(&pop), "{}", lines[2]);
    assert!(
        lines[3].contains(&format!("consumerGroup={encoded}")),
        "{}",
        lines[3]
    );
    assert_eq!(lines[4], format!("POST /api/v1/lease/{encoded}/extend"));
}

#[test]
fn x4_a_429_waits_in_place() {
    let limited = first(2, || answer("429 Slow Down\r\nretry-after: 0", "{}"));
    let client = client(&[&limited.url], r#""retryAttempts":1"#);
    push(&client).wait(LONG).unwrap();
    assert_eq!(limited.count(), 3);
}

#[test]
fn x4_a_429_without_retry_after_backs_off() {
    let limited = first(1, || json(429, r#"{"error":"slow","code":"rate_limited"}"#));
    let other = Script::start(well);
    let client = client(&[&limited.url, &other.url], "");
    push(&client).wait(LONG).unwrap();
    push(&client).wait(LONG).unwrap();
    let seen = limited.seen();
    assert_eq!(seen.len(), 2, "no failover");
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(399));
    assert_eq!(other.count(), 1);
}

#[test]
fn x5_a_pause_that_outlasts_the_deadline_is_told_instead() {
    let limited = Script::start(|_| {
        answer(
            "429 Slow Down\r\nretry-after: 20",
            r#"{"error":"slow","code":"rate_limited"}"#,
        )
    });
    let client = client(&[&limited.url], r#""timeoutMillis":5000"#);
    let error = push_fails(&client);
    assert_eq!(
        (error.code(), error.outcome(), error.retry_after()),
        (
            ErrorCode::Throttled,
            Outcome::Refused,
            Some(Duration::from_secs(20))
        )
    );
    assert!(error.is_retriable());
    assert!(error.to_json().contains(r#""retryAfterMillis":20000"#));
    assert_eq!(limited.count(), 1);
}

#[test]
fn h5_a_redirect_is_named_and_not_followed() {
    let elsewhere = Script::start(well);
    let target = format!("{}/login?token=secret", elsewhere.url);
    let server = Script::start(move |_| answer(&format!("302 Found\r\nlocation: {target}"), ""));
    let client = client(&[&server.url], "");
    let error = push_fails(&client);
    assert_eq!(
        (error.code(), error.http_status(), error.outcome()),
        (ErrorCode::BadAnswer, Some(302), Outcome::Refused)
    );
    assert!(error.message().contains("/login") && !error.message().contains("secret"));
    assert_eq!((server.count(), elsewhere.count()), (1, 0));
}

#[test]
fn an_answer_of_another_type_is_named() {
    let server =
        Script::start(|_| answer("200 OK\r\nContent-Type: text/html; charset=utf-8", "<html>"));
    let client = client(&[&server.url], "");
    let error = client.queue("q").get().wait(LONG).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BadAnswer);
    assert!(error.message().contains("text/html"), "{error}");
    assert_eq!(server.count(), 1, "it will not get better");
}

#[test]
fn an_answer_that_is_too_large_is_refused() {
    let big = "x".repeat(5000);
    let announced = json(200, &big);
    let Reply::Answer(announced) = announced else {
        unreachable!()
    };
    // Announced with its length, and in chunks.
    let mut chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for _ in 0..50 {
        chunked.push_str(&format!("64\r\n{}\r\n", "x".repeat(100)));
    }
    chunked.push_str("0\r\n\r\n");
    for text in [announced, chunked] {
        let server = Script::start(move |_| Reply::Answer(text.clone()));
        let client = client(&[&server.url], r#""maxAnswerBytes":4999"#);
        let error = client.queue("q").get().wait(LONG).unwrap_err();
        assert_eq!(error.code(), ErrorCode::BadAnswer);
        assert!(error.message().contains("maxAnswerBytes"), "{error}");
        assert_eq!(server.count(), 1);
    }
}

/// A whole answer that is compressed.
fn zipped(status: &str, body: &str) -> Reply {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    encoder.write_all(body.as_bytes()).unwrap();
    let body = encoder.finish().unwrap();
    let mut answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend(body);
    Reply::Part(answer)
}

#[test]
fn answers_may_be_compressed() {
    let server = Script::start(|_| zipped("200 OK", r#"{"name":"q"}"#));
    let client = client(&[&server.url], "");
    let document = client.queue("q").get().wait(LONG).unwrap();
    assert_eq!(document.as_str(), r#"{"name":"q"}"#);
    assert_eq!(server.seen()[0].header("accept-encoding"), Some("gzip"));
}

#[test]
fn an_answer_that_unpacks_to_too_much_is_refused() {
    let server = Script::start(|_| zipped("200 OK", &" ".repeat(50_000_000)));
    let client = client(&[&server.url], r#""maxAnswerBytes":1000000"#);
    let error = client.queue("q").get().wait(LONG).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BadAnswer);
    assert!(error.message().contains("maxAnswerBytes"), "{error}");
}

#[test]
fn an_error_inside_a_200_is_an_error() {
    let server = Script::start(|_| json(200, r#"{"success":false,"error":"no such thing"}"#));
    let client = client(&[&server.url], "");
    let error = client.queue("q").get().wait(LONG).unwrap_err();
    assert_eq!(
        (error.code(), error.outcome()),
        (ErrorCode::BadRequest, Outcome::Refused)
    );
    assert!(error.message().contains("no such thing"));
}

#[test]
fn c2_c60_an_outage_is_no_empty_queue() {
    for (status, code) in [
        (401, ErrorCode::Unauthorized),
        (403, ErrorCode::Forbidden),
        (500, ErrorCode::Broker),
    ] {
        let server = Script::start(move |_| json(status, r#"{"error":"x"}"#));
        let client = client(&[&server.url], "");
        let error = client.queue("q").pop().wait(LONG).unwrap_err();
        assert_eq!(error.code(), code);
    }
    let error = client(&[&nobody()], "").queue("q").pop().wait(LONG);
    assert_eq!(error.unwrap_err().code(), ErrorCode::Connect);
}

#[test]
fn c53_a_timeout_below_a_second_is_kept() {
    let server = Script::start(|seen| {
        std::thread::sleep(Duration::from_millis(100));
        well(seen)
    });
    let client = client(&[&server.url], r#""timeoutMillis":990"#);
    push(&client).wait(LONG).unwrap();
}

#[test]
fn c63_https_is_never_spoken_in_the_clear() {
    let server = Script::start(well);
    let url = server.url.replace("http:", "https:");
    let client = client(&[&url], r#""bearerToken":"t0p","retryAttempts":1"#);
    let error = push_fails(&client);
    assert_eq!(error.code(), ErrorCode::Connect);
    assert_eq!(server.count(), 0, "nothing that reads as HTTP came");
}

#[test]
fn x7_every_body_of_an_error_is_read() {
    for (head, body, reason) in [
        (
            "400 Bad",
            "Failed to deserialize query string",
            "deserialize",
        ),
        ("413 Large", "length limit exceeded", "length limit"),
        ("400 Bad", r#"{"success":false,"error":"no"}"#, "no"),
        ("404 Not Found", "", "404"),
    ] {
        let server = Script::start(move |_| script::answer(head, body));
        let client = client(&[&server.url], "");
        let error = client.queue("q").get().wait(LONG).unwrap_err();
        assert!(error.message().contains(reason), "{error}");
        assert_eq!(error.outcome(), Outcome::Refused);
    }
}
