//! In place of the embedded broker, in a build without it. No URL leads here: the configuration refuses those that would.

use std::sync::Arc;

use super::{Answer, Request};
use crate::config::Embedded;
use crate::error::{Error, ErrorCode, Result};
use crate::log::Logger;

pub(crate) struct EmbeddedTransport;

impl EmbeddedTransport {
    pub(crate) fn new(_embedded: Embedded, _logger: &Arc<Logger>) -> EmbeddedTransport {
        EmbeddedTransport
    }

    pub(crate) async fn send(&self, _request: &Request) -> Result<Answer> {
        Err(Error::new(
            ErrorCode::Unsupported,
            "there is no embedded broker",
        ))
    }

    pub(crate) async fn close(&self) {}
}
