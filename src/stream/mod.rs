//! Streams: windows of messages, polled, handled and settled as one.

mod aggregate;
mod consumer;
mod hub;
mod lease;
mod options;
mod pace;
mod turns;
mod value;
mod window;
mod worker;

pub use self::aggregate::{Aggregates, Aggregation};
pub use self::consumer::{StreamConsumer, StreamSummary, WindowEvent, WindowSink};
pub(crate) use self::hub::StreamHub;
pub use self::hub::{PolledWindow, StreamPollOptions};
pub use self::options::{STREAM_CONSUME_OPTIONS, StreamConsumeOptions};
pub use self::value::Number;
pub use self::window::Window;
