//! The connections to a broker that are kept for the next request, and how another one is made.

use std::error::Error as _;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, HOST};
use http::{HeaderMap, HeaderValue, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::ServerName;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::Url;

use super::connection::{Connection, Stream};
use super::tls;
use crate::config::Config;
use crate::error::{Error, ErrorCode, Result};
use crate::runtime::lock;

/// A connection without a request is kept for so long.
const KEPT: Duration = Duration::from_secs(90);

/// How a backend is reached.
pub(super) struct Base {
    /// What messages name.
    pub(super) url: String,
    pub(super) way: Way,
}

pub(super) enum Way {
    /// The name of a broker of this process.
    Inside(String),
    Http(Target),
}

/// A broker behind HTTP.
pub(super) struct Target {
    /// Scheme, host and port to be dialled.
    dial: Uri,
    /// What the request names.
    pub(super) host: HeaderValue,
    /// What the paths are appended to, without a slash at its end.
    pub(super) path: String,
    /// Whom the certificate is to name, with TLS.
    server: Option<ServerName<'static>>,
}

impl Base {
    /// The base for a URL. With TLS a `hostHeader` is also the name in the handshake, and so in the certificate.
    pub(super) fn http(url: String, host_header: Option<&str>) -> Result<Base> {
        let invalid = |why: String| Error::new(ErrorCode::InvalidConfig, why);
        let unusable = || {
            invalid(format!(
                "config `url` is {url}: it has no host to connect to"
            ))
        };
        let parsed = Url::parse(&url).map_err(|_| unusable())?;
        let host = parsed.host_str().ok_or_else(unusable)?;
        let authority = match parsed.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let dial = Uri::builder()
            .scheme(parsed.scheme())
            .authority(authority.as_str())
            .path_and_query("/")
            .build()
            .map_err(|_| unusable())?;
        let server = match (parsed.scheme(), host_header) {
            ("https", Some(named)) => Some(server_name(name(named)).ok_or_else(|| {
                invalid(format!(
                    "config `hostHeader` is {named}: it cannot stand in for the host of {url}"
                ))
            })?),
            ("https", None) => Some(server_name(host).ok_or_else(unusable)?),
            _ => None,
        };
        let target = Target {
            dial,
            host: HeaderValue::from_str(host_header.unwrap_or(&authority))
                .map_err(|_| unusable())?,
            path: parsed.path().trim_end_matches('/').to_owned(),
            server,
        };
        let way = Way::Http(target);
        Ok(Base { url, way })
    }

    /// The base for a broker that was started in this process.
    pub(super) fn inside(name: String) -> Base {
        Base {
            url: format!("the broker `{name}`"),
            way: Way::Inside(name),
        }
    }

    /// The headers of a request to it, beside those of every request.
    pub(super) fn headers(&self, mut headers: HeaderMap) -> HeaderMap {
        if let Way::Http(target) = &self.way {
            headers.entry(HOST).or_insert_with(|| target.host.clone());
            for (name, value) in [(ACCEPT, "*/*"), (ACCEPT_ENCODING, "gzip")] {
                headers
                    .entry(name)
                    .or_insert(HeaderValue::from_static(value));
            }
        }
        headers
    }
}

/// The host of a `host[:port]`.
fn name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()
}

/// The connections to one broker.
pub(super) struct Pool {
    dial: Uri,
    http: HttpConnector,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// How long a connection may take, handshake included.
    patience: Duration,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The one that was used last is the last.
    idle: Vec<(Box<Connection>, Instant)>,
    /// Whether somebody sees to those that are not used any more.
    tended: bool,
    closed: bool,
}

/// A pool for each base; none for a broker of this process.
pub(super) fn pools(config: &Config, bases: &[Base]) -> Result<Vec<Option<Arc<Pool>>>> {
    let targets = || {
        bases.iter().map(|base| match &base.way {
            Way::Http(target) => Some(target),
            Way::Inside(_) => None,
        })
    };
    let secure = targets().flatten().any(|target| target.server.is_some());
    // What the configuration names is read in any case, so that a mistake shows.
    let tls = TlsConnector::from(Arc::new(tls::client_config(config, secure)?));
    let patience = Duration::from_millis(config.connect_timeout_millis);
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    // A peer that has vanished is noticed, also by a poll that waits for an answer.
    http.set_keepalive(Some(Duration::from_secs(10)));
    http.set_keepalive_interval(Some(Duration::from_secs(5)));
    http.set_keepalive_retries(Some(3));
    http.set_connect_timeout(Some(patience));
    let pool = |target: &Target| {
        Arc::new(Pool {
            dial: target.dial.clone(),
            http: http.clone(),
            tls: target.server.clone().map(|server| (tls.clone(), server)),
            patience,
            kept: Mutex::default(),
        })
    };
    Ok(targets().map(|target| target.map(pool)).collect())
}

impl Pool {
    /// A connection that was kept and is still open.
    pub(super) async fn reuse(&self) -> Option<Box<Connection>> {
        loop {
            let (mut connection, _) = lock(&self.kept).idle.pop()?;
            if connection.is_idle().await {
                return Some(connection);
            }
        }
    }

    /// A new connection, or why there is none.
    pub(super) async fn connect(&self) -> std::result::Result<Box<Connection>, String> {
        match tokio::time::timeout(self.patience, Box::pin(self.open())).await {
            Ok(opened) => opened,
            Err(_) => Err(format!("not within {} ms", self.patience.as_millis())),
        }
    }

    async fn open(&self) -> std::result::Result<Box<Connection>, String> {
        let dialled = self.http.clone().call(self.dial.clone()).await;
        let plain = dialled.map_err(|error| match error.source() {
            Some(cause) => cause.to_string(),
            None => error.to_string(),
        })?;
        let plain = plain.into_inner();
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(plain),
            Some((tls, server)) => {
                let secure = tls.connect(server.clone(), plain).await;
                Box::new(secure.map_err(|error| error.to_string())?)
            }
        };
        let opened = Connection::open(stream).await;
        opened.map(Box::new).map_err(|error| error.to_string())
    }

    /// Keeps a connection for the next request, if the broker keeps it open.
    pub(super) async fn keep(self: &Arc<Pool>, mut connection: Box<Connection>) {
        if !connection.is_idle().await {
            return;
        }
        let mut kept = lock(&self.kept);
        if kept.closed {
            return;
        }
        kept.idle.push((connection, Instant::now()));
        if !std::mem::replace(&mut kept.tended, true) {
            tokio::spawn(tend(Arc::downgrade(self)));
        }
    }

    pub(super) fn close(&self) {
        let mut kept = lock(&self.kept);
        kept.closed = true;
        kept.idle.clear();
    }
}

/// Closes the connections that nobody has used for long, until there is none.
async fn tend(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(KEPT).await;
        let Some(pool) = pool.upgrade() else {
            return;
        };
        let mut kept = lock(&pool.kept);
        kept.idle.retain(|(_, since)| since.elapsed() < KEPT);
        if kept.idle.is_empty() {
            kept.tended = false;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str, header: Option<&str>) -> Target {
        match Base::http(url.into(), header).unwrap().way {
            Way::Http(target) => target,
            Way::Inside(_) => unreachable!(),
        }
    }

    #[test]
    fn x3_the_host_header_takes_the_place_of_the_address_where_tls_shows_it() {
        let parts = |url: &str, header: Option<&str>| {
            let target = target(url, header);
            let server = target.server.map(|server| server.to_str().into_owned());
            let host = target.host.to_str().unwrap().to_owned();
            (target.dial.to_string(), host, target.path, server)
        };
        let expect = |dial: &str, host: &str, path: &str, server: Option<&str>| {
            let server = server.map(str::to_owned);
            (dial.to_owned(), host.to_owned(), path.to_owned(), server)
        };
        assert_eq!(
            parts("https://10.0.0.1:6632/q", Some("a.example.com")),
            expect(
                "https://10.0.0.1:6632/",
                "a.example.com",
                "/q",
                Some("a.example.com")
            )
        );
        assert_eq!(
            parts("https://proxy", Some("a.example.com:8443")),
            expect(
                "https://proxy/",
                "a.example.com:8443",
                "",
                Some("a.example.com")
            )
        );
        assert_eq!(
            parts("http://10.0.0.1:6632", Some("a.example.com")),
            expect("http://10.0.0.1:6632/", "a.example.com", "", None)
        );
        assert_eq!(
            parts("https://[::1]:443/", None),
            expect("https://[::1]/", "[::1]", "", Some("::1"))
        );
        assert_eq!(
            parts("http://bücher.example:80", None).0,
            "http://xn--bcher-kva.example/"
        );
    }
}
