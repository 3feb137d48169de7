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


def hashes_of(texts: Sequence[str], seed: int = SPARK_SEED) -> Int64s:
    """``hash64`` of each text, (n,)."""
    hashes = np.fromiter((xxh64_intdigest(text.encode(), seed) for text in texts), np.uint64, len(texts))
    return hashes.view(np.int64)


@lru_cache(maxsize=65_536)
def hash_of(text: str) -> int:
    """``hash64`` of one text, as int64. Attributes have few values: they are kept."""
    return int(hashes_of([text])[0])


def lots(name: str, seed: int, texts: Sequence[str], after: str | None = None) -> npt.NDArray[np.float64]:
    """``decision(name, seed, after, texts)``, (n,)."""
    start = _start(name, seed)
    return uniform(hashes_of(texts, start if after is None else xxh64_intdigest(after.encode(), start)))


@lru_cache
def _start(name: str, seed: int) -> int:
    return int(hash64(name, seed)[0]) & _BITS
