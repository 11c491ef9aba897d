//! Native client for Queen MQ.
