"""What a rank server counts, for Prometheus; several worker processes of one server are counted together.

Prometheus' client does that through files in ``PROMETHEUS_MULTIPROC_DIR``, which must be set before this module is
imported; without it a process counts alone.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

__all__ = ["Metrics"]

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "understudy_serving"
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1)
_SLATES = (10, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_ROUTES = ("rank", "infer")


def _workers() -> set[int]:
    """Processes that have a gauge."""
    paths = Path(os.environ.get(_FOLDER, "/nonexistent")).glob("gauge_live*.db")
    return {int(path.stem.rpartition("_")[2]) for path in paths}


def _resident_bytes(pids: Iterable[int]) -> float:
    """Memory of the process that holds the most; NaN where the system does not tell."""
    found = []
    for pid in pids:
        try:
            found.append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        except (OSError, IndexError):
            continue
    return max(found, default=float("nan"))


def _bury() -> None:
    """Gauges of worker processes that ended without a word no longer count."""
    for pid in _workers():
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
        self.latency = self._histogram(
            "request_seconds", "Answered requests: from the last byte of one to its answer.", _SECONDS, "route"
        )
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
        self.resident = self._gauge("resident_bytes", "Memory of the process that holds the most.", "livemostrecent")
        self._begin()

    def _begin(self) -> None:
        """What has not happened yet is counted as 0: Prometheus takes a counter's first value as no growth."""
        for route in _ROUTES:
            self.latency.labels(route)
            for status in (200, 500, 503):
                self.requests.labels(route, str(status))
        for features in ("known", "unknown", "unavailable"):
            self.users.labels(features)
        for features in ("known", "unknown"):
            self.candidates.labels(features)
        for outcome in ("told", "lost"):
            self.context.labels(outcome)
        for outcome in ("done", "failed"):
            self.reloads.labels(outcome)
        for cause in ("queue", "deadline"):
            self.shed.labels(cause)

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
        self.resident.set(_resident_bytes(_workers() | {os.getpid()}))
        if _FOLDER not in os.environ:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
