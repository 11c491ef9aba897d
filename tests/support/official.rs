//! Official brokers that a test may kill: all share one database.

use std::env;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use queen::Client;

/// Far beyond what a start takes.
const LONG: Duration = Duration::from_secs(120);

/// A broker that can be killed and started again at the same address.
pub struct Broker {
    port: u16,
    process: Child,
}

impl Broker {
    pub fn start() -> Broker {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        Broker::start_at(port)
    }

    fn start_at(port: u16) -> Broker {
        let program = env::var("QUEEN_OFFICIAL_CLUSTER")
            .expect("QUEEN_OFFICIAL_CLUSTER is set by scripts/official-broker");
        let process = Command::new(program)
            .arg(port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let broker = Broker { port, process };
        let probe = Client::new(&format!(
            r#"{{"url":"{}","retryAttempts":1000,"retryDelayMillis":100,"retryMaxDelayMillis":100,"timeoutMillis":120000}}"#,
            broker.url()
        ))
        .unwrap();
        let health = probe.call("health", "").unwrap();
        assert!(health.wait_for(LONG).unwrap());
        assert!(health.error().is_none(), "{:?}", health.error());
        broker
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills it (-9).
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again after a kill, at its address.
    pub fn start_again(&mut self) {
        *self = Broker::start_at(self.port);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
