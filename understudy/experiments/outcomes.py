"""What people did in an arm, per user, and the relative difference of two arms.

A metric is a ratio of sums over users, such as clicks per impression or clicks per user; users are the units, so that
those who return do not count as new evidence. The relative difference is normal by the delta method (A. Deng et al.,
"Applying the Delta Method in Metric Analytics", KDD 2018). Few users, of whom some are there all day, say less than
their number: the interval is Student's, with the degrees of freedom of Welch and Satterthwaite over Kish's effective
number of users, (Σn)² / Σn².

A figure that is not finite says nothing: there is no difference then, neither good nor bad.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

__all__ = ["Difference", "Outcomes", "difference", "without_heaviest"]


@dataclass(frozen=True)
class Outcomes:
    """Sums over the users u of an arm: of y (what was done), n (what it is a share of), and their products.

    Args:
        others: the same sums without the user who did most; None where they are not known.
    """

    users: int
    y: float
    n: float
    yy: float
    nn: float
    yn: float
    others: "Outcomes | None" = None

    @classmethod
    def of(cls, y: npt.NDArray[np.float64], n: npt.NDArray[np.float64]) -> "Outcomes":
        """From y and n (users,); who has neither counts as nobody."""
        whole = cls._of(y, n)
        if not whole.users:
            return whole
        kept = np.arange(len(y)) != np.argmax(y)
        return replace(whole, others=cls._of(y[kept], n[kept]))

    @classmethod
    def _of(cls, y: npt.NDArray[np.float64], n: npt.NDArray[np.float64]) -> "Outcomes":
        users = int(((y != 0) | (n != 0)).sum())
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not finite, and says nothing
            return cls(users, float(y.sum()), float(n.sum()), float(y @ y), float(n @ n), float(y @ n))

    @property
    def ratio(self) -> float:
        return self.y / self.n

    def effective_users(self) -> float:
        """As many users of equal weight say as much (L. Kish, "Survey Sampling", 1965)."""
        return self.n * self.n / self.nn

    def relative_variance(self) -> float:
        """Variance of the ratio's estimate, divided by the ratio's square."""
        users, r = self.users, self.ratio
        residual = (self.yy - 2 * r * self.yn + r * r * self.nn) / (users - 1)  # of y − r n, whose mean is 0
        spread = residual * users / (self.n * self.n)
        return (spread if math.isnan(spread) else max(0.0, spread)) / (r * r)


@dataclass(frozen=True)
class Difference:
    """One arm's ratio over another's, minus 1; ``se``: its standard error, with ``df`` degrees of freedom."""

    value: float
    se: float
    df: float = math.inf

    def bounds(self, tail: float) -> tuple[float, float]:
        """An interval beyond which the truth lies with the chance ``tail`` on either side."""
        from scipy.stats import norm, t

        quantile = float(norm.isf(tail) if math.isinf(self.df) else t.isf(tail, self.df))
        return self.value - quantile * self.se, self.value + quantile * self.se


def difference(arm: Outcomes, other: Outcomes) -> Difference | None:
    """Relative difference of ``arm`` from ``other``; None where there is too little to say one.

    Sums that are not finite, or that overflow on the way, say nothing.
    """
    least = min(arm.users, other.users)
    sums = [getattr(outcomes, name) for outcomes in (arm, other) for name in ("y", "n", "yy", "nn", "yn")]
    if not all(map(math.isfinite, sums)) or least < 2 or min(arm.y, other.y, arm.n, other.n) <= 0:
        return None
    try:
        found = _difference(arm, other)
    except (OverflowError, ZeroDivisionError):  # a ratio, or a square of one, that no float holds
        return None
    return found if math.isfinite(found.value) and math.isfinite(found.se) and not math.isnan(found.df) else None


def _difference(arm: Outcomes, other: Outcomes) -> Difference:
    value = arm.ratio / other.ratio - 1
    ours, theirs = arm.relative_variance(), other.relative_variance()
    se = (1 + value) * math.sqrt(ours + theirs)
    parts = [(one, max(1.0, outcomes.effective_users() - 1)) for one, outcomes in ((ours, arm), (theirs, other))]
    spread = sum(one * one / df for one, df in parts)
    return Difference(value, se, (ours + theirs) ** 2 / spread if spread > 0 else math.inf)


def without_heaviest(arm: Outcomes, other: Outcomes) -> list[Difference | None]:
    """The differences that are left without the user who did most, in one arm and in the other.

    Where it is not known what the others did, as of sums that were made elsewhere, the arm counts whole.
    """
    return [difference(arm.others or arm, other), difference(arm, other.others or other)]
