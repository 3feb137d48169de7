"""Arms of a rollout as sets of buckets.

A rollout's order of buckets is a permutation keyed by its id: the canary takes them from the front and only ever takes
more, the baseline arm from the back. Holdouts have buckets of their own, the same for every rollout: ``previous`` for
ever, ``month`` until it is drawn anew.
"""

from dataclasses import dataclass, field

import numpy as np

from understudy.hashing import BUCKETS, hash64

__all__ = ["HOLDOUTS", "Arms", "order", "ramp"]

HOLDOUTS = ("previous", "month")
_MOST_BASELINE = 20


@dataclass(frozen=True)
class Arms:
    """Which release a bucket sees.

    Args:
        buckets: arm → its buckets, sorted; what no arm names is ``stable``.
    """

    buckets: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = [one for buckets in self.buckets.values() for one in buckets]
        assert len(set(named)) == len(named), "no bucket is in two arms"
        assert all(0 <= one < BUCKETS for one in named), "buckets are numbers from 0 to 99"

    def of(self, bucket: int) -> str:
        """The arm of a bucket."""
        return next((arm for arm, buckets in self.buckets.items() if bucket in buckets), "stable")

    def size(self, arm: str) -> int:
        """How many buckets an arm has."""
        if arm == "stable":
            return BUCKETS - sum(map(len, self.buckets.values()))
        return len(self.buckets.get(arm, ()))


def order(rollout_id: str, held: int, month: str = "") -> list[int]:
    """Buckets in the order in which a rollout takes them; those of the holdouts are left out."""
    kept = {bucket for buckets in _holdouts(held, month).values() for bucket in buckets}
    free = np.array([bucket for bucket in range(BUCKETS) if bucket not in kept])
    order: list[int] = free[np.argsort(hash64("bucket", rollout_id, free), kind="stable")].tolist()
    return order


def ramp(rollout_id: str, canary: int, held: int, month: str = "") -> Arms:
    """Arms while the canary has so many buckets.

    Args:
        canary: 0: no rollout is on; as many as there are, or more: all but the holdouts.
        held: buckets of each holdout.
        month: names the draw of the holdout ``month``.
    """
    free = order(rollout_id, held, month)
    canary = min(canary, len(free))
    baseline = 0 if canary == len(free) else min(canary, _MOST_BASELINE, len(free) - canary)
    parts = {"canary": free[:canary], "baseline": free[len(free) - baseline :], **_holdouts(held, month)}
    return Arms({arm: tuple(sorted(buckets)) for arm, buckets in parts.items() if buckets})


def _holdouts(held: int, month: str) -> dict[str, list[int]]:
    free = np.arange(BUCKETS - held)
    drawn = np.argsort(hash64("month", month, free), kind="stable")[:held]
    return {"previous": list(range(BUCKETS - held, BUCKETS)), "month": sorted(drawn.tolist())}
