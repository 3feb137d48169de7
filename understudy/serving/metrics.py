"""What a rank server counts, for Prometheus; several worker processes of one server are counted together.

Prometheus' client does that through files in ``PROMETHEUS_MULTIPROC_DIR``, which must be set before this module is
imported; without it a process counts alone.
"""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

__all__ = ["Metrics"]

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "understudy_serving"
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1)
_SLATES = (10, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


def _bury() -> None:
    """Gauges of worker processes that ended without a word no longer count."""
    for path in Path(os.environ.get(_FOLDER, "/nonexistent")).glob("gauge_live*.db"):
        pid = int(path.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


class Metrics:
    """Counters, gauges and histograms of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        _bury()
        self.requests = self._counter("requests", "Requests, by route and status.", "route", "status")
        self.shed = self._counter("shed", "Requests that were refused for lack of time.", "cause")
        self.latency = self._histogram("request_seconds", "From a request's head to its answer.", _SECONDS, "route")
        self.stages = self._histogram("stage_seconds", "Parts of a request.", _SECONDS, "stage")
        self.slates = self._histogram("slate_candidates", "Candidates of a request.", _SLATES)
        self.users = self._counter(
            "users", "Requests, by what the online store knew: known, unknown, unavailable.", "features"
        )
        self.candidates = self._counter("candidates", "Candidates, known to the item snapshot or not.", "features")
        self.store_failures = self._counter("online_store_failures", "Reads of the online store that failed.", "cause")
        self.rows = self._counter(
            "kept_rows", "Rows of users' features: kept (hit), or read from the store.", "outcome"
        )
        self.stale = self._counter("stale_requests", "Requests that were answered with stale features.")
        self.predicted = self._counter("predicted_sum", "Sum of predicted probabilities over candidates.", "head")
        self.context = self._counter("context", "Served slates: told to the collector, or lost.", "outcome")
        self.reloads = self._counter(
            "reloads", "Releases and snapshots that were taken up, or could not be.", "outcome"
        )
        self.staleness = self._gauge("feature_age_seconds", "Since the features were refreshed.", "livemax")
        self.release = self._gauge("release_info", "1 for the release that answers.", "livemax", "release")
        for outcome in ("told", "lost"):
            self.context.labels(outcome)

    def on_stage(self, release: str, heads: tuple[str, ...]) -> None:
        """A release answers from now on."""
        self.release.labels(release).set(1)
        for head in heads:
            self.predicted.labels(head)

    def end(self) -> None:
        """This process is no longer alive: its gauges no longer count."""
        if _FOLDER in os.environ:
            multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"{_PREFIX}_{name}", text, labels, registry=self.registry, buckets=buckets)

    def _gauge(self, name: str, text: str, mode: str, *labels: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", text, labels, registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    def text(self) -> bytes:
        """Prometheus' text format, over all worker processes."""
        if _FOLDER not in os.environ:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
