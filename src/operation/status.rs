//! What dashboards show: status and analytics. Their documents differ between brokers.

use super::{
    FROM, LIMIT, NAMESPACE, OFFSET, ONE_QUEUE, Operation, Parameter, QUEUE, TASK, TIMEOUT, TO,
};

pub(super) static TABLE: &[&Operation] = &[
    &STATUS,
    &QUEUES,
    &ONE,
    &HISTORY,
    &BUFFERS,
    &SYSTEM_METRICS,
    &WORKER_METRICS,
    &QUEUE_LAG,
    &QUEUE_OPS,
    &PARKED,
    &RETENTION,
    &POSTGRES,
];

const FILTERS: &[Parameter] = &[FROM, TO, ONE_QUEUE, NAMESPACE, TASK, TIMEOUT];
const OF_QUEUES: &[Parameter] = &[FROM, TO, ONE_QUEUE, TIMEOUT];

pub(crate) static STATUS: Operation = Operation::get("status", "/api/v1/status")
    .takes(FILTERS)
    .says(
        "Tells throughput, queues, leases, dead letters and workers of a time range.",
        "the broker's document: `{\"timeRange\", \"throughput\", \"queues\", \"messages\", \"leases\", \"deadLetterQueue\", \
         \"workers\", …}`",
    );

pub(crate) static QUEUES: Operation = Operation::get("status.queues", "/api/v1/status/queues")
    .takes(&[FROM, TO, ONE_QUEUE, NAMESPACE, TASK, LIMIT, OFFSET, TIMEOUT])
    .says(
        "Lists the queues with their counters, page by page.",
        "the broker's document: `{\"queues\": [{\"name\", \"partitions\", \"messages\", …}], \"pagination\"}`",
    );

pub(crate) static ONE: Operation =
    Operation::get("status.queue", "/api/v1/status/queues/{queue}")
        .takes(&[QUEUE, TIMEOUT])
        .says(
            "Tells a queue's options, counters and cursors.",
            "the broker's document: `{\"queue\": {\"name\", \"config\", …}, \"totals\", \"partitions\"}`",
        );

pub(crate) static HISTORY: Operation =
    Operation::get("status.analytics", "/api/v1/status/analytics")
        .takes(&[
            FROM,
            TO,
            Parameter::name("interval", "The length of a data point: `hour` or `day`.").or("\"hour\""),
            ONE_QUEUE,
            NAMESPACE,
            TASK,
            TIMEOUT,
        ])
        .says(
            "Tells how many messages came in each interval.",
            "the broker's document: `{\"from\", \"to\", \"interval\", \"dataPoints\": [{\"timestamp\", \"messages\"}]}`",
        );

pub(crate) static BUFFERS: Operation = Operation::get("status.buffers", "/api/v1/status/buffers")
    .says(
        "Tells what the broker holds on its disk until its database takes it.",
        "the broker's document: `{\"pending\", \"failed\", \"dbHealthy\", …}`",
    );

const DASHBOARD: &str = "the broker's document, as its dashboard reads it";

pub(crate) static SYSTEM_METRICS: Operation = Operation::get(
    "analytics.system_metrics",
    "/api/v1/analytics/system-metrics",
)
.takes(&[FROM, TO, HOST, WORKER, TIMEOUT])
.says(
    "Tells CPU, memory and database use of each broker.",
    DASHBOARD,
);

const HOST: Parameter = Parameter::name("hostname", "Only this broker.").or("all");
const WORKER: Parameter = Parameter::name("workerId", "Only this worker.").or("all");

pub(crate) static WORKER_METRICS: Operation = Operation::get(
    "analytics.worker_metrics",
    "/api/v1/analytics/worker-metrics",
)
.takes(&[FROM, TO, ONE_QUEUE, HOST, WORKER, TIMEOUT])
.says(
    "Tells pushes, pops and acks of each worker and queue.",
    DASHBOARD,
);

pub(crate) static QUEUE_LAG: Operation =
    Operation::get("analytics.queue_lag", "/api/v1/analytics/queue-lag")
        .takes(OF_QUEUES)
        .says("Tells how long messages waited.", DASHBOARD);

pub(crate) static QUEUE_OPS: Operation =
    Operation::get("analytics.queue_ops", "/api/v1/analytics/queue-ops")
        .takes(OF_QUEUES)
        .says("Tells pushes, pops and acks of each queue.", DASHBOARD);

pub(crate) static PARKED: Operation = Operation::get(
    "analytics.queue_parked_replicas",
    "/api/v1/analytics/queue-parked-replicas",
)
.takes(OF_QUEUES)
.says("Tells how many pops wait at each broker.", DASHBOARD);

pub(crate) static RETENTION: Operation =
    Operation::get("analytics.retention", "/api/v1/analytics/retention")
        .takes(OF_QUEUES)
        .says("Tells what retention has removed.", DASHBOARD);

pub(crate) static POSTGRES: Operation = Operation::get(
    "analytics.postgres_stats",
    "/api/v1/analytics/postgres-stats",
)
.says(
    "Tells how the database of a broker on PostgreSQL is; others answer QUEEN_E_UNSUPPORTED.",
    DASHBOARD,
);
