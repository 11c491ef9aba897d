//! Which backend gets a request.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::backoff::noise;
use super::health::Health;
use super::ms;
use super::ring::Ring;
use crate::config::{Config, LoadBalancing};
use crate::log::{Level, Logger};

/// A broker's health has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackendState {
    /// The URL of the broker, as configured.
    pub url: String,
    /// Whether it answers as it should. Others are preferred to one that does not.
    pub healthy: bool,
    /// What went wrong; none where it has recovered.
    pub error: Option<String>,
    /// For how long it was unhealthy; none where that begins.
    pub unhealthy_for: Option<Duration>,
}

impl BackendState {
    /// The state as a JSON object: `url`, `state` (`unhealthy` or `healthy`), and `error` or `unhealthyMillis`.
    pub fn to_json(&self) -> String {
        let mut object = json!({
            "url": self.url,
            "state": if self.healthy { "healthy" } else { "unhealthy" },
        });
        if let Some(error) = &self.error {
            object["error"] = error.as_str().into();
        }
        if let Some(time) = self.unhealthy_for {
            object["unhealthyMillis"] = ms(time).into();
        }
        object.to_string()
    }
}

/// The brokers of a client, and how its requests are spread over them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Backends {
    /// The strategy; `none` for an embedded broker.
    pub strategy: &'static str,
    /// Nodes on the ring of the strategy `affinity`, else 0.
    pub virtual_nodes: usize,
    /// The brokers in the order of the configuration.
    pub backends: Vec<BackendHealth>,
}

/// What a client knows of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BackendHealth {
    /// The URL, as configured.
    pub url: String,
    /// Whether it answers as it should.
    pub healthy: bool,
    /// Failures in a row.
    pub failures: u32,
    /// How long ago the last failure was, also of a broker that has recovered.
    pub last_failure_millis_ago: Option<u64>,
}

/// Hears of brokers that become unhealthy or recover. Called on library threads: it must be quick and must not block.
pub type BackendSink = Arc<dyn Fn(&BackendState) + Send + Sync>;

/// The backends, their health, and the strategy among them.
pub(super) struct Balancer {
    strategy: LoadBalancing,
    nodes: usize,
    backends: Vec<Backend>,
    ring: Ring,
    turn: AtomicUsize,
    /// The backend of a client that stays with one.
    session: AtomicUsize,
    rest: Duration,
    /// The longest pause that a broker may ask for.
    longest: Duration,
    logger: Arc<Logger>,
    sink: RwLock<Option<BackendSink>>,
}

struct Backend {
    url: String,
    health: Health,
}

impl Balancer {
    /// For at least one URL.
    pub(super) fn new(urls: Vec<String>, config: &Config, logger: &Arc<Logger>) -> Balancer {
        let nodes = match config.load_balancing_strategy {
            LoadBalancing::Affinity => config.affinity_hash_ring,
            _ => 0,
        };
        // Clients that start together do not all turn to the first.
        let start = (noise() * urls.len() as f64) as usize % urls.len().max(1);
        Balancer {
            strategy: config.load_balancing_strategy,
            nodes,
            ring: Ring::new(&urls, nodes),
            backends: urls
                .into_iter()
                .map(|url| Backend {
                    url,
                    health: Health::new(),
                })
                .collect(),
            turn: AtomicUsize::new(start),
            session: AtomicUsize::new(start),
            rest: Duration::from_millis(config.health_retry_after_millis),
            longest: Duration::from_millis(config.retry_max_delay_millis),
            logger: logger.clone(),
            sink: RwLock::new(None),
        }
    }

    /// The backend for a request with that affinity key that was not tried yet; none when all were. Those that are not
    /// healthy come last, the one that has failed longest ago first.
    pub(super) fn pick(&self, key: Option<&str>, tried: &[usize]) -> Option<usize> {
        let open = |backend: &usize| {
            self.backends[*backend].health.is_healthy() && !tried.contains(backend)
        };
        let healthy = match (self.strategy, key) {
            (LoadBalancing::Affinity, Some(key)) => self.ring.from(key).find(open),
            (LoadBalancing::Session, _) => self.stay(open),
            _ => self.next(open),
        };
        healthy.or_else(|| {
            (0..self.backends.len())
                .filter(|backend| !tried.contains(backend))
                .min_by_key(|backend| self.backends[*backend].health.record().last_failure)
        })
    }

    /// The next in turn. A turn is taken among those that are open, so that none gets the share of one that is not.
    fn next(&self, open: impl Fn(&usize) -> bool) -> Option<usize> {
        let all = 0..self.backends.len();
        let count = all.clone().filter(&open).count();
        if count == 0 {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        all.filter(open).nth(turn % count)
    }

    /// The backend of the session; a new one is chosen, for good, when that is not open.
    fn stay(&self, open: impl Fn(&usize) -> bool) -> Option<usize> {
        let now = self.session.load(Ordering::Relaxed);
        if open(&now) {
            return Some(now);
        }
        let count = self.backends.len();
        let next = (1..count)
            .map(|step| (now + step) % count)
            .find(|backend| open(backend))?;
        // Whoever is first decides for all.
        match self
            .session
            .compare_exchange(now, next, Ordering::Relaxed, Ordering::Relaxed)
        {
            Err(other) if open(&other) => Some(other),
            _ => Some(next),
        }
    }

    /// The backend has answered, well or not.
    pub(super) fn succeeded(&self, backend: usize) {
        let Backend { url, health } = &self.backends[backend];
        if let Some(time) = health.succeeded() {
            self.logger.log(
                Level::Info,
                "transport.health",
                "a broker has recovered",
                &[
                    ("url", url.as_str().into()),
                    ("unhealthyMillis", ms(time).into()),
                ],
            );
            self.tell(BackendState {
                url: url.clone(),
                healthy: true,
                error: None,
                unhealthy_for: Some(time),
            });
        }
    }

    /// The backend has asked for a pause, in which it is as healthy as before.
    pub(super) fn throttled(&self, backend: usize, until: Instant) {
        self.backends[backend].health.throttled(until);
    }

    /// Until when it has asked to be left alone, if that is not over.
    pub(super) fn throttled_until(&self, backend: usize) -> Option<Instant> {
        self.backends[backend].health.throttled_until()
    }

    /// The backend has failed, and may have asked for a pause.
    pub(super) fn failed(&self, backend: usize, cause: &str, asked: Option<Duration>) {
        let Backend { url, health } = &self.backends[backend];
        let asked = asked.unwrap_or_default().min(self.longest);
        if health.failed(self.rest.max(asked)) == 1 {
            self.logger.log(
                Level::Warn,
                "transport.health",
                "a broker is unhealthy",
                &[("url", url.as_str().into()), ("error", cause.into())],
            );
            self.tell(BackendState {
                url: url.clone(),
                healthy: false,
                error: Some(cause.to_owned()),
                unhealthy_for: None,
            });
        }
    }

    /// The backends that the caller shall probe now. One alone is asked by every request anyway.
    pub(super) fn begin_probes(&self) -> impl Iterator<Item = usize> {
        let several = self.backends.len() > 1;
        (0..self.backends.len())
            .filter(move |backend| several && self.backends[*backend].health.begin_probe())
    }

    /// Replaces who hears of changes.
    pub(super) fn watch(&self, sink: Option<BackendSink>) {
        let mut place = self
            .sink
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let before = std::mem::replace(&mut *place, sink);
        drop(place);
        drop(before);
    }

    fn tell(&self, state: BackendState) {
        let sink = self
            .sink
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone();
        if let Some(sink) = sink {
            sink(&state);
        }
    }

    /// Strategy, ring and health.
    pub(super) fn show(&self) -> Backends {
        let backends = self.backends.iter().map(|Backend { url, health }| {
            let record = health.record();
            BackendHealth {
                url: url.clone(),
                healthy: health.is_healthy(),
                failures: record.failures,
                last_failure_millis_ago: record.last_failure.map(|at| ms(at.elapsed())),
            }
        });
        Backends {
            strategy: self.strategy.as_str(),
            virtual_nodes: self.nodes * self.backends.len(),
            backends: backends.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::time::advance;

    fn balancer(backends: usize, strategy: LoadBalancing) -> Balancer {
        let urls = (0..backends)
            .map(|n| format!("http://queen-{n}:6632"))
            .collect();
        let mut config = Config::new("");
        config.load_balancing_strategy = strategy;
        Balancer::new(urls, &config, &Arc::new(Logger::from_environment()))
    }

    fn picks(balancer: &Balancer, key: Option<&str>, times: usize) -> Vec<usize> {
        (0..times)
            .map(|_| balancer.pick(key, &[]).unwrap())
            .collect()
    }

    fn share(picks: &[usize], backend: usize) -> usize {
        picks.iter().filter(|pick| **pick == backend).count()
    }

    #[test]
    fn l4_round_robin_spreads_over_the_healthy() {
        let balancer = balancer(3, LoadBalancing::RoundRobin);
        let seen = picks(&balancer, Some("a key is nothing here"), 300);
        assert_eq!([0, 1, 2].map(|n| share(&seen, n)), [100; 3]);
        balancer.failed(1, "down", None);
        let seen = picks(&balancer, None, 300);
        assert_eq!([0, 1, 2].map(|n| share(&seen, n)), [150, 0, 150]);
    }

    #[test]
    fn l10_c24_requests_without_a_key_go_round_robin() {
        let balancer = balancer(3, LoadBalancing::Affinity);
        let seen = picks(&balancer, None, 300);
        assert_eq!([0, 1, 2].map(|n| share(&seen, n)), [100; 3], "c24");
        let seen = picks(&balancer, Some("orders:*:workers"), 300);
        assert_eq!(share(&seen, seen[0]), 300);
    }

    #[test]
    fn l7_e8_a_key_moves_while_its_backend_is_unhealthy_and_comes_back() {
        let balancer = balancer(3, LoadBalancing::Affinity);
        let keys: Vec<_> = (0..300).map(|n| format!("q{n}:*:g")).collect();
        let home: Vec<_> = keys
            .iter()
            .map(|key| balancer.pick(Some(key), &[]).unwrap())
            .collect();
        balancer.failed(0, "down", None);
        for (key, home) in keys.iter().zip(&home) {
            let now = balancer.pick(Some(key), &[]).unwrap();
            assert!(now != 0 && (*home == 0 || now == *home), "{key}");
        }
        balancer.succeeded(0);
        for (key, home) in keys.iter().zip(&home) {
            assert_eq!(balancer.pick(Some(key), &[]), Some(*home));
        }
    }

    #[test]
    fn l5_c23_a_session_stays_and_moves_once() {
        let balancer = balancer(3, LoadBalancing::Session);
        let seen = picks(&balancer, None, 50);
        let home = seen[0];
        assert_eq!(share(&seen, home), 50);
        assert_eq!(balancer.pick(Some("any key"), &[]), Some(home));
        balancer.failed(home, "down", None);
        let seen = picks(&balancer, None, 50);
        assert_ne!(seen[0], home);
        assert_eq!(share(&seen, seen[0]), 50, "c23: it moves once");
        balancer.succeeded(home);
        assert_eq!(balancer.pick(None, &[]), Some(seen[0]), "and stays there");
    }

    #[test]
    fn c1_a_backend_that_was_tried_is_not_picked_again() {
        for strategy in [
            LoadBalancing::Affinity,
            LoadBalancing::RoundRobin,
            LoadBalancing::Session,
        ] {
            for key in [None, Some("orders:*:workers")] {
                let balancer = balancer(4, strategy);
                balancer.failed(2, "down", None);
                let mut tried = Vec::new();
                while let Some(backend) = balancer.pick(key, &tried) {
                    assert!(!tried.contains(&backend));
                    tried.push(backend);
                }
                assert_eq!(tried.len(), 4, "{strategy:?}: each once");
                assert_eq!(tried[3], 2, "{strategy:?}: the unhealthy one last");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn l9_when_all_are_unhealthy_the_longest_ago_is_tried_first() {
        let balancer = balancer(3, LoadBalancing::Affinity);
        for backend in [1, 2, 0] {
            balancer.failed(backend, "down", None);
            advance(Duration::from_millis(10)).await;
        }
        assert_eq!(balancer.pick(Some("k"), &[]), Some(1));
        assert_eq!(balancer.pick(None, &[1]), Some(2));
        assert_eq!(balancer.pick(None, &[1, 2]), Some(0));
        assert_eq!(balancer.pick(None, &[0, 1, 2]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn l8_e7_probes_come_due_and_each_once() {
        let balancer = balancer(3, LoadBalancing::RoundRobin);
        balancer.failed(0, "down", None);
        balancer.failed(1, "HTTP 503", Some(Duration::from_secs(20)));
        assert_eq!(balancer.begin_probes().count(), 0);
        advance(Duration::from_secs(5)).await;
        assert_eq!(balancer.begin_probes().collect::<Vec<_>>(), [0]);
        assert_eq!(balancer.begin_probes().count(), 0);
        advance(Duration::from_secs(15)).await;
        assert_eq!(balancer.begin_probes().collect::<Vec<_>>(), [1]);
        balancer.failed(2, "HTTP 503", Some(Duration::MAX));
        advance(Duration::from_secs(30)).await;
        assert_eq!(balancer.begin_probes().collect::<Vec<_>>(), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_told_once() {
        let balancer = balancer(2, LoadBalancing::RoundRobin);
        let told = Arc::new(Mutex::new(Vec::new()));
        let to = told.clone();
        balancer.watch(Some(Arc::new(move |state: &BackendState| {
            to.lock().unwrap().push(state.to_json())
        })));
        balancer.succeeded(1);
        balancer.failed(1, "reset", None);
        balancer.failed(1, "reset", None);
        advance(Duration::from_millis(70)).await;
        balancer.succeeded(1);
        balancer.succeeded(1);
        balancer.watch(None);
        balancer.failed(1, "reset", None);
        assert_eq!(
            *told.lock().unwrap(),
            [
                r#"{"error":"reset","state":"unhealthy","url":"http://queen-1:6632"}"#,
                r#"{"state":"healthy","unhealthyMillis":70,"url":"http://queen-1:6632"}"#
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn l11_strategy_ring_and_health_can_be_seen() {
        let balancer = balancer(2, LoadBalancing::Affinity);
        balancer.failed(1, "reset", None);
        advance(Duration::from_millis(5)).await;
        assert_eq!(
            serde_json::to_value(balancer.show()).unwrap(),
            json!({
                "strategy": "affinity",
                "virtualNodes": 256,
                "backends": [
                    {"url": "http://queen-0:6632", "healthy": true, "failures": 0, "lastFailureMillisAgo": null},
                    {"url": "http://queen-1:6632", "healthy": false, "failures": 1, "lastFailureMillisAgo": 5},
                ],
            })
        );
    }
}
