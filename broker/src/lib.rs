//! Embedded Queen MQ broker.
