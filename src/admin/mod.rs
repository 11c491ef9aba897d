//! The fluent Rust API of the operations that are not about single messages in flight. Each call is a row of the catalogue,
//! so what it sends, checks and answers stands in `docs/OPERATIONS.md` under its name.

mod dlq;
mod groups;
mod messages;
mod queues;
mod status;
mod streams;
mod system;
mod traces;

use std::sync::Arc;

use serde::Serialize;

pub use self::dlq::DeadLetters;
pub use self::groups::{Group, Groups, SeekTo};
pub use self::messages::Messages;
pub use self::queues::Queues;
pub use self::status::{Analytics, BrokerStatus};
pub use self::streams::{Stream, Streams};
pub use self::system::System;
pub use self::traces::{Trace, Traces};
use crate::client::Client;
use crate::core::Core;
use crate::operation::{Operation, Params};
use crate::output::Document;
use crate::pending::Pending;

/// What was set so far.
#[derive(Clone)]
struct Call {
    core: Arc<Core>,
    params: Params,
}

impl Call {
    fn new(client: &Client) -> Call {
        Call {
            core: client.core().clone(),
            params: Params::default(),
        }
    }

    fn with(mut self, key: &str, value: impl Serialize) -> Call {
        self.params.set(key, value);
        self
    }

    /// Runs an operation that takes everything that was set.
    fn run(&self, operation: &'static Operation) -> Pending<Document> {
        operation.start(&self.core, self.params.clone())
    }

    /// Runs an operation that of what was set takes the deadline alone.
    fn run_apart(
        &self,
        operation: &'static Operation,
        params: &[(&str, &str)],
    ) -> Pending<Document> {
        let mut all = Params::default();
        if let Some(millis) = self.params.get::<u64>("timeoutMillis") {
            all.set("timeoutMillis", millis);
        }
        for (key, value) in params {
            all.set(key, value);
        }
        operation.start(&self.core, all)
    }
}

/// Declares the setters of a fluent type; every one has `timeout_millis`.
macro_rules! setters {
    ($type:ident; $($(#[doc = $doc:literal])* $name:ident: $kind:ty = $key:literal;)*) => {
        impl $type {
            $($(#[doc = $doc])*
            pub fn $name(mut self, value: $kind) -> $type {
                self.0 = self.0.with($key, value);
                self
            })*

            /// Deadline of each call. Default: the client's `timeoutMillis`.
            pub fn timeout_millis(mut self, millis: u64) -> $type {
                self.0 = self.0.with("timeoutMillis", millis);
                self
            }
        }
    };
}
use setters;
