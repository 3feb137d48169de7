"""Arms of a rollout as sets of buckets.

A rollout's order of buckets is a permutation keyed by its id: the canary takes them from the front and only ever takes
more, the baseline arm from the back. Holdouts have buckets of their own, the same for every rollout.
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


def order(rollout_id: str, held: int) -> list[int]:
    """Buckets in the order in which a rollout takes them; the last ``2 · held`` of all are the holdouts', for ever."""
    free = np.arange(BUCKETS - len(HOLDOUTS) * held)
    order: list[int] = np.argsort(hash64("bucket", rollout_id, free), kind="stable").tolist()
    return order


def ramp(rollout_id: str, canary: int, held: int) -> Arms:
    """Arms while the canary has so many buckets.

    Args:
        canary: 0: no rollout is on; as many as there are, or more: all but the holdouts.
        held: buckets of each holdout.
    """
    free = order(rollout_id, held)
    canary = min(canary, len(free))
    baseline = 0 if canary == len(free) else min(canary, _MOST_BASELINE, len(free) - canary)
    first = BUCKETS - len(HOLDOUTS) * held
    parts = {"canary": free[:canary], "baseline": free[len(free) - baseline :]}
    parts |= {
        name: list(range(first + place * held, first + (place + 1) * held)) for place, name in enumerate(HOLDOUTS)
    }
    return Arms({arm: tuple(sorted(buckets)) for arm, buckets in parts.items() if buckets})
