"""Calibrators: strictly increasing maps from logit to probability, one per head.

Affine: p = σ(scale · z + shift), J. Platt, "Probabilistic Outputs for Support Vector Machines",
1999. Isotonic: B. Zadrozny, C. Elkan, KDD 2002, as straight lines between knots on the logit
scale, with ties broken so that order is kept.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MIN_SLOPE", "Calibrator", "affine_fit", "fit_calibrator", "isotonic_fit"]

Floats = npt.NDArray[np.float64]

_KNOTS = 64
MIN_SLOPE = 1e-3
_RIDGE = 1e-3


@dataclass(frozen=True)
class Calibrator:
    """logit → scale · interpolate(logit; x, y) + shift, the logit of the probability.

    Args:
        method: ``affine`` or ``isotonic``.
        scale: above zero.
        x, y: knots, both strictly increasing; empty: the identity.
    """

    method: str
    scale: float = 1.0
    shift: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    def logits(self, logits: npt.NDArray[Any]) -> Floats:
        """Calibrated logits of the same shape."""
        values = np.asarray(logits, np.float64)
        if self.x:
            x, y = np.array(self.x), np.array(self.y)
            left, right = np.minimum(values - x[0], 0) * MIN_SLOPE, np.maximum(values - x[-1], 0) * MIN_SLOPE
            values = np.interp(values, x, y) + left + right
        return self.scale * values + self.shift

    def probabilities(self, logits: npt.NDArray[Any]) -> Floats:
        return 1 / (1 + np.exp(-self.logits(logits)))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Calibrator":
        return cls(**{**value, "x": tuple(value["x"]), "y": tuple(value["y"])})


def fit_calibrator(
    method: str, logits: Floats, labels: Floats, weights: Floats, prior_positives: float = 0.0
) -> Calibrator:
    """Fit one head's calibrator on rows (n,) that nothing else was fitted on.

    Labels are mixed with the network's own probabilities, as if it had seen as many positives again: few rows
    then move the calibrator little, and many decide it. With no positive or no negative among the rows there is
    nothing to fit: the identity.

    Args:
        prior_positives: what the network's own word is worth. Positives are counted as L. Kish's effective sample
            size, (Σ w y)² / Σ w² y.
    """
    positive = labels * weights
    if not 0 < float(positive.sum()) < float(weights.sum()):
        return Calibrator(method)
    own = prior_positives / float(positive.sum() ** 2 / (positive * weights).sum())
    mixed = (labels + own / (1 + np.exp(-logits))) / (1 + own)
    return isotonic_fit(logits, mixed, weights) if method == "isotonic" else affine_fit(logits, mixed, weights)


def affine_fit(logits: Floats, labels: Floats, weights: Floats, steps: int = 50) -> Calibrator:
    """Weighted logistic regression on the logit, by Newton's method with a slight pull to scale 1.

    Where the fitted scale is not above zero, only the shift is fitted: order is never turned.
    """
    parameters = _newton(logits, labels, weights, steps, fixed_scale=False)
    if not parameters[0] > 0:
        parameters = _newton(logits, labels, weights, steps, fixed_scale=True)
    return Calibrator("affine", scale=float(parameters[0]), shift=float(parameters[1]))


def _newton(logits: Floats, labels: Floats, weights: Floats, steps: int, *, fixed_scale: bool) -> Floats:
    parameters = np.array([1.0, 0.0])
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(design @ parameters, -30, 30)))
        gradient = design.T @ (weights * (p - labels)) + _RIDGE * (parameters - [1.0, 0.0])
        hessian = (design * (weights * p * (1 - p))[:, None]).T @ design + _RIDGE * np.eye(2)
        step = np.array([0.0, gradient[1] / hessian[1, 1]]) if fixed_scale else np.linalg.solve(hessian, gradient)
        parameters = parameters - np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            break
    return parameters


def isotonic_fit(logits: Floats, labels: Floats, weights: Floats) -> Calibrator:
    """Isotonic regression, reduced to at most 64 knots, its ties broken by a small slope."""
    from sklearn.isotonic import IsotonicRegression

    order = np.argsort(logits, kind="stable")
    z, y, w = logits[order], labels[order], weights[order]
    fitted = IsotonicRegression(y_min=1e-6, y_max=1 - 1e-6).fit_transform(z, y, sample_weight=w)
    edges = np.searchsorted(np.cumsum(w), np.linspace(0, w.sum(), _KNOTS + 1)[1:-1])
    groups = [g for g in np.split(np.arange(len(z)), np.unique(edges)) if len(g)]
    x = np.array([np.average(z[g], weights=w[g]) for g in groups])
    p = np.array([np.average(fitted[g], weights=w[g]) for g in groups])
    keep = np.concatenate([[True], np.diff(x) > 1e-9])
    x, level = x[keep], np.log(p[keep]) - np.log1p(-p[keep])
    rising = np.maximum.accumulate(level - MIN_SLOPE * x) + MIN_SLOPE * x
    identity = Calibrator("isotonic", x=tuple(map(float, x)), y=tuple(map(float, rising)))
    return identity if len(x) > 1 else affine_fit(logits, labels, weights)
