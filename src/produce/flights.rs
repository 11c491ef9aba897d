//! The requests of buffers: when they leave, and what their end means for what waits.

use tokio::time::Instant;

use super::backoff;
use super::buffer::Flight;
use super::state::State;
use super::turns::Holder;
use crate::error::{Error, ErrorCode, Outcome};

/// How many may be in flight at the same time.
const MOST_FLIGHTS: usize = 16;

impl State {
    /// Looks after the buffers whose time has come.
    pub(super) fn fire(&mut self, now: Instant) {
        while let Some((at, _)) = self.timers.first()
            && *at <= now
            && let Some((_, address)) = self.timers.pop_first()
        {
            let Some(buffer) = self.buffer(&address) else {
                continue;
            };
            buffer.scheduled = None;
            if buffer.resume_at.is_some_and(|at| at <= now) {
                buffer.resume_at = None;
            }
            if buffer.due().is_some_and(|due| due <= now) {
                self.cover(&address, now);
            }
            self.advance(&address, now);
            let next = self
                .buffer(&address)
                .and_then(|buffer| [buffer.due(), buffer.resume_at].into_iter().flatten().min());
            if let Some(next) = next {
                self.schedule(&address, next);
            }
        }
    }

    /// The next request, if one may be sent now.
    pub(super) fn take(&mut self, now: Instant) -> Option<Flight> {
        // While nothing goes well, one request at a time tries.
        let most = if self.outage > 0 { 1 } else { MOST_FLIGHTS };
        if self.flights >= most || self.resume_at.is_some_and(|at| at > now) {
            return None;
        }
        while let Some(address) = self.ready.pop_front() {
            let Some(line) = self.lines.get_mut(&address) else {
                continue;
            };
            let Some(buffer) = line.buffer.as_mut() else {
                continue;
            };
            buffer.queued = false;
            let Holder::Flush(up_to) = &mut line.holder else {
                continue;
            };
            // With nobody behind, what came meanwhile goes along.
            let barrier = match line.behind.is_empty() {
                true => u64::MAX,
                false => *up_to,
            };
            if let Some(flight) = buffer.take(&address, barrier) {
                let last = flight.messages.last().map_or(0, |message| message.call);
                *up_to = (*up_to).max(last);
                self.flights += 1;
                return Some(flight);
            }
            self.advance(&address, now);
        }
        None
    }

    /// When [`fire`](Self::fire) and [`take`](Self::take) are to be called again, if nothing else happens before.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let resume = self.resume_at.filter(|_| !self.ready.is_empty());
        [timer, resume].into_iter().flatten().min()
    }

    pub(super) fn flights(&self) -> usize {
        self.flights
    }

    /// What was in flight when the client was closed is given up.
    pub(super) fn cut_short(&mut self, flight: &Flight) {
        self.flights -= 1;
        self.cut_short += flight.messages.len();
        self.after.wake = true;
    }

    /// How many messages were given up in flight since this was asked last.
    pub(super) fn take_cut_short(&mut self) -> usize {
        std::mem::take(&mut self.cut_short)
    }

    /// A request was answered for: its messages are done with, whatever the broker said of each. `to_blame`: it refused
    /// the only one.
    pub(super) fn landed(&mut self, flight: &Flight, to_blame: bool, now: Instant) {
        self.flights -= 1;
        self.outage = 0;
        self.resume_at = None;
        self.after.wake = true;
        let address = &flight.address;
        let Some(buffer) = self.buffer(address) else {
            return;
        };
        buffer.landed(flight, to_blame);
        self.messages -= flight.messages.len();
        self.bytes -= flight.cost();
        self.let_in(address, now);
        self.advance(address, now);
    }

    /// A broker refused a request of several messages as a whole: they go in smaller ones.
    pub(super) fn refused(&mut self, flight: Flight, now: Instant) {
        self.flights -= 1;
        self.outage = 0;
        self.resume_at = None;
        self.after.wake = true;
        let address = flight.address.clone();
        if let Some(buffer) = self.buffer(&address) {
            let sent = flight.messages.len();
            buffer.put_back(flight, false);
            buffer.suspect(sent);
            self.advance(&address, now);
        }
    }

    /// A request failed and is tried again, at the time that this returns.
    pub(super) fn failed(&mut self, flight: Flight, error: &Error, now: Instant) -> Instant {
        self.flights -= 1;
        self.after.wake = true;
        let hurried = self.hurried > 0;
        let (address, count) = (flight.address.clone(), flight.messages.len());
        let mut again = now;
        if concerns_everybody(error) {
            self.outage += 1;
            again = now + backoff::pause(self.outage, hurried);
            self.resume_at = Some(again);
        }
        let Some(buffer) = self.buffer(&address) else {
            return again;
        };
        buffer.put_back(flight, error.outcome() != Outcome::NotApplied);
        if !concerns_everybody(error) {
            buffer.failures += 1;
            again = now + backoff::pause(buffer.failures, hurried);
            buffer.resume_at = Some(again);
            // One of the messages may be what the broker stumbles over.
            let stumbles = matches!(error.code(), ErrorCode::Broker | ErrorCode::BadAnswer);
            if stumbles && buffer.failures > 1 {
                buffer.suspect(count);
            }
            self.schedule(&address, again);
        }
        self.advance(&address, now);
        again
    }
}

/// Whether a failure says that a request of another partition would fail as well.
fn concerns_everybody(error: &Error) -> bool {
    use ErrorCode::{
        Connect, Forbidden, Locked, NotFound, Store, Throttled, Unauthorized, Unsupported,
    };
    matches!(
        error.code(),
        Connect | Throttled | Unauthorized | Forbidden | NotFound | Unsupported | Store | Locked
    ) || error.http_status() == Some(503)
}

/// Whether a broker refuses what a request says, whoever sends it and whenever.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error.http_status(), Some(400 | 413 | 422))
        || error.code() == ErrorCode::InvalidArgument
}

#[cfg(test)]
mod tests {
    use super::super::address::{Address, Scope};
    use super::super::lanes::Lanes;
    use super::super::room::Admit;
    use super::super::state::{Bounds, State};
    use super::*;
    use crate::options::{BufferOptions, WhenFull};
    use crate::pending::{Pending, WaitsFor};
    use crate::protocol::kept::Kept;
    use crate::protocol::push::{Item, PushResult};
    use std::ops::Range;
    use std::time::Duration;

    /// A state with a clock of its own.
    struct Bench {
        state: State,
        now: Instant,
        options: BufferOptions,
    }

    fn bench(message_count: usize) -> Bench {
        let bounds = Bounds {
            messages: 1000,
            bytes: 1 << 20,
        };
        Bench {
            state: State::new(bounds, Lanes::for_tests()),
            now: Instant::now(),
            options: BufferOptions {
                message_count,
                ..BufferOptions::default()
            },
        }
    }

    fn kept(ids: Range<usize>) -> Vec<Kept> {
        let items: Vec<_> = ids
            .map(|n| Item::raw("1").unwrap().transaction_id(n.to_string()))
            .collect();
        Kept::list("q", "p", &items).unwrap()
    }

    fn ids(flight: &Flight) -> Vec<usize> {
        flight
            .messages
            .iter()
            .map(|message| message.kept.transaction_id().parse().unwrap())
            .collect()
    }

    fn error(code: ErrorCode) -> Error {
        Error::new(code, "made up").with_outcome(Outcome::Unknown)
    }

    impl Bench {
        /// Whether it was accepted.
        fn push(&mut self, partition: &str, ids: Range<usize>) -> bool {
            let admitted = self.state.admit(
                Address::new("q", partition),
                kept(ids),
                &self.options,
                self.now,
            );
            matches!(admitted, Admit::Taken(_))
        }

        fn wait(&mut self, partition: &str, ids: Range<usize>) -> Pending<Vec<PushResult>> {
            let pending = Pending::new(WaitsFor::Broker);
            let address = Address::new("q", partition);
            let (messages, options) = (kept(ids), self.options.clone());
            self.state
                .wait(address, messages, &options, pending.clone(), self.now);
            self.complete();
            pending
        }

        /// Completes what was accepted meanwhile.
        fn complete(&mut self) {
            for (pending, results) in self.state.take_after().accepted {
                pending.complete(Ok(results));
            }
        }

        fn take(&mut self) -> Option<Flight> {
            self.state.fire(self.now);
            self.state.take(self.now)
        }

        fn sleep(&mut self, millis: u64) {
            self.now += Duration::from_millis(millis);
        }

        /// Lands everything that may leave now; the ids in the order of the requests.
        fn land_all(&mut self) -> Vec<Vec<usize>> {
            let mut sent = Vec::new();
            while let Some(flight) = self.take() {
                sent.push(ids(&flight));
                self.state.landed(&flight, false, self.now);
            }
            self.complete();
            sent
        }
    }

    #[test]
    fn b3_b4_count_and_time_flush_whichever_comes_first() {
        let mut bench = bench(3);
        assert!(bench.push("p", 0..2));
        assert!(bench.take().is_none());
        assert!(bench.push("p", 2..3));
        assert_eq!(bench.land_all(), [vec![0, 1, 2]]);
        assert!(bench.push("p", 3..4));
        bench.sleep(500);
        assert!(bench.push("p", 4..5));
        bench.sleep(499);
        assert!(bench.take().is_none());
        let next = bench.state.next_look().unwrap();
        assert!(next - bench.now <= Duration::from_millis(1));
        bench.sleep(1);
        assert_eq!(bench.land_all(), [vec![3, 4]]);
        assert!(
            bench.state.is_done(),
            "an empty buffer leaves nothing behind"
        );
        assert_eq!(bench.state.next_look(), None);
        let counts = bench.state.counts();
        assert_eq!((counts.active, counts.bytes), (0, 0));
    }

    #[test]
    fn b13_messages_added_during_a_flush_stay_and_follow() {
        let mut bench = bench(2);
        bench.push("p", 0..2);
        let flight = bench.take().unwrap();
        bench.push("p", 2..5);
        assert!(bench.take().is_none(), "one request at a time");
        bench.state.landed(&flight, false, bench.now);
        assert_eq!(bench.land_all(), [vec![2, 3], vec![4]]);
    }

    #[test]
    fn b11_a_failed_flush_is_retried_in_order_with_growing_pauses() {
        let mut bench = bench(2);
        bench.push("p", 0..4);
        let mut pauses = Vec::new();
        for _ in 0..4 {
            let flight = bench.take().unwrap();
            assert_eq!(ids(&flight), [0, 1]);
            let again = bench
                .state
                .failed(flight, &error(ErrorCode::Network), bench.now);
            assert!(bench.take().is_none(), "it pauses");
            pauses.push(again - bench.now);
            bench.now = again;
        }
        assert!(pauses[0] >= Duration::from_millis(200));
        assert!(pauses[3] > 4 * pauses[0]);
        // Another partition is not held up by that.
        let flight = bench.take().unwrap();
        bench
            .state
            .failed(flight, &error(ErrorCode::Timeout), bench.now);
        bench.push("other", 10..12);
        assert_eq!(bench.land_all(), [vec![10, 11]]);
        bench.sleep(20_000);
        let flight = bench.take().unwrap();
        assert_eq!((ids(&flight), flight.resent), (vec![0, 1], 2));
        bench.state.landed(&flight, false, bench.now);
        assert_eq!(bench.land_all(), [vec![2, 3]]);
    }

    #[test]
    fn b11_one_request_at_a_time_tries_while_no_broker_is_there() {
        let mut bench = bench(1);
        for partition in 0..50 {
            bench.push(&partition.to_string(), partition..partition + 1);
        }
        let flights: Vec<_> = std::iter::from_fn(|| bench.take()).collect();
        assert_eq!(flights.len(), MOST_FLIGHTS);
        let gone = Error::new(ErrorCode::Connect, "gone");
        for flight in flights {
            bench.state.failed(flight, &gone, bench.now);
        }
        assert!(bench.take().is_none());
        bench.sleep(60_000);
        let probe = bench.take().unwrap();
        assert!(bench.take().is_none(), "one probe");
        assert_eq!(probe.resent, 0, "nothing was sent");
        bench.state.landed(&probe, false, bench.now);
        assert_eq!(bench.land_all().len(), 49);
    }

    #[test]
    fn b5_a_flush_call_shortens_the_pause() {
        let mut bench = bench(1);
        bench.push("p", 0..1);
        for _ in 0..8 {
            let flight = bench.take().unwrap();
            bench.now = bench
                .state
                .failed(flight, &error(ErrorCode::Network), bench.now);
        }
        let flight = bench.take().unwrap();
        bench
            .state
            .failed(flight, &error(ErrorCode::Network), bench.now);
        bench.sleep(300);
        assert!(bench.take().is_none());
        bench.state.hurry(&Scope::default(), bench.now);
        bench.sleep(250);
        assert!(bench.take().is_some());
    }

    #[test]
    fn b2_a_slash_in_a_name_does_not_mix_places() {
        let mut bench = bench(2);
        for (queue, partition) in [("a/b", "c"), ("a", "b/c")] {
            let address = Address::new(queue, partition);
            bench
                .state
                .admit(address, kept(0..1), &bench.options, bench.now);
        }
        assert!(bench.take().is_none(), "each has one message");
        assert_eq!(bench.state.counts().active, 2);
    }

    #[test]
    fn a_direct_push_goes_behind_the_buffer_and_before_what_follows() {
        let mut bench = bench(10);
        bench.push("p", 0..2);
        let (address, number, turn) = bench.state.join(Address::new("q", "p"), 1, bench.now);
        let mut turn = turn.expect("the buffer goes first");
        bench.push("p", 2..4);
        let flight = bench.take().unwrap();
        assert_eq!(ids(&flight), [0, 1], "nothing that came later");
        let flight = {
            bench
                .state
                .failed(flight, &error(ErrorCode::Timeout), bench.now);
            bench.sleep(20_000);
            assert!(turn.try_recv().is_err(), "a failure does not let it pass");
            bench.take().unwrap()
        };
        bench.state.landed(&flight, false, bench.now);
        assert!(turn.try_recv().is_ok());
        assert!(bench.take().is_none(), "the direct push has the turn");
        bench.state.settled(number, bench.now);
        bench.state.pass_on(&address, bench.now);
        bench.sleep(1000);
        assert_eq!(bench.land_all(), [vec![2, 3]]);
        assert!(bench.state.is_done());
    }

    #[test]
    fn x20_a_push_that_waits_for_room_keeps_its_place() {
        let mut bench = bench(2);
        bench.options.max_messages = Some(4);
        assert!(bench.push("p", 0..4));
        assert!(!bench.push("p", 4..5));
        let first = bench.wait("p", 4..6);
        let second = bench.wait("p", 6..7);
        let (_, _, turn) = bench.state.join(Address::new("q", "p"), 1, bench.now);
        let mut turn = turn.unwrap();
        assert!(!bench.push("p", 7..8), "nobody passes those who wait");
        let flight = bench.take().unwrap();
        bench.state.landed(&flight, false, bench.now);
        bench.complete();
        assert!(first.is_complete() && !second.is_complete());
        let flight = bench.take().unwrap();
        assert_eq!(ids(&flight), [2, 3]);
        bench.state.landed(&flight, false, bench.now);
        bench.complete();
        assert!(second.is_complete());
        assert!(turn.try_recv().is_err());
        assert_eq!(bench.land_all(), [vec![4, 5], vec![6]]);
        assert!(turn.try_recv().is_ok());
    }

    #[test]
    fn x20_a_push_that_gives_up_waiting_keeps_nothing() {
        let mut bench = bench(2);
        bench.options.max_messages = Some(2);
        bench.push("p", 0..2);
        let waiting = bench.wait("p", 2..4);
        let (_, _, turn) = bench.state.join(Address::new("q", "p"), 1, bench.now);
        let mut turn = turn.unwrap();
        let flight = bench.take().unwrap();
        waiting.cancel();
        let address = std::sync::Arc::new(Address::new("q", "p"));
        bench.state.waiter_gave_up(&address, bench.now);
        bench.state.landed(&flight, false, bench.now);
        assert!(turn.try_recv().is_ok(), "the line goes on without it");
        assert!(bench.take().is_none());
        assert_eq!(bench.state.counts().queued, 0);
    }

    #[test]
    fn c12_all_buffers_share_the_bounds_of_the_client() {
        let mut bench = bench(100);
        bench.options.when_full = WhenFull::Fail;
        for partition in 0..10 {
            assert!(bench.push(&partition.to_string(), 0..99));
        }
        assert!(bench.push("a", 0..10));
        assert!(!bench.push("b", 0..1), "1000 messages are there");
        let waiting = bench.wait("b", 0..2);
        // Who waits for room in the client has all buffers sent.
        let flight = bench.take().unwrap();
        bench.state.landed(&flight, false, bench.now);
        bench.complete();
        assert!(waiting.is_complete());
        let sent: usize = bench.land_all().iter().map(Vec::len).sum();
        let flown = flight.messages.len();
        assert_eq!(sent + flown, 1002);
    }

    #[test]
    fn c12_dropping_frees_the_turn_of_what_is_gone() {
        let mut bench = bench(2);
        bench.options.max_messages = Some(2);
        bench.options.when_full = WhenFull::DropOldest;
        bench.push("p", 0..2);
        let address = Address::new("q", "p");
        let Admit::Taken(taken) = bench
            .state
            .admit(address, kept(2..4), &bench.options, bench.now)
        else {
            panic!("room is made");
        };
        assert_eq!((taken.dropped.len(), taken.attempted), (2, 0));
        assert_eq!(bench.land_all(), [vec![2, 3]]);
        assert!(bench.state.is_done());
    }

    #[test]
    fn b14_what_is_left_at_the_close_is_handed_back() {
        let mut bench = bench(2);
        bench.push("p", 0..5);
        bench.push("r", 5..6);
        let flight = bench.take().unwrap();
        let left = bench.state.close();
        let count: usize = left.iter().map(|(_, messages, _)| messages.len()).sum();
        assert_eq!((count, bench.state.flights()), (4, 1));
        bench.state.take_after();
        bench.state.cut_short(&flight);
        assert!(bench.state.take_after().wake, "so that the task ends");
        assert_eq!(
            (bench.state.take_cut_short(), bench.state.flights()),
            (2, 0)
        );
        assert_eq!(bench.state.take_cut_short(), 0, "they are told of once");
        assert!(bench.take().is_none());
    }

    #[test]
    fn b6_x22_a_flush_knows_what_it_waits_for() {
        let mut bench = bench(2);
        bench.push("p", 0..3);
        bench.push("r", 3..4);
        let scope = Scope {
            queue: Some("q".into()),
            partition: Some("p".into()),
        };
        bench.state.cover_all(&scope, bench.now);
        let mut unsettled = bench.state.unsettled(&scope);
        assert_eq!(unsettled.messages, 3);
        let flight = bench.take().unwrap();
        bench.push("p", 4..5);
        assert!(!bench.state.is_settled(&mut unsettled));
        assert_eq!(bench.state.left_of(&unsettled), 3, "two of them in flight");
        bench.state.landed(&flight, false, bench.now);
        assert_eq!(bench.state.left_of(&unsettled), 1);
        bench.land_all();
        assert!(bench.state.is_settled(&mut unsettled));
        assert_eq!(
            bench.state.counts().queued,
            1,
            "that of the other partition"
        );
    }
}
