//! Counters, status and the broker itself.

use super::*;

pub(crate) const TESTS: Tests = tests![x63_x64_health_and_metrics];

fn x63_x64_health_and_metrics(broker: &TestBroker) -> Tested {
    let client = client(broker);
    let health = told(client.system().health());
    assert_eq!(health["status"], "healthy");
    assert!(health["version"].is_string());
    assert!(told(client.system().metrics())["uptime"].is_number());
    let text = told(client.system().prometheus());
    assert!(text.as_str().unwrap().contains("# TYPE queen_"), "{text}");
    close(client)
}
