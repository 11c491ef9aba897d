//! The replayer's own rules: what it must accept and, above all, what it must refuse.

mod support;

use serde_json::{Value, json};
use support::brokers::broker;
use support::matching::{Binds, compare};
use support::transcript::{Difference, Transcript};

/// Compares pairs one after the other, with the same bindings.
fn all(pairs: &[(Value, Value)]) -> bool {
    let mut binds = Binds::default();
    pairs
        .iter()
        .all(|(want, got)| compare(want, got, &mut binds, "$").is_ok())
}

fn one(want: Value, got: Value) -> bool {
    all(&[(want, got)])
}

#[test]
fn plain_values_are_equal_or_not() {
    assert!(one(
        json!({"a": [1, "x", null]}),
        json!({"a": [1.0, "x", null], "more": 2})
    ));
    assert!(!one(json!({"a": 1}), json!({})));
    assert!(
        !one(json!(true), json!(1))
            && !one(json!(null), json!(false))
            && !one(json!(1), json!("1"))
    );
    assert!(!one(json!([1, 2]), json!([2, 1])) && !one(json!([1]), json!([1, 2])));
}

#[test]
fn a_name_is_bound_once_and_differs_from_its_kind() {
    let name = |n: u8| json!(format!("<lease:{n}>"));
    assert!(all(&[
        (name(1), json!("x")),
        (name(1), json!("x")),
        (name(2), json!("y"))
    ]));
    assert!(!all(&[(name(1), json!("x")), (name(1), json!("y"))]));
    assert!(!all(&[(name(1), json!("x")), (name(2), json!("x"))]));
    assert!(
        all(&[(name(1), json!("x")), (json!("<message:1>"), json!("x"))]),
        "kinds may meet"
    );
    assert!(
        all(&[(json!("<ts:1>"), json!("x")), (json!("<ts:2>"), json!("x"))]),
        "times may be equal"
    );
    assert!(!one(name(1), json!("")) && !one(name(1), json!(null)) && !one(name(1), json!({})));
    assert!(all(&[
        (name(1), json!("x")),
        (json!("a <lease:1> b"), json!("a x b"))
    ]));
}

#[test]
fn placeholders_stand_for_what_they_say() {
    assert!(one(json!("<any>"), json!(null)));
    assert!(one(
        json!("<timestamp>"),
        json!("2026-01-01T00:00:00.123456Z")
    ));
    assert!(!one(json!("<timestamp>"), json!("now")) && !one(json!("<timestamp>"), json!(null)));
    assert!(
        one(json!("<prefix:bad body: >"), json!("bad body: x"))
            && !one(json!("<prefix:a>"), json!("b"))
    );
    assert!(
        one(json!({"$repeat": ["ab", 2]}), json!("abab"))
            && !one(json!({"$repeat": ["ab", 2]}), json!("ab"))
    );
}

#[test]
fn lists_in_any_order_find_a_way() {
    let got = json!([{"id": "x", "n": 1}, {"id": "y", "n": 2}]);
    let want = |mode: &str, n: [i32; 2]| json!([mode, {"id": "<id:1>", "n": n[0]}, {"id": "<id:2>", "n": n[1]}]);
    assert!(one(want("<unordered>", [2, 1]), got.clone()));
    assert!(!one(want("<unordered>", [1, 1]), got.clone()));
    assert!(one(json!(["<contains>", {"n": 2}]), got.clone()));
    assert!(!one(json!(["<unordered>", {"n": 2}]), got.clone()));
    assert!(!one(json!(["<contains>", {"n": 3}]), got));
}

/// A transcript of one step that asks for a route nobody serves.
fn transcript(status: u16) -> Transcript {
    let step = json!({
        "name": "ask",
        "request": {"method": "GET", "path": "/api/v1/nothing"},
        "response": {"status": status, "body": "<any>"},
    });
    Transcript::parse(&json!({"scenario": "s", "steps": [step]}).to_string()).unwrap()
}

fn listed(instead: Value) -> Vec<Difference> {
    let row = json!({
        "scenario": "s", "step": "ask", "brokers": ["embedded"], "reason": "a test", "instead": instead,
    });
    vec![Difference::parse(&row).unwrap()]
}

#[test]
fn a_listed_step_must_differ_and_differ_as_listed() {
    let embedded = broker("embedded").unwrap();
    let replay = |status, list: &[Difference]| transcript(status).replay(&embedded, list);
    replay(404, &[]).unwrap();
    assert!(
        replay(200, &[])
            .unwrap_err()
            .contains("status 404, expected 200")
    );
    let instead = json!({"status": 404, "body": {"code": "no_such_route"}});
    replay(200, &listed(instead.clone())).unwrap();
    assert!(
        replay(404, &listed(instead))
            .unwrap_err()
            .contains("take it off the list")
    );
    let other = json!({"status": 500, "body": "<any>"});
    assert!(
        replay(200, &listed(other))
            .unwrap_err()
            .contains("not as listed")
    );
}

#[test]
fn an_official_broker_without_an_address_is_an_error() {
    if std::env::var_os("QUEEN_OFFICIAL_URL").is_none() {
        let error = broker("official").err().expect("no address, no broker");
        assert!(error.contains("QUEEN_OFFICIAL_URL"), "{error}");
    }
    assert!(broker("imaginary").is_err());
}
