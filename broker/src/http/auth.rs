//! Who may do what: static tokens, JSON Web Tokens signed with HS256, and the roles that open the routes.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::clock::SECOND;

/// How far clocks may differ, in seconds.
const SKEW: f64 = 30.0;

/// What a caller may do, and what a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    ReadOnly,
    WriteOnly,
    ReadWrite,
    Admin,
}

impl Role {
    fn parse(name: &str) -> Option<Role> {
        match name {
            "read-only" => Some(Role::ReadOnly),
            "write-only" => Some(Role::WriteOnly),
            "read-write" => Some(Role::ReadWrite),
            "admin" => Some(Role::Admin),
            _ => None,
        }
    }

    fn opens(self, wanted: Role) -> bool {
        self == wanted || self == Role::Admin || (self == Role::ReadWrite && wanted != Role::Admin)
    }
}

/// Who sent a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Caller {
    roles: Vec<Role>,
    /// The name that the messages carry as `producerSub`.
    pub(super) subject: Option<Arc<str>>,
}

impl Caller {
    /// Whether one of the roles opens a route.
    pub(super) fn may(&self, wanted: Role) -> bool {
        self.roles.iter().any(|role| role.opens(wanted))
    }

    /// One who may do everything and has no name.
    fn trusted() -> Caller {
        Caller {
            roles: vec![Role::Admin],
            subject: None,
        }
    }
}

/// The tokens that are taken.
pub(crate) struct Guard {
    tokens: Vec<String>,
    jwt_secret: Option<String>,
}

impl Guard {
    pub(crate) fn new(tokens: Vec<String>, jwt_secret: Option<String>) -> Guard {
        Guard { tokens, jwt_secret }
    }

    /// Who sends a request with these headers, or why nobody knows.
    pub(super) fn caller(&self, headers: &HeaderMap, now: i64) -> Result<Caller, &'static str> {
        if self.tokens.is_empty() && self.jwt_secret.is_none() {
            return Ok(Caller::trusted());
        }
        let given = bearer(headers).ok_or("Authentication required")?;
        if self.tokens.iter().any(|token| same(given, token)) {
            return Ok(Caller::trusted());
        }
        let secret = self.jwt_secret.as_deref().ok_or("Invalid token")?;
        read_jwt(given, secret, now as f64 / SECOND as f64)
    }
}

fn read_jwt(token: &str, secret: &str, now: f64) -> Result<Caller, &'static str> {
    let bad_header = "Bad token header";
    let (head, rest) = token.split_once('.').ok_or(bad_header)?;
    let header = object(head).ok_or(bad_header)?;
    // Extensions that must be understood: there are none.
    if header.contains_key("crit") {
        return Err(bad_header);
    }
    if header.get("alg").and_then(Value::as_str) != Some("HS256") {
        return Err("Unsupported token algorithm");
    }
    let (body, signature) = rest.split_once('.').ok_or(bad_header)?;
    let signed = token.get(..head.len() + 1 + body.len()).unwrap_or_default();
    let fits = URL_SAFE_NO_PAD
        .decode(signature)
        .is_ok_and(|signature| verify(signed, &signature, secret));
    if !fits {
        return Err("Invalid token signature");
    }
    let bad_claims = "Bad token claims";
    let claims = object(body).ok_or(bad_claims)?;
    let time = |name: &str| match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(bad_claims),
    };
    if time("exp")?.is_some_and(|end| now > end + SKEW) {
        return Err("Token has expired");
    }
    if time("nbf")?.is_some_and(|start| now < start - SKEW) {
        return Err("Token not yet valid");
    }
    if time("iat")?.is_some_and(|issued| now < issued - SKEW) {
        return Err("Token issued in the future");
    }
    let one = claims.get("role").and_then(Value::as_str);
    let several = claims.get("roles").and_then(Value::as_array);
    let several = several.into_iter().flatten().filter_map(Value::as_str);
    Ok(Caller {
        roles: one
            .into_iter()
            .chain(several)
            .filter_map(Role::parse)
            .collect(),
        subject: claims.get("sub").and_then(Value::as_str).map(Into::into),
    })
}

/// Whether a text carries its signature. The comparison takes the same time wherever they differ.
fn verify(text: &str, signature: &[u8], secret: &str) -> bool {
    if secret.is_empty() {
        return false;
    }
    Hmac::<Sha256>::new_from_slice(secret.as_bytes()).is_ok_and(|mut mac| {
        mac.update(text.as_bytes());
        mac.verify_slice(signature).is_ok()
    })
}

/// A part of a token: a JSON object.
fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// The token of a request, with or without the word `Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let token = match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => value,
    };
    (!token.is_empty()).then_some(token)
}

/// Compares in a time that tells nothing about where the texts differ.
fn same(a: &str, b: &str) -> bool {
    let differences = a
        .bytes()
        .zip(b.bytes())
        .fold(0, |sum, (x, y)| sum | (x ^ y));
    a.len() == b.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_come_bare_or_with_its_scheme() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(with("Bearer s3cret").as_deref(), Some("s3cret"));
        assert_eq!(with("bEARER  s3cret ").as_deref(), Some("s3cret"));
        assert_eq!(with("s3cret").as_deref(), Some("s3cret"));
        assert_eq!(with("  "), None);
        assert!(same("abc", "abc") && !same("abc", "abd") && !same("abc", "ab"));
    }

    #[test]
    fn a_token_signed_elsewhere_is_verified() {
        let token = "eyJhbGciOiAiSFMyNTYiLCAidHlwIjogIkpXVCJ9.eyJzdWIiOiAic3ZjLWEiLCAiZXhwIjogNDEwMjQ0NDgwMCwgInJvbGUiOiAiYWRtaW4ifQ.b-LbkZhBr8ncgt9O69qOsz3O70TNN2ISapNYE0zTacw";
        let caller = read_jwt(token, "protocol-transcript-secret", 1e9).unwrap();
        assert_eq!(caller.subject.as_deref(), Some("svc-a"));
        assert_eq!(caller.roles, [Role::Admin]);
    }
}
