//! Brokers behind HTTP/1.1, over pools of kept-alive connections; and those that were started in this process, which are
//! asked the same way without one.

use std::error::Error as _;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
    LOCATION, RETRY_AFTER,
};
use once_cell::sync::OnceCell;
use tokio::sync::watch;
use tokio::time::Instant;

use super::backoff::retry_after;
use super::balancer::Balancer;
use super::connection::{Failed, Watched};
use super::pool::{self, Base, Pool, Target, Way};
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
    /// What every request to that base carries.
    headers: Vec<HeaderMap>,
    tokens: Tokens,
    balancer: Balancer,
    retry: Retry,
    /// One for each base, made on first use because reading certificates is I/O.
    pools: OnceCell<Vec<Option<Arc<Pool>>>>,
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
        let headers = headers(config)?;
        Ok(HttpTransport(Arc::new(Http {
            balancer: Balancer::new(urls, config, logger),
            headers: bases
                .iter()
                .map(|base| base.headers(headers.clone()))
                .collect(),
            bases,
            tokens: Tokens::new(config.bearer_token.as_ref(), logger)?,
            config: config.clone(),
            retry: Retry::new(config, logger),
            pools: OnceCell::new(),
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
        for pool in self.0.pools.get().into_iter().flatten().flatten() {
            pool.close();
        }
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
        let base = &self.bases[backend];
        let mut message = http::Request::new(());
        *message.method_mut() = request.method.clone();
        *message.headers_mut() = self.headers[backend].clone();
        if request.body.is_some() {
            let json = HeaderValue::from_static("application/json");
            message.headers_mut().insert(CONTENT_TYPE, json);
        }
        if let Some(token) = &token.header {
            message.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        let prefix = match &base.way {
            Way::Http(Target { path, .. }) => path,
            Way::Inside(_) => "",
        };
        let path = match prefix {
            "" => request.path.parse(),
            prefix => format!("{prefix}{}", request.path).parse(),
        };
        *message.uri_mut() =
            path.map_err(|error| Error::argument(format!("the request cannot be made: {error}")))?;
        let (parts, body) = match &base.way {
            Way::Inside(name) => {
                let body = request.body.clone().unwrap_or_default();
                left.store(true, Ordering::SeqCst);
                let (parts, body) = inside::ask(name, message.map(|()| body))
                    .await?
                    .into_parts();
                let most = self.config.max_answer_bytes;
                if body.len() > most {
                    return Err(too_large(&base.url, most, parts.status.as_u16()));
                }
                (parts, body)
            }
            Way::Http(_) => {
                let body = Watched::new(request.body.clone(), left);
                self.exchange_outside(backend, message.map(|()| body), left)
                    .await?
            }
        };
        let mut reply = head(parts.status.as_u16(), &parts.headers);
        reply.body = body;
        Ok(reply)
    }

    async fn exchange_outside(
        &self,
        backend: usize,
        mut message: http::Request<Watched>,
        left: &AtomicBool,
    ) -> Result<(http::response::Parts, Bytes)> {
        let (base, most) = (&self.bases[backend].url, self.config.max_answer_bytes);
        let pool = self.pool(backend)?;
        let (connection, answer) = loop {
            let kept = pool.reuse().await;
            let again = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => pool.connect().await.map_err(|why| {
                    Error::new(
                        ErrorCode::Connect,
                        format!("no connection to {base}: {why}"),
                    )
                })?,
            };
            match connection.exchange(message, most).await {
                Ok(answer) => break (connection, answer),
                // The broker has closed it in the moment that it was to be used again.
                Err(Failed::Unsent(unsent)) if again => message = *unsent,
                Err(failed) => return Err(failure(base, failed, most, left)),
            }
        };
        pool.keep(connection).await;
        let (parts, body) = answer;
        match header(&parts.headers, CONTENT_ENCODING) {
            Some("gzip" | "x-gzip") if !body.is_empty() => {
                let status = parts.status.as_u16();
                let body = unzipped(&body, most)
                    .map_err(|error| {
                        Error::new(
                            ErrorCode::BadAnswer,
                            format!("the answer of {base} cannot be unpacked: {error}"),
                        )
                        .with_outcome(Outcome::Unknown)
                    })?
                    .ok_or_else(|| too_large(base, most, status))?;
                Ok((parts, body))
            }
            _ => Ok((parts, body)),
        }
    }

    fn pool(&self, backend: usize) -> Result<&Arc<Pool>> {
        let pools = self
            .pools
            .get_or_try_init(|| pool::pools(&self.config, &self.bases))?;
        if *self.closed.borrow() {
            return Err(closed_error());
        }
        pools[backend]
            .as_ref()
            .ok_or_else(|| Error::new(ErrorCode::Internal, "a broker of this process has no pool"))
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

/// What a compressed body holds, if that is no more than so much.
fn unzipped(body: &[u8], most: usize) -> std::io::Result<Option<Bytes>> {
    let mut whole = Vec::new();
    let limit = (most as u64).saturating_add(1);
    MultiGzDecoder::new(body)
        .take(limit)
        .read_to_end(&mut whole)?;
    Ok(Some(whole.into()).filter(|whole: &Bytes| whole.len() <= most))
}

fn too_large(base: &str, most: usize, status: u16) -> Error {
    Error::new(
        ErrorCode::BadAnswer,
        format!("{base} answers more than {most} bytes (maxAnswerBytes)"),
    )
    .with_outcome(Outcome::Unknown)
    .with_http_status(status)
}

/// Sorts what went wrong by what it means for the request.
fn failure(base: &str, failed: Failed, most: usize, left: &AtomicBool) -> Error {
    let error = match failed {
        Failed::TooLarge(status) => return too_large(base, most, status),
        Failed::Unsent(_) => {
            return Error::new(
                ErrorCode::Network,
                format!("the connection to {base} broke before anything was sent"),
            );
        }
        Failed::Broken(error) => error,
    };
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    if error.is_parse() {
        Error::new(
            ErrorCode::BadAnswer,
            format!("{base} does not answer in HTTP: {text}"),
        )
        .with_outcome(Outcome::Unknown)
    } else {
        Error::new(
            ErrorCode::Network,
            format!("the connection to {base} broke: {text}"),
        )
        .with_outcome(outcome(left))
    }
}
