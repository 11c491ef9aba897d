//! The texts of the fuzzer, without the fuzzer: its seeds and what it once found. `make fuzz` makes up more of them.

#[path = "../../fuzz/src/play.rs"]
mod play;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use http::Response;

#[test]
fn seeds_and_what_was_found_do_no_harm() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let mut played = 0;
    for folder in ["seeds/router", "found/router"] {
        for entry in fs::read_dir(fuzz.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            play::play(&fs::read(path).unwrap());
            played += 1;
        }
    }
    assert!(played > 80, "{played}");
}

/// The judge itself: what it must not let pass, and what it must.
#[test]
fn bad_answers_are_told() {
    let passes = |status: u16, kind: &str, body: &'static str| {
        let mut answer = Response::builder().status(status);
        if !kind.is_empty() {
            answer = answer.header("content-type", kind);
        }
        let answer = answer.body(Bytes::from_static(body.as_bytes())).unwrap();
        catch_unwind(AssertUnwindSafe(|| {
            play::judge("a request", false, &answer)
        }))
        .is_ok()
    };
    let json = "application/json";
    assert!(passes(200, json, "[]"));
    assert!(passes(204, "", ""));
    assert!(passes(404, json, r#"{"error":"Queue not found"}"#));
    assert!(passes(
        400,
        "text/plain; charset=utf-8",
        "batch: invalid digit"
    ));
    assert!(!passes(500, json, r#"{"error":"store"}"#));
    assert!(!passes(503, json, r#"{"error":"broker is closed"}"#));
    assert!(!passes(200, json, "[1"));
    assert!(!passes(200, "", "[]"));
    assert!(!passes(200, json, ""));
    assert!(!passes(400, json, "{}"));
    assert!(!passes(400, json, r#"{"error":""}"#));
    assert!(!passes(404, "text/plain", "no"));
    assert!(!passes(405, "", ""), "it must say what is allowed");
}
