//! `kill -9` of a process that uses `embedded:///file.db`: no answered push is lost, no answered ack is brought back.
//!
//! The test starts itself as that process. The child prints a line for everything that was answered; the parent kills it
//! at a random moment, many times over, and then opens the store itself.

use std::collections::{BTreeMap, HashSet};
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libtest_mimic::{Arguments, Failed, Trial};
use queen::{Client, Item, PopOptions};

const LONG: Duration = Duration::from_secs(60);
const URL: &str = "QUEEN_KILL9_URL";
const ROUND: &str = "QUEEN_KILL9_ROUND";

fn main() -> ExitCode {
    if let (Ok(url), Ok(round)) = (env::var(URL), env::var(ROUND)) {
        child(&url, &round);
        return ExitCode::SUCCESS;
    }
    let trials = vec![Trial::test(
        "nothing_answered_is_undone",
        nothing_answered_is_undone,
    )];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Pushes and consumes until it is killed, and tells what was answered.
fn child(url: &str, round: &str) {
    let client = Client::new(url).unwrap();
    std::thread::scope(|scope| {
        for producer in 0..2 {
            let queue = client.queue("q").partition(format!("p{producer}"));
            scope.spawn(move || {
                for n in 0.. {
                    let id = format!("{round}-{producer}-{n}");
                    let item = Item::json(&id).unwrap().transaction_id(id.as_str());
                    queue.push(&[item]).wait(LONG).unwrap();
                    println!("pushed {id}");
                    let _ = std::io::stdout().flush();
                }
            });
        }
        let queue = client.queue("q");
        scope.spawn(move || {
            let options = PopOptions {
                wait: true,
                batch: 3,
                lease_seconds: Some(1),
                ..PopOptions::default()
            };
            loop {
                let Some(delivery) = queue.pop_with(&options).wait(LONG).unwrap().take() else {
                    continue;
                };
                let Ok(results) = delivery.ack().wait(LONG) else {
                    continue;
                };
                for result in results {
                    println!("acked {}", result.transaction_id);
                }
                let _ = std::io::stdout().flush();
            }
        });
    });
}

fn nothing_answered_is_undone() -> Result<(), Failed> {
    let rounds = if env::var("QUEEN_TEST_SIZE").as_deref() == Ok("full") {
        300
    } else {
        30
    };
    let folder = tempfile::tempdir()?;
    let url = format!("embedded://{}", folder.path().join("store.db").display());
    let mut random = u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()) | 1;
    println!("seed {random}");
    let mut pushed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut acked = HashSet::new();
    for round in 0..rounds {
        let mut child = Command::new(env::current_exe()?)
            .env(URL, &url)
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()?;
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let moment = Instant::now() + Duration::from_millis(40 + (random >> 33) % 160);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        // From the first answer on, so that a slow start does not make the kill idle.
        let mut take = |line: String| match line.split_once(' ') {
            Some(("pushed", id)) => {
                let partition = id.split('-').nth(1).unwrap_or_default().to_owned();
                pushed.entry(partition).or_default().push(id.to_owned());
            }
            Some(("acked", id)) => {
                acked.insert(id.to_owned());
            }
            _ => panic!("the child said {line:?}"),
        };
        take(lines.next().ok_or("the child ended by itself")??);
        std::thread::sleep(moment.saturating_duration_since(Instant::now()));
        child.kill()?;
        // What it said before it died; a line cut in the middle was not said.
        for line in lines.map_while(Result::ok) {
            if line.split('-').count() == 3 {
                take(line);
            }
        }
        child.wait()?;
    }

    let client = Client::new(&url)?;
    let mut left: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for partition in ["0", "1"] {
        let queue = client.queue("q").partition(format!("p{partition}"));
        loop {
            let options = PopOptions {
                wait: true,
                batch: 10_000,
                poll_timeout_millis: 3000,
                ..PopOptions::default()
            };
            let Some(delivery) = queue.pop_with(&options).wait(LONG)?.take() else {
                break;
            };
            for message in delivery.messages() {
                left.entry(partition.to_owned())
                    .or_default()
                    .push(message.json()?);
            }
            delivery.ack().wait(LONG)?;
        }
        // Everything that was answered is stored: pushing it again stores nothing.
        for id in pushed.get(partition).into_iter().flatten() {
            let result = queue
                .push(&[Item::json(id)?.transaction_id(id.as_str())])
                .wait(LONG)?;
            assert_eq!(
                result[0].status, "duplicate",
                "{id} was answered and is lost"
            );
        }
    }
    client.close(LONG).wait(LONG)?;

    let answered: usize = pushed.values().map(Vec::len).sum();
    println!("{answered} pushes and {} acks were answered", acked.len());
    assert!(
        answered > rounds && acked.len() > rounds,
        "hardly anything happened"
    );
    for (partition, left) in &left {
        let back: Vec<_> = left.iter().filter(|id| acked.contains(*id)).collect();
        assert!(back.is_empty(), "acked and back again: {back:?}");
        let set: HashSet<_> = left.iter().collect();
        assert_eq!(
            set.len(),
            left.len(),
            "a message came twice from p{partition}"
        );
        // What is left begins right behind the last ack, in the order of the pushes.
        let expected: Vec<_> = pushed[partition]
            .iter()
            .filter(|id| set.contains(id))
            .collect();
        let seen: Vec<_> = left
            .iter()
            .filter(|id| pushed[partition].contains(id))
            .collect();
        assert_eq!(seen, expected, "the order of p{partition} has changed");
    }
    let lost: Vec<_> = pushed
        .iter()
        .flat_map(|(partition, ids)| ids.iter().map(move |id| (partition, id)))
        .filter(|(partition, id)| {
            !acked.contains(*id) && !left.get(*partition).is_some_and(|left| left.contains(id))
        })
        .collect();
    // The last acks of a round may have been applied without their answer being heard, at most one batch each round.
    assert!(
        lost.len() <= rounds * 3,
        "answered, never acked and gone: {lost:?}"
    );
    Ok(())
}
