//! The settings of `queen-broker serve`: where they come from, which place wins, and what is said of wrong ones.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::server::{Server, agent, get, output, post, program};
use serde_json::json;

/// What `--print-config` tells with these variables, this file and these flags.
fn effective(variables: &[(&str, &str)], file: Option<&Path>, flags: &[&str]) -> String {
    let mut program = program();
    program.args(["serve", "--print-config"]).args(flags);
    program.envs(variables.iter().copied());
    if let Some(file) = file {
        program.arg("--config").arg(file);
    }
    let output = program.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn written(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Exit code and message of a `serve` that must not start.
fn refused(flags: &[&str]) -> String {
    let (code, said, error) = output(&[&["serve"], flags].concat());
    assert_eq!((code, said.as_str()), (2, ""), "{flags:?}: {error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(
        &folder,
        "b.toml",
        "durability = \"memory\"\nmax_body_bytes = 100_000\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n",
    );
    let variable = ("QUEEN_BROKER_DURABILITY", "normal");
    let flag = ["--durability", "full"];
    let line = |said: &str| {
        said.lines()
            .find(|l| l.starts_with("durability"))
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        line(&effective(&[], None, &[])),
        "durability = \"full\" # default"
    );
    let in_file = format!("durability = \"memory\" # {}: durability", file.display());
    assert_eq!(line(&effective(&[], Some(&file), &[])), in_file);
    assert_eq!(
        line(&effective(&[variable], Some(&file), &[])),
        "durability = \"normal\" # QUEEN_BROKER_DURABILITY"
    );
    assert_eq!(
        line(&effective(&[variable], Some(&file), &flag)),
        "durability = \"full\" # --durability"
    );
    // A list is taken whole.
    let lists = effective(
        &[("QUEEN_BROKER_LISTEN", "127.0.0.1:3, unix:/tmp/x")],
        Some(&file),
        &[],
    );
    assert!(
        lists.contains("listen = [\"127.0.0.1:3\", \"unix:/tmp/x\"] # QUEEN_BROKER_LISTEN\n"),
        "{lists}"
    );
    assert!(lists.contains("max_body_bytes = 100000 # "), "{lists}");
    // The file may be named by a variable too.
    let config = ("QUEEN_BROKER_CONFIG", file.to_str().unwrap());
    assert_eq!(line(&effective(&[config], None, &[])), in_file);
}

#[test]
fn what_is_printed_is_a_file_that_says_the_same_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "--data",
        "a\"b\\c.db",
        "--testing",
        "--default-subscription=all",
        "--socket-mode",
        "660",
    ];
    let secrets = [
        ("QUEEN_BROKER_TOKEN", "hush1,hush2"),
        ("QUEEN_BROKER_JWT_SECRET", "hush3"),
    ];
    let first = effective(&secrets, None, &flags);
    assert!(!first.contains("hush"), "{first}");
    assert!(
        first.contains("token = [\"***\", \"***\"] # QUEEN_BROKER_TOKEN"),
        "{first}"
    );
    let again = effective(&[], Some(&written(&folder, "again.toml", &first)), &[]);
    let values = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .map(|line| line.rsplit_once(" # ").map_or(line, |(value, _)| value));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(values(&first), values(&again));
}

#[test]
fn wrong_settings_are_named_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        written(&folder, "b.toml", text)
            .to_str()
            .unwrap()
            .to_owned()
    };
    let in_file = |text: &str| refused(&["--config", &file(text)]);
    let path = folder.path().join("b.toml");

    let error = in_file("listn = [\"127.0.0.1:1\"]\ndata = \"x\"\nmax-body-bytes = 1\n");
    assert!(
        error.contains("unknown: listn, max-body-bytes; known: listen, "),
        "{error}"
    );
    assert!(error.contains(path.to_str().unwrap()), "{error}");
    let error = in_file("data = \"x\"\n\ntoken = [\"hush\n");
    assert!(
        error.contains("line 3") && !error.contains("hush"),
        "{error}"
    );
    for (text, expected) in [
        (
            "max_body_bytes = \"many\"",
            "max_body_bytes must be a number, not string",
        ),
        ("max_body_bytes = -1", "max_body_bytes \"-1\": "),
        (
            "listen = [7]",
            "listen must be an array of texts, not integer",
        ),
        // In octal it would be another number.
        (
            "socket_mode = 600",
            "socket_mode must be a text in quotes, not integer",
        ),
        (
            "testing = \"yes\"",
            "testing must be true or false, not string",
        ),
        (
            "data = { path = \"x\" }",
            "data must be a text in quotes, not table",
        ),
        ("data = \"\"", "data is empty"),
        ("listen = []", "listen is an empty list"),
    ] {
        let error = in_file(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    for (flags, expected) in [
        (
            ["--listen", "6632"],
            "--listen \"6632\": it must be host:port or unix:/path",
        ),
        (["--listen", "unix:"], "a path must follow unix:"),
        (
            ["--listen", "127.0.0.1:99999"],
            "--listen \"127.0.0.1:99999\"",
        ),
        (["--durability", "often"], "--durability \"often\""),
        (
            ["--default-subscription", "old"],
            "--default-subscription \"old\"",
        ),
        (["--max-body-bytes", "1k"], "--max-body-bytes \"1k\""),
        (
            ["--socket-mode", "999"],
            "--socket-mode \"999\": it must be an octal number",
        ),
        (
            ["--shutdown-timeout-millis", "1.5"],
            "--shutdown-timeout-millis \"1.5\"",
        ),
        (
            ["--fault", "{\"action\":\"explode\"}"],
            "action is \"explode\"",
        ),
        (["--fault", "{"], "faults are not JSON"),
        (["--data", ""], "--data is empty"),
        (["--token", ""], "--token is empty"),
        (
            ["--token-file", "/no/such/file"],
            "--token-file: cannot read /no/such/file",
        ),
        (
            ["--jwt-secret-file", "/no/such/file"],
            "--jwt-secret-file: cannot read /no/such/file",
        ),
        (
            ["--config", "/no/such/file"],
            "cannot read the settings in /no/such/file",
        ),
    ] {
        let error = refused(&flags);
        assert!(error.contains(expected), "{flags:?}: {error}");
    }
    let mut program = program();
    program
        .arg("serve")
        .env("QUEEN_BROKER_MAX_BODY_BYTES", "big");
    let output = program.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        error.contains("QUEEN_BROKER_MAX_BODY_BYTES \"big\""),
        "{error}"
    );
}

#[test]
fn secrets_may_come_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let text = |name: &str, text: &str| written(&folder, name, text).to_str().unwrap().to_owned();
    let tokens = text("tokens", "one\n\n two \n");
    let settings = text("b.toml", "token = [\"three\"]\nmax_body_bytes = 200\n");
    let server = Server::start(&["--token-file", &tokens, "--config", &settings]);
    let url = format!("{}/api/v1/push", server.base);
    let status = |token: &str, payload: &str| {
        let body = json!({"items": [{"queue": "q", "payload": payload}]}).to_string();
        let request = agent()
            .post(&url)
            .header("authorization", format!("Bearer {token}"));
        let request = request.header("content-type", "application/json");
        request.send(body).unwrap().status().as_u16()
    };
    for token in ["one", "two", "three"] {
        assert_eq!(status(token, "x"), 201, "{token}");
    }
    assert_eq!(status("four", "x"), 401);
    assert_eq!(status("one", &"x".repeat(300)), 413);

    let error = refused(&["--token-file", &text("empty", " \n")]);
    assert!(error.contains("holds no token"), "{error}");
    let error = refused(&["--jwt-secret-file", &text("empty", "\n")]);
    assert!(error.contains("is empty"), "{error}");
    let error = refused(&["--jwt-secret", "a", "--jwt-secret-file", &tokens]);
    assert!(error.contains("not both"), "{error}");
    // A file of secrets opens an address to others as well as a flag does.
    let open = Server::start_on(&["0.0.0.0:0"], &["--jwt-secret-file", &tokens]);
    let body = json!({"items": []});
    assert_eq!(
        post(&agent(), &format!("{}/api/v1/push", open.base), &body)
            .unwrap()
            .0,
        401
    );
}

#[test]
fn the_help_names_every_setting() {
    let (code, help, _) = output(&["serve", "--help"]);
    assert_eq!(code, 0);
    for line in effective(&[], None, &[]).lines() {
        let key = line.trim_start_matches("# ").split(' ').next().unwrap();
        let flag = format!("--{}", key.replace('_', "-"));
        let variable = format!("[env: QUEEN_BROKER_{}]", key.to_uppercase());
        assert!(
            help.contains(&flag) && help.contains(&variable),
            "{key}: {help}"
        );
    }
    assert!(
        help.contains("--config <FILE>") && help.contains("Exit status"),
        "{help}"
    );
    assert!(
        help.lines().all(|line| line.chars().count() <= 100),
        "{help}"
    );
    let (_, all, _) = output(&["--help"]);
    for (command, told) in [
        ("serve", &["NOTIFY_SOCKET"][..]),
        ("check", &["<FILE>", "The store"]),
        (
            "inspect",
            &[
                "<FILE|URL>",
                "--json",
                "--queue <NAME>",
                "--token <SECRET>",
                "--token-file <FILE>",
            ],
        ),
    ] {
        assert!(all.contains(command), "{all}");
        let (code, help, _) = output(&[command, "--help"]);
        assert_eq!(code, 0);
        for told in told
            .iter()
            .chain(&["Exit status: 0 ", "Usage: queen-broker"])
        {
            assert!(help.contains(told), "{command}: {told}: {help}");
        }
        assert!(
            help.lines().all(|line| line.chars().count() <= 100),
            "{help}"
        );
    }
    let (code, version, _) = output(&["--version"]);
    let expected = concat!("queen-broker ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((code, version.as_str()), (0, expected));
    for wrong in [
        &["serve", "--nonsense"][..],
        &["check"],
        &["inspect"],
        &["sing"],
    ] {
        assert_eq!(output(wrong).0, 2, "{wrong:?}");
    }
}

/// The files for systemd name settings that there are.
#[test]
fn the_service_and_its_settings_are_valid() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/systemd");
    let file = examples.join("queen-broker.toml");
    let unit = fs::read_to_string(examples.join("queen-broker.service")).unwrap();
    // systemd puts the folder of credentials in the place of %d.
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().to_str().unwrap();
    let variables: Vec<(String, String)> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("Environment=")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.replace("%d", credentials)))
        .collect();
    assert!(
        variables
            .iter()
            .any(|(name, _)| name == "QUEEN_BROKER_TOKEN_FILE")
    );
    let known = effective(&[], None, &[]);
    for (name, _) in &variables {
        let key = name.strip_prefix("QUEEN_BROKER_").unwrap().to_lowercase();
        assert!(known.contains(&format!("{key} ")), "{name} is no setting");
    }
    written(&folder, "tokens", "s3cret\n");
    let given: Vec<(&str, &str)> = variables
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    let shown = effective(&given, Some(&file), &[]);
    assert!(
        shown.contains("data = \"/var/lib/queen-broker/queen.db\""),
        "{shown}"
    );
    let text = fs::read_to_string(&file).unwrap();
    let keys = text
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(key, _)| key);
    for key in keys.map(|key| key.trim_start_matches("# ")) {
        assert!(known.contains(&format!("{key} ")), "{key} is no setting");
    }
}

#[test]
fn faults_are_there_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let faults = r#"[{"route": "push", "times": 1, "action": "status", "status": 503}, {"action": "delay", "delayMillis": 1}]"#;
    let hang = r#"{"route": "pop", "action": "hang"}"#;
    // JSON has commas, so a variable is one text.
    let told = effective(&[("QUEEN_BROKER_FAULT", faults)], None, &[]);
    let file = written(&folder, "b.toml", &told);
    let fault = |told: &str| {
        let line = told.lines().find(|line| line.starts_with("fault = "));
        line.and_then(|line| line.split(" # ").next())
            .unwrap()
            .to_owned()
    };
    assert_eq!(fault(&told), fault(&effective(&[], Some(&file), &[])));
    let server = Server::start(&["--fault", faults, "--fault", hang]);
    let agent = agent();
    let push = || {
        let url = format!("{}/api/v1/push", server.base);
        let items = json!({"items": [{"queue": "q", "payload": 1}]});
        post(&agent, &url, &items).unwrap().0
    };
    assert_eq!((push(), push()), (503, 201));
    let url = format!("{}/testing/faults", server.base);
    let (_, listed) = get(&agent, &url).unwrap();
    assert_eq!(listed["faults"][0]["applied"], 1);
    assert_eq!(listed["faults"][1]["applied"], 1);
    assert_eq!(listed["faults"][2]["action"], "hang");
}
