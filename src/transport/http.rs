//! Brokers behind HTTP/1.1, over a pool of kept-alive connections.

use std::error::Error as _;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use rustls_platform_verifier::BuilderVerifierExt;

use super::balancer::Balancer;
use super::{Answer, Request};
use crate::config::Secret;
use crate::error::{Error, ErrorCode, Outcome, Result};

/// An answer larger than this is refused instead of being collected.
const MAX_ANSWER_BYTES: usize = 512 << 20;

pub(crate) struct HttpTransport {
    bases: Vec<String>,
    authorization: Option<HeaderValue>,
    balancer: Balancer,
    client: OnceLock<reqwest::Client>,
}

impl HttpTransport {
    pub(crate) fn new(bases: Vec<String>, token: Option<Secret>) -> Result<HttpTransport> {
        let authorization = match token {
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
        Ok(HttpTransport {
            bases,
            authorization,
            balancer: Balancer::default(),
            client: OnceLock::new(),
        })
    }

    /// Tries each backend once, in turn, as long as no connection could be made, so nothing was sent.
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer> {
        let mut failure = None;
        for backend in self.balancer.order(self.bases.len()) {
            match self.send_to(&self.bases[backend], request).await {
                Err(error) if error.code() == ErrorCode::Connect => failure = Some(error),
                result => return result,
            }
        }
        Err(failure.unwrap_or_else(|| Error::new(ErrorCode::Internal, "no backend")))
    }

    async fn send_to(&self, base: &str, request: &Request) -> Result<Answer> {
        let mut builder = self
            .client()?
            .request(request.method.clone(), format!("{base}{}", request.path));
        if let Some(body) = &request.body {
            builder = builder
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone());
        }
        if let Some(authorization) = &self.authorization {
            builder = builder.header(AUTHORIZATION, authorization.clone());
        }
        let mut answer = builder
            .send()
            .await
            .map_err(|error| failure(base, &error))?;
        let status = answer.status().as_u16();
        let expected = answer.content_length().unwrap_or(0) as usize;
        let mut body = BytesMut::with_capacity(expected.min(1 << 20));
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| failure(base, &error))?
        {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Error::new(
                    ErrorCode::BadAnswer,
                    format!("{base} answers more than {MAX_ANSWER_BYTES} bytes"),
                )
                .with_outcome(Outcome::Unknown));
            }
            if body.is_empty() && chunk.len() == expected {
                return Ok(Answer {
                    status,
                    body: chunk,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status,
            body: Bytes::from(body),
        })
    }

    /// The pool, made on first use because reading the platform's roots is I/O.
    fn client(&self) -> Result<&reqwest::Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let internal = |what: String| Error::new(ErrorCode::Internal, what);
        let tls = tls_config(self.bases.iter().any(|base| base.starts_with("https:")))
            .map_err(|error| internal(format!("TLS cannot be set up: {error}")))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .map_err(|error| internal(format!("the HTTP client cannot be set up: {error}")))?;
        Ok(self.client.get_or_init(|| client))
    }
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
fn failure(base: &str, error: &reqwest::Error) -> Error {
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
        .with_outcome(Outcome::Unknown)
    }
}
