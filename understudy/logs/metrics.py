"""What a collector counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_PREFIX = "understudy_collector"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters and gauges of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.batches = self._counter("batches", "Batches that were made durable, repeated ones included.")
        self.events = self._counter("events", "Events of these batches.")
        self.refused = self._counter("refused_events", "Events that were refused.", "cause")
        self.busy = self._counter("busy", "Requests that were answered 429.")
        self.failures = self._counter("failures", "Writes to the journal or flushes to the lake that failed.", "where")
        self.rows = self._counter("flushed_rows", "Rows that reached the lake.", "table")
        self.waiting = Gauge(f"{_PREFIX}_waiting_bytes", "Batches under way to the disk.", registry=self.registry)
        self.flushed_at = Gauge(
            f"{_PREFIX}_last_flush_timestamp_seconds", "When all that waited was in the lake.", registry=self.registry
        )
        self.acknowledged = Histogram(
            f"{_PREFIX}_acknowledgement_seconds",
            "From a batch's last byte to its answer.",
            registry=self.registry,
            buckets=_SECONDS,
        )
        for where in ("journal", "lake"):
            self.failures.labels(where)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", text, labels, registry=self.registry)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
