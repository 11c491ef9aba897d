//! Pop, consumers, deliveries, settlement and lease renewal.

mod ack;
mod claim;
mod claims;
mod consumer;
mod cut;
mod delivery;
mod hand;
mod hub;
mod lanes;
mod lease;
mod lost;
mod options;
mod pop;
mod quota;
mod renew;
mod run;
mod sending;
mod settle;
mod sizing;
mod slots;
mod taken;
mod worker;

pub use self::ack::AckOptions;
pub(crate) use self::claim::Claim;
pub(crate) use self::consumer::Stops;
pub use self::consumer::{
    Consumer, ConsumerEvent, ConsumerSink, Settlement, StopReason, StopSignal, Summary,
};
pub use self::delivery::{Delivery, MessageVerdict};
pub(crate) use self::hand::told;
pub(crate) use self::hub::Hub;
pub use self::options::{CONSUME_OPTIONS, ConsumeOption, ConsumeOptions};
pub use self::pop::{PopOptions, Popped};
pub(crate) use self::slots::Verdict;
pub(crate) use self::taken::Taken;
pub(crate) use self::worker::ends_consumer;
