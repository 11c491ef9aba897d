//! Brokers behind HTTP/1.1, over pools of kept-alive connections.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use http_body::{Body, Frame, SizeHint};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::balancer::Balancer;
use super::retry::{self, Retry, Wire, retry_after};
use super::{Answer, Request, ms};
use crate::config::Config;
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::log::Logger;

/// The longest that a probe of an unhealthy backend may take.
const PROBE: Duration = Duration::from_secs(5);

pub(super) struct HttpTransport(Arc<Http>);

struct Http {
    bases: Vec<String>,
    authorization: Option<HeaderValue>,
    connect_timeout: Duration,
    max_answer_bytes: usize,
    balancer: Balancer,
    retry: Retry,
    client: RwLock<Option<reqwest::Client>>,
    closed: watch::Sender<bool>,
}

impl HttpTransport {
    pub(super) fn new(
        bases: Vec<String>,
        config: &Config,
        logger: &Arc<Logger>,
    ) -> Result<HttpTransport> {
        let authorization = match &config.bearer_token {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
                    .map_err(|_| {
                        Error::new(
                            ErrorCode::InvalidConfig,
                            "bearerToken has characters no header can carry",
                        )
                    })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        // As every client spells them: the ring is made of the URLs as they are configured.
        let urls = config
            .urls
            .iter()
            .map(|url| url.trim_end_matches('/').to_owned())
            .collect();
        Ok(HttpTransport(Arc::new(Http {
            balancer: Balancer::new(urls, config, logger),
            bases,
            authorization,
            connect_timeout: Duration::from_millis(config.connect_timeout_millis),
            max_answer_bytes: config.max_answer_bytes,
            retry: Retry::new(config, logger),
            client: RwLock::new(None),
            closed: watch::Sender::new(false),
        })))
    }

    pub(super) fn resent(&self) -> u64 {
        self.0.retry.resent.get()
    }

    pub(super) async fn send(&self, request: &Request) -> Result<Answer> {
        let http = &*self.0;
        let mut closed = http.closed.subscribe();
        if *closed.borrow() {
            return Err(closed_error());
        }
        self.probe();
        tokio::select! {
            result = http.retry.run(request, &http.balancer, http) => result,
            _ = closed.wait_for(|closed| *closed) => {
                Err(closed_error().with_outcome(Outcome::Unknown))
            }
        }
    }

    /// Asks unhealthy backends, those that have rested, how they are: one question at a time each, and no call of the
    /// host's is risked for it.
    fn probe(&self) {
        for backend in self.0.balancer.begin_probes() {
            let http = self.0.clone();
            tokio::spawn(async move {
                let request = Request::get("/health".to_owned(), Instant::now() + PROBE);
                let mut closed = http.closed.subscribe();
                tokio::select! {
                    result = http.attempt(backend, &request, request.deadline) => {
                        retry::probed(&http.balancer, backend, &result);
                    }
                    _ = closed.wait_for(|closed| *closed) => {}
                }
            });
        }
    }

    pub(super) fn balancer(&self) -> &Balancer {
        &self.0.balancer
    }

    /// Ends what is under way and closes the connections.
    pub(super) fn close(&self) {
        self.0.closed.send_replace(true);
        let mut place = self
            .0
            .client
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        drop(place.take());
    }
}

fn closed_error() -> Error {
    Error::new(ErrorCode::Closed, "the client is closed")
}

impl Http {
    /// Sends a request to one backend; `left` is set when its first bytes may have left.
    async fn exchange(
        &self,
        base: &str,
        request: &Request,
        left: &Arc<AtomicBool>,
    ) -> Result<Answer> {
        let mut builder = self
            .client()?
            .request(request.method.clone(), format!("{base}{}", request.path));
        match &request.body {
            Some(body) => {
                builder =
                    builder
                        .header(CONTENT_TYPE, "application/json")
                        .body(reqwest::Body::wrap(Watched {
                            body: Some(body.clone()),
                            left: left.clone(),
                        }));
            }
            None => left.store(true, Ordering::SeqCst),
        }
        if let Some(authorization) = &self.authorization {
            builder = builder.header(AUTHORIZATION, authorization.clone());
        }
        let mut answer = builder
            .send()
            .await
            .map_err(|error| failure(base, &error, left))?;
        let mut reply = Answer {
            status: answer.status().as_u16(),
            content_type: header(answer.headers(), CONTENT_TYPE).map(str::to_ascii_lowercase),
            ..Answer::default()
        };
        match reply.status {
            300..=399 => {
                reply.location = header(answer.headers(), LOCATION)
                    .and_then(|target| target.split(['?', '#']).next())
                    .map(str::to_owned)
            }
            429 | 503 => {
                reply.retry_after = header(answer.headers(), RETRY_AFTER)
                    .and_then(|value| retry_after(value, SystemTime::now()))
            }
            _ => {}
        }
        let too_large = || {
            Error::new(
                ErrorCode::BadAnswer,
                format!(
                    "{base} answers more than {} bytes (maxAnswerBytes)",
                    self.max_answer_bytes
                ),
            )
            .with_outcome(Outcome::Unknown)
            .with_http_status(reply.status)
        };
        let expected = answer.content_length().unwrap_or(0) as usize;
        if expected > self.max_answer_bytes {
            return Err(too_large());
        }
        let mut body = BytesMut::with_capacity(expected.min(1 << 20));
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| failure(base, &error, left))?
        {
            if body.len() + chunk.len() > self.max_answer_bytes {
                return Err(too_large());
            }
            if body.is_empty() && chunk.len() == expected {
                reply.body = chunk;
                return Ok(reply);
            }
            body.extend_from_slice(&chunk);
        }
        reply.body = Bytes::from(body);
        Ok(reply)
    }

    /// The pool, made on first use because reading the platform's roots is I/O.
    fn client(&self) -> Result<reqwest::Client> {
        let place = self
            .client
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(client) = &*place {
            return Ok(client.clone());
        }
        drop(place);
        let mut place = self
            .client
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if *self.closed.borrow() {
            return Err(closed_error());
        }
        if let Some(client) = &*place {
            return Ok(client.clone());
        }
        let internal = |what: String| Error::new(ErrorCode::Internal, what);
        let tls = tls_config(self.bases.iter().any(|base| base.starts_with("https:")))
            .map_err(|error| internal(format!("TLS cannot be set up: {error}")))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(self.connect_timeout)
            .build()
            .map_err(|error| internal(format!("the HTTP client cannot be set up: {error}")))?;
        *place = Some(client.clone());
        Ok(client)
    }
}

impl Wire for Http {
    async fn attempt(&self, backend: usize, request: &Request, until: Instant) -> Result<Answer> {
        let base = &self.bases[backend];
        let left = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        match tokio::time::timeout_at(until, self.exchange(base, request, &left)).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(
                ErrorCode::Timeout,
                format!("no answer of {base} within {} ms", ms(began.elapsed())),
            )
            .with_outcome(outcome(&left))),
        }
    }
}

/// A body that tells when it is read, which is right before the first bytes of the request leave.
struct Watched {
    body: Option<Bytes>,
    left: Arc<AtomicBool>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Self::Error>>> {
        self.left.store(true, Ordering::SeqCst);
        Poll::Ready(self.body.take().map(|body| Ok(Frame::data(body))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.as_ref().map_or(0, |body| body.len() as u64))
    }
}

fn outcome(left: &AtomicBool) -> Outcome {
    match left.load(Ordering::SeqCst) {
        true => Outcome::Unknown,
        false => Outcome::NotApplied,
    }
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// TLS by rustls with ring and the platform's roots, which are read only where a URL needs them.
fn tls_config(needed: bool) -> std::result::Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?;
    let builder = match needed {
        true => builder.with_platform_verifier()?,
        false => builder.with_root_certificates(rustls::RootCertStore::empty()),
    };
    Ok(builder.with_no_client_auth())
}

/// Sorts what went wrong by what it means for the request.
fn failure(base: &str, error: &reqwest::Error, left: &AtomicBool) -> Error {
    let mut text = String::new();
    let mut garbage = false;
    let mut source = error.source();
    while let Some(cause) = source {
        garbage |= cause
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_parse);
        text = cause.to_string();
        source = cause.source();
    }
    if text.is_empty() {
        text = error.to_string();
    }
    if error.is_connect() {
        Error::new(
            ErrorCode::Connect,
            format!("no connection to {base}: {text}"),
        )
    } else if garbage {
        Error::new(
            ErrorCode::BadAnswer,
            format!("{base} does not answer in HTTP: {text}"),
        )
        .with_outcome(Outcome::Unknown)
    } else if error.is_builder() {
        Error::argument(format!("the request cannot be made: {text}"))
    } else {
        Error::new(
            ErrorCode::Network,
            format!("the connection to {base} broke: {text}"),
        )
        .with_outcome(outcome(left))
    }
}
