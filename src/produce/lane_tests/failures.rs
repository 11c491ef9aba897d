//! What becomes of calls when requests fail, and of those that end by themselves.

use super::*;

fn code(call: &Call) -> Option<ErrorCode> {
    match call.result()? {
        Ok(_) => None,
        Err(error) => Some(error.code()),
    }
}

#[test]
fn after_a_refusal_the_calls_go_one_by_one_and_the_error_reaches_the_guilty_alone() {
    for refusal in [400, 413, 422, 403] {
        let mut bench = bench(1);
        let ([one, two, three], request) = three(&mut bench, ["p", "p", "q"]);
        let failed = bench.fail(request, &status(refusal));
        assert!(failed.over.is_empty() && failed.alone && failed.again == 3);
        let request = bench.one();
        assert_eq!(payloads(&request), ["p1"]);
        bench.answer(request);
        let request = bench.one();
        assert_eq!(payloads(&request), ["q3"], "in turn");
        bench.answer(request);
        let request = bench.one();
        assert_eq!(payloads(&request), ["p2"]);
        bench.fail(request, &status(refusal));
        assert!(code(&one).is_none() && code(&three).is_none());
        assert!(code(&two).is_some(), "{refusal}");
        assert!(bench.is_empty());
    }
}

#[test]
fn after_two_stumbles_the_calls_go_one_by_one() {
    let mut bench = bench(1);
    let ([one, two, three], request) = three(&mut bench, ["p", "p", "q"]);
    let failed = bench.fail(request, &status(500));
    assert!(!failed.alone && failed.again == 3);
    assert!(bench.sent().is_empty(), "it waits before it tries again");
    bench.sleep(Duration::from_millis(1300));
    let request = bench.one();
    assert_eq!(request.messages, 3);
    let failed = bench.fail(request, &status(502));
    assert!(failed.alone && failed.over.is_empty());
    bench.sleep(Duration::from_millis(2500));
    let mut order = Vec::new();
    while let Some(request) = bench.sent().pop() {
        order.extend(payloads(&request));
        match order.last().unwrap().as_str() {
            "p2" => drop(bench.fail(request, &status(500))),
            _ => bench.answer(request),
        }
    }
    let place = |call: &str| order.iter().position(|sent| sent == call).unwrap();
    assert!(place("p1") < place("p2") && order.len() == 3, "{order:?}");
    assert_eq!(code(&two), Some(ErrorCode::Broker));
    let Some(Err(error)) = two.result() else {
        panic!("it went well")
    };
    assert!(error.message().contains("tried 3 times"), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert!(one.is_complete() && code(&one).is_none() && code(&three).is_none());
}

#[test]
fn the_last_attempt_is_one_of_its_own() {
    let mut bench = bench(1);
    bench.state.lanes.rules.rounds = 1;
    let ([one, ..], request) = three(&mut bench, ["p", "p", "p"]);
    let failed = bench.fail(request, &status(500));
    assert!(
        failed.alone && failed.over.is_empty(),
        "nobody is blamed for others"
    );
    bench.sleep(Duration::from_secs(2));
    let request = bench.one();
    assert_eq!(request.messages, 1);
    bench.fail(request, &status(500));
    assert_eq!([&one].map(code), [Some(ErrorCode::Broker)]);
}

#[test]
fn after_a_failure_each_partition_waits_by_itself_and_others_go_on() {
    let mut bench = bench(1);
    let (_, request) = three(&mut bench, ["p", "q", "r"]);
    bench.fail(request, &error(ErrorCode::Network));
    bench.push("other", 1);
    let other = bench.one();
    assert_eq!(payloads(&other), ["other1"], "nobody else waits");
    bench.push("p", 9);
    bench.answer(other);
    assert!(bench.sent().is_empty());
    let waits: Vec<_> = bench.state.lanes.paused.iter().map(|(at, _)| *at).collect();
    assert_eq!(waits.len(), 3);
    assert!(waits[0] < waits[2], "they do not all come back at once");
    let next = waits[0] - bench.now;
    bench.sleep(next);
    let request = bench.one();
    assert!(request.lines.len() == 1);
    bench.answer(request);
    bench.sleep(Duration::from_millis(1300));
    let mut seen = Vec::new();
    while let Some(request) = bench.sent().pop() {
        seen.extend(payloads(&request));
        bench.answer(request);
        bench.sleep(MILLI);
    }
    assert!(bench.is_empty(), "{seen:?}");
}

#[test]
fn a_broker_that_is_away_makes_all_wait_and_one_request_tries() {
    for failure in [error(ErrorCode::Connect), status(503)] {
        let mut bench = bench(4);
        bench.push("p", 1);
        let request = bench.one();
        bench.fail(request, &failure);
        bench.push("q", 1);
        bench.push("r", 1);
        assert!(bench.sent().is_empty(), "all wait");
        bench.sleep(Duration::from_millis(700));
        assert!(bench.sent().is_empty());
        bench.sleep(Duration::from_millis(600));
        let trial = bench.one();
        assert_eq!(payloads(&trial), ["p1", "q1", "r1"]);
        bench.push("s", 1);
        assert!(bench.sent().is_empty(), "one tries");
        bench.answer(trial);
        bench.sleep(MILLI);
        assert_eq!(payloads(&bench.one()), ["s1"]);
        bench.push("t", 1);
        assert_eq!(payloads(&bench.one()), ["t1"], "all lanes are back");
    }
}

#[test]
fn a_call_that_has_ended_leaves_the_line_and_is_not_sent() {
    let mut bench = bench(1);
    bench.push("p", 0);
    let first = bench.one();
    let cancelled = bench.push("p", 1);
    bench.timeout = Duration::from_millis(50);
    let late = bench.push("p", 2);
    bench.timeout = Duration::from_secs(60);
    bench.push("q", 3);
    let lonely = bench.push("r", 4);
    bench.cancel(&cancelled);
    bench.cancel(&lonely);
    bench.sleep(Duration::from_millis(49));
    assert!(!late.is_complete());
    bench.sleep(Duration::from_millis(3));
    for (call, wanted) in [
        (&cancelled, ErrorCode::Cancelled),
        (&late, ErrorCode::Timeout),
    ] {
        let Some(Err(error)) = call.result() else {
            panic!("it has not ended")
        };
        assert_eq!(
            (error.code(), error.outcome()),
            (wanted, Outcome::NotApplied)
        );
    }
    bench.answer(first);
    let request = bench.one();
    assert_eq!(payloads(&request), ["q3"]);
    bench.answer(request);
    assert!(bench.sent().is_empty() && bench.is_empty());
}

#[test]
fn a_call_that_ends_on_its_way_does_not_harm_the_others() {
    let mut bench = bench(1);
    bench.push("p", 0);
    let first = bench.one();
    bench.timeout = Duration::from_millis(50);
    let hasty = bench.push("p", 1);
    bench.timeout = Duration::from_secs(60);
    let patient = bench.push("p", 2);
    bench.answer(first);
    let request = bench.one();
    assert_eq!(
        request.deadline(),
        Some(bench.now + bench.timeout),
        "the short deadline does not cut the attempt short"
    );
    bench.sleep(Duration::from_millis(60));
    let Some(Err(error)) = hasty.result() else {
        panic!("it has not ended in time")
    };
    assert_eq!(
        (error.code(), error.outcome()),
        (ErrorCode::Timeout, Outcome::Unknown)
    );
    bench.fail(request, &error_of_network());
    bench.sleep(Duration::from_secs(2));
    let request = bench.one();
    assert_eq!(payloads(&request), ["p2"], "nobody waits for the other");
    bench.answer(request);
    assert!(patient.is_complete() && code(&patient).is_none() && bench.is_empty());
}

fn error_of_network() -> Error {
    error(ErrorCode::Network)
}

#[test]
fn a_pause_that_outlasts_the_deadline_is_told_instead() {
    let mut bench = bench(1);
    bench.timeout = Duration::from_millis(500);
    let call = bench.push("p", 1);
    let request = bench.one();
    let failed = bench.fail(request, &error(ErrorCode::Network));
    assert_eq!((failed.over.len(), failed.again), (1, 0));
    assert_eq!(code(&call), Some(ErrorCode::Network));
    assert!(bench.is_empty());
}
