//! Pools of kept-alive connections, one for each broker that is dialled under another name.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

use super::tls;
use crate::config::Config;
use crate::error::{Error, ErrorCode, Result};

/// How a backend is reached.
pub(super) struct Base {
    /// What the paths are appended to, and what messages name.
    pub(super) url: String,
    /// The name of the broker, where it is one of this process.
    pub(super) inside: Option<String>,
    /// The name to be dialled where the URL has another one.
    dial: Option<String>,
}

impl Base {
    /// The base for a URL. With TLS a `hostHeader` is also the name in the handshake, so it takes the place of the
    /// address in the URL.
    pub(super) fn http(url: String, host_header: Option<&str>) -> Result<Base> {
        let base = |url, dial| Base {
            url,
            dial,
            inside: None,
        };
        let Some(host_header) = host_header.filter(|_| url.starts_with("https:")) else {
            return Ok(base(url, None));
        };
        let unreadable = || {
            Error::new(
                ErrorCode::InvalidConfig,
                format!(
                    "config `hostHeader` is {host_header}: it cannot stand in for the host of {url}"
                ),
            )
        };
        let mut parsed = Url::parse(&url).map_err(|_| unreadable())?;
        let dial = parsed.host_str().map(str::to_owned);
        let port = parsed.port_or_known_default();
        let (name, _) = split(host_header);
        parsed.set_host(Some(name)).map_err(|_| unreadable())?;
        parsed.set_port(port).map_err(|()| unreadable())?;
        Ok(base(parsed.as_str().trim_end_matches('/').to_owned(), dial))
    }

    /// The base for a broker that was started in this process.
    pub(super) fn inside(name: String) -> Base {
        Base {
            url: format!("the broker `{name}`"),
            dial: None,
            inside: Some(name),
        }
    }
}

/// Host and port of a `host[:port]`.
fn split(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    }
}

/// The pools of all bases.
pub(super) fn clients(config: &Config, bases: &[Base]) -> Result<Vec<Client>> {
    let secure = bases.iter().any(|base| base.url.starts_with("https:"));
    let tls = tls::client_config(config, secure)?;
    let client = |dial: Option<&String>| {
        let builder = Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            // A peer that has vanished is noticed, also by a poll that waits for an answer.
            .tcp_keepalive(Duration::from_secs(10))
            .tcp_keepalive_interval(Duration::from_secs(5))
            .tcp_keepalive_retries(3)
            .connect_timeout(Duration::from_millis(config.connect_timeout_millis));
        let builder = match dial {
            Some(name) => builder.dns_resolver(Dial(name.clone())),
            None => builder,
        };
        builder.build().map_err(|error| {
            Error::new(
                ErrorCode::Internal,
                format!("the HTTP client cannot be set up: {error}"),
            )
        })
    };
    let shared = client(None)?;
    bases
        .iter()
        .map(|base| match &base.dial {
            None => Ok(shared.clone()),
            dial => client(dial.as_ref()),
        })
        .collect()
}

/// Finds the address of this name, whatever it is asked for.
struct Dial(String);

impl Resolve for Dial {
    fn resolve(&self, _: Name) -> Resolving {
        let name = self.0.trim_matches(['[', ']']).to_owned();
        Box::pin(async move {
            // The port is that of the URL.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x3_the_host_header_takes_the_place_of_the_address_where_tls_shows_it() {
        let base = |url: &str, header: Option<&str>| {
            let base = Base::http(url.into(), header).unwrap();
            (base.url, base.dial)
        };
        assert_eq!(
            base("https://10.0.0.1:6632/q", Some("a.example.com")),
            (
                "https://a.example.com:6632/q".into(),
                Some("10.0.0.1".into())
            )
        );
        assert_eq!(
            base("https://proxy", Some("a.example.com:8443")),
            ("https://a.example.com".into(), Some("proxy".into()))
        );
        assert_eq!(
            base("http://10.0.0.1:6632", Some("a.example.com")),
            ("http://10.0.0.1:6632".into(), None)
        );
        assert_eq!(
            base("https://10.0.0.1", None),
            ("https://10.0.0.1".into(), None)
        );
    }
}
