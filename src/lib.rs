//! **libqueen**: the native client for Queen MQ, a partitioned message queue over HTTP and JSON.
//!
//! This crate is the core. C and every other language reach it through the C ABI of `include/queen.h`; Rust programs use
//! it directly. It carries an embedded broker (`embedded:`), so nothing has to be installed to begin; the same program
//! runs against official brokers when their URLs are given instead.
//!
//! Start with [`Client`] and [`Client::queue`]. Every operation returns a [`Pending`], which can be awaited in any async
//! runtime, or waited for on a plain thread.
//!
//! ```
//! use queen::{Client, Item, Settlement};
//! use std::time::Duration;
//!
//! let client = Client::new("embedded:")?;
//! let orders = client.queue("orders");
//! orders.push(&[Item::raw(r#"{"id": 1}"#)?]).wait(Duration::from_secs(10))?;
//!
//! let consumer = orders.consume(|delivery| {
//!     println!("{}", delivery.messages()[0].payload());
//!     Settlement::Ack
//! })?;
//! consumer.stop(Duration::from_secs(10)).wait(Duration::from_secs(11))?;
//! client.close(Duration::from_secs(10)).wait(Duration::from_secs(11))?;
//! # Ok::<(), queen::Error>(())
//! ```
//!
//! # What may change
//!
//! Versions follow [Semantic Versioning](https://semver.org). A minor version may add fields to options and variants to
//! enums: write options as `PushOptions { timeout_millis: Some(500), ..PushOptions::default() }`, and an arm for the rest
//! where an enum is `#[non_exhaustive]`. Errors are told apart by [`ErrorCode`], [`Outcome`] and
//! [`Error::broker_code`]; the text of a message is for people. JSON documents
//! of libqueen gain keys.
//!
//! # Features
//!
//! `embedded`, on by default, is the broker for `embedded:` URLs and [`EmbeddedBroker`]. Without it both fail with an error that
//! says so, and everything else is the same.
//!
//! # Threads and futures
//!
//! Everything here is [`Send`] and [`Sync`]. [`Pending`] needs no runtime of the caller's, and awaiting it is cancel-safe.
//! Handlers of consumers run on threads of their own and may block; sinks and hooks run on threads of the library and
//! must not.
#![deny(unsafe_code, missing_docs)]

mod admin;
#[cfg_attr(not(feature = "embedded"), path = "broker/absent.rs")]
mod broker;
mod budget;
mod client;
mod config;
mod consume;
mod core;
mod dispatch;
mod error;
mod ffi;
mod log;
mod operation;
mod options;
mod output;
mod pending;
mod produce;
mod protocol;
mod queue;
mod registry;
mod runtime;
mod stats;
mod stream;
mod sys;
mod transaction;
mod transport;

pub use admin::{
    Analytics, BrokerStatus, DeadLetters, Group, Groups, Messages, Queues, SeekTo, Stream, Streams,
    System, Trace, Traces,
};
pub use broker::{ActiveFault, BrokerClock, BrokerOptions, ClockChange, EmbeddedBroker, Fault};
#[cfg(feature = "embedded")]
pub use broker::{DefaultSubscription, Durability, FaultAction, FaultError};
pub use client::{Client, Closed};
pub use config::{Config, LoadBalancing, SETTINGS, Secret, Setting};
pub use consume::{
    AckOptions, CONSUME_OPTIONS, ConsumeOption, ConsumeOptions, Consumer, ConsumerEvent,
    ConsumerSink, Delivery, MessageVerdict, PopOptions, Popped, Settlement, StopReason, StopSignal,
    Summary,
};
pub use dispatch::Dispatcher;
pub use error::{Error, ErrorCode, Outcome, Result};
pub use log::{Level, LogSink};
pub use operation::{Operation, Parameter, operations, operations_json};
pub use options::{
    BufferOptions, FlushOptions, ItemOptions, PushOptions, RenewOptions, TransactionOptions,
    WhenFull,
};
pub use output::{AnyPending, Document, Output};
pub use pending::Pending;
pub use produce::{DeliveryReport, DeliveryStatus, Flushed, ReportSink};
pub use protocol::ack::{Ack, AckResult, Status};
#[cfg(fuzzing)]
#[doc(hidden)]
pub use protocol::fuzz::read as fuzz_answer;
pub use protocol::lease::{Renewal, RenewalResult};
pub use protocol::pop::{Message, Source};
pub use protocol::push::{Item, PushResult};
pub use protocol::queue::QueueOptions;
pub use protocol::stream::WindowMessage;
pub use protocol::transaction::{Committed, RollbackReason, TransactionResult};
pub use queue::Queue;
pub use runtime::{Life, Living, shutdown};
pub use stats::{
    BufferStats, ConsumerStats, FailureStats, Latency, LatencyStats, LeaseStats, MessageStats,
    PendingStats, RequestStats, Statistics, StatisticsSink, TransactionStats,
};
pub use stream::{
    Aggregates, Aggregation, Number, PolledWindow, STREAM_CONSUME_OPTIONS, StreamConsumeOptions,
    StreamConsumer, StreamPollOptions, StreamSummary, Window, WindowEvent, WindowSink,
};
pub use transaction::Transaction;
pub use transport::{BackendHealth, BackendSink, BackendState, Backends, TokenSink, TokenWanted};
