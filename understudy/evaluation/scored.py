"""Rows with labels and the probabilities of one ranker: what metrics and gates look at."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from understudy.evaluation.churn import churn
from understudy.evaluation.metrics import NAMES, Prepared, ece_noise, user_resamples

__all__ = ["Scored", "churned", "difference", "finite", "labels_of", "summary"]

Floats = npt.NDArray[np.float64]
_ROWS_AT_ONCE = 20_000_000
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True)
class Scored:
    """n rows of one evaluation.

    Args:
        heads: H.
        users, requests: (n,).
        labels: (n, H), NaN where unknown.
        weights: (n,).
        probabilities: (n, H), NaN where the ranker lacks the head.
    """

    heads: tuple[str, ...]
    users: npt.NDArray[Any]
    requests: npt.NDArray[Any]
    labels: Floats
    weights: Floats
    probabilities: Floats

    @classmethod
    def of(cls, table: pa.Table, heads: tuple[str, ...], probabilities: npt.NDArray[Any]) -> "Scored":
        users = table["user_id"].to_numpy().astype(str)
        requests = table["request_id"].to_numpy().astype(str)
        weights = np.asarray(table["sample_weight"], np.float64)
        return cls(heads, users, requests, labels_of(table, heads), weights, np.asarray(probabilities, np.float64))

    def with_probabilities(self, probabilities: npt.NDArray[Any]) -> "Scored":
        return replace(self, probabilities=np.asarray(probabilities, np.float64))

    def rows(self, which: npt.NDArray[np.bool_]) -> "Scored":
        """The rows where ``which`` is true."""
        return replace(
            self,
            users=self.users[which],
            requests=self.requests[which],
            labels=self.labels[which],
            weights=self.weights[which],
            probabilities=self.probabilities[which],
        )

    def known(self, head: str) -> npt.NDArray[np.bool_]:
        h = self.heads.index(head)
        known: npt.NDArray[np.bool_] = ~np.isnan(self.labels[:, h]) & ~np.isnan(self.probabilities[:, h])
        return known

    def prepared(self, head: str) -> Prepared:
        h, rows = self.heads.index(head), self.known(head)
        return Prepared.of(self.labels[rows, h], self.probabilities[rows, h], self.weights[rows])

    def usable(self, head: str) -> bool:
        """Whether the head has positives and negatives here."""
        labels = self.labels[self.known(head), self.heads.index(head)]
        return bool(len(labels)) and 0 < labels.sum() < len(labels)


def labels_of(table: pa.Table, heads: tuple[str, ...]) -> Floats:
    """Labels (n, H), NaN where unknown."""
    columns = [np.asarray(table[f"label_{h}"].cast(pa.float64()).fill_null(float("nan"))) for h in heads]
    return np.stack(columns, axis=1)


def summary(scored: Scored, head: str, *, resamples: int = 0, seed: int = 0) -> dict[str, Any]:
    """Rows, positives and metrics of a head; with ``resamples``, 95% intervals by user bootstrap."""
    rows = scored.known(head)
    labels = scored.labels[rows, scored.heads.index(head)]
    result: dict[str, Any] = {"rows": int(rows.sum()), "positives": int(labels.sum())}
    if not scored.usable(head):
        return result | dict.fromkeys(NAMES)
    prepared = scored.prepared(head)
    result |= {name: finite(values[0]) for name, values in prepared.metrics().items()}
    result["ece_noise"] = finite(ece_noise(prepared))
    if resamples:
        parts = [prepared.metrics(times) for times in _chunks(scored.users[rows], resamples, seed)]
        for name in NAMES:
            result[f"{name}_interval"] = _interval(np.concatenate([part[name] for part in parts]))
    return result


def churned(ours: Scored, theirs: Scored, head: str, top: int) -> dict[str, Any] | None:
    """How far the order within requests is the same, on the rows that both score; see ``churn``."""
    both, h = ours.known(head) & theirs.known(head), ours.heads.index(head)
    return churn(ours.requests[both], ours.probabilities[both, h], theirs.probabilities[both, h], top)


def difference(ours: Scored, theirs: Scored, head: str, *, resamples: int, seed: int) -> dict[str, Any] | None:
    """Ours minus theirs on the rows that both score: ``auc`` and ``log_loss`` with paired intervals.

    None where the head has no positives, no negatives, or is unknown to one.
    """
    both = ours.known(head) & theirs.known(head)
    ours, theirs = ours.rows(both), theirs.rows(both)
    if not ours.usable(head):
        return None
    a, b = ours.prepared(head), theirs.prepared(head)
    point = {name: a.metrics()[name][0] - b.metrics()[name][0] for name in ("auc", "log_loss")}
    parts = []
    for times in _chunks(ours.users, resamples, seed):
        x, y = a.metrics(times), b.metrics(times)
        parts.append({name: x[name] - y[name] for name in point})
    result: dict[str, Any] = {name: finite(value) for name, value in point.items()}
    for name in point:
        drawn = np.concatenate([part[name] for part in parts])
        result[f"{name}_interval"] = _interval(drawn)
        result[f"{name}_deviation"] = finite(np.nanstd(drawn))
    return result


def finite(value: Any) -> float | None:
    """A number for the record, rounded so that it does not depend on the last bit; None: undefined."""
    return round(float(value), 9) if np.isfinite(value) else None


def _interval(values: Floats) -> list[float | None]:
    values = values[np.isfinite(values)]
    return [finite(edge) for edge in np.percentile(values, _INTERVAL)] if len(values) else [None, None]


def _chunks(users: npt.NDArray[Any], resamples: int, seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """Resamples in parts that fit in memory; part k draws from seed (seed, k)."""
    at_once = max(1, min(resamples, _ROWS_AT_ONCE // max(1, len(users))))
    for part, start in enumerate(range(0, resamples, at_once)):
        yield user_resamples(users, min(at_once, resamples - start), seed * 1_000_003 + part)
