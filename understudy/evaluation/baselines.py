"""Two trivial rankers that a candidate has to beat: what one counts without learning."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from understudy.evaluation.scored import labels_of
from understudy.evaluation.selftest import logit

__all__ = ["baselines"]

Floats = npt.NDArray[np.float64]

_STRENGTH = 20.0


def baselines(train: pa.Table, rows: pa.Table, heads: tuple[str, ...]) -> dict[str, Floats]:
    """Name → probabilities (n, H) of ``rows``: the item's smoothed rate; user rate × item rate as odds."""
    labels, weights = labels_of(train, heads), np.asarray(train["sample_weight"], np.float64)
    items = _rates(train["item_id"], rows["item_id"], labels, weights)
    users = _rates(train["user_id"], rows["user_id"], labels, weights)
    known = ~np.isnan(labels)
    prior = (np.nan_to_num(labels) * weights[:, None]).sum(0) / np.maximum((known * weights[:, None]).sum(0), 1e-9)
    both = 1 / (1 + np.exp(-(logit(items) + logit(users) - logit(prior))))
    return {"item_rate": items, "user_item_rate": both}


def _rates(seen: pa.ChunkedArray, asked: pa.ChunkedArray, labels: Floats, weights: Floats) -> Floats:
    """Smoothed rates (n, H) of the keys that are asked for."""
    names = {name: place for place, name in enumerate(seen.unique().to_pylist())}
    at = np.array([names[name] for name in seen.to_pylist()], np.int64)
    wanted = np.array([names.get(name, -1) for name in asked.to_pylist()], np.int64)
    columns: list[Any] = []
    for h in range(labels.shape[1]):
        known = ~np.isnan(labels[:, h])
        w = weights[known]
        positives = np.bincount(at[known], weights=w * labels[known, h], minlength=len(names))
        totals = np.bincount(at[known], weights=w, minlength=len(names))
        prior = positives.sum() / max(totals.sum(), 1e-9)
        rate = (positives + _STRENGTH * prior) / (totals + _STRENGTH)
        columns.append(np.where(wanted >= 0, rate[wanted], prior))
    return np.stack(columns, axis=1)
