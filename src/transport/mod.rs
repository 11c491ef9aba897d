//! One request in, one answer out. Knows backends and connections, and nothing of queues.

mod balancer;
mod embedded;
mod http;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use self::embedded::EmbeddedTransport;
use self::http::HttpTransport;
use crate::config::{Config, Endpoint};
use crate::error::{Error, ErrorCode, Outcome, Result};

/// What to send.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: ::http::Method,
    /// Path and query, percent-encoded.
    pub(crate) path: String,
    pub(crate) body: Option<Bytes>,
    pub(crate) deadline: Instant,
}

impl Request {
    pub(crate) fn get(path: String, deadline: Instant) -> Request {
        Request {
            method: ::http::Method::GET,
            path,
            body: None,
            deadline,
        }
    }

    pub(crate) fn delete(path: String, deadline: Instant) -> Request {
        Request {
            method: ::http::Method::DELETE,
            path,
            body: None,
            deadline,
        }
    }

    pub(crate) fn post(
        path: impl Into<String>,
        body: impl Into<Bytes>,
        deadline: Instant,
    ) -> Request {
        Request {
            method: ::http::Method::POST,
            path: path.into(),
            body: Some(body.into()),
            deadline,
        }
    }
}

/// What came back, whatever the status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body of a success, or the error that the status stands for.
    pub(crate) fn success(self) -> Result<Bytes> {
        match self.status {
            200..=299 => Ok(self.body),
            status => Err(crate::protocol::refusal(status, &self.body)),
        }
    }
}

/// The way to the brokers.
pub(crate) struct Transport {
    backend: Backend,
    parked: Semaphore,
}

enum Backend {
    Http(HttpTransport),
    Embedded(EmbeddedTransport),
}

impl Transport {
    /// Prepares the way; connects to nothing.
    pub(crate) fn new(config: &Config) -> Result<Transport> {
        let mut bases = Vec::new();
        let mut backend = None;
        for endpoint in config.endpoints()? {
            match endpoint {
                Endpoint::Http(base) => bases.push(base),
                Endpoint::Embedded(embedded) => {
                    backend = Some(Backend::Embedded(EmbeddedTransport::new(embedded)))
                }
            }
        }
        let backends = bases.len().max(1);
        let backend = match backend {
            Some(embedded) => embedded,
            None => Backend::Http(HttpTransport::new(bases, config.bearer_token.clone())?),
        };
        Ok(Transport {
            backend,
            parked: Semaphore::new(config.max_parked_polls * backends),
        })
    }

    /// Sends a request and waits for the answer until its deadline.
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer> {
        let answer = async {
            match &self.backend {
                Backend::Http(http) => http.send(request).await,
                Backend::Embedded(embedded) => embedded.send(request).await,
            }
        };
        within(request.deadline, answer).await
    }

    /// A place among the polls that may wait at the brokers. First come, first served.
    pub(crate) async fn parking_place(&self) -> Option<SemaphorePermit<'_>> {
        self.parked.acquire().await.ok()
    }

    /// Whether a poll that is dropped gives its messages back by itself.
    pub(crate) fn releases_dropped_polls(&self) -> bool {
        matches!(self.backend, Backend::Embedded(_))
    }

    /// Ends what the transport owns. Further requests fail.
    pub(crate) async fn close(&self) {
        self.parked.close();
        if let Backend::Embedded(embedded) = &self.backend {
            embedded.close().await;
        }
    }
}

async fn within<T>(deadline: Instant, work: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout_at(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(
            Error::new(ErrorCode::Timeout, "no answer before the deadline")
                .with_outcome(Outcome::Unknown),
        ),
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
