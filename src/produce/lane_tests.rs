//! The lanes under a clock of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::address::Address;
use super::fuse::{Fused, MAX_MESSAGES};
use super::lanes::{LaneOptions, Lanes};
use super::outcome::{Failed, Rules};
use super::state::{Bounds, State};
use crate::error::{Error, ErrorCode, Outcome};
use crate::options::BufferOptions;
use crate::pending::{Pending, WaitsFor};
use crate::protocol::kept::Kept;
use crate::protocol::push::{Item, Push, PushResult};

mod failures;
mod large;

type Call = Pending<Vec<PushResult>>;

struct Bench {
    state: State,
    now: Instant,
    timeout: Duration,
}

fn bench(most: usize) -> Bench {
    bench_with(LaneOptions {
        fuses: true,
        gather: Duration::ZERO,
        most,
    })
}

/// With lanes that wait for those that they have released.
fn gathering(most: usize) -> Bench {
    bench_with(LaneOptions {
        fuses: true,
        gather: Duration::from_micros(200),
        most,
    })
}

fn bench_with(options: LaneOptions) -> Bench {
    let bounds = Bounds {
        messages: 1000,
        bytes: 1 << 20,
    };
    let rules = Rules {
        rounds: 3,
        delay: Duration::from_secs(1),
        longest_pause: Duration::from_secs(30),
    };
    let mut lanes = Lanes::new(options, rules);
    lanes.set_most(options.most);
    Bench {
        state: State::new(bounds, lanes),
        now: Instant::now(),
        timeout: Duration::from_secs(60),
    }
}

fn payloads(request: &Fused) -> Vec<String> {
    let body: serde_json::Value = serde_json::from_slice(&request.body()).unwrap();
    let items = body["items"].as_array().unwrap().iter();
    items
        .map(|item| format!("{}{}", item["partition"].as_str().unwrap(), item["payload"]))
        .collect()
}

fn numbers(request: &Fused) -> Vec<usize> {
    let body: serde_json::Value = serde_json::from_slice(&request.body()).unwrap();
    let items = body["items"].as_array().unwrap().iter();
    items
        .map(|item| item["payload"].as_u64().unwrap() as usize)
        .collect()
}

fn error(code: ErrorCode) -> Error {
    Error::new(code, "made up").with_outcome(Outcome::Unknown)
}

fn status(status: u16) -> Error {
    crate::protocol::refusal(status, b"{}")
}

impl Bench {
    fn push(&mut self, partition: &str, payload: usize) -> Call {
        let text = payload.to_string();
        self.push_items(partition, &[Item::raw(&text).unwrap()])
    }

    fn push_id(&mut self, partition: &str, payload: usize, id: &str) -> Call {
        let text = payload.to_string();
        self.push_items(partition, &[Item::raw(&text).unwrap().transaction_id(id)])
    }

    fn push_items(&mut self, partition: &str, items: &[Item<'_>]) -> Call {
        let push = Push::new("q", partition, items).unwrap();
        let pending = Pending::new(WaitsFor::Broker);
        let deadline = self.now + self.timeout;
        self.state
            .push(("q", partition), push, &pending, deadline, self.now);
        self.state.start(self.now);
        pending
    }

    /// What leaves now.
    fn sent(&mut self) -> Vec<Fused> {
        self.state.start(self.now);
        std::mem::take(&mut self.state.after.requests)
    }

    fn one(&mut self) -> Fused {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "one request leaves");
        sent.remove(0)
    }

    fn answer(&mut self, mut request: Fused) {
        let ahead = self.state.answered_ahead(&mut request, self.now);
        for call in &request.calls {
            call.pending.settle(Ok(Vec::new()));
        }
        match ahead {
            true => self.state.settle(&request, self.now),
            false => self.state.answered(&request, self.now),
        }
    }

    fn fail(&mut self, request: Fused, error: &Error) -> Failed {
        let failed = self.state.request_failed(request, error, true, 1, self.now);
        for (call, error) in &failed.over {
            call.pending.settle(Err(error.clone()));
            self.state.settled(call.ticket, self.now);
        }
        failed
    }

    /// Ends a call from outside.
    fn cancel(&mut self, call: &Call) {
        call.cancel();
        let tickets: Vec<_> = self.state.calls.iter().map(|(ticket, _)| ticket).collect();
        for ticket in tickets {
            let pending = self.state.calls.get(ticket).unwrap().pending.clone();
            if pending.is_some_and(|pending| pending.key() == call.key()) {
                self.state.settled(ticket, self.now);
            }
        }
    }

    fn sleep(&mut self, time: Duration) {
        self.now += time;
        self.state.gathered(self.now);
        self.state.look(self.now);
        let expired = std::mem::take(&mut self.state.after.expired);
        for call in expired {
            call.abort(ErrorCode::Timeout, "late");
            self.cancel(&call);
        }
    }

    fn is_empty(&self) -> bool {
        self.state.lines.is_empty() && self.state.calls.iter().next().is_none()
    }
}

const MILLI: Duration = Duration::from_millis(1);

#[test]
fn a_caller_alone_never_waits() {
    let mut bench = gathering(1);
    for n in 0..3 {
        let call = bench.push("p", n);
        let request = bench.one();
        bench.sleep(MILLI);
        bench.answer(request);
        assert!(call.is_complete() && bench.sent().is_empty());
    }
    assert!(bench.is_empty(), "nothing is left behind");
}

#[test]
fn what_comes_while_the_lanes_are_busy_leaves_together_in_turn_and_in_order() {
    let mut bench = bench(1);
    bench.push("a", 0);
    let first = bench.one();
    for n in 1..4 {
        bench.push("a", n);
        bench.push("b", n);
    }
    bench.push("c", 1);
    assert!(bench.sent().is_empty());
    bench.answer(first);
    let second = bench.one();
    assert_eq!(
        payloads(&second),
        ["b1", "b2", "b3", "c1", "a1", "a2", "a3"]
    );
    bench.answer(second);
    assert!(bench.is_empty());
}

#[test]
fn a_partition_has_one_request_in_flight_however_many_lanes_there_are() {
    let mut bench = bench(4);
    bench.push("a", 0);
    let first = bench.one();
    bench.push("a", 1);
    assert!(bench.sent().is_empty(), "its line is busy");
    bench.push("b", 0);
    let other = bench.one();
    assert_eq!(payloads(&other), ["b0"]);
    bench.answer(first);
    assert_eq!(payloads(&bench.one()), ["a1"]);
    bench.answer(other);
}

#[test]
fn lanes_may_come_and_go_without_overtaking() {
    let mut bench = bench(3);
    let mut flying = Vec::new();
    let mut stored: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for n in 0..400 {
        bench.push(&format!("p{}", n % 5), n);
        bench.state.lanes.set_most(1 + n % 4);
        flying.extend(bench.sent());
        // Answers come in any order.
        if n % 3 == 0 && !flying.is_empty() {
            let request = flying.remove(n * 7 % flying.len());
            for (call, number) in request.calls.iter().zip(numbers(&request)) {
                let partition = call.address.partition.to_string();
                stored.entry(partition).or_default().push(number);
            }
            match n % 5 {
                // Some fail and come again, which is no reason to pass them.
                4 => {
                    for call in &request.calls {
                        stored.get_mut(&*call.address.partition).unwrap().pop();
                    }
                    bench.fail(request, &error(ErrorCode::Network));
                    bench.sleep(Duration::from_secs(3));
                }
                _ => bench.answer(request),
            }
        }
    }
    for (partition, numbers) in stored {
        assert!(numbers.is_sorted(), "{partition}: {numbers:?}");
    }
}

#[test]
fn a_lane_that_was_answered_gathers_those_that_it_has_released() {
    let mut bench = gathering(2);
    for n in 0..4 {
        bench.push("p", n);
    }
    let first = bench.one();
    bench.push("p", 4);
    bench.answer(first);
    assert!(
        bench.sent().is_empty(),
        "the one that was released may come"
    );
    bench.push("p", 5);
    let five = bench.one();
    assert_eq!(five.messages, 5, "and goes along");
    bench.push("p", 6);
    bench.sleep(MILLI);
    bench.answer(five);
    assert!(bench.sent().is_empty());
    for n in 7..11 {
        bench.push("p", n);
        assert!(bench.sent().is_empty());
    }
    bench.push("other", 11);
    let six = bench.one();
    assert_eq!(six.messages, 6, "all five are back");
    bench.push("p", 12);
    bench.answer(six);
    bench.push("p", 13);
    bench.sleep(Duration::from_micros(199));
    assert!(bench.sent().is_empty());
    bench.sleep(Duration::from_micros(1));
    assert_eq!(bench.one().messages, 2, "the time is over");
}

#[test]
fn those_who_are_back_before_the_lane_looks_are_not_waited_for_again() {
    let mut bench = gathering(1);
    bench.push("p", 0);
    let first = bench.one();
    (1..4).for_each(|n| drop(bench.push("p", n)));
    bench.answer(first);
    bench.sleep(MILLI);
    let mut three = bench.one();
    assert!(!bench.state.answered_ahead(&mut three, bench.now));
    (4..7).for_each(|n| drop(bench.push("p", n)));
    bench.state.answered(&three, bench.now);
    assert_eq!(bench.one().messages, 3, "there is nobody else");
}

#[test]
fn where_all_go_together_a_lane_waits_for_them_by_what_a_request_takes() {
    let mut bench = gathering(1);
    bench.state.lanes.set_lanes(0);
    (0..8).for_each(|n| drop(bench.push("p", n)));
    let first = bench.one();
    bench.answer(first);
    bench.sleep(MILLI);
    let seven = bench.one();
    assert_eq!(seven.messages, 7);
    bench.sleep(8 * MILLI);
    bench.answer(seven);
    // Each comes an eighth of that later than the one before.
    for n in 0..4 {
        bench.push("p", n);
        bench.sleep(MILLI);
        let sent = bench.sent();
        assert_eq!(sent.len(), usize::from(n == 3), "until half of it is over");
        assert!(n < 3 || sent[0].messages == 4);
    }
}

#[test]
fn a_lane_stops_waiting_for_those_who_do_not_come_back() {
    let mut bench = gathering(1);
    bench.push("p", 0);
    let mut request = bench.one();
    let mut waited = 0;
    for n in 0..60 {
        (0..10).for_each(|_| drop(bench.push("p", n)));
        bench.answer(request);
        let mut sent = bench.sent();
        if sent.is_empty() {
            waited += 1;
            bench.sleep(MILLI);
            sent = bench.sent();
        }
        request = sent.remove(0);
    }
    assert!((3..=6).contains(&waited), "{waited} times of 60");
}

#[test]
fn without_coalescing_each_call_is_a_request() {
    let mut bench = bench_with(LaneOptions {
        fuses: false,
        gather: Duration::from_micros(200),
        most: usize::MAX / 2,
    });
    for n in 0..3 {
        bench.push("a", n);
        bench.push("b", n);
    }
    let sent = bench.sent();
    assert_eq!(sent.len(), 2, "one for each partition");
    for request in sent {
        assert_eq!(request.messages, 1);
        bench.answer(request);
    }
    assert_eq!(bench.sent().len(), 2);
}

/// Callers that push again once they are answered: the time that each takes for that, and the broker for a request.
fn closed_loop(most: usize, callers: usize, partitions: usize, back: Duration) -> Vec<usize> {
    let mut bench = gathering(most);
    let start = bench.now;
    // What happens when: a caller comes back, or a request is answered.
    let mut coming: BTreeMap<(Instant, usize), Option<Fused>> = BTreeMap::new();
    let mut number = 0;
    for caller in 0..callers {
        coming.insert((start + back * caller as u32 / 8, caller), None);
    }
    let mut sizes = Vec::new();
    while sizes.len() < 200 {
        let ((at, id), event) = coming.pop_first().unwrap();
        // The lanes that gather have a clock of their own.
        if let Some(until) = bench.state.after.gather.take()
            && until < at
        {
            bench.now = bench.now.max(until);
            bench.state.gathered(bench.now);
        }
        bench.now = bench.now.max(at);
        match event {
            None => drop(bench.push(&format!("p{}", id % partitions), id)),
            Some(request) => {
                for (index, caller) in numbers(&request).into_iter().enumerate() {
                    let pause = back * (index as u32 + 4) / 8;
                    coming.insert((bench.now + pause, caller), None);
                }
                bench.answer(request);
            }
        }
        for request in bench.sent() {
            sizes.push(request.messages);
            number += 1;
            let takes = Duration::from_micros(500 + 20 * request.messages as u64);
            coming.insert((bench.now + takes, callers + number), Some(request));
        }
    }
    sizes.split_off(100)
}

#[test]
fn a_closed_loop_does_not_settle_into_small_and_large_requests_taking_turns() {
    for (callers, back) in [(8, 10), (64, 8), (64, 1), (64, 20), (512, 1)] {
        let back = Duration::from_micros(back);
        let sizes = closed_loop(1, callers, 1, back);
        let least = *sizes.iter().min().unwrap();
        assert!(
            least * 5 >= callers * 4,
            "{callers} callers that take {back:?}: {sizes:?}"
        );
    }
    // With several lanes each has its share.
    for most in [2, 4] {
        let sizes = closed_loop(most, 64, 16, Duration::from_micros(5));
        let small = sizes.iter().filter(|size| **size * most < 16).count();
        assert!(small * 10 < sizes.len(), "{most} lanes: {sizes:?}");
    }
}

#[test]
fn a_call_is_never_split_and_a_request_has_its_bounds() {
    let mut bench = bench(1);
    bench.push("p", 0);
    let first = bench.one();
    let items = |count: usize, payload: &str| -> Vec<Item<'_>> {
        (0..count).map(|_| Item::json(payload).unwrap()).collect()
    };
    let many = items(MAX_MESSAGES / 2 - 1, "x");
    for _ in 0..3 {
        bench.push_items("p", &many);
    }
    let text = "y".repeat(400_000);
    for _ in 0..3 {
        bench.push_items("p", &items(1, &text));
    }
    let large = "z".repeat(3_000_000);
    bench.push_items("p", &items(1, &large));
    bench.push("p", 1);
    bench.push_items("p", &items(MAX_MESSAGES / 2, "w"));
    bench.push("p", 2);
    bench.answer(first);
    let mut counts = Vec::new();
    while let Some(request) = bench.sent().pop() {
        counts.push(request.messages);
        let alone = request.calls.len() == 1;
        assert!(alone || request.body().len() <= 1 << 20);
        bench.answer(request);
        bench.sleep(MILLI);
    }
    let half = MAX_MESSAGES / 2;
    assert_eq!(
        counts,
        [2 * half - 2, half - 1 + 2, 1, 1, 1, half, 1],
        "in order, the large ones alone"
    );
}

#[test]
fn a_call_with_an_id_that_the_request_has_starts_the_next() {
    let mut bench = bench(1);
    bench.push("p", 0);
    let first = bench.one();
    bench.push_id("p", 1, "same");
    bench.push_id("p", 2, "other");
    bench.push_id("p", 3, "same");
    bench.push("p", 4);
    bench.push_id("elsewhere", 5, "same");
    bench.answer(first);
    let second = bench.one();
    assert_eq!(payloads(&second), ["elsewhere5", "p1", "p2"]);
    bench.answer(second);
    bench.sleep(MILLI);
    let third = bench.one();
    assert_eq!(payloads(&third), ["p3", "p4"]);
    bench.answer(third);
    assert!(bench.is_empty());
}

/// Three calls in one request, after one that keeps the lane busy.
fn three(bench: &mut Bench, partitions: [&str; 3]) -> ([Call; 3], Fused) {
    bench.push("first", 0);
    let first = bench.one();
    let mut number = 0;
    let calls = partitions.map(|partition| {
        number += 1;
        bench.push(partition, number)
    });
    bench.answer(first);
    let request = bench.one();
    assert_eq!(request.messages, 3);
    (calls, request)
}

#[test]
fn many_lines_that_are_given_up_leave_nothing_behind() {
    let mut bench = bench(1);
    bench.push("p", 0);
    let first = bench.one();
    let calls: Vec<_> = (0..200).map(|n| bench.push(&format!("p{n}"), n)).collect();
    for call in &calls[..150] {
        bench.cancel(call);
    }
    assert!(bench.state.lines.len() < 120, "{}", bench.state.lines.len());
    bench.answer(first);
    let request = bench.one();
    assert_eq!(request.messages, 50);
    bench.answer(request);
    assert!(bench.is_empty());
}

#[test]
fn direct_and_buffered_pushes_and_transactions_keep_their_order() {
    let mut bench = bench(2);
    let kept = |n: usize| {
        let text = n.to_string();
        let item = Item::raw(&text).unwrap().transaction_id(n.to_string());
        Kept::list("q", "p", &[item]).unwrap()
    };
    let options = BufferOptions::default();
    bench.push("p", 0);
    let first = bench.one();
    bench.push("p", 1);
    let address = Address::new("q", "p");
    let now = bench.now;
    assert!(matches!(
        bench.state.admit(address.clone(), kept(2), &options, now),
        super::room::Admit::Taken(_)
    ));
    bench.push("p", 3);
    let (place, ticket, turn) = bench.state.join(address, 1, now);
    bench.push("p", 5);
    let mut turn = turn.unwrap();
    bench.answer(first);
    let request = bench.one();
    assert_eq!(payloads(&request), ["p1"], "not past the buffer");
    bench.answer(request);
    assert!(bench.sent().is_empty());
    let flight = bench.state.take(now).unwrap();
    assert_eq!(flight.messages[0].kept.transaction_id(), "2");
    bench.state.landed(&flight, false, now);
    let request = bench.one();
    assert_eq!(payloads(&request), ["p3"], "not past the transaction");
    assert!(turn.try_recv().is_err());
    bench.answer(request);
    assert!(turn.try_recv().is_ok() && bench.sent().is_empty());
    bench.state.settled(ticket, now);
    bench.state.pass_on(&place, now);
    let request = bench.one();
    assert_eq!(payloads(&request), ["p5"]);
    bench.answer(request);
    assert!(bench.is_empty());
}

#[test]
fn a_request_that_takes_very_long_does_not_keep_the_others() {
    let mut bench = bench(1);
    bench.push("p", 0);
    let stuck = bench.one();
    bench.push("q", 1);
    assert!(bench.sent().is_empty());
    bench.state.overdue(bench.now);
    let request = bench.one();
    assert_eq!(payloads(&request), ["q1"]);
    bench.answer(request);
    bench.state.no_longer_overdue();
    bench.answer(stuck);
    bench.push("p", 2);
    let request = bench.one();
    bench.push("q", 3);
    assert!(bench.sent().is_empty(), "one lane again");
    bench.answer(request);
}
