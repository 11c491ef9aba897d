//! `docs/TESTING.md` says what is so: it quotes the examples that are run, and its JSON is taken by the broker.

use std::fs;
use std::path::Path;

use queen::{BrokerOptions, ClockChange, Fault};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The blocks of code in a language.
fn blocks(language: &str) -> Vec<String> {
    let text = read("docs/TESTING.md");
    let begin = format!("```{language}\n");
    let rest = text.split(&begin).skip(1);
    rest.map(|rest| rest.split("```\n").next().unwrap().to_owned())
        .collect()
}

/// The first column of the table below a line that starts so, without its backquotes.
fn first_column(header: &str) -> Vec<String> {
    let text = read("docs/TESTING.md");
    let lines = text.lines().skip_while(|line| !line.starts_with(header));
    let rows = lines.skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap());
    cells
        .map(|cell| cell.replace('`', "").trim().to_owned())
        .collect()
}

#[test]
fn the_examples_are_quoted_as_they_are() {
    for (language, file) in [
        ("c", "examples/c/test_my_consumer.c"),
        ("rust", "examples/rust/test_my_consumer.rs"),
    ] {
        let source = read(file);
        assert!(source.lines().count() < 100, "{file}");
        assert!(
            blocks(language) == [source],
            "docs/TESTING.md does not quote {file} as it is: copy it there"
        );
    }
}

#[test]
fn every_fault_in_the_guide_can_be() {
    let mut actions = Vec::new();
    let mut moves = 0;
    for block in blocks("json") {
        if block.contains("advanceMillis") {
            ClockChange::parse(&block).unwrap();
            moves += 1;
            continue;
        }
        for fault in Fault::parse_all(&block).unwrap() {
            let fault = serde_json::to_value(fault).unwrap();
            actions.push(fault["action"].to_string());
        }
    }
    assert_eq!(moves, 1);
    // Each action of the table has its example.
    let table = first_column("| `action` | what");
    assert_eq!(table.len(), 8);
    for action in table {
        assert!(actions.contains(&action), "{action} has no example");
    }
    for block in blocks("sh") {
        for text in block.split('\'').skip(1).step_by(2) {
            let moved = text.contains("advanceMillis");
            assert!(moved || Fault::parse_all(text).is_ok(), "{text}");
        }
    }
}

#[test]
fn fields_routes_and_options_are_those_of_the_source() {
    // What serde and the broker know is in what they say about something unknown.
    let known = |error: &dyn std::fmt::Display| {
        let text = error.to_string();
        let names = text.split('`').skip(1).step_by(2).skip(1);
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let unknown = Fault::parse(r#"{"action": "hang", "?": 1}"#).unwrap_err();
    let own = ["status", "headers", "body", "afterCommit", "delayMillis"];
    let mut fields = first_column("| field");
    let guide = read("docs/TESTING.md");
    fields.extend(own.map(str::to_owned));
    let mut listed = known(&unknown);
    listed.sort();
    fields.sort();
    assert_eq!(fields, listed);
    assert!(
        own.iter()
            .all(|field| guide.contains(&format!("`{field}`")))
    );

    let routes = Fault::parse(r#"{"route": "?", "action": "hang"}"#)
        .unwrap_err()
        .to_string();
    let routes = routes
        .split("one of ")
        .nth(1)
        .unwrap()
        .split(", a path")
        .next()
        .unwrap();
    let line = guide
        .split("\nRoutes: ")
        .nth(1)
        .unwrap()
        .split('.')
        .next()
        .unwrap();
    let line: Vec<_> = line
        .split(',')
        .map(|name| name.trim().trim_matches('`'))
        .collect();
    assert_eq!(line, routes.split(", ").collect::<Vec<_>>());

    let unknown = BrokerOptions::parse(r#"{"?": 1}"#).unwrap_err();
    let keys = unknown.message().split("known keys: ").nth(1).unwrap();
    assert_eq!(first_column("| key"), keys.split(", ").collect::<Vec<_>>());
}
