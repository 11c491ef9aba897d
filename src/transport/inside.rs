//! Brokers that the host has started in this process by hand: found by their name, asked without a socket, and in every
//! other way like a broker at the end of a connection.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::error::{Error, ErrorCode, Outcome, Result};
use crate::runtime::lock;
use crate::sys::PerGeneration;

/// A broker that can be asked.
pub(crate) trait Inside: Send + Sync {
    /// Answers a request, or fails as a connection would.
    fn ask(&self, request: http::Request<Bytes>) -> Asked<'_>;
}

/// What becomes of a request.
pub(crate) type Asked<'a> =
    Pin<Box<dyn Future<Output = std::result::Result<http::Response<Bytes>, Lost>> + Send + 'a>>;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Nobody was there to take the request.
    Refused,
    /// The connection has ended before the whole answer was there.
    Cut,
    /// What came is no HTTP.
    NotHttp,
}

type Brokers = Mutex<HashMap<String, Arc<dyn Inside>>>;

static STARTED: PerGeneration<Brokers> = PerGeneration::new();

/// Makes a broker known by its name, which must be free.
pub(crate) fn register(name: &str, broker: Arc<dyn Inside>) -> Result<()> {
    match lock(STARTED.get(Brokers::default)).entry(name.to_owned()) {
        Entry::Vacant(place) => {
            place.insert(broker);
            Ok(())
        }
        Entry::Occupied(_) => Err(Error::new(
            ErrorCode::InvalidConfig,
            format!(
                "option `name` of broker is \"{name}\": a broker of this process has that name; free it first, or \
                 leave the name out"
            ),
        )),
    }
}

/// Forgets a name.
pub(crate) fn unregister(name: &str) {
    let broker = lock(STARTED.get(Brokers::default)).remove(name);
    drop(broker);
}

/// Asks the broker of that name.
pub(super) async fn ask(
    name: &str,
    request: http::Request<Bytes>,
) -> Result<http::Response<Bytes>> {
    let broker = lock(STARTED.get(Brokers::default)).get(name).cloned();
    let lost = match broker {
        None => Lost::Refused,
        Some(broker) => match broker.ask(request).await {
            Ok(response) => return Ok(response),
            Err(lost) => lost,
        },
    };
    Err(match lost {
        Lost::Refused => Error::new(
            ErrorCode::Connect,
            format!("no broker `{name}` runs in this process; start it first, or restart it"),
        ),
        Lost::Cut => Error::new(
            ErrorCode::Network,
            format!("the connection to the broker `{name}` broke: it was cut"),
        )
        .with_outcome(Outcome::Unknown),
        Lost::NotHttp => Error::new(
            ErrorCode::BadAnswer,
            format!("the broker `{name}` does not answer in HTTP"),
        )
        .with_outcome(Outcome::Unknown),
    })
}
