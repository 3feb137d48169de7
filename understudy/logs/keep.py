"""What a feed's log keeps: every positive, few of the other impressions, a random slice in full.

Both decisions are hashes of ids, so that a client's retry, a second collector and compaction decide
alike, also when the positive comes long after the impression.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from understudy.hashing import decision

__all__ = ["SEED", "SLICE", "is_random", "keeps", "lot"]

SEED = 0
SLICE = "slice"  # the name of the decision whether a request belongs to the random slice


def lot(row_keys: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The number in [0, 1) by which an impression without a positive is kept."""
    return decision("logging", SEED, row_keys)


def keeps(
    row_keys: npt.NDArray[np.int64], positive: npt.NDArray[np.bool_], rate: npt.NDArray[np.float64] | float
) -> npt.NDArray[np.bool_]:
    """Whether a seen impression stays in the log.

    Args:
        positive: whether an action of a head is known for it.
        rate: the keep rate in force; 1 in the random slice.
    """
    kept: npt.NDArray[np.bool_] = positive | (lot(row_keys) < rate)
    return kept


def is_random(request_ids: Any, share: float) -> npt.NDArray[np.bool_]:
    """Whether a request belongs to the random slice, by its id (texts or an Arrow array)."""
    random: npt.NDArray[np.bool_] = decision(SLICE, SEED, request_ids) < share
    return random
