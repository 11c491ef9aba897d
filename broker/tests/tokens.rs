//! Bearer tokens: who is let in, to what, and whose name the messages carry.

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use common::server::{Server, agent, run};
use hmac::{Hmac, KeyInit, Mac};
use http::Request;
use queen_broker::{Broker, Options};
use serde_json::{Value, json};
use sha2::Sha256;

const SECRET: &str = "a secret of these tests";
/// The year 2100.
const LATER: i64 = 4_102_444_800;

fn signed(header: Value, claims: Value, secret: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{text}.{signature}")
}

fn jwt(claims: Value) -> String {
    signed(json!({"alg": "HS256", "typ": "JWT"}), claims, SECRET)
}

fn role(role: &str) -> String {
    jwt(json!({"sub": "svc", "exp": LATER, "role": role}))
}

fn open(tokens: &[&str], jwt_secret: Option<&str>) -> Broker {
    let options = Options {
        tokens: tokens.iter().map(|token| (*token).to_owned()).collect(),
        jwt_secret: jwt_secret.map(str::to_owned),
        ..Options::default()
    };
    Broker::open(options).unwrap()
}

async fn ask(
    broker: &Broker,
    token: &str,
    method: &str,
    target: &str,
    body: Value,
) -> (u16, Value) {
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("authorization", format!("Bearer {token}"))
        .body(Bytes::from(body.to_string()))
        .unwrap();
    let (head, body) = broker.handle(request).await.into_parts();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    (head.status.as_u16(), body)
}

async fn push(broker: &Broker, token: &str) -> (u16, Value) {
    let body = json!({"items": [{"queue": "q", "transactionId": "t", "payload": 1}]});
    ask(broker, token, "POST", "/api/v1/push", body).await
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_refused_with_its_reason() {
    let broker = open(&[], Some(SECRET));
    let now = jiff::Timestamp::now().as_second();
    let admin = |mut claims: Value| {
        claims["role"] = "admin".into();
        claims
    };
    let good = jwt(admin(json!({})));
    let (head, tail) = good.split_once('.').unwrap();
    let (_, signature) = tail.split_once('.').unwrap();
    let forged = URL_SAFE_NO_PAD.encode(admin(json!({"sub": "other"})).to_string());
    let hs256 = |claims| signed(json!({"alg": "HS256"}), claims, "another secret");
    let unsigned = |alg: &str| signed(json!({ "alg": alg }), admin(json!({})), SECRET);
    let cases = [
        (hs256(admin(json!({}))), "Invalid token signature"),
        (
            format!("{head}.{forged}.{signature}"),
            "Invalid token signature",
        ),
        (format!("{head}.{tail}x"), "Invalid token signature"),
        (format!("{head}.{forged}."), "Invalid token signature"),
        (unsigned("none"), "Unsupported token algorithm"),
        (unsigned("hs256"), "Unsupported token algorithm"),
        (unsigned("RS256"), "Unsupported token algorithm"),
        ("abc".into(), "Bad token header"),
        ("a.b.c".into(), "Bad token header"),
        ("..".into(), "Bad token header"),
        (
            signed(
                json!({"alg": "HS256", "crit": ["b64"]}),
                admin(json!({})),
                SECRET,
            ),
            "Bad token header",
        ),
        (jwt(admin(json!({"exp": now - 60}))), "Token has expired"),
        (jwt(admin(json!({"exp": -1}))), "Token has expired"),
        (jwt(admin(json!({"nbf": now + 120}))), "Token not yet valid"),
        (
            jwt(admin(json!({"iat": now + 120}))),
            "Token issued in the future",
        ),
        (jwt(admin(json!({"exp": "tomorrow"}))), "Bad token claims"),
        (jwt(json!(["admin"])), "Bad token claims"),
    ];
    for (token, reason) in cases {
        let answer = push(&broker, &token).await;
        assert_eq!(answer, (401, json!({ "error": reason })), "{token}");
    }
    // Clocks may differ a little.
    let near = json!({"exp": now - 5, "nbf": now + 5, "iat": now + 5});
    assert_eq!(push(&broker, &jwt(admin(near))).await.0, 201);
    assert_eq!(push(&broker, &good).await.0, 201);
}

#[tokio::test]
async fn roles_open_what_they_name_and_no_more() {
    let broker = open(&[], Some(SECRET));
    // Statuses with: read-only, write-only, read-write, admin.
    let nothing = Value::Null;
    let routes = [
        ("GET", "/health", nothing.clone(), [200, 200, 200, 200]),
        ("GET", "/status", nothing.clone(), [200, 403, 200, 200]),
        (
            "GET",
            "/api/v1/dlq?queue=q",
            nothing.clone(),
            [200, 403, 200, 200],
        ),
        (
            "POST",
            "/api/v1/push",
            json!({"items": []}),
            [403, 201, 201, 201],
        ),
        (
            "GET",
            "/api/v1/pop/queue/q",
            nothing.clone(),
            [403, 403, 204, 204],
        ),
        (
            "HEAD",
            "/api/v1/pop/queue/q",
            nothing.clone(),
            [403, 403, 204, 204],
        ),
        (
            "POST",
            "/api/v1/configure",
            json!({"queue": "q"}),
            [403, 403, 200, 200],
        ),
        (
            "GET",
            "/api/v1/system/maintenance/pop",
            nothing.clone(),
            [403, 403, 403, 200],
        ),
        (
            "DELETE",
            "/api/v1/resources/queues/q",
            nothing.clone(),
            [403, 403, 403, 200],
        ),
        (
            "GET",
            "/api/v1/nowhere",
            nothing.clone(),
            [404, 404, 404, 404],
        ),
        (
            "POST",
            "/api/v1/%70ush",
            json!({"items": []}),
            [404, 404, 404, 404],
        ),
    ];
    let roles = ["read-only", "write-only", "read-write", "admin"];
    for (method, target, body, wanted) in routes {
        for (name, status) in roles.iter().zip(wanted) {
            let answer = ask(&broker, &role(name), method, target, body.clone()).await;
            assert_eq!(answer.0, status, "{name}: {method} {target}: {}", answer.1);
        }
    }
    let none = [
        jwt(json!({})),
        role("owner"),
        role(""),
        jwt(json!({"role": 1, "roles": "admin"})),
        jwt(json!({"role": "read-only", "roles": ["x", null, {}]})),
    ];
    for token in none {
        let answer = push(&broker, &token).await;
        assert_eq!(answer, (403, json!({"error": "Insufficient permissions"})));
    }
    let several = jwt(json!({"role": "read-only", "roles": ["x", "write-only"]}));
    assert_eq!(push(&broker, &several).await.0, 201);
}

#[tokio::test]
async fn messages_carry_the_subject_of_the_token() {
    let broker = open(&["static"], Some(SECRET));
    let named = jwt(json!({"sub": "svc \"é\"", "role": "admin"}));
    let item = |txn: &str| json!({"queue": "q", "transactionId": txn, "payload": 1});
    for (token, txn) in [
        (&named, "a"),
        (&"static".to_owned(), "b"),
        (&jwt(json!({"role": "admin"})), "c"),
    ] {
        let body = json!({ "items": [item(txn)] });
        assert_eq!(
            ask(&broker, token, "POST", "/api/v1/push", body).await.0,
            201
        );
    }
    let mut operation = item("d");
    operation["type"] = "push".into();
    let body = json!({ "operations": [operation] });
    let (_, answer) = ask(&broker, &named, "POST", "/api/v1/transaction", body).await;
    assert_eq!(answer["success"], true, "{answer}");

    let target = "/api/v1/pop/queue/q?batch=10";
    let (_, delivery) = ask(&broker, "static", "GET", target, Value::Null).await;
    let subjects: Vec<_> = delivery["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["producerSub"])
        .collect();
    let name = json!("svc \"é\"");
    assert_eq!(subjects, [&name, &Value::Null, &Value::Null, &name]);
    let part = delivery["partitionId"].as_str().unwrap();
    let target = format!("/api/v1/messages/{part}/a");
    let (_, message) = ask(&broker, "static", "GET", &target, Value::Null).await;
    assert_eq!(message["producerSub"], name, "{message}");
}

#[tokio::test]
async fn empty_secrets_let_nobody_in() {
    let forged = signed(json!({"alg": "HS256"}), json!({"role": "admin"}), "");
    for broker in [
        open(&[], Some("")),
        open(&[""], None),
        open(&[""], Some("")),
    ] {
        for token in ["", "x", &forged] {
            assert_eq!(push(&broker, token).await.0, 401, "{token:?}");
        }
        assert_eq!(ask(&broker, "", "GET", "/health", Value::Null).await.0, 200);
    }
}

#[test]
fn options_show_no_secret() {
    let options = Options {
        tokens: vec!["hidden".into()],
        jwt_secret: Some("hidden".into()),
        ..Options::default()
    };
    let shown = format!("{options:?}");
    assert!(
        shown.contains("***") && !shown.contains("hidden"),
        "{shown}"
    );
}

#[test]
fn the_program_takes_several_tokens_and_a_secret() {
    let server = Server::start(&["--token", "one", "--token", "two", "--jwt-secret", SECRET]);
    let url = format!("{}/api/v1/resources/queues/q", server.base);
    for (token, status) in [
        ("one", 404),
        ("two", 404),
        (&*role("read-only"), 404),
        (&*role("write-only"), 403),
        ("three", 401),
    ] {
        let answer = agent()
            .get(&url)
            .header("authorization", format!("Bearer {token}"))
            .call()
            .unwrap();
        assert_eq!(answer.status().as_u16(), status, "{token}");
    }
    for flag in ["--token", "--jwt-secret"] {
        let (code, said) = run(&["serve", flag, ""]);
        assert_eq!(code, 2);
        assert!(said.contains(flag), "{said}");
    }
}
