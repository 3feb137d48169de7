"""What an evaluation records of scored rows: per head, by day, slice and segment, curves."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from understudy.errors import BadInput
from understudy.evaluation.metrics import ndcg, reliability, roc
from understudy.evaluation.scored import Scored, finite, summary

__all__ = ["by_value", "curves", "heads_summary", "ndcg_by_head", "segment_rows"]

_FINE = 10**9  # of a threshold, as fine as other figures of the record


def heads_summary(scored: Scored, *, resamples: int = 0, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Head → rows, positives, metrics; with intervals where ``resamples`` is above zero."""
    return {head: summary(scored, head, resamples=resamples, seed=seed) for head in scored.heads}


def by_value(scored: Scored, column: pa.ChunkedArray) -> dict[str, dict[str, dict[str, Any]]]:
    """Value of a column → metrics per head."""
    values = column.cast(pa.string()).fill_null("none").to_numpy().astype(str)
    return {str(value): heads_summary(scored.rows(values == value)) for value in np.unique(values)}


def curves(scored: Scored, before: Scored) -> dict[str, Any]:
    """``reliability`` after and before calibration, and ``roc`` with its thresholds, per head."""
    bins: dict[str, Any] = {}
    points: dict[str, Any] = {}
    for head in scored.heads:
        if not scored.usable(head):
            continue
        after = scored.prepared(head)
        bins[head] = {"before": _rounded(reliability(before.prepared(head))), "after": _rounded(reliability(after))}
        points[head] = _roc_rounded(roc(after))
    return {"reliability": bins, "roc": points}


def ndcg_by_head(scored: Scored) -> dict[str, float | None]:
    """Head → mean NDCG within a request, or None where no request has several items."""
    result = {}
    for h, head in enumerate(scored.heads):
        rows = scored.known(head)
        value = ndcg(scored.requests[rows], scored.labels[rows, h], scored.probabilities[rows, h])
        result[head] = None if value is None else finite(value)
    return result


def segment_rows(table: pa.Table, columns: tuple[str, ...], least: int) -> dict[str, npt.NDArray[np.bool_]]:
    """``column=value`` → rows, of segments with at least ``least`` rows."""
    found: dict[str, npt.NDArray[np.bool_]] = {}
    for column in columns:
        if column not in table.column_names:
            raise BadInput(
                f"evaluation.segments: expected a column of the training set, found {column!r}; correct its name"
            )
        values = table[column].cast(pa.string()).fill_null("none").to_numpy().astype(str)
        for value in np.unique(values):
            rows = values == value
            if rows.sum() >= least:
                found[f"{column}={value}"] = rows
    return found


def _rounded(points: list[list[float]]) -> list[list[float]]:
    return [[round(value, 6) for value in point] for point in points]


def _roc_rounded(points: list[list[float]]) -> list[list[float]]:
    """Thresholds are rounded down, so that the rows of a point still reach its own."""
    thresholds = [threshold if threshold > 1 else math.floor(threshold * _FINE) / _FINE for *_, threshold in points]
    return [[*rates, threshold] for rates, threshold in zip(_rounded([p[:2] for p in points]), thresholds, strict=True)]
