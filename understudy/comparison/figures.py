"""Paired differences between rankers that scored the same rows, over users and over seeds.

A resample draws users and seeds with replacement, the same for every ranker, so that what all share cancels (B. Efron,
R. Tibshirani, "An Introduction to the Bootstrap", 1993).

Shapes: S seeds, R resamples.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from understudy.evaluation.metrics import user_resamples
from understudy.evaluation.scored import Scored, finite

__all__ = ["METRICS", "compared"]

Floats = npt.NDArray[np.float64]

METRICS = ("auc", "log_loss", "normalized_entropy", "calibration_ratio")
_INTERVAL = (2.5, 97.5)


def compared(rankers: list[list[Scored]], head: str, *, resamples: int, seed: int) -> list[dict[str, Any]]:
    """Per ranker: metrics, mean over seeds, and ``difference`` from the first ranker with ``…_interval``.

    Args:
        rankers: per ranker the same rows as scored by each of S seeds; the first is what others are compared with.
        head: one that every ranker knows.
    """
    times = user_resamples(rankers[0][0].users, resamples, seed)
    points, drawn = [], []
    for ranker in rankers:
        prepared = [scored.prepared(head) for scored in ranker]
        points.append([{name: value[0] for name, value in one.metrics().items()} for one in prepared])
        drawn.append([one.metrics(times) for one in prepared])
    chosen = np.random.default_rng(seed + 1).integers(0, len(rankers[0]), (resamples, len(rankers[0])))
    means = [{name: float(np.mean([one[name] for one in per_seed])) for name in METRICS} for per_seed in points]
    resampled = [{name: _over_seeds([one[name] for one in per_seed], chosen) for name in METRICS} for per_seed in drawn]
    found = []
    for place, mean in enumerate(means):
        one: dict[str, Any] = {name: finite(value) for name, value in mean.items()}
        if place:
            one["difference"] = {name: finite(mean[name] - means[0][name]) for name in METRICS}
            for name in METRICS:
                edges = np.nanpercentile(resampled[place][name] - resampled[0][name], _INTERVAL)
                one["difference"][f"{name}_interval"] = [finite(edge) for edge in edges]
        found.append(one)
    return found


def _over_seeds(values: list[Floats], chosen: npt.NDArray[np.int64]) -> Floats:
    """Mean over the drawn seeds (R,) of per-seed values (S × (R,))."""
    stacked = np.stack(values, axis=1)
    mean: Floats = np.take_along_axis(stacked, chosen, axis=1).mean(axis=1)
    return mean
