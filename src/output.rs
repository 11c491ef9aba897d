//! Operations seen from outside their type: what a language binding needs of any of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::broker::{ActiveFault, BrokerClock};
use crate::client::Closed;
use crate::consume::{Delivery, Popped, Summary};
use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::pending::Pending;
use crate::produce::Flushed;
use crate::protocol::ack::{self, AckResult};
use crate::protocol::lease::{Renewal, RenewalResult};
use crate::protocol::push::{self, PushResult};
use crate::protocol::transaction::Committed;
use crate::stats::Statistics;
use crate::stream::{PolledWindow, StreamSummary, Window};

/// A document of the broker, passed through as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document(pub(crate) String);

impl Document {
    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The document as a value of the caller's type, such as `serde_json::Value`. [`ErrorCode::BadAnswer`] when it is not
    /// of that shape.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_str(&self.0).map_err(|error| {
            Error::new(
                ErrorCode::BadAnswer,
                format!("the broker's document is of another shape: {error}"),
            )
            .with_outcome(Outcome::Refused)
        })
    }
}

/// A result that can be written as JSON.
pub trait Output: Clone + Send + Sync + 'static {
    /// The result as JSON text.
    fn to_json(&self) -> String;

    /// Takes out the next delivery, where the result has any.
    fn take_delivery(&self) -> Option<Delivery> {
        None
    }

    /// Takes out the window, where the result has one.
    fn take_window(&self) -> Option<Window> {
        None
    }

    /// Whether writing the JSON is worth it only for those who ask.
    fn is_large(&self) -> bool {
        false
    }
}

macro_rules! output_by_serde {
    ($($type:ty),*) => {
        $(impl Output for $type {
            fn to_json(&self) -> String {
                serde_json::to_string(self).unwrap_or_else(|_| "null".into())
            }
        })*
    };
}

output_by_serde!(
    (),
    Vec<ActiveFault>,
    BTreeMap<&'static str, u64>,
    BrokerClock,
    Renewal,
    Vec<RenewalResult>,
    Committed,
    Flushed,
    Closed,
    Summary,
    StreamSummary,
    Statistics
);

impl Output for Vec<PushResult> {
    fn to_json(&self) -> String {
        push::results_json(self)
    }
}

impl Output for Vec<AckResult> {
    fn to_json(&self) -> String {
        ack::results_json(self)
    }
}

impl Output for Document {
    fn to_json(&self) -> String {
        self.0.clone()
    }
}

impl Output for Popped {
    fn to_json(&self) -> String {
        Popped::to_json(self)
    }

    fn take_delivery(&self) -> Option<Delivery> {
        self.take()
    }

    fn is_large(&self) -> bool {
        true
    }
}

impl Output for PolledWindow {
    fn to_json(&self) -> String {
        PolledWindow::to_json(self)
    }

    fn take_window(&self) -> Option<Window> {
        self.take()
    }

    fn is_large(&self) -> bool {
        true
    }
}

/// An operation of whatever result.
pub trait AnyPending: Send + Sync {
    /// Whether the result is there.
    fn is_complete(&self) -> bool;
    /// See [`Pending::wait_for`].
    fn wait_for(&self, timeout: Duration) -> Result<bool>;
    /// See [`Pending::cancel`].
    fn cancel(&self);
    /// See [`Pending::when_complete`].
    fn when_complete(&self, hook: Box<dyn FnOnce() + Send>);
    /// See [`Pending::keep_budget`].
    fn keep_budget(&self);
    /// See [`Pending::release_budget`].
    fn release_budget(&self);
    /// The error, when the operation is complete and did not go well.
    fn error(&self) -> Option<&Error>;
    /// The result as JSON, also that of a call refused in part; none while it runs or when there is none.
    fn to_json(&self) -> Option<String>;
    /// Whether [`to_json`](Self::to_json) is worth it only for those who ask.
    fn is_large(&self) -> bool;
    /// Takes the next delivery out of the result of a pop.
    fn take_delivery(&self) -> Option<Delivery>;
    /// Takes the window out of the result of a poll.
    fn take_window(&self) -> Option<Window>;
}

impl<T: Output> AnyPending for Pending<T> {
    fn is_complete(&self) -> bool {
        Pending::is_complete(self)
    }

    fn wait_for(&self, timeout: Duration) -> Result<bool> {
        Pending::wait_for(self, timeout)
    }

    fn cancel(&self) {
        Pending::cancel(self);
    }

    fn when_complete(&self, hook: Box<dyn FnOnce() + Send>) {
        self.when_complete_boxed(hook);
    }

    fn keep_budget(&self) {
        Pending::keep_budget(self);
    }

    fn release_budget(&self) {
        Pending::release_budget(self);
    }

    fn error(&self) -> Option<&Error> {
        self.result()?.as_ref().err()
    }

    fn to_json(&self) -> Option<String> {
        match self.result()? {
            Ok(result) => Some(result.to_json()),
            Err(error) => error.result_json().map(str::to_owned),
        }
    }

    fn is_large(&self) -> bool {
        matches!(self.result(), Some(Ok(result)) if result.is_large())
    }

    fn take_delivery(&self) -> Option<Delivery> {
        self.result()?.as_ref().ok()?.take_delivery()
    }

    fn take_window(&self) -> Option<Window> {
        self.result()?.as_ref().ok()?.take_window()
    }
}
