//! Direct pushes that share requests.

use queen::{BufferOptions, Outcome, PushOptions};

use super::*;

pub(crate) const TESTS: Tests = tests![
    pipeline_many_callers_are_stored_once_in_order_each_with_its_own_result,
    pipeline_one_bad_call_does_not_harm_the_others,
    pipeline_the_same_id_in_calls_side_by_side_is_stored_once,
    pipeline_keeps_the_order_with_buffers_and_transactions,
    pipeline_off_sends_each_call_alone,
];

const CALLERS: u32 = 64;

/// Everything that is stored in a partition, in order.
fn stored(queue: &Queue, count: usize) -> Vec<(u32, String)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let delivery = pop(queue, 1000);
        let messages = delivery.messages().iter();
        seen.extend(messages.map(|message| {
            (
                message.json::<u32>().unwrap(),
                message.transaction_id.clone(),
            )
        }));
        delivery.ack().wait(LONG).unwrap();
    }
    assert!(pop_now(queue, 10).is_none(), "nothing twice");
    seen
}

fn pipeline_many_callers_are_stored_once_in_order_each_with_its_own_result(
    broker: &TestBroker,
) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let rounds = 8;
    let results: Vec<Vec<(u32, queen::PushResult)>> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let place = queue.clone().partition(format!("p{}", caller % 4));
                scope.spawn(move || {
                    let call = |round: u32| {
                        let number = caller * 1000 + round;
                        let item = Item::json(&number).unwrap();
                        let item = match caller % 3 {
                            0 => item.transaction_id(format!("id-{number}")),
                            _ => item,
                        };
                        let mut results = place.push(&[item]).wait(LONG).unwrap();
                        (number, results.remove(0))
                    };
                    (0..rounds).map(call).collect()
                })
            })
            .collect();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .collect()
    });
    let ids: HashMap<u32, String> = results
        .iter()
        .flatten()
        .map(|(number, result)| {
            assert_eq!((result.index, &*result.status), (0, "queued"));
            if (number / 1000) % 3 == 0 {
                assert_eq!(result.transaction_id, format!("id-{number}"));
            }
            (*number, result.transaction_id.clone())
        })
        .collect();
    for partition in 0..4 {
        let place = queue.clone().partition(format!("p{partition}"));
        let count = (CALLERS / 4 * rounds) as usize;
        let seen = stored(&place, count);
        assert_eq!(seen.len(), count);
        for (number, id) in &seen {
            assert_eq!((number / 1000) % 4, partition);
            assert_eq!(&ids[number], id, "the result is that of the message");
        }
        for caller in 0..CALLERS {
            let own = seen.iter().filter(|(number, _)| number / 1000 == caller);
            assert!(own.is_sorted(), "each caller's own order");
        }
    }
    let stats = client.stats();
    assert_eq!(stats.messages.queued, u64::from(CALLERS * rounds));
    assert!(
        stats.requests.push < u64::from(CALLERS * rounds),
        "{:?}",
        stats.requests
    );
    close(client)
}

fn pipeline_one_bad_call_does_not_harm_the_others(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client);
    let calls: Vec<_> = (0..60u32)
        .map(|n| {
            let place = queue.clone().partition(format!("p{}", n % 3));
            // The first would make a broker refuse the whole request, the second is odd, and no reason to.
            let text = match n {
                20 => format!("{}1{}", "[".repeat(101), "]".repeat(101)),
                40 => r#""\ud800""#.to_owned(),
                _ => n.to_string(),
            };
            place.push(&[Item::raw(&text).unwrap()])
        })
        .collect();
    for (n, call) in calls.iter().enumerate() {
        match call.wait(LONG) {
            Ok(results) => assert!(n != 20 && results[0].status == "queued"),
            Err(error) => assert_eq!(
                (n, error.code(), error.outcome()),
                (20, ErrorCode::InvalidArgument, Outcome::NotApplied)
            ),
        }
    }
    for partition in 0..3u32 {
        let place = queue.clone().partition(format!("p{partition}"));
        let wanted: Vec<_> = (0..60)
            .filter(|n| n % 3 == partition && *n != 20)
            .map(|n: u32| match n {
                40 => r#""\ud800""#.to_owned(),
                _ => n.to_string(),
            })
            .collect();
        let mut seen = Vec::new();
        while seen.len() < wanted.len() {
            let delivery = pop(&place, 100);
            let messages = delivery.messages().iter();
            seen.extend(messages.map(|message| message.payload().to_owned()));
            delivery.ack().wait(LONG)?;
        }
        assert_eq!(seen, wanted);
    }
    close(client)
}

fn pipeline_the_same_id_in_calls_side_by_side_is_stored_once(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client).partition("p");
    let calls: Vec<_> = (0..40u32)
        .map(|n| {
            let id = format!("id-{}", n % 10);
            queue.push(&[Item::json(&n).unwrap().transaction_id(id)])
        })
        .collect();
    for (n, call) in calls.iter().enumerate() {
        let result = call.wait(LONG)?.remove(0);
        let wanted = if n < 10 { "queued" } else { "duplicate" };
        assert_eq!((&*result.status, result.resent), (wanted, false));
    }
    let seen: Vec<_> = stored(&queue, 10).into_iter().map(|(n, _)| n).collect();
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
    close(client)
}

fn pipeline_keeps_the_order_with_buffers_and_transactions(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let queue = fresh(&client).partition("p");
    let buffered = PushOptions {
        buffer: Some(BufferOptions {
            message_count: 7,
            ..BufferOptions::default()
        }),
        ..PushOptions::default()
    };
    let mut calls = Vec::new();
    let mut commits = Vec::new();
    for n in 0..200u32 {
        let items = [Item::json(&n).unwrap()];
        match n % 10 {
            3 | 4 => calls.push(queue.push_with(&items, &buffered)),
            7 if n % 20 == 7 => {
                let mut transaction = client.transaction();
                transaction.push(queue.name(), Some("p"), &items);
                commits.push(transaction.commit());
            }
            _ => calls.push(queue.push(&items)),
        }
    }
    client.flush(&Default::default()).wait(LONG)?;
    for call in calls {
        call.wait(LONG)?;
    }
    for commit in commits {
        commit.wait(LONG)?;
    }
    let seen: Vec<_> = stored(&queue, 200).into_iter().map(|(n, _)| n).collect();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    close(client)
}

fn pipeline_off_sends_each_call_alone(broker: &TestBroker) -> Tested {
    let mut config = queen::Config::parse(&broker.client_url)?;
    config.coalesce_pushes = false;
    let client = Client::with_config(config)?;
    let queue = fresh(&client).partition("p");
    let calls: Vec<_> = (0..30u32)
        .map(|n| queue.push(&[Item::json(&n).unwrap()]))
        .collect();
    for call in calls {
        call.wait(LONG)?;
    }
    assert_eq!(client.stats().requests.push, 30);
    let seen: Vec<_> = stored(&queue, 30).into_iter().map(|(n, _)| n).collect();
    assert_eq!(seen, (0..30).collect::<Vec<_>>());
    close(client)
}
