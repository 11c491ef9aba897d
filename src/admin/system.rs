//! The broker itself.

use super::{Call, setters};
use crate::client::Client;
use crate::operation::system;
use crate::output::Document;
use crate::pending::Pending;

/// Health, metrics and maintenance of the broker. Made by [`Client::system`].
///
/// ```
/// use std::time::Duration;
///
/// let client = queen::Client::new("embedded:")?;
/// let health: serde_json::Value = client.system().health().wait(Duration::from_secs(10))?.json()?;
/// assert_eq!(health["status"], "healthy");
/// # Ok::<(), queen::Error>(())
/// ```
#[derive(Clone)]
pub struct System(Call);

impl Client {
    /// Health, metrics and maintenance of the broker.
    pub fn system(&self) -> System {
        System(Call::new(self))
    }
}

setters! { System; }

impl System {
    /// How the broker is (`health`). One that is not healthy answers [`ErrorCode::Broker`](crate::ErrorCode::Broker).
    pub fn health(&self) -> Pending<Document> {
        self.0.run(&system::HEALTH)
    }

    /// The counters of the broker (`metrics`).
    pub fn metrics(&self) -> Pending<Document> {
        self.0.run(&system::METRICS)
    }

    /// The same in the text format of Prometheus, as a JSON string (`metrics.prometheus`).
    pub fn prometheus(&self) -> Pending<Document> {
        self.0.run(&system::PROMETHEUS)
    }

    /// Counts anew what lists and status tell from a cache (`stats.refresh`).
    pub fn refresh_stats(&self) -> Pending<Document> {
        self.0.run(&system::REFRESH)
    }

    /// Whether push and pop maintenance are on (`maintenance.get`).
    pub fn maintenance(&self) -> Pending<Document> {
        self.0.run(&system::MAINTENANCE)
    }

    /// Switches push maintenance for all clients (`maintenance.set`).
    pub fn set_maintenance(&self, enabled: bool) -> Pending<Document> {
        let call = self.0.clone().with("enabled", enabled);
        call.run(&system::SET_MAINTENANCE)
    }

    /// Whether pop maintenance is on (`maintenance.pop.get`).
    pub fn pop_maintenance(&self) -> Pending<Document> {
        self.0.run(&system::POP_MAINTENANCE)
    }

    /// Switches pop maintenance for all clients (`maintenance.pop.set`).
    pub fn set_pop_maintenance(&self, enabled: bool) -> Pending<Document> {
        let call = self.0.clone().with("enabled", enabled);
        call.run(&system::SET_POP_MAINTENANCE)
    }
}
