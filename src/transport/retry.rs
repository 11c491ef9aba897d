//! The course of a request: which failure is tried again, where, and after which pause.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::{doubled, jittered, later};
use super::balancer::Balancer;
use super::{Answer, Past, Repeat, Request, ms};
use crate::config::Config;
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::log::{Level, Logger};
use crate::stats::Counter;

/// The first pause after a 429 that names none.
const FIRST_THROTTLED_PAUSE: Duration = Duration::from_millis(500);

/// A backend that has not answered for this long counts as failed, even if it was the call that had no more time.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// One attempt at one backend.
pub(super) trait Wire {
    /// Sends the request and collects the answer, within `limit` and the deadline. The outcome of an error tells whether
    /// it was sent.
    fn attempt(
        &self,
        backend: usize,
        request: &Request,
        limit: Option<Duration>,
    ) -> impl Future<Output = Result<Answer>> + Send;
}

/// When to try again.
pub(super) struct Retry {
    rounds: u32,
    delay: Duration,
    longest_pause: Duration,
    throttled_attempts: u32,
    attempt_limit: Option<Duration>,
    failover: bool,
    logger: Arc<Logger>,
    /// How often a request was sent again.
    pub(super) resent: Counter,
}

/// How far a request has come.
#[derive(Default)]
struct Course {
    past: Past,
    /// Backends that failed in this round.
    tried: Vec<usize>,
    rounds: u32,
    throttled: u32,
}

impl Retry {
    pub(super) fn new(config: &Config, logger: &Arc<Logger>) -> Retry {
        Retry {
            rounds: config.retry_attempts,
            delay: Duration::from_millis(config.retry_delay_millis),
            longest_pause: Duration::from_millis(config.retry_max_delay_millis),
            throttled_attempts: config.throttled_attempts,
            attempt_limit: config.request_timeout_millis.map(Duration::from_millis),
            failover: config.enable_failover,
            logger: logger.clone(),
            resent: Counter::default(),
        }
    }

    /// Sends a request until there is an answer, the attempts are used up, or no pause fits before the deadline any more.
    pub(super) async fn run(
        &self,
        request: &Request,
        balancer: &Balancer,
        wire: &impl Wire,
    ) -> Result<Answer> {
        let limit = self.limit(request);
        let mut course = Course::default();
        let mut backend = self.pick(balancer, request, &course)?;
        loop {
            course.past.attempts += 1;
            if let Some(paced) = &request.paced {
                // What another request was told counts for this one as well.
                if let Some(until) = balancer.throttled_until(backend) {
                    tokio::time::sleep_until(until.min(request.deadline)).await;
                }
                paced.attempts.fetch_add(1, Ordering::Relaxed);
                // The caller tells of all attempts together.
                course.past.attempts = 1;
            }
            let began = Instant::now();
            let result = wire.attempt(backend, request, limit).await;
            note(balancer, backend, &result, began);
            let result = match result {
                Ok(answer) if answer.status == 429 => {
                    match self.throttled_pause(&mut course, &answer, request) {
                        None => return Ok(course.answer(answer)),
                        Some(pause) => {
                            self.tell("transport.throttled", request, &course, pause, "HTTP 429");
                            balancer.throttled(backend, Instant::now() + pause);
                            tokio::time::sleep(pause).await;
                            continue;
                        }
                    }
                }
                Ok(answer) if answer.status < 500 => return Ok(course.answer(answer)),
                result => result,
            };
            if let Err(error) = &result
                && !is_worth_repeating(error)
            {
                return course.end(result);
            }
            let unknown = !matches!(&result, Err(error) if error.outcome() == Outcome::NotApplied);
            let gone = Instant::now() >= request.deadline;
            if gone || unknown && request.repeat == Repeat::IfNotSent {
                return course.end(result);
            }
            let cause = cause(&result);
            course.tried.push(backend);
            let next = if self.failover {
                balancer.pick(request.affinity.as_deref(), &course.tried)
            } else {
                None
            };
            if let Some(next) = next {
                self.tell(
                    "transport.failover",
                    request,
                    &course,
                    Duration::ZERO,
                    &cause,
                );
                backend = next;
            } else {
                let asked = result.as_ref().ok().and_then(|answer| answer.retry_after);
                let Some(pause) = self.pause(&mut course, asked, request) else {
                    return course.end(result);
                };
                self.tell("transport.retry", request, &course, pause, &cause);
                tokio::time::sleep(pause).await;
                course.tried.clear();
                backend = self.pick(balancer, request, &course)?;
            }
            course.past.unknown |= unknown;
        }
    }

    fn pick(&self, balancer: &Balancer, request: &Request, course: &Course) -> Result<usize> {
        balancer
            .pick(request.affinity.as_deref(), &course.tried)
            .ok_or_else(|| Error::new(ErrorCode::Internal, "there is no backend"))
    }

    /// How long one attempt may take. Cutting short what cannot be repeated would help nobody.
    fn limit(&self, request: &Request) -> Option<Duration> {
        if let Some(paced) = &request.paced {
            return Some(paced.limit);
        }
        let half = request.deadline.saturating_duration_since(Instant::now()) / 2;
        (request.repeat == Repeat::Safe).then(|| self.attempt_limit.unwrap_or(half))
    }

    /// The pause before the same backend is asked again after a 429, if that is still due.
    fn throttled_pause(
        &self,
        course: &mut Course,
        answer: &Answer,
        request: &Request,
    ) -> Option<Duration> {
        course.throttled += 1;
        if course.throttled >= self.throttled_attempts && !request.waits {
            return None;
        }
        let pause = match answer.retry_after {
            Some(asked) => later(asked.min(self.longest_pause)),
            None => {
                jittered(doubled(FIRST_THROTTLED_PAUSE, course.throttled).min(self.longest_pause))
            }
        };
        fits(pause, request)
    }

    /// The pause before the next round, if there is one.
    fn pause(
        &self,
        course: &mut Course,
        asked: Option<Duration>,
        request: &Request,
    ) -> Option<Duration> {
        course.rounds += 1;
        if course.rounds >= self.rounds || request.once {
            return None;
        }
        let pause = jittered(doubled(self.delay, course.rounds).min(self.longest_pause));
        let asked = asked.map_or(Duration::ZERO, |asked| later(asked.min(self.longest_pause)));
        fits(pause.max(asked), request)
    }

    fn tell(
        &self,
        operation: &str,
        request: &Request,
        course: &Course,
        pause: Duration,
        cause: &str,
    ) {
        self.resent.add(1);
        if self.logger.wants(Level::Warn) {
            self.logger.log(
                Level::Warn,
                operation,
                "a request is sent again",
                &[
                    ("method", request.method.as_str().into()),
                    ("path", request.bare_path().into()),
                    ("attempts", course.past.attempts.into()),
                    ("pauseMillis", ms(pause).into()),
                    ("error", cause.into()),
                ],
            );
        }
    }
}

impl Course {
    fn answer(&self, answer: Answer) -> Answer {
        Answer {
            past: self.past,
            ..answer
        }
    }

    fn end(&self, result: Result<Answer>) -> Result<Answer> {
        result
            .map(|answer| self.answer(answer))
            .map_err(|error| self.past.end(error))
    }
}

/// Tells the balancer how an attempt went. A deadline too short to judge by is nobody's fault.
fn note(balancer: &Balancer, backend: usize, result: &Result<Answer>, began: Instant) {
    match result {
        Ok(answer) if answer.status < 500 => balancer.succeeded(backend),
        Ok(answer) => balancer.failed(backend, &cause(result), answer.retry_after),
        Err(error) if error.code() == ErrorCode::Timeout && began.elapsed() < LEAST_PATIENCE => {}
        Err(error) if is_worth_repeating(error) => balancer.failed(backend, &cause(result), None),
        Err(_) => {}
    }
}

/// Tells the balancer how the probe of a backend went.
pub(super) fn probed(balancer: &Balancer, backend: usize, result: &Result<Answer>) {
    match result {
        Ok(answer) if answer.status < 500 => balancer.succeeded(backend),
        result => balancer.failed(backend, &cause(result), None),
    }
}

fn cause(result: &Result<Answer>) -> String {
    match result {
        Ok(answer) => format!("HTTP {}", answer.status),
        Err(error) => error.to_string(),
    }
}

/// Whether another attempt may go better. An answer that is too large, or a request that cannot be made, stays so.
fn is_worth_repeating(error: &Error) -> bool {
    match error.code() {
        ErrorCode::Connect | ErrorCode::Network | ErrorCode::Timeout => true,
        ErrorCode::BadAnswer => error.http_status().is_none(),
        _ => false,
    }
}

/// A pause that ends after the deadline is none.
fn fits(pause: Duration, request: &Request) -> Option<Duration> {
    let left = request.deadline.saturating_duration_since(Instant::now());
    (pause < left).then_some(pause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LoadBalancing;
    use std::sync::Mutex;

    /// Plays results in turn and notes which backend was asked when.
    struct Script {
        results: Mutex<Vec<Result<Answer>>>,
        asked: Mutex<Vec<(usize, Duration)>>,
        began: Instant,
        takes: Duration,
    }

    impl Script {
        fn new(results: impl IntoIterator<Item = Result<Answer>>) -> Script {
            let mut results: Vec<_> = results.into_iter().collect();
            results.reverse();
            Script {
                results: Mutex::new(results),
                asked: Mutex::default(),
                began: Instant::now(),
                takes: Duration::ZERO,
            }
        }

        fn backends(&self) -> Vec<usize> {
            self.asked.lock().unwrap().iter().map(|at| at.0).collect()
        }

        /// The pauses between the attempts, in milliseconds.
        fn pauses(&self) -> Vec<u64> {
            let asked = self.asked.lock().unwrap();
            asked.windows(2).map(|at| ms(at[1].1 - at[0].1)).collect()
        }
    }

    impl Wire for Script {
        async fn attempt(
            &self,
            backend: usize,
            request: &Request,
            limit: Option<Duration>,
        ) -> Result<Answer> {
            self.asked
                .lock()
                .unwrap()
                .push((backend, self.began.elapsed()));
            if tokio::time::timeout_at(request.until(limit), tokio::time::sleep(self.takes))
                .await
                .is_err()
            {
                return Err(broken(ErrorCode::Timeout, Outcome::Unknown));
            }
            match self.results.lock().unwrap().pop() {
                Some(result) => result,
                None => status(200),
            }
        }
    }

    fn status(status: u16) -> Result<Answer> {
        Ok(Answer {
            status,
            ..Answer::default()
        })
    }

    fn asks(number: u16, seconds: u64) -> Result<Answer> {
        Ok(Answer {
            status: number,
            retry_after: Some(Duration::from_secs(seconds)),
            ..Answer::default()
        })
    }

    fn broken(code: ErrorCode, outcome: Outcome) -> Error {
        Error::new(code, "scripted").with_outcome(outcome)
    }

    fn refused() -> Result<Answer> {
        Err(broken(ErrorCode::Connect, Outcome::NotApplied))
    }

    fn reset() -> Result<Answer> {
        Err(broken(ErrorCode::Network, Outcome::Unknown))
    }

    fn push(seconds: u64) -> Request {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        Request::post("/api/v1/push", "{}", deadline).repeat(Repeat::Safe)
    }

    /// Without a strategy of its own to look through: the first that is healthy comes first.
    fn balancer(backends: usize) -> Balancer {
        let mut config = Config::new("");
        config.load_balancing_strategy = LoadBalancing::RoundRobin;
        let urls = (0..backends).map(|n| format!("http://queen-{n}")).collect();
        let balancer = Balancer::new(urls, &config, &Arc::new(Logger::from_environment()));
        while backends > 1 && balancer.pick(None, &[]) != Some(backends - 1) {}
        balancer
    }

    async fn run(script: &Script, backends: usize, request: &Request) -> Result<bytes::Bytes> {
        let retry = Retry::new(
            &Config::new("http://a"),
            &Arc::new(Logger::from_environment()),
        );
        retry
            .run(request, &balancer(backends), script)
            .await
            .and_then(Answer::success)
    }

    fn within_a_fifth(pauses: &[u64], meant: &[u64]) {
        assert_eq!(pauses.len(), meant.len(), "{pauses:?}");
        for (pause, meant) in pauses.iter().zip(meant) {
            let range = meant * 8 / 10..=meant * 12 / 10 + 1;
            assert!(range.contains(pause), "{pauses:?} is not about {meant}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn h1_v4_v6_retries_with_exponential_backoff() {
        let script = Script::new([status(500), reset(), status(200)]);
        run(&script, 1, &push(30)).await.unwrap();
        within_a_fifth(&script.pauses(), &[1000, 2000]);
    }

    #[tokio::test(start_paused = true)]
    async fn h1_ends_with_the_last_error_after_three_attempts() {
        let script = Script::new([refused(), refused(), status(500), status(200)]);
        let error = run(&script, 1, &push(30)).await.unwrap_err();
        assert_eq!(
            (error.code(), error.http_status(), error.outcome()),
            (ErrorCode::Broker, Some(500), Outcome::Unknown)
        );
        assert!(error.message().contains("tried 3 times"), "{error}");
        assert_eq!(script.backends().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn c27_backoff_has_jitter() {
        let mut pauses = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let script = Script::new([status(500), status(200)]);
            run(&script, 1, &push(30)).await.unwrap();
            pauses.extend(script.pauses());
        }
        assert!(pauses.len() > 5, "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn c41_no_pause_outlasts_the_deadline() {
        let script = Script::new([refused(), refused(), refused()]);
        let error = run(&script, 1, &push(2)).await.unwrap_err();
        // The second pause would end after the deadline, so the error of the attempt is told at once.
        assert_eq!(
            (error.code(), error.outcome()),
            (ErrorCode::Connect, Outcome::NotApplied)
        );
        assert_eq!(script.backends().len(), 2);
        assert!(script.began.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn h4_an_attempt_is_cut_short_so_that_another_fits() {
        let mut script = Script::new([]);
        script.takes = Duration::from_secs(3600);
        let error = run(&script, 2, &push(40)).await.unwrap_err();
        assert_eq!(
            (error.code(), error.outcome()),
            (ErrorCode::Timeout, Outcome::Unknown)
        );
        assert_eq!(script.backends(), [0, 1]);
        assert_eq!(script.began.elapsed().as_secs(), 40);
        // What its caller repeats is tried elsewhere as well.
        let mut script = Script::new([]);
        script.takes = Duration::from_secs(3600);
        run(&script, 2, &push(40).once()).await.unwrap_err();
        assert_eq!(script.backends(), [0, 1]);
        // What cannot be repeated has all the time of its call.
        let script = Script {
            takes: Duration::from_secs(25),
            ..Script::new([])
        };
        let request = push(30).repeat(Repeat::IfNotSent);
        run(&script, 2, &request).await.unwrap();
        assert_eq!(script.backends(), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn h5_v5_a_4xx_is_told_at_once() {
        for number in [400, 401, 403, 404, 408, 409, 413, 422] {
            let script = Script::new([status(number)]);
            let error = run(&script, 3, &push(30)).await.unwrap_err();
            assert_eq!(
                (error.http_status(), error.outcome()),
                (Some(number), Outcome::Refused)
            );
            assert_eq!(script.backends().len(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn h2_fails_over_without_a_pause_to_each_backend_once() {
        let script = Script::new([reset(), status(503), status(200)]);
        run(&script, 3, &push(30)).await.unwrap();
        assert_eq!(script.backends(), [0, 1, 2]);
        assert_eq!(script.pauses(), [0, 0]);
        // When all have failed, the next round comes after a pause.
        let script = Script::new([refused(), refused(), refused(), status(200)]);
        run(&script, 3, &push(30)).await.unwrap();
        assert_eq!(script.backends()[..3], [0, 1, 2]);
        within_a_fifth(&script.pauses()[2..], &[1000]);
    }

    #[tokio::test(start_paused = true)]
    async fn c34_what_is_not_safe_is_not_repeated_once_it_was_sent() {
        for failure in [reset, || status(500), || asks(503, 1)] {
            let script = Script::new([failure(), status(200)]);
            let request = push(30).repeat(Repeat::IfNotSent);
            let error = run(&script, 2, &request).await.unwrap_err();
            assert_eq!(error.outcome(), Outcome::Unknown);
            assert_eq!(script.backends(), [0]);
        }
        // A refused connection has carried nothing, and a 429 says that nothing was done.
        let script = Script::new([refused(), status(429), status(200)]);
        run(&script, 2, &push(30).repeat(Repeat::IfNotSent))
            .await
            .unwrap();
        assert_eq!(script.backends(), [0, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_attempt_that_may_have_counted_is_not_forgotten() {
        let script = Script::new([reset(), refused(), refused()]);
        let error = run(&script, 1, &push(30)).await.unwrap_err();
        assert_eq!(
            (error.code(), error.outcome()),
            (ErrorCode::Connect, Outcome::Unknown)
        );
        let script = Script::new([reset(), status(403)]);
        let error = run(&script, 1, &push(30)).await.unwrap_err();
        assert_eq!(
            (error.code(), error.outcome()),
            (ErrorCode::Forbidden, Outcome::Unknown)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn x4_a_429_waits_in_place() {
        let script = Script::new([status(429), status(429), status(429), status(200)]);
        run(&script, 3, &push(30)).await.unwrap();
        assert_eq!(script.backends(), [0, 0, 0, 0]);
        within_a_fifth(&script.pauses(), &[500, 1000, 2000]);
    }

    #[tokio::test(start_paused = true)]
    async fn x4_a_429_ends_after_ten_attempts_but_for_a_waiting_pop() {
        let script = Script::new((0..20).map(|_| asks(429, 1)));
        let error = run(&script, 1, &push(60)).await.unwrap_err();
        assert_eq!(
            (error.code(), error.outcome(), error.retry_after()),
            (
                ErrorCode::Throttled,
                Outcome::Refused,
                Some(Duration::from_secs(1))
            )
        );
        assert_eq!(script.backends().len(), 10);
        let script = Script::new((0..20).map(|_| asks(429, 1)));
        run(&script, 1, &push(60).waiting(true)).await.unwrap();
        assert_eq!(script.backends().len(), 21);
    }

    #[tokio::test(start_paused = true)]
    async fn x5_retry_after_wins_and_is_capped() {
        let script = Script::new([asks(429, 7), asks(429, 3600), status(200)]);
        run(&script, 1, &push(100)).await.unwrap();
        let pauses = script.pauses();
        assert!((7000..=8401).contains(&pauses[0]), "{pauses:?}");
        assert!((30_000..=36_001).contains(&pauses[1]), "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn c39_a_503_may_ask_for_a_pause() {
        let script = Script::new([asks(503, 9), asks(503, 0), status(200)]);
        run(&script, 1, &push(100)).await.unwrap();
        let pauses = script.pauses();
        assert!((9000..=10_801).contains(&pauses[0]), "{pauses:?}");
        within_a_fifth(&pauses[1..], &[2000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_repeats_by_itself_gets_one_round() {
        let script = Script::new([refused(), reset(), status(200)]);
        assert!(run(&script, 2, &push(30).once()).await.is_err());
        assert_eq!(script.backends(), [0, 1]);
    }
}
