//! What the URLs of a configuration name.

use std::path::PathBuf;

use url::Url;

use super::invalid;
use crate::error::{Error, ErrorCode, Result};

/// What one URL names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Endpoint {
    /// The base of an HTTP broker, without a trailing slash.
    Http(String),
    /// A broker inside the process, opened by those who name it.
    Embedded(Embedded),
    /// A broker that the host has started in the process, by its name.
    Started(String),
}

/// An `embedded:` URL.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Embedded {
    pub(crate) place: Place,
    pub(crate) durability: Durability,
}

/// Where an embedded broker keeps its data, and who shares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// In memory, for one client.
    Private,
    /// In memory, for all clients of the process that use the name.
    Shared(String),
    /// In a file.
    File(PathBuf),
}

/// When an answer of the embedded broker may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    Full,
    Normal,
    Memory,
}

impl Endpoint {
    pub(super) fn parse(url: &str) -> Result<Endpoint> {
        if let Some(rest) = url.strip_prefix("embedded:") {
            let endpoint = embedded(url, rest)?;
            return match cfg!(feature = "embedded") {
                true => Ok(endpoint),
                false => Err(Error::new(
                    ErrorCode::Unsupported,
                    format!(
                        "url `{url}` names an embedded broker, and this libqueen was built without it (cargo feature \
                         `embedded`); start `queen-broker serve` and name its URL, such as http://127.0.0.1:6632"
                    ),
                )),
            };
        }
        let bad = |why: &str| invalid(format!("url `{}` {why}", shown(url)));
        let parsed = Url::parse(url).map_err(|error| bad(&format!("cannot be read: {error}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(bad("must start with http://, https:// or embedded:"));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(invalid(
                "a url must not carry a user or password; use bearerToken".into(),
            ));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(bad("must not have a query or fragment"));
        }
        Ok(Endpoint::Http(
            parsed.as_str().trim_end_matches('/').to_owned(),
        ))
    }
}

/// A URL without what may be a secret: a user with a password, and what stands behind the path.
pub(crate) fn shown(url: &str) -> String {
    let (text, more) = match url.find(['?', '#']) {
        Some(at) => (&url[..at], &url[at..=at]),
        None => (url, ""),
    };
    // A password may hold any sign, so the last `@` ends it. Behind the path it is none.
    let end = url.rfind('@').map_or(0, |at| at + 1);
    let (scheme, _) = text.split_once(':').unwrap_or_default();
    match end {
        0 if more.is_empty() => text.to_owned(),
        0 => format!("{text}{more}…"),
        end if end > text.len() => format!("{scheme}:…"),
        end => format!("{scheme}://…@{}{more}", &text[end..]),
    }
}

/// What an `embedded:` URL names, by what follows the colon.
fn embedded(url: &str, rest: &str) -> Result<Endpoint> {
    let bad = |why: String| invalid(format!("url `{url}` {why}"));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = match path.strip_prefix("//") {
        Some(absolute) if absolute.starts_with('/') => absolute,
        Some(_) => {
            return Err(bad(
                "must have three slashes before an absolute path: embedded:///path/file.db".into(),
            ));
        }
        None => path,
    };
    let path = percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| bad("has a path that is not UTF-8".into()))?;
    let mut shared = None;
    let mut started = None;
    let mut durability = None;
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match (&*key, &*value) {
            ("shared", "") => return Err(bad("has an empty `shared` name".into())),
            ("shared", name) => shared = Some(name.to_owned()),
            ("broker", "") => return Err(bad("has an empty `broker` name".into())),
            ("broker", name) => started = Some(name.to_owned()),
            ("durability", "full") => durability = Some(Durability::Full),
            ("durability", "normal") => durability = Some(Durability::Normal),
            ("durability", "memory") => durability = Some(Durability::Memory),
            ("durability", other) => {
                return Err(bad(format!(
                    "has durability `{other}`; it is full, normal or memory"
                )));
            }
            (other, _) => {
                return Err(bad(format!(
                    "has the unknown option `{other}`; known: shared, durability, broker"
                )));
            }
        }
    }
    if let Some(name) = started {
        return match path.is_empty() && shared.is_none() && durability.is_none() {
            true => Ok(Endpoint::Started(name)),
            false => Err(bad(
                "cannot have more than `broker`: that broker has its own place and durability"
                    .into(),
            )),
        };
    }
    let place = match (&*path, shared) {
        ("", None) => Place::Private,
        ("", Some(name)) => Place::Shared(name),
        (path, None) => Place::File(PathBuf::from(path)),
        (_, Some(_)) => {
            return Err(bad(
                "cannot have `shared` with a file: a file is always shared".into(),
            ));
        }
    };
    Ok(Endpoint::Embedded(Embedded {
        place,
        durability: durability.unwrap_or(Durability::Full),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c16_what_may_be_a_secret_of_a_url_is_not_shown() {
        for plain in ["http://a:1/b", "embedded:", "httpfoo", "", "http://ä/"] {
            assert_eq!(shown(plain), plain);
        }
        for (url, without) in [
            ("http://user:s3cret@host:1/p", "http://…@host:1/p"),
            ("ftp://s3cret@host", "ftp://…@host"),
            ("http:user:s3cret@host", "http://…@host"),
            ("http://user:s3c/ret@host", "http://…@host"),
            ("http://user:s3cret@a@host", "http://…@host"),
            ("http://host/p?token=s3cret", "http://host/p?…"),
            ("http://host#s3cret", "http://host#…"),
            ("http://user:s3c?ret@host", "http:…"),
            ("user:s3cret@host", "user://…@host"),
            ("s3cret@host", "://…@host"),
        ] {
            assert_eq!(shown(url), without);
            let error = Endpoint::parse(url).unwrap_err();
            assert!(!error.message().contains("s3c"), "{error}");
        }
    }

    #[test]
    fn embedded_places() {
        let place = |url: &str| match Endpoint::parse(url).unwrap() {
            Endpoint::Embedded(embedded) => embedded.place,
            other => panic!("{other:?}"),
        };
        assert_eq!(place("embedded:"), Place::Private);
        assert_eq!(place("embedded:?shared=a"), Place::Shared("a".into()));
        assert_eq!(
            place("embedded:///tmp/a%20b.db?durability=normal"),
            Place::File("/tmp/a b.db".into())
        );
        assert_eq!(place("embedded:./rel.db"), Place::File("./rel.db".into()));
        assert_eq!(
            Endpoint::parse("embedded:?broker=a%20b").unwrap(),
            Endpoint::Started("a b".into())
        );
        for bad in ["?broker=", "?broker=a&shared=b", "x.db?broker=a"] {
            let error = Endpoint::parse(&format!("embedded:{bad}")).unwrap_err();
            assert!(error.message().contains(bad), "{error}");
        }
    }
}
