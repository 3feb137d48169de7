"""Decisions by hash: the published vectors, uniform rates, independence."""

import numpy as np
import pyarrow as pa
import pytest

from understudy.hashing import bucket, decision, hash64, hash_bytes, uniform


@pytest.mark.parametrize(
    ("data", "seed", "expected"),
    [
        # XXH64 sanity vectors of the reference implementation (xxhsum.c).
        (b"", 0, 0xEF46DB3751D8E999),
        (b"", 2654435761, 0xAC75FDA2929B17EF),
        (b"\x9e", 0, 0x4FCE394CC88952D8),
    ],
)
def test_xxh64_gives_the_published_vectors(data: bytes, seed: int, expected: int) -> None:
    assert hash_bytes(data, seed) == expected


def test_a_null_leaves_the_hash_as_it_is() -> None:
    column = pa.array(["a", None])
    both = hash64(column, pa.array([1, 1]))
    assert both[1] == hash64(pa.array([1]))[0]


def test_decisions_are_uniform_and_independent() -> None:
    keys = np.arange(200_000)
    first, second = decision("sampling", 0, keys) < 0.3, decision("split", 0, keys) < 0.2
    assert abs(first.mean() - 0.3) < 0.005
    assert abs(second.mean() - 0.2) < 0.005
    assert abs((first & second).mean() - 0.06) < 0.003


def test_another_seed_decides_otherwise() -> None:
    keys = np.arange(1000)
    assert (decision("sampling", 0, keys) != decision("sampling", 1, keys)).all()


def test_uniform_stays_below_one() -> None:
    assert uniform(np.array([-1], np.int64))[0] < 1.0


def test_every_bucket_gets_its_share() -> None:
    counts = np.bincount(bucket("salt", [str(user) for user in range(50_000)]), minlength=100)
    assert counts.min() > 400
    assert counts.max() < 600
