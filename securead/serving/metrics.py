"""What a service counts: messages, rows, keys, seconds, bytes. Labels are our own words, never a caller's."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from securead.serving.metering import Metered


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()

        def by_model(name: str, meaning: str) -> Counter:
            return Counter(name, meaning, ("model",), registry=registry)

        self._messages = by_model("securead_messages", "Requests answered")
        self._rows = by_model("securead_rows", "Rows that answered requests said they hold")
        self._metered = by_model(
            "securead_rows_metered", "Scores that answers yield to key holders: all of a CKKS chunk"
        )
        self._beyond = by_model(
            "securead_keys_beyond_extraction", "Keys that were answered as many rows as suffice to rebuild the model"
        )
        self._seconds = by_model("securead_evaluation_seconds", "CPU seconds of evaluation")
        self._read = by_model("securead_received_bytes", "Bytes of answered requests")
        self._sent = by_model("securead_sent_bytes", "Bytes of answers")
        self._keys = by_model("securead_keys", "Evaluation keys that owners sent, the same one again included")
        self.keys_held = Gauge("securead_keys_held", "Evaluation keys in memory", registry=registry)
        self._refills = Counter(
            "securead_refill_seconds",
            "CPU seconds of masks made in idle time, beside those of evaluation",
            registry=registry,
        )
        self._refused = Counter("securead_refused", "Calls refused, by HTTP status", ("status",), registry=registry)
        self.workers = Gauge("securead_workers", "Worker processes that are ready", registry=registry)
        self._ended = Counter(
            "securead_workers_ended", "Worker processes that ended and were replaced", registry=registry
        )
        self.queue = Gauge("securead_queue", "Requests being received, waiting or evaluated", registry=registry)

    def scored(self, model: str, *, rows: int, metered: Metered, seconds: float, read: int, sent: int) -> None:
        """Count one answered request."""
        self._messages.labels(model).inc()
        self._rows.labels(model).inc(rows)
        self._metered.labels(model).inc(metered.rows)
        self._beyond.labels(model).inc(metered.reached)
        self._seconds.labels(model).inc(seconds)
        self._read.labels(model).inc(read)
        self._sent.labels(model).inc(sent)

    def registered(self, model: str) -> None:
        """Count one evaluation key."""
        self._keys.labels(model).inc()

    def refilled(self, seconds: float) -> None:
        """Count one item that was made ahead of its use."""
        self._refills.inc(seconds)

    def worker_ended(self) -> None:
        """Count one worker process that ended by itself."""
        self._ended.inc()

    def refused(self, status: int) -> None:
        """Count one refusal."""
        self._refused.labels(str(status)).inc()

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)
