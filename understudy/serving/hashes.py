"""``understudy.hashing`` for the few texts of a request: the same hashes, from a library that is quick for one text."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from xxhash import xxh64_intdigest

from understudy.hashing import SPARK_SEED, hash64, uniform

__all__ = ["hash_of", "hashes_of", "lots"]

Int64s = npt.NDArray[np.int64]
_BITS = (1 << 64) - 1


@lru_cache(maxsize=131_072)
def hash_of(text: str) -> int:
    """``hash64`` of one text, as int64. What was asked for lately is known: attributes, and the items of the day."""
    value = xxh64_intdigest(text.encode(), SPARK_SEED)
    return value - (1 << 64) if value >> 63 else value


def hashes_of(texts: Sequence[str]) -> Int64s:
    """``hash64`` of each text, (n,)."""
    return np.fromiter(map(hash_of, texts), np.int64, len(texts))


def lots(name: str, seed: int, texts: Sequence[str], after: str | None = None) -> npt.NDArray[np.float64]:
    """``decision(name, seed, after, texts)``, (n,)."""
    start = _start(name, seed)
    if after is not None:
        start = xxh64_intdigest(after.encode(), start)
    hashes = np.fromiter((xxh64_intdigest(text.encode(), start) for text in texts), np.uint64, len(texts))
    return uniform(hashes.view(np.int64))


@lru_cache
def _start(name: str, seed: int) -> int:
    return int(hash64(name, seed)[0]) & _BITS
