//! Large calls, which go beside the lanes.

use super::*;

/// A call of 100 messages, whose payloads are all this number.
fn push_large(bench: &mut Bench, partition: &str, payload: usize) -> Call {
    let text = payload.to_string();
    let items = vec![Item::raw(&text).unwrap(); 100];
    bench.push_items(partition, &items)
}

/// The partition and payload of the first message of each call.
fn calls(request: &Fused) -> Vec<String> {
    let mut seen = payloads(request);
    seen.dedup();
    seen
}

#[test]
fn large_calls_do_not_wait_for_lanes_nor_small_ones_for_them() {
    let mut bench = bench(4);
    bench.state.lanes.set_lanes(1);
    bench.push("a", 0);
    let small = bench.one();
    push_large(&mut bench, "b", 1);
    let first = bench.one();
    push_large(&mut bench, "c", 2);
    let second = bench.one();
    assert_eq!(
        (calls(&first), calls(&second)),
        (vec!["b1".into()], vec!["c2".into()])
    );
    bench.push("d", 3);
    bench.push("e", 4);
    assert!(bench.sent().is_empty(), "the one lane is busy");
    bench.answer(small);
    let small = bench.one();
    assert_eq!(payloads(&small), ["d3", "e4"], "without the large ones");
    for request in [first, second, small] {
        bench.answer(request);
    }
    assert!(bench.is_empty());
}

#[test]
fn large_calls_of_a_partition_go_together_and_those_of_others_do_not() {
    let mut bench = bench(4);
    push_large(&mut bench, "a", 0);
    let first = bench.one();
    push_large(&mut bench, "a", 1);
    bench.push("a", 2);
    push_large(&mut bench, "a", 3);
    assert!(bench.sent().is_empty(), "the partition is busy");
    bench.answer(first);
    let second = bench.one();
    assert_eq!(calls(&second), ["a1", "a2", "a3"]);
    assert_eq!(second.messages, 201);
    push_large(&mut bench, "b", 4);
    assert_eq!(calls(&bench.one()), ["b4"]);
}

#[test]
fn a_large_call_behind_small_ones_keeps_its_place() {
    let mut bench = bench(1);
    bench.push("a", 0);
    let first = bench.one();
    bench.push("a", 1);
    push_large(&mut bench, "a", 2);
    bench.push("a", 3);
    bench.push("b", 4);
    bench.answer(first);
    let second = bench.one();
    assert_eq!(payloads(&second), ["b4", "a1"]);
    bench.answer(second);
    let third = bench.one();
    assert_eq!(calls(&third), ["a2", "a3"]);
    bench.answer(third);
    assert!(bench.is_empty());
}

#[test]
fn a_large_call_takes_the_place_of_small_ones_that_have_ended() {
    let mut bench = bench(1);
    bench.push("z", 0);
    let busy = bench.one();
    let small = bench.push("a", 1);
    push_large(&mut bench, "a", 2);
    assert!(bench.sent().is_empty());
    bench.cancel(&small);
    bench.answer(busy);
    let request = bench.one();
    assert_eq!(calls(&request), ["a2"]);
    bench.answer(request);
    assert!(bench.is_empty());
}

#[test]
fn all_requests_together_keep_within_the_bound() {
    let mut bench = bench(2);
    for n in 0..3 {
        push_large(&mut bench, &format!("p{n}"), n);
    }
    let mut sent = bench.sent();
    assert_eq!(sent.len(), 2);
    bench.push("a", 9);
    assert!(bench.sent().is_empty(), "both places are taken");
    bench.answer(sent.remove(0));
    assert_eq!(payloads(&bench.one()), ["a9"], "small ones go first");
    bench.answer(sent.remove(0));
    assert_eq!(calls(&bench.one()), ["p22"]);
}

#[test]
fn while_a_broker_is_away_large_calls_try_one_at_a_time_too() {
    let mut bench = bench(4);
    push_large(&mut bench, "a", 0);
    let request = bench.one();
    let failed = bench.fail(request, &error(ErrorCode::Connect));
    assert_eq!(failed.again, 1);
    push_large(&mut bench, "b", 1);
    assert!(
        bench.sent().is_empty(),
        "nobody tries before the pause is over"
    );
    bench.sleep(Duration::from_secs(3));
    let tried = bench.one();
    assert_eq!(tried.calls.len(), 1);
    bench.answer(tried);
    assert_eq!(bench.sent().len(), 1, "the other goes when that went well");
}
