//! In place of the embedded broker, in a build without it: the same names, and a broker that cannot be started.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::error::{Error, ErrorCode, Result};
use crate::pending::Pending;

/// Says that there is no broker in this build.
fn absent<T>() -> Result<T> {
    Err(Error::new(
        ErrorCode::Unsupported,
        "this libqueen was built without the embedded broker (cargo feature `embedded`); start `queen-broker serve` instead and name its URL",
    ))
}

/// The options of a broker.
#[derive(Clone, Debug)]
pub struct BrokerOptions(Infallible);

impl BrokerOptions {
    /// Fails with [`ErrorCode::Unsupported`].
    pub fn parse(_json: &str) -> Result<BrokerOptions> {
        absent()
    }
}

/// A fault of a broker.
#[derive(Clone, Debug)]
pub struct Fault(Infallible);

impl Fault {
    /// Fails with [`ErrorCode::Unsupported`].
    pub fn parse_all(_json: &str) -> Result<Vec<Fault>> {
        absent()
    }
}

/// A fault in place.
#[derive(Clone, Debug)]
pub struct ActiveFault(Infallible);

/// A broker's time.
#[derive(Clone, Debug)]
pub struct BrokerClock(Infallible);

impl Serialize for ActiveFault {
    fn serialize<S: Serializer>(&self, _serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {}
    }
}

impl Serialize for BrokerClock {
    fn serialize<S: Serializer>(&self, _serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {}
    }
}

/// How to move a broker's time.
#[derive(Clone, Copy, Debug)]
pub struct ClockChange(Infallible);

impl ClockChange {
    /// Fails with [`ErrorCode::Unsupported`].
    pub fn parse(_json: &str) -> Result<ClockChange> {
        absent()
    }
}

/// A broker, which cannot be.
#[derive(Debug)]
pub struct EmbeddedBroker(Infallible);

#[allow(missing_docs)] // Nobody has one to call them.
impl EmbeddedBroker {
    /// Fails with [`ErrorCode::Unsupported`].
    pub fn start(_options: BrokerOptions) -> Result<EmbeddedBroker> {
        absent()
    }

    pub fn url(&self) -> &str {
        match self.0 {}
    }

    pub fn addresses(&self) -> &[String] {
        match self.0 {}
    }

    pub fn stop(&self, _timeout: Duration) -> Pending<()> {
        match self.0 {}
    }

    pub fn kill(&self) -> Pending<()> {
        match self.0 {}
    }

    pub fn restart(&self) -> Pending<()> {
        match self.0 {}
    }

    pub fn add_faults(&self, _faults: Vec<Fault>) -> Result<Vec<ActiveFault>> {
        match self.0 {}
    }

    pub fn faults(&self) -> Result<Vec<ActiveFault>> {
        match self.0 {}
    }

    pub fn remove_fault(&self, _id: u64) -> Result<()> {
        match self.0 {}
    }

    pub fn clear_faults(&self) -> Result<()> {
        match self.0 {}
    }

    pub fn requests(&self) -> Result<BTreeMap<&'static str, u64>> {
        match self.0 {}
    }

    pub fn reset_requests(&self) -> Result<()> {
        match self.0 {}
    }

    pub fn move_clock(&self, _change: ClockChange) -> Pending<BrokerClock> {
        match self.0 {}
    }
}
