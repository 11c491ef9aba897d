"""What the settings and options are without a word, in the names of the classic package.

Names that end in `millis` are milliseconds, those that end in `seconds` and those without a unit are seconds.
"""

from __future__ import annotations

from typing import Any, Dict

CLIENT_DEFAULTS: Dict[str, Any] = {
    "timeout_millis": 30000,
    "retry_attempts": 3,
    "retry_delay_millis": 1000,
    "load_balancing_strategy": "affinity",
    "affinity_hash_ring": 128,
    "enable_failover": True,
    "health_retry_after_millis": 5000,
}
"""Of a client; docs/CONFIGURATION.md has the rest."""

QUEUE_DEFAULTS: Dict[str, Any] = {
    "lease_time": 300,
    "retry_limit": 3,
    "priority": 0,
    "delayed_processing": 0,
    "window_buffer": 0,
    "max_size": 0,
    "retention_seconds": 0,
    "completed_retention_seconds": 0,
    "encryption_enabled": False,
}
"""What `create()` sends where `config()` does not say otherwise."""

CONSUME_DEFAULTS: Dict[str, Any] = {
    "concurrency": 1,
    "batch": 1,
    "auto_ack": True,
    "wait": True,
    "timeout_millis": 30000,
    "limit": None,
    "idle_millis": None,
    "renew_lease": True,
    "renew_lease_interval_millis": None,
    "subscription_mode": None,
    "subscription_from": None,
}
"""Of `consume()`. Leases are renewed by the library, at a third of their length."""

POP_DEFAULTS: Dict[str, Any] = {
    "batch": 1,
    "wait": False,
    "timeout_millis": 30000,
    "auto_ack": False,
}
"""Of `pop()`."""

BUFFER_DEFAULTS: Dict[str, Any] = {
    "message_count": 100,
    "time_millis": 1000,
}
"""Of `buffer()`."""
