//! The bearer token: given with the configuration or set later, and asked for when it is missing or refused.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use http::header::HeaderValue;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Secret;
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Level, Logger};

/// A question without an answer for this long is put again.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// Requests wait for a bearer token; answer with [`Client::set_token`](crate::Client::set_token).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenWanted {
    /// There is none yet.
    Missing,
    /// A broker has refused the last one (HTTP 401).
    Refused,
}

impl TokenWanted {
    /// The question as a JSON object: `reason` is `missing` or `refused`.
    pub fn to_json(&self) -> String {
        match self {
            TokenWanted::Missing => r#"{"reason":"missing"}"#.into(),
            TokenWanted::Refused => r#"{"reason":"refused"}"#.into(),
        }
    }
}

/// Hears that a token is wanted. Called on library threads: it must be quick and must not block; the answer may come
/// later, from any thread.
pub type TokenSink = Arc<dyn Fn(&TokenWanted) + Send + Sync>;

/// The token of a client.
pub(super) struct Tokens {
    held: watch::Sender<Held>,
    sink: RwLock<Option<TokenSink>>,
    logger: Arc<Logger>,
}

#[derive(Default)]
struct Held {
    header: Option<HeaderValue>,
    /// How many tokens were set; those who wait look for a change.
    answers: u64,
    refused: bool,
    asked: Option<Instant>,
}

/// A token as it was sent, to be named when it is refused.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent {
    pub(super) header: Option<HeaderValue>,
    answers: u64,
}

impl Tokens {
    pub(super) fn new(token: Option<&Secret>, logger: &Arc<Logger>) -> Result<Tokens> {
        Ok(Tokens {
            held: watch::Sender::new(Held {
                header: token.map(header).transpose()?,
                ..Held::default()
            }),
            sink: RwLock::new(None),
            logger: logger.clone(),
        })
    }

    /// Sets the token of all further requests; `None` says that there is none to be had, and ends those that wait.
    pub(super) fn set(&self, token: Option<&Secret>) -> Result<()> {
        let header = token.map(header).transpose()?;
        let given = header.is_some();
        self.held.send_modify(|held| {
            *held = Held {
                header,
                answers: held.answers + 1,
                ..Held::default()
            }
        });
        self.logger.log(
            Level::Info,
            "transport.token",
            "the token was set",
            &[("given", given.into())],
        );
        Ok(())
    }

    /// Replaces whom to ask.
    pub(super) fn watch(&self, sink: Option<TokenSink>) {
        let mut place = self
            .sink
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let before = std::mem::replace(&mut *place, sink);
        drop(place);
        drop(before);
    }

    fn sink(&self) -> Option<TokenSink> {
        self.sink
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    /// What there is now, without a question.
    pub(super) fn now(&self) -> Sent {
        let held = self.held.borrow();
        Sent {
            header: held.header.clone(),
            answers: held.answers,
        }
    }

    /// The token for a request. Asks for one and waits if there is none and somebody can be asked.
    pub(super) async fn get(&self, deadline: Instant) -> Result<Sent> {
        let now = self.now();
        if now.header.is_some() || self.sink().is_none() {
            return Ok(now);
        }
        let mut held = self.held.subscribe();
        self.ask();
        let answered = held.wait_for(|held| held.header.is_some() || held.answers > now.answers);
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(held)) if held.header.is_some() => Ok(Sent {
                header: held.header.clone(),
                answers: held.answers,
            }),
            Err(_) => Err(unauthorized(
                "no bearer token came before the deadline; answer the question for one with queen_client_set_token",
            )),
            _ => Err(unauthorized("the host has no bearer token")),
        }
    }

    /// A broker has refused the token. Tells whether another can be had.
    pub(super) fn refused(&self, sent: &Sent) -> bool {
        if self.sink().is_none() {
            return false;
        }
        self.held.send_if_modified(|held| {
            if held.answers == sent.answers {
                held.header = None;
                held.refused = true;
            }
            false
        });
        true
    }

    /// Puts the question, unless it is put already.
    fn ask(&self) {
        let mut wanted = None;
        self.held.send_if_modified(|held| {
            let open = held.asked.is_some_and(|asked| asked.elapsed() < FORGOTTEN);
            if held.header.is_none() && !open {
                held.asked = Some(Instant::now());
                wanted = Some(match held.refused {
                    true => TokenWanted::Refused,
                    false => TokenWanted::Missing,
                });
            }
            false
        });
        if let (Some(wanted), Some(sink)) = (wanted, self.sink()) {
            self.logger.log(
                Level::Info,
                "transport.token",
                "a token is wanted",
                &[("refused", (wanted == TokenWanted::Refused).into())],
            );
            sink(&wanted);
        }
    }
}

fn unauthorized(message: &str) -> Error {
    Error::new(ErrorCode::Unauthorized, message)
}

fn header(token: &Secret) -> Result<HeaderValue> {
    if !token.is_token() {
        return Err(Error::argument(
            "token must be visible ASCII without spaces",
        ));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        .map_err(|_| Error::argument("token has characters that no header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    type Questions = Arc<Mutex<Vec<TokenWanted>>>;

    fn tokens(token: Option<&str>) -> (Arc<Tokens>, Questions) {
        let logger = Arc::new(Logger::from_environment());
        let tokens = Arc::new(Tokens::new(token.map(Secret::new).as_ref(), &logger).unwrap());
        let questions = Questions::default();
        let to = questions.clone();
        tokens.watch(Some(Arc::new(move |wanted: &TokenWanted| {
            to.lock().unwrap().push(*wanted)
        })));
        (tokens, questions)
    }

    fn later(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn x1_without_anybody_to_ask_there_is_none() {
        let logger = Arc::new(Logger::from_environment());
        let tokens = Tokens::new(None, &logger).unwrap();
        assert!(tokens.get(later(1)).await.unwrap().header.is_none());
        assert!(!tokens.refused(&tokens.now()));
        tokens.set(Some(&Secret::new("abc"))).unwrap();
        let header = tokens.get(later(1)).await.unwrap().header.unwrap();
        assert_eq!(header, "Bearer abc");
        assert!(header.is_sensitive() && !format!("{header:?}").contains("abc"));
    }

    #[tokio::test(start_paused = true)]
    async fn x1_all_who_wait_share_one_question() {
        let (tokens, questions) = tokens(None);
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let tokens = tokens.clone();
                tokio::spawn(async move { tokens.get(later(60)).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(*questions.lock().unwrap(), [TokenWanted::Missing]);
        tokens.set(Some(&Secret::new("abc"))).unwrap();
        for waiting in waiting {
            let sent = waiting.await.unwrap().unwrap();
            assert_eq!(sent.header.unwrap(), "Bearer abc");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn x1_a_refused_token_is_asked_for_once() {
        let (tokens, questions) = tokens(Some("old"));
        let old = tokens.get(later(1)).await.unwrap();
        assert!(tokens.refused(&old) && tokens.refused(&old));
        let waiting = tokio::spawn({
            let tokens = tokens.clone();
            async move { tokens.get(later(60)).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        tokens.set(Some(&Secret::new("new"))).unwrap();
        waiting.await.unwrap().unwrap();
        // One who hears late that the old one is refused does not throw the new one away.
        assert!(tokens.refused(&old));
        assert_eq!(
            tokens.get(later(1)).await.unwrap().header.unwrap(),
            "Bearer new"
        );
        assert_eq!(*questions.lock().unwrap(), [TokenWanted::Refused]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_and_a_no_end_the_waiting() {
        let (tokens, questions) = tokens(None);
        let error = tokens.get(later(40)).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unauthorized);
        assert!(error.message().contains("deadline"));
        // The question may have been lost, so it is put again.
        let waiting = tokio::spawn({
            let tokens = tokens.clone();
            async move { tokens.get(later(60)).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(questions.lock().unwrap().len(), 2);
        tokens.set(None).unwrap();
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unauthorized);
        assert!(error.message().contains("no bearer token"), "{error}");
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused_unseen() {
        let (tokens, _) = tokens(None);
        for bad in ["", "a b", "a\nb", "é"] {
            let error = tokens.set(Some(&Secret::new(bad))).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidArgument);
            assert!(bad.is_empty() || !error.message().contains(bad));
        }
    }
}
