"""Metrics of one head, weighted by how much traffic a row stands for, and resampled by user.

AUC: ties count half. Normalized entropy: X. He et al., "Practical Lessons from Predicting Clicks on
Ads at Facebook", ADKDD 2014. ECE: M. Naeini et al., AAAI 2015, in bins of equal mass.

Shapes: n rows, R resamples.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BINS", "NAMES", "Prepared", "ece_noise", "ndcg", "reliability", "roc", "user_resamples"]

Floats = npt.NDArray[np.float64]

BINS = 20
NAMES = ("auc", "log_loss", "normalized_entropy", "calibration_ratio", "ece")
_ROC_POINTS = 100
_EDGE = 1e-7


@dataclass(frozen=True)
class Prepared:
    """Predictions of one head, sorted once so that every resample costs only sums.

    Args:
        order: rows by rising probability, shape (n,).
        starts: first row of each group of equal probabilities, in that order.
        bins: start of each equal-mass bin, in that order.
        y, p, weights: labels, probabilities and weights in that order.
    """

    order: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    bins: npt.NDArray[np.int64]
    y: Floats
    p: Floats
    weights: Floats

    @classmethod
    def of(cls, labels: npt.NDArray[Any], probabilities: npt.NDArray[Any], weights: npt.NDArray[Any]) -> "Prepared":
        """Prepare n ≥ 1 rows: labels 0 or 1, probabilities, weights."""
        p = np.asarray(probabilities, np.float64)
        order = np.argsort(p, kind="stable")
        p, w = p[order], np.asarray(weights, np.float64)[order]
        starts = np.flatnonzero(np.concatenate([[True], np.diff(p) > 0]))
        mass = np.cumsum(w)
        edges = np.searchsorted(mass, np.linspace(0, mass[-1], BINS + 1)[1:-1])
        bins = np.unique(np.concatenate([[0], edges[edges < len(p)]])).astype(np.int64)
        return cls(order, starts, bins, np.asarray(labels, np.float64)[order], p, w)

    def metrics(self, resamples: npt.NDArray[Any] | None = None) -> dict[str, Floats]:
        """Name → values, shape (R,).

        Args:
            resamples: (R, n) multiplicities of the rows as given to ``of``; None: once each.
        """
        times = np.ones((1, len(self.p))) if resamples is None else resamples[:, self.order]
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._metrics(times * self.weights)

    def _metrics(self, w: Floats) -> dict[str, Floats]:
        p = np.clip(self.p, _EDGE, 1 - _EDGE)
        total, clicks, expected = w.sum(1), w @ self.y, w @ self.p
        loss = -(w @ (self.y * np.log(p) + (1 - self.y) * np.log1p(-p))) / total
        rate = clicks / total
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        gaps = np.add.reduceat(w * (self.p - self.y), self.bins, axis=1)
        return {
            "auc": self._auc(w),
            "log_loss": loss,
            "normalized_entropy": loss / entropy,
            "calibration_ratio": expected / clicks,
            "ece": np.abs(gaps).sum(1) / total,
        }

    def _auc(self, w: Floats) -> Floats:
        positive = np.add.reduceat(w * self.y, self.starts, axis=1)
        negative = np.add.reduceat(w * (1 - self.y), self.starts, axis=1)
        below = np.cumsum(negative, axis=1) - negative
        auc: Floats = (positive * (below + 0.5 * negative)).sum(1) / (positive.sum(1) * negative.sum(1))
        return auc


def user_resamples(users: npt.NDArray[Any], resamples: int, seed: int) -> npt.NDArray[np.float32]:
    """How often each row stands in each resample of users drawn with replacement, shape (R, n)."""
    _, rows = np.unique(users, return_inverse=True)
    count = int(rows.max()) + 1 if len(rows) else 0
    random = np.random.default_rng(seed)
    times = np.zeros((resamples, count), np.float32)
    for r in range(resamples):
        times[r] = np.bincount(random.integers(0, count, count), minlength=count)
    return times[:, rows]


def ece_noise(prepared: Prepared) -> float:
    """What chance alone gives the ECE of a perfect model: the root of the bins' mean variance of Σ w (p − y).

    A model whose bins all miss by b has an expected ECE of at most √(b² + noise²), by Jensen's inequality.
    """
    mass = np.add.reduceat(prepared.weights, prepared.bins)
    variance = np.add.reduceat(prepared.weights**2 * prepared.p * (1 - prepared.p), prepared.bins)
    return float(np.sqrt((variance / mass).sum() / mass.sum()))


def reliability(prepared: Prepared) -> list[list[float]]:
    """Per equal-mass bin: mean probability, rate, weight."""
    w = np.add.reduceat(prepared.weights, prepared.bins)
    p = np.add.reduceat(prepared.weights * prepared.p, prepared.bins) / w
    y = np.add.reduceat(prepared.weights * prepared.y, prepared.bins) / w
    return [[float(a), float(b), float(c)] for a, b, c in zip(p, y, w, strict=True)]


def roc(prepared: Prepared) -> list[list[float]]:
    """At most 100 points (false-positive rate, true-positive rate, threshold), from (0, 0) to (1, 1).

    A point's rates are those of the rows whose probability is its threshold or more. No row reaches the threshold of
    (0, 0): 1, or the next number above it where a probability is 1. JSON has no infinity.
    """
    positive = np.add.reduceat(prepared.weights * prepared.y, prepared.starts)
    negative = np.add.reduceat(prepared.weights * (1 - prepared.y), prepared.starts)
    true, false = np.cumsum(positive[::-1]), np.cumsum(negative[::-1])  # tied rows are one step
    thresholds = prepared.p[prepared.starts][::-1]
    at = np.unique(np.linspace(0, len(true) - 1, _ROC_POINTS - 1).astype(np.int64))
    points = np.stack([false[at] / false[-1], true[at] / true[-1], thresholds[at]], axis=1)
    above = 1.0 if thresholds[0] < 1 else float(np.nextafter(thresholds[0], np.inf))
    return [[0.0, 0.0, above], *points.tolist()]


def ndcg(requests: npt.NDArray[Any], labels: Floats, probabilities: Floats) -> float | None:
    """Mean NDCG over requests of several items with a positive among them; None: there are none."""
    if not len(requests):
        return None
    order = np.lexsort((-probabilities, requests))
    names, y = requests[order], labels[order]
    starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
    sizes = np.diff(np.append(starts, len(names)))
    discount = 1 / np.log2(np.arange(len(names)) - np.repeat(starts, sizes) + 2)
    gain = np.add.reduceat(y * discount, starts)
    positives = np.add.reduceat(y, starts).astype(np.int64)
    ideal = np.cumsum(1 / np.log2(np.arange(int(sizes.max())) + 2))
    counted = (sizes > 1) & (positives > 0)
    return float(np.mean(gain[counted] / ideal[positives[counted] - 1])) if counted.any() else None
