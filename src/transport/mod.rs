//! One request in, one answer out. Knows backends and connections, and nothing of queues.

mod backoff;
mod balancer;
mod connection;
#[cfg_attr(not(feature = "embedded"), path = "absent.rs")]
mod embedded;
mod health;
mod http;
#[cfg_attr(not(feature = "embedded"), allow(dead_code))]
mod inside;
mod pool;
mod retry;
mod ring;
mod tick;
mod tls;
mod token;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

pub(crate) use self::backoff::{doubled, jittered, later};
pub use self::balancer::{BackendHealth, BackendSink, BackendState, Backends};
use self::embedded::EmbeddedTransport;
#[cfg(feature = "embedded")]
pub(crate) use self::embedded::{FileClaim, open_broker};
use self::http::HttpTransport;
#[cfg(feature = "embedded")]
pub(crate) use self::inside::{Asked, Inside, Lost, register, unregister};
use self::pool::Base;
use self::tick::Tick;
pub use self::token::{TokenSink, TokenWanted};
use crate::config::{Config, Endpoint, Secret};
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::log::Logger;

/// What to send.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: ::http::Method,
    /// Path and query, percent-encoded.
    pub(crate) path: String,
    pub(crate) body: Option<Bytes>,
    /// When the call ends, with all its repeats and pauses.
    pub(crate) deadline: Instant,
    pub(crate) repeat: Repeat,
    /// Whether the broker may hold the answer back on purpose.
    pub(crate) waits: bool,
    /// Requests with the same key go to the same backend, where that is the strategy.
    pub(crate) affinity: Option<String>,
    /// Whether the caller repeats it by itself, so that each backend is tried once at most.
    pub(crate) once: bool,
    /// Set where that caller bounds and counts the attempts.
    pub(crate) paced: Option<Paced>,
}

/// The course of a request whose caller repeats it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paced {
    /// How long one attempt may take.
    pub(crate) limit: Duration,
    /// How often the request was sent so far, to whichever backend.
    pub(crate) attempts: Arc<AtomicU32>,
}

/// When a request may be sent again after it has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Always: done twice, it does what it does once.
    Safe,
    /// Only while no broker can have seen it.
    IfNotSent,
}

impl Request {
    /// May be repeated unless [`repeat`](Self::repeat) says otherwise.
    pub(crate) fn get(path: String, deadline: Instant) -> Request {
        Request::new(::http::Method::GET, path, None, deadline, Repeat::Safe)
    }

    /// May be repeated unless [`repeat`](Self::repeat) says otherwise.
    pub(crate) fn delete(path: String, deadline: Instant) -> Request {
        Request::new(::http::Method::DELETE, path, None, deadline, Repeat::Safe)
    }

    /// Is not repeated once it was sent, unless [`repeat`](Self::repeat) says otherwise.
    pub(crate) fn post(
        path: impl Into<String>,
        body: impl Into<Bytes>,
        deadline: Instant,
    ) -> Request {
        Request::new(
            ::http::Method::POST,
            path.into(),
            Some(body.into()),
            deadline,
            Repeat::IfNotSent,
        )
    }

    fn new(
        method: ::http::Method,
        path: String,
        body: Option<Bytes>,
        deadline: Instant,
        repeat: Repeat,
    ) -> Request {
        Request {
            method,
            path,
            body,
            deadline,
            repeat,
            waits: false,
            affinity: None,
            once: false,
            paced: None,
        }
    }

    /// When an attempt ends that may take so long.
    fn until(&self, limit: Option<Duration>) -> Instant {
        let end = limit.and_then(|limit| Instant::now().checked_add(limit));
        end.map_or(self.deadline, |end| end.min(self.deadline))
    }

    /// The path without its query, for the log.
    pub(crate) fn bare_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// The same request, repeated under another rule.
    pub(crate) fn repeat(self, repeat: Repeat) -> Request {
        Request { repeat, ..self }
    }

    /// The same request, whose answer the broker may hold back.
    pub(crate) fn waiting(self, waits: bool) -> Request {
        Request { waits, ..self }
    }

    /// The same request, for the backend that the key belongs to.
    pub(crate) fn near(self, key: &str) -> Request {
        Request {
            affinity: Some(key.to_owned()),
            ..self
        }
    }

    /// The same request, repeated by the caller: it only fails over.
    pub(crate) fn once(self) -> Request {
        Request { once: true, ..self }
    }

    /// The same request, repeated by the caller: it only fails over, and waits where a broker throttles.
    pub(crate) fn paced(self, paced: Paced) -> Request {
        Request {
            once: true,
            paced: Some(paced),
            ..self
        }
    }
}

/// What came back, whatever the status.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    /// The pause that the broker asks for.
    pub(crate) retry_after: Option<Duration>,
    /// The media type of the body, if it is named.
    pub(crate) content_type: Option<String>,
    /// Where a redirect points to, without what may be a secret.
    pub(crate) location: Option<String>,
    pub(crate) past: Past,
}

/// What came before the end of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) attempts: u32,
    /// Whether an earlier attempt may have been applied.
    pub(crate) unknown: bool,
}

impl Past {
    /// The error of the last attempt, as the error of all.
    pub(crate) fn end(self, error: Error) -> Error {
        let error = match self.unknown {
            true => error.with_outcome(Outcome::Unknown),
            false => error,
        };
        match self.attempts {
            0 | 1 => error,
            attempts => error.note(&format!("tried {attempts} times")),
        }
    }
}

impl Answer {
    /// The JSON body of a success, empty where there is none, or the error that the status stands for.
    pub(crate) fn success(self) -> Result<Bytes> {
        if let Some(other) = &self.content_type
            && matches!(self.status, 200..=299)
            && !self.body.is_empty()
            && !other.contains("json")
        {
            return Err(Error::new(
                ErrorCode::BadAnswer,
                format!(
                    "the answer is `{other}` where JSON is due; check that the URL names a Queen broker"
                ),
            )
            .with_outcome(Outcome::Unknown)
            .with_http_status(self.status));
        }
        self.text()
    }

    /// The body of a success of whatever type, or the error that the status stands for.
    pub(crate) fn text(self) -> Result<Bytes> {
        let error = match self.status {
            200..=299 => return Ok(self.body),
            300..=399 => Error::new(
                ErrorCode::BadAnswer,
                format!(
                    "the answer is HTTP {}, a redirect to `{}`, which is not followed; name the broker itself in the URL",
                    self.status,
                    self.location.as_deref().unwrap_or_default()
                ),
            )
            .with_outcome(Outcome::Refused)
            .with_http_status(self.status),
            status => crate::protocol::refusal(status, &self.body),
        };
        let error = match self.retry_after {
            Some(pause) => error.with_retry_after(pause),
            None => error,
        };
        Err(self.past.end(error))
    }
}

/// The way to the brokers.
pub(crate) struct Transport {
    /// The first.
    url: String,
    backend: Backend,
    parked: Semaphore,
    tick: Tick,
}

enum Backend {
    Http(HttpTransport),
    Embedded(EmbeddedTransport),
}

impl Transport {
    /// Prepares the way; connects to nothing.
    pub(crate) fn new(config: &Config, logger: &Arc<Logger>) -> Result<Transport> {
        let mut bases = Vec::new();
        let mut backend = None;
        for endpoint in config.endpoints()? {
            match endpoint {
                Endpoint::Http(url) => bases.push(Base::http(url, config.host_header.as_deref())?),
                Endpoint::Started(name) => bases.push(Base::inside(name)),
                Endpoint::Embedded(embedded) => {
                    backend = Some(Backend::Embedded(EmbeddedTransport::new(embedded, logger)))
                }
            }
        }
        let backends = bases.len().max(1);
        let backend = match backend {
            Some(embedded) => embedded,
            None => Backend::Http(HttpTransport::new(bases, config, logger)?),
        };
        Ok(Transport {
            url: config.urls.first().cloned().unwrap_or_default(),
            backend,
            parked: Semaphore::new(config.max_parked_polls * backends),
            tick: Tick::default(),
        })
    }

    /// Sends a request and waits for the answer until its deadline; repeats it where that is due and safe.
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer> {
        self.tick.run();
        match &self.backend {
            Backend::Http(http) => http.send(request).await,
            Backend::Embedded(embedded) => {
                match tokio::time::timeout_at(request.deadline, embedded.send(request)).await {
                    Ok(result) => result,
                    Err(_) => Err(
                        Error::new(ErrorCode::Timeout, "no answer before the deadline")
                            .with_outcome(Outcome::Unknown),
                    ),
                }
            }
        }
    }

    /// How often a request was sent again.
    pub(crate) fn resent(&self) -> u64 {
        match &self.backend {
            Backend::Http(http) => http.resent(),
            Backend::Embedded(_) => 0,
        }
    }

    /// A place among the polls that may wait at the brokers. First come, first served.
    pub(crate) async fn parking_place(&self) -> Option<SemaphorePermit<'_>> {
        self.parked.acquire().await.ok()
    }

    /// Whether a poll that is dropped gives its messages back by itself.
    pub(crate) fn releases_dropped_polls(&self) -> bool {
        matches!(self.backend, Backend::Embedded(_))
    }

    /// Sets the bearer token of further requests.
    pub(crate) fn set_token(&self, token: Option<&Secret>) -> Result<()> {
        match &self.backend {
            Backend::Http(http) => http.tokens().set(token),
            // It asks for none.
            Backend::Embedded(_) => Ok(()),
        }
    }

    /// Replaces who is asked for a token.
    pub(crate) fn watch_tokens(&self, sink: Option<TokenSink>) {
        if let Backend::Http(http) = &self.backend {
            http.tokens().watch(sink);
        }
    }

    /// Replaces who hears when a broker becomes unhealthy or recovers.
    pub(crate) fn watch_backends(&self, sink: Option<BackendSink>) {
        if let Backend::Http(http) = &self.backend {
            http.balancer().watch(sink);
        }
    }

    /// The strategy, and each broker with its health.
    pub(crate) fn backends(&self) -> Backends {
        match &self.backend {
            Backend::Http(http) => http.balancer().show(),
            Backend::Embedded(_) => Backends {
                strategy: "none",
                virtual_nodes: 0,
                backends: vec![BackendHealth {
                    url: self.url.clone(),
                    healthy: true,
                    failures: 0,
                    last_failure_millis_ago: None,
                }],
            },
        }
    }

    /// Ends what the transport owns. Further requests fail, and those under way end.
    pub(crate) async fn close(&self) {
        self.parked.close();
        match &self.backend {
            Backend::Http(http) => http.close(),
            Backend::Embedded(embedded) => embedded.close().await,
        }
    }
}

/// `now + millis`, far in the future where that cannot be represented.
pub(crate) fn after(millis: u64) -> Instant {
    let now = Instant::now();
    now.checked_add(Duration::from_millis(millis))
        .unwrap_or_else(|| now + Duration::from_secs(86_400 * 365))
}

/// Whole milliseconds of a duration.
pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
