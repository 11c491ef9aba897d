//! Dead letters. Brokers of generation 1.x know fewer filters than their clients promise, so the rest is filtered here.

use std::collections::HashSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::route::{Call, instant};
use super::{FROM, LIMIT, OFFSET, ONE_QUEUE, Operation, Parameter, Params, TIMEOUT, TO, message};
use crate::error::Result;
use crate::protocol::bad_answer;

pub(super) static TABLE: &[&Operation] = &[&LIST, &RETRY, &DELETE];

pub(crate) static LIST: Operation = Operation::get("dlq.list", "/api/v1/dlq")
    .takes(&[
        ONE_QUEUE,
        Parameter::text("partition", "Only this partition, by name.").or("all"),
        Parameter::name(
            "consumerGroup",
            "Only what this group gave up; `__QUEUE_MODE__` is that of reading without a group.",
        )
        .or("all"),
        FROM,
        TO,
        LIMIT,
        OFFSET,
        TIMEOUT,
    ])
    .done_by(|call| Box::pin(list(call)))
    .says(
        "Lists dead letters, the newest first. Where the broker does not know `partition`, `from` and `to`, libqueen asks for \
         page after page and filters, so these cost time on a long list.",
        "`{\"messages\": [{\"id\", \"transactionId\", \"partitionId\", \"queue\", \"partition\", \"consumerGroup\", \
         \"errorMessage\", \"retryCount\", \"data\", \"createdAt\", \"failedAt\"}], \"pagination\": {\"limit\", \"offset\"}, \
         \"total\"}`; `total` counts this page on brokers of generation 1.x",
    );

pub(crate) static RETRY: Operation = message::retry("dlq.retry");
pub(crate) static DELETE: Operation = message::delete("dlq.delete");

/// How many dead letters are asked for at a time when they are filtered here.
const PAGE: u64 = 500;

async fn list(call: Call) -> Result<String> {
    let filtered = ["partition", "from", "to"]
        .iter()
        .any(|key| call.params.has(key));
    if !filtered {
        return call.document(&call.params).await;
    }
    let limit: u64 = call.params.get("limit").unwrap_or(100);
    let skip: u64 = call.params.get("offset").unwrap_or(0);
    let filter = Filter::new(&call.params)?;
    let mut seen = HashSet::new();
    let (mut asked, mut matching) = (0, 0);
    let mut messages = Vec::new();
    while (messages.len() as u64) < limit {
        let mut page = call.params.clone();
        page.set("limit", PAGE);
        page.set("offset", asked);
        let text = call.document(&page).await?;
        let letters: Letters =
            serde_json::from_str(&text).map_err(|error| bad_answer("dlq.list", error))?;
        asked += letters.messages.len() as u64;
        let known = seen.len();
        let mut all_too_old = true;
        for letter in letters.messages {
            let fields: Fields = serde_json::from_str(letter.get())
                .map_err(|error| bad_answer("dlq.list", error))?;
            all_too_old &= filter.is_too_old(&fields);
            // New dead letters push the others behind while the pages are turned.
            if seen.insert(fields.id.clone()) && filter.admits(&fields) {
                matching += 1;
                if matching > skip && (messages.len() as u64) < limit {
                    messages.push(letter);
                }
            }
        }
        if seen.len() == known || all_too_old {
            break;
        }
    }
    let total = messages.len();
    let pagination = Pagination {
        limit,
        offset: skip,
    };
    let document = Listed {
        messages,
        pagination,
        total,
    };
    serde_json::to_string(&document).map_err(|error| bad_answer("dlq.list", error))
}

#[derive(Deserialize)]
struct Letters {
    messages: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    id: String,
    partition: String,
    failed_at: String,
}

impl Fields {
    fn time(&self) -> Option<Timestamp> {
        self.failed_at.parse().ok()
    }
}

#[derive(Serialize)]
struct Listed {
    messages: Vec<Box<RawValue>>,
    pagination: Pagination,
    total: usize,
}

#[derive(Serialize)]
struct Pagination {
    limit: u64,
    offset: u64,
}

/// What brokers of generation 1.x do not look at.
struct Filter {
    partition: Option<String>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

impl Filter {
    fn new(params: &Params) -> Result<Filter> {
        let time = |key: &str| {
            let text: Option<String> = params.get(key);
            text.map(|text| instant(key, &text)).transpose()
        };
        Ok(Filter {
            partition: params.get("partition"),
            from: time("from")?,
            to: time("to")?,
        })
    }

    /// A time that cannot be read hides nothing.
    fn is_too_old(&self, letter: &Fields) -> bool {
        self.from
            .zip(letter.time())
            .is_some_and(|(from, time)| time < from)
    }

    fn admits(&self, letter: &Fields) -> bool {
        let partition = self.partition.as_ref();
        !self.is_too_old(letter)
            && self
                .to
                .zip(letter.time())
                .is_none_or(|(to, time)| time <= to)
            && partition.is_none_or(|name| *name == letter.partition)
    }
}
