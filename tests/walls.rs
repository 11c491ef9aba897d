//! The walls between the rooms of the house: which folder of `src/` may use what.
//!
//! The tables below are the walls; the rest reads the source as text. Comments, strings and `#[cfg(test)]` modules
//! are left out of what is read. A broken wall is named with file and line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// In the files whose path starts with one of `rooms` and with none of `but`, none of `words` is mentioned.
struct Wall {
    rooms: &'static [&'static str],
    but: &'static [&'static str],
    words: &'static [&'static str],
    why: &'static str,
}

const WALLS: &[Wall] = &[
    Wall {
        rooms: &["src/protocol"],
        but: &[],
        words: &[
            "reqwest",
            "hyper",
            "tokio",
            "std::net",
            "std::fs",
            "std::thread",
            "queen_broker",
            "rusqlite",
        ],
        why: "the protocol does no I/O",
    },
    Wall {
        rooms: &["src/transport"],
        but: &[],
        words: &[
            "crate::produce",
            "crate::consume",
            "crate::client",
            "crate::operation",
            "crate::ffi",
        ],
        why: "the transport knows no queue semantics",
    },
    Wall {
        rooms: &["src/"],
        but: &["src/transport"],
        words: &["reqwest", "hyper"],
        why: "HTTP belongs to the transport",
    },
    Wall {
        rooms: &["src/"],
        but: &["src/transport/embedded.rs", "src/broker/"],
        words: &["queen_broker", "rusqlite"],
        why: "the embedded broker is reached through two doors",
    },
    Wall {
        rooms: &["src/"],
        but: &["src/ffi", "src/lib.rs"],
        words: &["crate::ffi"],
        why: "nothing is built on top of the C ABI inside the crate",
    },
    Wall {
        rooms: &["src/", "broker/src"],
        but: &["src/ffi", "src/sys.rs"],
        words: &["unsafe"],
        why: "unsafe code lives in src/ffi and src/sys.rs",
    },
    Wall {
        rooms: &["broker/"],
        but: &[],
        words: &["libqueen", "queen::"],
        why: "the broker does not know the client",
    },
];

/// What `src/ffi` may use although `src/lib.rs` does not make it public.
const FFI_MAY_USE: &[&str] = &["ffi", "sys"];

#[test]
fn no_wall_is_broken() {
    let mut broken = Vec::new();
    for file in sources() {
        for wall in WALLS {
            if wall.rooms.iter().any(|room| file.path.starts_with(room))
                && !wall.but.iter().any(|door| file.path.starts_with(door))
            {
                for word in wall.words {
                    let lines = file
                        .code
                        .lines()
                        .enumerate()
                        .filter(|(_, line)| mentions(line, word));
                    broken
                        .extend(lines.map(|(i, _)| {
                            format!("{}:{}: {word}: {}", file.path, i + 1, wall.why)
                        }));
                }
            }
        }
    }
    assert!(broken.is_empty(), "broken walls:\n{}", broken.join("\n"));
}

#[test]
fn the_broker_does_not_depend_on_the_client() {
    let manifest = fs::read_to_string(root().join("broker/Cargo.toml")).unwrap();
    assert!(
        !manifest.contains("libqueen"),
        "broker/Cargo.toml depends on libqueen"
    );
}

#[test]
fn the_c_abi_uses_only_the_public_rust_api() {
    let sources = sources();
    let lib = sources
        .iter()
        .find(|file| file.path == "src/lib.rs")
        .unwrap();
    let public = public_names(&lib.code);
    let mut broken = Vec::new();
    for file in sources
        .iter()
        .filter(|file| file.path.starts_with("src/ffi"))
    {
        for (line, name) in crate_names(&file.code) {
            if !public.contains(&name) && !FFI_MAY_USE.contains(&name.as_str()) {
                broken.push(format!(
                    "{}:{line}: crate::{name} is not public in src/lib.rs",
                    file.path
                ));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "src/ffi uses what a Rust user could not:\n{}",
        broken.join("\n")
    );
}

#[test]
fn the_rooms_form_no_circle() {
    let sources = sources();
    let lib = sources
        .iter()
        .find(|file| file.path == "src/lib.rs")
        .unwrap();
    let exported_from = reexports(&lib.code);
    // room -> the rooms that it uses, each with a place
    let mut uses: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for file in sources
        .iter()
        .filter(|file| file.path.starts_with("src/") && file.path != "src/lib.rs")
    {
        let room = room_of(&file.path);
        for (line, name) in crate_names(&file.code) {
            let used = exported_from.get(&name).unwrap_or(&name).clone();
            if used != room {
                let place = format!("{}:{line}", file.path);
                uses.entry(room.clone())
                    .or_default()
                    .entry(used)
                    .or_insert(place);
            }
        }
    }
    if let Some(circle) = circle(&uses) {
        let steps = circle.windows(2).map(|pair| {
            format!(
                "{} uses {} ({})",
                pair[0], pair[1], uses[&pair[0]][&pair[1]]
            )
        });
        panic!(
            "a circle of rooms:\n{}",
            steps.collect::<Vec<_>>().join("\n")
        );
    }
}

#[test]
fn the_reader_of_this_test_sees_what_it_should() {
    let code = strip(
        "use reqwest; // tokio\n/* std::fs */ let s = \"unsafe \\\" x\"; let c = '\"'; unsafe {}\n",
    );
    assert!(mentions(&code, "reqwest") && mentions(&code, "unsafe"));
    assert!(!mentions(&code, "tokio") && !mentions(&code, "std::fs"));
    assert!(!mentions("#![deny(unsafe_code)]", "unsafe") && !mentions("libqueen::x", "queen::"));
    let code = strip(
        "fn f<'a>(x: &'a str) { r#\"unsafe \"quoted\" \"#; }\n#[cfg(test)]\nmod tests {\n    unsafe {}\n}\nfn g() {}\n",
    );
    assert!(!mentions(&code, "unsafe") && mentions(&code, "g"));
    assert_eq!(code.lines().count(), 6);
    let names: Vec<_> = crate_names(
        "use crate::{\n  error::{Error, Code},\n  config::Config,\n};\ncrate::sys::x();",
    )
    .into_iter()
    .collect();
    assert_eq!(
        names,
        [(2, "error".into()), (3, "config".into()), (5, "sys".into())]
    );
    let lib = "pub mod config;\nmod error;\npub use error::{Error, ErrorCode as Code};\npub use client::Client;\n";
    assert_eq!(
        public_names(lib),
        ["Client", "Code", "Error", "config"]
            .map(String::from)
            .into()
    );
    assert_eq!(reexports(lib)["Code"], "error");
    let edge = |to: &str| BTreeMap::from([(to.to_string(), String::new())]);
    let mut uses = BTreeMap::from([("a".to_string(), edge("b")), ("b".to_string(), edge("c"))]);
    assert_eq!(circle(&uses), None);
    uses.insert("c".to_string(), edge("b"));
    assert_eq!(circle(&uses).unwrap(), ["b", "c", "b"]);
}

struct Source {
    path: String,
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    collect(&root().join("src"), &mut files);
    collect(&root().join("broker/src"), &mut files);
    files.sort();
    let read = |file: PathBuf| Source {
        path: file
            .strip_prefix(root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_string(),
        code: strip(&fs::read_to_string(&file).unwrap()),
    };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// `src/protocol/push.rs` and `src/protocol.rs` are in the room `protocol`.
fn room_of(path: &str) -> String {
    let inside = path.strip_prefix("src/").unwrap();
    inside
        .split('/')
        .next()
        .unwrap()
        .trim_end_matches(".rs")
        .to_string()
}

/// Blanks comments, strings, character literals and test modules; every line stays where it is.
fn strip(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = skipped_until(&chars, i);
        if end == i {
            out.push(chars[i]);
            i += 1;
        } else {
            out.extend(
                chars[i..end]
                    .iter()
                    .map(|c| if *c == '\n' { '\n' } else { ' ' }),
            );
            i = end;
        }
    }
    without_test_modules(&out)
}

/// Where the comment, string or character literal that starts at `i` ends; `i` when none starts there.
fn skipped_until(chars: &[char], i: usize) -> usize {
    let at = |k: usize| chars.get(k).copied().unwrap_or('\0');
    let find = |from: usize, what: &str| {
        let what: Vec<char> = what.chars().collect();
        (from..chars.len())
            .find(|&k| chars[k..].starts_with(&what))
            .map_or(chars.len(), |k| k + what.len())
    };
    let in_word = i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_');
    match (at(i), at(i + 1)) {
        ('/', '/') => find(i, "\n") - 1,
        ('/', '*') => find(i + 2, "*/"),
        ('r', '"' | '#') if !in_word => {
            let hashes = (i + 1..).take_while(|&k| at(k) == '#').count();
            if at(i + 1 + hashes) != '"' {
                return i; // a raw identifier
            }
            find(i + 2 + hashes, &format!("\"{}", "#".repeat(hashes)))
        }
        ('"', _) => {
            let mut k = i + 1;
            while k < chars.len() && at(k) != '"' {
                k += if at(k) == '\\' { 2 } else { 1 };
            }
            (k + 1).min(chars.len())
        }
        ('\'', '\\') => find(i + 3, "'"),
        ('\'', _) if at(i + 2) == '\'' => i + 3, // otherwise a lifetime
        _ => i,
    }
}

/// Blanks each `#[cfg(test)] mod name { ... }`, up to the brace at the indentation of its start (rustfmt's habit).
fn without_test_modules(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut end: Option<String> = None;
    let lines: Vec<&str> = code.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        if end.is_none()
            && line.trim() == "#[cfg(test)]"
            && lines
                .get(i + 1)
                .is_some_and(|next| next.contains("mod ") && next.ends_with('{'))
        {
            end = Some(format!(
                "{}}}",
                &line[..line.len() - line.trim_start().len()]
            ));
        }
        match &end {
            Some(closing) if *line == closing.as_str() => end = None,
            Some(_) => {}
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// Whether `word` stands in `text` as a word of its own.
fn mentions(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let open_end = !word.ends_with(part); // `queen::` goes on with any name
        !text[..at].ends_with(part) && (open_end || !text[at + word.len()..].starts_with(part))
    })
}

/// The names that follow `crate::`, also in `crate::{a::x, b::y}`, each with its line.
fn crate_names(code: &str) -> BTreeSet<(usize, String)> {
    let mut names = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = at + found.len();
        for (offset, name) in first_names(&code[rest..]) {
            names.insert((code[..rest + offset].matches('\n').count() + 1, name));
        }
    }
    names
}

/// The first names of a path or of a braced group of paths, with their offsets.
fn first_names(text: &str) -> Vec<(usize, String)> {
    let word = |from: usize| {
        text[from..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    if !text.starts_with('{') {
        return vec![(0, word(0))];
    }
    let (mut names, mut depth, mut expected) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if (c == '{' || c == ',') && depth == 1 {
            expected = true;
        } else if expected && c.is_alphabetic() {
            names.push((i, word(i)));
            expected = false;
        }
    }
    names
}

/// What `src/lib.rs` says with `pub mod x;` and `pub use x::...;`: the statements without `pub` and `;`.
fn public_statements<'a>(lib: &'a str, keyword: &str) -> Vec<&'a str> {
    let start = format!("pub {keyword} ");
    let statements = lib
        .split_inclusive(';')
        .filter_map(|statement| Some(&statement[statement.find(&start)? + start.len()..]));
    statements
        .map(|statement| statement.trim_end_matches(';').trim())
        .collect()
}

fn public_names(lib: &str) -> BTreeSet<String> {
    let modules = public_statements(lib, "mod").into_iter().map(String::from);
    modules.chain(reexports(lib).into_keys()).collect()
}

/// Name at the crate root -> the room that it comes from.
fn reexports(lib: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for statement in public_statements(lib, "use") {
        let path = statement
            .trim_start_matches("crate::")
            .trim_start_matches("self::");
        let Some((room, rest)) = path.split_once("::") else {
            continue;
        };
        for item in rest
            .split(['{', '}', ','])
            .map(str::trim)
            .filter(|item| !item.is_empty() && !item.ends_with("::"))
        {
            let name = item.rsplit([' ', ':']).next().unwrap();
            names.insert(name.to_string(), room.to_string());
        }
    }
    names
}

/// A way from a room back to itself, if there is one.
fn circle(uses: &BTreeMap<String, BTreeMap<String, String>>) -> Option<Vec<String>> {
    fn walk(
        room: &str,
        uses: &BTreeMap<String, BTreeMap<String, String>>,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|step| step == room) {
            let mut found = way[start..].to_vec();
            found.push(room.to_string());
            return Some(found);
        }
        if done.contains(room) {
            return None;
        }
        way.push(room.to_string());
        let found = uses
            .get(room)
            .and_then(|used| used.keys().find_map(|next| walk(next, uses, way, done)));
        way.pop();
        done.insert(room.to_string());
        found
    }
    let mut done = BTreeSet::new();
    uses.keys()
        .find_map(|room| walk(room, uses, &mut Vec::new(), &mut done))
}
