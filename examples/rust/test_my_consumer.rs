//! Tests of one's own consumer: what it does when answers get lost and messages come twice.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use queen::{
    BrokerOptions, Client, ConsumeOptions, Delivery, EmbeddedBroker, Fault, FaultAction, Item,
    PopOptions, Settlement,
};

const WAIT: Duration = Duration::from_secs(30);

/// The application: it charges for each order, and for none of them twice.
#[derive(Default)]
struct Shop {
    /// In real life a table with a unique key.
    charged: HashSet<String>,
    charges: u32,
    calls: u32,
}

impl Shop {
    fn on_order(&mut self, order: &Delivery) -> Settlement {
        let id = &order.messages()[0].transaction_id;
        // With `true` in place of the insert the second test fails.
        if self.charged.insert(id.clone()) {
            self.charges += 1;
        }
        self.calls += 1;
        Settlement::Ack
    }
}

/// A broker with one order in it, and one fault.
fn broker(fault: Fault) -> queen::Result<EmbeddedBroker> {
    let broker = EmbeddedBroker::start(BrokerOptions::parse(r#"{"testing": true}"#)?)?;
    let client = Client::new(broker.url())?;
    let order = Item::raw(r#"{"order": 1}"#)?;
    client.queue("orders").push(&[order]).wait(WAIT)?;
    broker.add_fault(fault)?;
    Ok(broker)
}

/// One life of the application. It ends when its order is settled, or at once when `dies` says so.
fn live(
    broker: &EmbeddedBroker,
    shop: &Arc<Mutex<Shop>>,
    dies: impl Fn() -> bool,
) -> queen::Result<()> {
    let client = Client::new(broker.url())?;
    let options = ConsumeOptions {
        limit: Some(1),
        ..ConsumeOptions::default()
    };
    let shop = shop.clone();
    let consumer = client
        .queue("orders")
        .consume_with(options, move |order| shop.lock().unwrap().on_order(&order))?;
    while !consumer.finished().wait_for(Duration::from_millis(5))? && !dies() {}
    client.close(Duration::ZERO).wait(WAIT)?;
    Ok(())
}

#[test]
fn a_lost_answer_to_an_ack_is_repeated_and_the_order_does_not_come_again() -> queen::Result<()> {
    let broker = broker(Fault::new("ack", FaultAction::CutAfterCommit).times(1))?;
    let shop = Arc::default();
    live(&broker, &shop, || false)?;
    assert_eq!(broker.faults()?[0].applied, 1);
    // The lease has ended, and nothing comes again.
    broker.advance_clock(Duration::from_secs(61)).wait(WAIT)?;
    let options = PopOptions {
        wait: false,
        ..PopOptions::default()
    };
    let orders = Client::new(broker.url())?.queue("orders");
    assert!(orders.pop_with(&options).wait(WAIT)?.is_empty());
    assert_eq!(shop.lock().unwrap().charges, 1);
    Ok(())
}

#[test]
fn an_order_that_comes_again_after_a_crash_is_charged_once() -> queen::Result<()> {
    let broker = broker(Fault::new("ack", FaultAction::Hang))?;
    let shop = Arc::default();
    // Handled, and dead before the ack arrives.
    live(&broker, &shop, || {
        broker.faults().is_ok_and(|faults| faults[0].applied > 0)
    })?;
    broker.clear_faults()?;
    broker.advance_clock(Duration::from_secs(61)).wait(WAIT)?;
    live(&broker, &shop, || false)?;
    let shop = shop.lock().unwrap();
    assert_eq!((shop.calls, shop.charges), (2, 1));
    Ok(())
}
