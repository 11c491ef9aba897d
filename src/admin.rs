//! Calls that hand a document of the broker through.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::core::Core;
use crate::error::{Error, ErrorCode, Result};
use crate::output::Document;
use crate::pending::Pending;
use crate::protocol::{self, check_name, queue};
use crate::transport::{self, Request};

impl Core {
    pub(crate) fn queue_create(
        self: &Arc<Core>,
        name: &str,
        namespace: Option<&str>,
        task: Option<&str>,
        options: &Map<String, Value>,
        timeout_millis: Option<u64>,
    ) -> Pending<Document> {
        if let Err(error) = check_name("queue", name, false) {
            return Pending::finished(Err(error));
        }
        let body = queue::configure(name, namespace, task, options);
        self.document("queue.create", timeout_millis, |deadline| {
            Ok(Request::post(queue::CONFIGURE, body, deadline))
        })
    }

    pub(crate) fn queue_delete(
        self: &Arc<Core>,
        name: &str,
        timeout_millis: Option<u64>,
    ) -> Pending<Document> {
        self.document("queue.delete", timeout_millis, |deadline| {
            Ok(Request::delete(queue::path(name)?, deadline))
        })
    }

    pub(crate) fn queue_get(
        self: &Arc<Core>,
        name: &str,
        timeout_millis: Option<u64>,
    ) -> Pending<Document> {
        self.document("queue.get", timeout_millis, |deadline| {
            Ok(Request::get(queue::path(name)?, deadline))
        })
    }

    pub(crate) fn health(self: &Arc<Core>, timeout_millis: Option<u64>) -> Pending<Document> {
        self.document("health", timeout_millis, |deadline| {
            Ok(Request::get(queue::HEALTH.to_owned(), deadline))
        })
    }

    /// Sends a request and passes the document of the answer through.
    fn document(
        self: &Arc<Core>,
        operation: &'static str,
        timeout_millis: Option<u64>,
        request: impl FnOnce(tokio::time::Instant) -> Result<Request>,
    ) -> Pending<Document> {
        let deadline = transport::after(timeout_millis.unwrap_or(self.config.timeout_millis));
        let request = match request(deadline) {
            Ok(request) => request,
            Err(error) => return Pending::finished(Err(error)),
        };
        let cost = (1, request.body.as_ref().map_or(0, bytes::Bytes::len));
        let core = self.clone();
        self.start(cost, deadline, move |pending| async move {
            if !pending.mark_sent() {
                return Err(Error::new(ErrorCode::Cancelled, "the call was cancelled"));
            }
            let body = core.send(&request).await?.success()?;
            protocol::document(operation, &body).map(Document)
        })
    }
}
