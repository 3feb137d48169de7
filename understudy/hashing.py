"""Spark's ``xxhash64`` in NumPy, and the decisions that are taken by hash.

A row is kept or dropped by a hash of its key, never by a random generator: a retry, another
engine or another cluster keeps the same rows. Each decision hashes its own name and seed with
the key, so decisions are independent of each other.

Algorithm: XXH64 (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md). Spark folds
columns from left to right, each hash being the seed of the next, and starts at 42.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["BUCKETS", "bucket", "decision", "hash64", "hash_bytes", "request_row_key", "uniform"]

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

SPARK_SEED = 42
BUCKETS = 100

_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(p)
    for p in (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
)


def hash64(*columns: Any) -> Int64s:
    """Spark's ``xxhash64(columns...)``.

    Args:
        columns: arrays of one length (integers are hashed as int64, everything else as UTF-8
            text; nulls are skipped, as Spark does), or scalars, which are broadcast.

    Returns:
        int64 hashes, shape (rows,).
    """
    arrays = [column for column in columns if not isinstance(column, str | int)]
    rows = len(arrays[0]) if arrays else 1
    hashes: UInt64s = np.full(rows, SPARK_SEED, np.uint64)
    for column in columns:
        hashes = _fold(column, hashes)
    return hashes.view(np.int64)


def uniform(hashes: Int64s) -> npt.NDArray[np.float64]:
    """Hashes as numbers in [0, 1): their upper 53 bits."""
    return (hashes.view(np.uint64) >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def decision(name: str, seed: int, *keys: Any) -> npt.NDArray[np.float64]:
    """The number in [0, 1) by which the decision ``name`` is taken for each key."""
    return uniform(hash64(name, seed, *keys))


def request_row_key(request_id: Any, item_id: Any) -> Int64s:
    """``row_key`` of the tables: hash of request and item."""
    return hash64(request_id, item_id)


def bucket(salt: str, user_ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """XXH64 of ``<salt>:<user_id>`` with seed 0, modulo 100."""
    text = pa.array([f"{salt}:{user}" for user in user_ids], pa.string())
    return (_hash_text(text, np.zeros(len(text), np.uint64)) % np.uint64(BUCKETS)).astype(np.int64)


def hash_bytes(data: bytes, seed: int = 0) -> int:
    """XXH64 of one byte string, as an unsigned integer."""
    rows = np.frombuffer(data, np.uint8).reshape(1, -1)
    with np.errstate(over="ignore"):
        return int(_hash_rows(rows, np.array([seed], np.uint64))[0])


def _fold(column: Any, seeds: UInt64s) -> UInt64s:
    if isinstance(column, str):
        column = pa.array([column], pa.string()).take(pa.array(np.zeros(len(seeds), np.int64)))
    elif isinstance(column, int):
        column = np.full(len(seeds), column, np.int64)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not isinstance(column, pa.Array):
        column = pa.array(column)
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_integer(column.type):
        numbers = column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        hashed = _hash_int64(numbers, seeds)
    else:
        hashed = _hash_text(column, seeds)
    return np.where(valid, hashed, seeds)


def _hash_text(column: pa.Array, seeds: UInt64s) -> UInt64s:
    """Hash each distinct text once where all seeds are one."""
    if len(seeds) and bool((seeds == seeds[0]).all()):
        encoded = column if isinstance(column, pa.DictionaryArray) else column.cast(pa.string()).dictionary_encode()
        codes = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
        texts = encoded.dictionary.cast(pa.string())
        distinct = _hash_texts(texts, np.full(len(texts), seeds[0], np.uint64))
        return distinct[codes] if len(distinct) else np.zeros(len(seeds), np.uint64)
    return _hash_texts(column.cast(pa.string()), seeds)


def _hash_texts(texts: pa.StringArray, seeds: UInt64s) -> UInt64s:
    """Grouped by length, so that NumPy can do the work; a null is hashed as no text at all."""
    texts = texts.fill_null("")
    _, offsets, data = texts.buffers()
    hashes = np.zeros(len(texts), np.uint64)
    if not len(texts):
        return hashes
    ends = np.frombuffer(offsets, np.int32, len(texts) + 1, texts.offset * 4).astype(np.int64)
    text_bytes = np.frombuffer(data if data is not None else b"", np.uint8)
    lengths = np.diff(ends)
    for length in np.unique(lengths):
        at = np.flatnonzero(lengths == length)
        rows = text_bytes[ends[at][:, None] + np.arange(length)]
        with np.errstate(over="ignore"):
            hashes[at] = _hash_rows(rows, seeds[at])
    return hashes


def _rotate(values: UInt64s, bits: int) -> UInt64s:
    return (values << np.uint64(bits)) | (values >> np.uint64(64 - bits))


def _round(accumulator: UInt64s, lane: UInt64s) -> UInt64s:
    return _rotate(accumulator + lane * _P2, 31) * _P1


def _avalanche(hashes: UInt64s) -> UInt64s:
    hashes = (hashes ^ (hashes >> np.uint64(33))) * _P2
    hashes = (hashes ^ (hashes >> np.uint64(29))) * _P3
    return hashes ^ (hashes >> np.uint64(32))


def _hash_int64(numbers: Int64s, seeds: UInt64s) -> UInt64s:
    with np.errstate(over="ignore"):
        hashes = seeds + _P5 + np.uint64(8)
        hashes = hashes ^ _round(np.zeros_like(seeds), numbers.view(np.uint64))
        return _avalanche(_rotate(hashes, 27) * _P1 + _P4)


def _hash_rows(rows: npt.NDArray[np.uint8], seeds: UInt64s) -> UInt64s:
    """XXH64 of byte strings of one length. rows: (B, length) uint8; seeds: (B,)."""
    length, at = rows.shape[1], 0
    if length >= 32:
        lanes = [seeds + _P1 + _P2, seeds + _P2, seeds.copy(), seeds - _P1]
        while at + 32 <= length:
            block = np.ascontiguousarray(rows[:, at : at + 32]).view("<u8")
            lanes = [_round(lane, block[:, i]) for i, lane in enumerate(lanes)]
            at += 32
        hashes = _rotate(lanes[0], 1) + _rotate(lanes[1], 7) + _rotate(lanes[2], 12) + _rotate(lanes[3], 18)
        for lane in lanes:
            hashes = (hashes ^ _round(np.zeros_like(seeds), lane)) * _P1 + _P4
    else:
        hashes = seeds + _P5
    hashes = hashes + np.uint64(length)
    while at + 8 <= length:
        word = np.ascontiguousarray(rows[:, at : at + 8]).view("<u8")[:, 0]
        hashes = _rotate(hashes ^ _round(np.zeros_like(seeds), word), 27) * _P1 + _P4
        at += 8
    if at + 4 <= length:
        half = np.ascontiguousarray(rows[:, at : at + 4]).view("<u4")[:, 0].astype(np.uint64)
        hashes = _rotate(hashes ^ (half * _P1), 23) * _P2 + _P3
        at += 4
    while at < length:
        hashes = _rotate(hashes ^ (rows[:, at].astype(np.uint64) * _P5), 11) * _P1
        at += 1
    return _avalanche(hashes)
