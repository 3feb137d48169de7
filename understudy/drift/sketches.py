"""Sketches: a column's distribution in a few numbers, so that new days compare with old ones.

Numeric columns are counted in ten bins of equal mass, categorical ones by their most frequent
values; both know their share of nulls, among which is a number that is not finite. Every row counts
with its weight.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Sketch", "psi", "shares", "sketch"]

Floats = npt.NDArray[np.float64]

_BINS = 10
_VALUES = 20
_LEAST_SHARE = 1e-4


@dataclass(frozen=True)
class Sketch:
    """One column of the reference.

    Args:
        edges: (numeric) inner edges of the bins.
        values: (categorical) the most frequent values.
        shares: of each bin or value, of all other values (categorical), and of nulls, summing to 1.
        variation: largest PSI of one day of the reference against all of it.
        rows: that were counted.
    """

    edges: tuple[float, ...]
    values: tuple[str, ...]
    shares: tuple[float, ...]
    variation: float
    rows: int

    @property
    def null_share(self) -> float:
        return self.shares[-1]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Sketch":
        plain: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
        return cls(**plain)


def sketch(values: npt.NDArray[Any], weights: Floats, days: npt.NDArray[Any], least_rows: int = 1) -> Sketch:
    """Sketch of a column (n,): floats with NaN, or texts with None.

    Args:
        least_rows: a day with fewer rows says nothing about variation: chance alone moves it far.
    """
    edges: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    if values.dtype.kind == "f":
        known = values[np.isfinite(values)]
        cuts = np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1]) if len(known) else np.zeros(0)
        edges = tuple(float(edge) for edge in np.unique(cuts))
    else:
        texts, counts = np.unique(values[values != np.array(None)].astype(str), return_counts=True)
        order = np.lexsort((texts, -counts))[:_VALUES]
        names = tuple(str(text) for text in texts[order])
    empty = Sketch(edges, names, (), 0.0, len(values))
    whole = shares(empty, values, weights)
    names_of_days, counts_of_days = np.unique(days, return_counts=True)
    large = names_of_days[counts_of_days >= least_rows]
    parts = [shares(empty, values[days == day], weights[days == day]) for day in large]
    variation = max((psi(whole, part) for part in parts), default=0.0) if len(parts) > 1 else 0.0
    return Sketch(edges, names, tuple(round(float(s), 9) for s in whole), round(variation, 9), len(values))


def shares(reference: Sketch, values: npt.NDArray[Any], weights: Floats) -> Floats:
    """Shares of a column in the bins of a reference, as ``Sketch.shares``."""
    total = max(float(weights.sum()), 1e-12)
    if values.dtype.kind == "f":
        known = np.isfinite(values)
        bins = np.searchsorted(np.array(reference.edges), values[known], side="right")
        counts = np.bincount(bins, weights=weights[known], minlength=len(reference.edges) + 1)
    else:
        known = values != np.array(None)
        place = {name: i for i, name in enumerate(reference.values)}
        bins = np.array([place.get(str(value), len(place)) for value in values[known]], np.int64)
        counts = np.bincount(bins, weights=weights[known], minlength=len(place) + 1)
    result: Floats = np.append(counts, weights[~known].sum()) / total
    return result


def psi(reference: npt.NDArray[Any] | tuple[float, ...], found: npt.NDArray[Any] | tuple[float, ...]) -> float:
    """Population stability index Σ (f − r) ln(f / r) over bins, empty ones counted as 0.0001."""
    r, f = np.maximum(np.asarray(reference), _LEAST_SHARE), np.maximum(np.asarray(found), _LEAST_SHARE)
    return float(((f - r) * np.log(f / r)).sum())
