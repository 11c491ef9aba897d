//! What is measured: the cases with their sizes, the order that a subject gets and the report it gives.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// One message per push, the next when it is answered.
    PushSeq,
    /// One message per push.
    PushSingle,
    /// Pushes of 100 messages to one partition.
    #[value(name = "push-batch-100")]
    PushBatch100,
    /// One message per push, through the buffer of the client; ends with the last delivery report.
    PushBuffered,
    /// Pops of up to 100 messages, each followed by one ack for all of them.
    #[value(name = "pop-ack-100")]
    PopAck100,
    /// A consumer that handles message by message, with the default options of the subject. Those that talk HTTP do what
    /// `pop-ack-100` does.
    Consume,
    /// From the push to the handler, one message at a time, when everything is idle.
    LatencyIdle,
    /// The windows of a stream, a hundred messages in each, handed to a handler that sums and counts them, until the last is acked.
    StreamWindows,
}

impl Case {
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it pushes what it counts; otherwise the messages are there before.
    pub fn pushes(self) -> bool {
        matches!(
            self,
            Case::PushSeq
                | Case::PushSingle
                | Case::PushBatch100
                | Case::PushBuffered
                | Case::StreamWindows
        )
    }

    /// Whether the messages are there before the subject begins.
    pub fn is_filled(self) -> bool {
        matches!(self, Case::PopAck100 | Case::Consume)
    }

    /// Messages in a push or a pop.
    pub fn batch(self) -> u64 {
        match self {
            Case::PushSeq | Case::PushSingle | Case::PushBuffered | Case::LatencyIdle => 1,
            Case::PushBatch100 | Case::PopAck100 | Case::Consume | Case::StreamWindows => 100,
        }
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Size {
    Full,
    /// To see that everything works.
    Quick,
}

/// A case in one of its shapes.
#[derive(Clone, Debug)]
pub struct Work {
    pub case: Case,
    /// Requests under way at once; for a pop and its ack, consumers.
    pub in_flight: u64,
    pub partitions: u64,
    pub messages: u64,
}

impl Work {
    /// So many messages, or what comes next to it and can be done.
    pub fn part(&self, messages: u64) -> u64 {
        let batch = match self.case {
            Case::Consume => 1,
            case => case.batch(),
        };
        let least = 50.max(2 * self.in_flight * batch).max(self.partitions);
        let messages = messages.max(least).min(self.messages);
        messages.next_multiple_of(batch)
    }
}

/// Everything there is to measure.
pub fn all(size: Size) -> Vec<Work> {
    let work = |case, in_flight, partitions, full, quick| Work {
        case,
        in_flight,
        partitions,
        messages: match size {
            Size::Full => full,
            Size::Quick => quick,
        },
    };
    vec![
        work(Case::PushSeq, 1, 1, 1_000, 50),
        work(Case::PushSingle, 64, 1, 40_000, 500),
        work(Case::PushSingle, 64, 16, 20_000, 500),
        work(Case::PushSingle, 512, 1, 80_000, 600),
        work(Case::PushSingle, 512, 16, 60_000, 600),
        work(Case::PushBatch100, 8, 16, 200_000, 2_000),
        work(Case::PushBuffered, 64, 16, 80_000, 500),
        work(Case::PopAck100, 4, 16, 100_000, 2_000),
        work(Case::Consume, 1, 1, 20_000, 60),
        work(Case::Consume, 4, 16, 20_000, 160),
        work(Case::Consume, 16, 1000, 20_000, 1_000),
        work(Case::LatencyIdle, 1, 1, 100, 10),
        work(Case::StreamWindows, 1, 1, 100_000, 2_000),
    ]
}

/// What a subject is told.
#[derive(Args, Clone, Debug)]
pub struct Order {
    /// The broker.
    #[arg(long)]
    pub url: String,
    #[arg(long)]
    pub case: Case,
    /// The queue to use. A consuming case finds the messages there, a pushing case makes it.
    #[arg(long)]
    pub queue: String,
    #[arg(long)]
    pub in_flight: u64,
    #[arg(long)]
    pub partitions: u64,
    /// Messages to count; the payload of number N is {"n":N,"text":...}.
    #[arg(long)]
    pub messages: u64,
    /// Messages to push before the clock runs, with the numbers that follow. Zero in a consuming case.
    #[arg(long)]
    pub warm_up: u64,
}

/// What a subject says when it is done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Messages pushed and answered, or handled and acknowledged; each number once.
    pub messages: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Processor time of the subject in that time.
    pub cpu_us: f64,
    /// From submitting to the answer: of a push, or of a pop and its ack together. Null where nothing of that kind is seen.
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    /// The subject's peak.
    pub rss_mib: f64,
}

/// The text in each payload: 100 letters.
pub const TEXT: &str = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuv";
