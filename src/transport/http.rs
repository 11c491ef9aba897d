//! Brokers behind HTTP/1.1, over pools of kept-alive connections; and those that were started in this process, which are
//! asked the same way without one.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{
    AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::Instant;

use super::backoff::retry_after;
use super::balancer::Balancer;
use super::pool::{self, Base};
use super::retry::{self, Retry, Wire};
use super::token::{Sent, Tokens};
use super::{Answer, Request, inside, ms};
use crate::config::{Config, shown};
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::log::Logger;

/// The longest that a probe of an unhealthy backend may take.
const PROBE: Duration = Duration::from_secs(5);

pub(super) struct HttpTransport(Arc<Http>);

struct Http {
    config: Config,
    bases: Vec<Base>,
    /// What every request carries.
    headers: HeaderMap,
    tokens: Tokens,
    balancer: Balancer,
    retry: Retry,
    /// One for each base, made on first use because reading certificates is I/O.
    clients: RwLock<Arc<[reqwest::Client]>>,
    closed: watch::Sender<bool>,
}

impl HttpTransport {
    pub(super) fn new(
        bases: Vec<Base>,
        config: &Config,
        logger: &Arc<Logger>,
    ) -> Result<HttpTransport> {
        // As every client spells them: the ring is made of the URLs as they are configured.
        let urls = config
            .urls
            .iter()
            .map(|url| url.trim_end_matches('/').to_owned())
            .collect();
        Ok(HttpTransport(Arc::new(Http {
            balancer: Balancer::new(urls, config, logger),
            bases,
            headers: headers(config)?,
            tokens: Tokens::new(config.bearer_token.as_ref(), logger)?,
            config: config.clone(),
            retry: Retry::new(config, logger),
            clients: RwLock::new(Arc::new([])),
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
            // First, so that nothing goes on once the client is closed.
            biased;
            _ = closed.wait_for(|closed| *closed) => {
                Err(closed_error().with_outcome(Outcome::Unknown))
            }
            result = http.retry.run(request, &http.balancer, http) => result,
        }
    }

    /// Asks unhealthy backends, those that have rested, how they are: one question at a time each, and no call of the
    /// host's is risked for it.
    fn probe(&self) {
        for backend in self.0.balancer.begin_probes() {
            let http = self.0.clone();
            tokio::spawn(async move {
                let request = Request::get("/health".to_owned(), Instant::now() + PROBE);
                let token = http.tokens.now();
                let mut closed = http.closed.subscribe();
                tokio::select! {
                    result = http.try_once(backend, &request, request.deadline, &token) => {
                        retry::probed(&http.balancer, backend, &result);
                    }
                    _ = closed.wait_for(|closed| *closed) => {}
                }
            });
        }
    }

    pub(super) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    pub(super) fn balancer(&self) -> &Balancer {
        &self.0.balancer
    }

    /// Ends what is under way and closes the connections.
    pub(super) fn close(&self) {
        self.0.closed.send_replace(true);
        let mut place = self
            .0
            .clients
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        *place = Arc::new([]);
    }
}

fn closed_error() -> Error {
    Error::new(ErrorCode::Closed, "the client is closed")
}

impl Http {
    /// Sends a request to one backend; `left` is set when its first bytes may have left.
    async fn exchange(
        &self,
        backend: usize,
        request: &Request,
        token: &Sent,
        left: &Arc<AtomicBool>,
    ) -> Result<Answer> {
        let base = &*self.bases[backend].url;
        if let Some(name) = &self.bases[backend].inside {
            return self.exchange_inside(name, request, token, left).await;
        }
        let mut builder = self
            .client(backend)?
            .request(request.method.clone(), format!("{base}{}", request.path))
            .headers(self.headers.clone());
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
        if let Some(token) = &token.header {
            builder = builder.header(AUTHORIZATION, token.clone());
        }
        let mut answer = builder
            .send()
            .await
            .map_err(|error| failure(base, &error, left))?;
        let mut reply = head(answer.status().as_u16(), answer.headers());
        let too_large = || self.too_large(base, reply.status);
        let expected = answer.content_length().unwrap_or(0) as usize;
        if expected > self.config.max_answer_bytes {
            return Err(too_large());
        }
        let mut body = BytesMut::with_capacity(expected.min(1 << 20));
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| failure(base, &error, left))?
        {
            if body.len() + chunk.len() > self.config.max_answer_bytes {
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

    /// Hands a request to a broker of this process, with all that a connection would have carried.
    async fn exchange_inside(
        &self,
        name: &str,
        request: &Request,
        token: &Sent,
        left: &AtomicBool,
    ) -> Result<Answer> {
        let mut message = http::Request::new(request.body.clone().unwrap_or_default());
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = request
            .path
            .parse()
            .map_err(|error| Error::argument(format!("the request cannot be made: {error}")))?;
        let headers = message.headers_mut();
        headers.clone_from(&self.headers);
        if request.body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(token) = &token.header {
            headers.insert(AUTHORIZATION, token.clone());
        }
        left.store(true, Ordering::SeqCst);
        let (parts, body) = inside::ask(name, message).await?.into_parts();
        let mut reply = head(parts.status.as_u16(), &parts.headers);
        if body.len() > self.config.max_answer_bytes {
            return Err(self.too_large(name, reply.status));
        }
        reply.body = body;
        Ok(reply)
    }

    fn too_large(&self, base: &str, status: u16) -> Error {
        Error::new(
            ErrorCode::BadAnswer,
            format!(
                "{base} answers more than {} bytes (maxAnswerBytes)",
                self.config.max_answer_bytes
            ),
        )
        .with_outcome(Outcome::Unknown)
        .with_http_status(status)
    }

    fn client(&self, backend: usize) -> Result<reqwest::Client> {
        let clients = self
            .clients
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone();
        if let Some(client) = clients.get(backend) {
            return Ok(client.clone());
        }
        let mut place = self
            .clients
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if *self.closed.borrow() {
            return Err(closed_error());
        }
        if place.is_empty() {
            *place = pool::clients(&self.config, &self.bases)?.into();
        }
        Ok(place[backend].clone())
    }

    /// One attempt with that token.
    async fn try_once(
        &self,
        backend: usize,
        request: &Request,
        until: Instant,
        token: &Sent,
    ) -> Result<Answer> {
        let left = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let exchange = self.exchange(backend, request, token, &left);
        match tokio::time::timeout_at(until, exchange).await {
            Ok(result) => result,
            Err(_) => Err(Error::new(
                ErrorCode::Timeout,
                format!(
                    "no answer of {} within {} ms",
                    self.bases[backend].url,
                    ms(began.elapsed())
                ),
            )
            .with_outcome(outcome(&left))),
        }
    }
}

impl Wire for Http {
    async fn attempt(
        &self,
        backend: usize,
        request: &Request,
        limit: Option<Duration>,
    ) -> Result<Answer> {
        let token = self.tokens.get(request.deadline).await?;
        let answer = self
            .try_once(backend, request, request.until(limit), &token)
            .await?;
        if answer.status != 401 || !self.tokens.refused(&token) {
            return Ok(answer);
        }
        // Refused means that nothing was done. A second token is tried, a third is not asked for.
        match self.tokens.get(request.deadline).await {
            Ok(token) => {
                self.try_once(backend, request, request.until(limit), &token)
                    .await
            }
            Err(_) => Ok(answer),
        }
    }
}

/// The headers that the configuration names for every request.
fn headers(config: &Config) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let invalid = |key: &str, name: &str| {
        Error::new(
            ErrorCode::InvalidConfig,
            format!("config `{key}` has a value for {name} that no header can carry"),
        )
    };
    for (name, value) in &config.headers {
        let known =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("headers", name))?;
        let mut value =
            HeaderValue::from_str(value.expose()).map_err(|_| invalid("headers", name))?;
        value.set_sensitive(true);
        headers.append(known, value);
    }
    if let Some(host) = &config.host_header {
        let value = HeaderValue::from_str(host).map_err(|_| invalid("hostHeader", host))?;
        headers.insert(HOST, value);
    }
    Ok(headers)
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

/// An answer without its body.
fn head(status: u16, headers: &HeaderMap) -> Answer {
    let mut reply = Answer {
        status,
        content_type: header(headers, CONTENT_TYPE).map(str::to_ascii_lowercase),
        ..Answer::default()
    };
    match status {
        300..=399 => reply.location = header(headers, LOCATION).map(shown),
        429 | 503 => {
            reply.retry_after =
                header(headers, RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now()))
        }
        _ => {}
    }
    reply
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
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
