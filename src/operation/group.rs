//! Consumer groups: where they stand, and how to move or forget them.

use super::{GROUP, Operation, Parameter, Params, QUEUE, TIMEOUT};
use crate::error::{Error, Result};

pub(super) static TABLE: &[&Operation] = &[&LIST, &GET, &LAGGING, &SUBSCRIBE, &SEEK, &DELETE];

pub(crate) static LIST: Operation = Operation::get("group.list", "/api/v1/consumer-groups").says(
    "Lists the consumer groups, one entry for each queue that a group has read.",
    "the broker's document: `[{\"name\", \"queueName\", \"members\", \"totalLag\", \"maxTimeLag\", \"state\", \
     \"subscriptionMode\", …}]`; `members` counts partitions, not processes",
);

pub(crate) static GET: Operation =
    Operation::get("group.get", "/api/v1/consumer-groups/{consumerGroup}")
        .takes(&[GROUP, TIMEOUT])
        .says(
            "Tells where a group stands in each partition. An unknown group has none.",
            "the broker's document: `{queue: {\"partitions\": [{\"partition\", \"totalConsumed\", \"offsetLag\", \
             \"timeLagSeconds\", \"leaseActive\", …}]}}`",
        );

pub(crate) static LAGGING: Operation =
    Operation::get("group.lagging", "/api/v1/consumer-groups/lagging")
        .takes(&[
            Parameter::number(
                "minLagSeconds",
                "integer, seconds",
                "How old the oldest message must be that was not consumed.",
            )
            .or("3600"),
            TIMEOUT,
        ])
        .says(
            "Lists the partitions in which a group lags behind.",
            "the broker's document: `[{\"consumer_group\", \"queue_name\", \"partition_name\", \"offset_lag\", \
             \"time_lag_seconds\", …}]`",
        );

const TIMESTAMP: Parameter =
    Parameter::time("timestamp", "To the first message of that time or later.");

pub(crate) static SUBSCRIBE: Operation = Operation::post(
    "group.subscribe",
    "/api/v1/consumer-groups/{consumerGroup}/subscription",
)
.takes(&[
    GROUP,
    Parameter {
        doc: "Where the group begins in partitions that it has not read yet.",
        ..TIMESTAMP.required().sent_as("subscriptionTimestamp")
    },
    TIMEOUT,
])
.repeatable()
.says(
    "Moves the begin of a group's subscription, in all its queues. Partitions that it has read already are left as they are; \
     `group.seek` moves those.",
    "the broker's document: `{\"success\", \"consumerGroup\", \"newTimestamp\", \"rowsUpdated\"}`; no row for an unknown group",
);

pub(crate) static SEEK: Operation = Operation::post(
    "group.seek",
    "/api/v1/consumer-groups/{consumerGroup}/queues/{queue}[/partitions/{partition}]/seek",
)
.takes(&[
    GROUP,
    QUEUE,
    Parameter::name("partition", "Only this partition, by name.").or("all"),
    Parameter::flag("toEnd", "Behind the newest message.").or("false"),
    TIMESTAMP,
    TIMEOUT,
])
.prepared(one_target)
.says(
    "Moves a group in a queue, to the end or to a time; one of both must be given. Leases end with it.",
    "the broker's document: `{\"success\", \"consumerGroup\", \"queueName\", \"partitionsUpdated\"}`, for one partition \
     `{…, \"partitionName\", \"updated\"}`",
);

fn one_target(params: &mut Params) -> Result<()> {
    let to_end = params.get("toEnd").unwrap_or(false);
    match (to_end, params.has("timestamp")) {
        (true, true) => Err(Error::argument(
            "toEnd and timestamp are both given; name one target",
        )),
        (false, false) => Err(Error::argument(
            "neither toEnd nor timestamp is given; name one target",
        )),
        _ => {
            if !to_end {
                params.remove("toEnd");
            }
            Ok(())
        }
    }
}

pub(crate) static DELETE: Operation = Operation::delete(
    "group.delete",
    "/api/v1/consumer-groups/{consumerGroup}[/queues/{queue}]",
)
.takes(&[
    GROUP,
    Parameter::name("queue", "Only what the group knows of this queue.").or("all"),
    Parameter::flag(
        "deleteMetadata",
        "Whether to forget the subscription too; kept, it says where the group begins when it comes back.",
    )
    .or("true"),
    TIMEOUT,
])
.says(
    "Forgets where a group stands. An unknown one is no error.",
    "the broker's document: `{\"success\", \"consumerGroup\", \"deletedPartitions\", \"metadataDeleted\", \"queueName\"?}`",
);
