"""Which row of the embedding table a hashed value has, as arithmetic that runs inside the network.

A vocabulary is a two-table cuckoo hash (Pagh and Rodler, 2004): a value lies in one of two slots,
so a look-up is two gathers and two comparisons, exact, and the same in PyTorch and in ONNX. What
is not in the vocabulary gets its column's default row.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from understudy.hashing import hash64

__all__ = ["ValueCounts", "Vocabulary", "column_salts"]

_POSITIVE = 0x7FFFFFFFFFFFFFFF
_MAX_KICKS = 500

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Slots:
    """Two tables of keys and rows; unused slots hold key 0."""

    keys: tuple[Int64s, Int64s]
    rows: tuple[Int64s, Int64s]


def column_salts(columns: tuple[str, ...]) -> Int64s:
    """What is XORed to a column's hashes, so that equal texts in two columns are two values."""
    return np.array([int(hash64("vocabulary", column)[0]) for column in columns], np.int64)


class ValueCounts:
    """How often each hash occurs in each column, of rows that come in parts."""

    def __init__(self) -> None:
        self.columns: list[tuple[Int64s, Int64s]] = []

    def add(self, hashes_BC: Int64s) -> None:
        found = [np.unique(column, return_counts=True) for column in hashes_BC.T]
        before = self.columns or [(np.zeros(0, np.int64), np.zeros(0, np.int64))] * len(found)
        self.columns = [_summed(old, new) for old, new in zip(before, found, strict=True)]

    def frequent(self, least: int) -> list[Int64s]:
        """Per column the hashes that occur at least so often, sorted; 0 (missing) never."""
        return [values[(counts >= least) & (values != 0)] for values, counts in self.columns]


def _summed(old: tuple[Int64s, Int64s], new: tuple[Int64s, Int64s]) -> tuple[Int64s, Int64s]:
    values, place = np.unique(np.concatenate([old[0], new[0]]), return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, place, np.concatenate([old[1], new[1]]))
    return values, counts


class Vocabulary(nn.Module):
    """Rows of one embedding table for the values of several columns.

    Row ``base[c]`` is the default of column c; its known values follow.

    Args:
        capacity: slots of each of the two tables.
        columns: C.
    """

    salts_C: Tensor
    bases_C: Tensor
    keys_0: Tensor
    keys_1: Tensor
    rows_0: Tensor
    rows_1: Tensor

    def __init__(self, capacity: int, columns: int) -> None:
        super().__init__()
        for name, size in (("salts_C", columns), ("bases_C", columns)):
            self.register_buffer(name, torch.zeros(size, dtype=torch.int64))
        for table in (0, 1):
            size = capacity + table  # coprime sizes make the two slots independent
            self.register_buffer(f"keys_{table}", torch.zeros(size, dtype=torch.int64))
            self.register_buffer(f"rows_{table}", torch.zeros(size, dtype=torch.int64))

    @classmethod
    def build(cls, columns: tuple[str, ...], values: list[Int64s]) -> "Vocabulary":
        """A vocabulary of the given hashes per column."""
        salts = column_salts(columns)
        sizes = np.array([len(v) + 1 for v in values], np.int64)
        bases = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        keys = np.concatenate([v ^ salt for v, salt in zip(values, salts, strict=True)])
        rows = np.concatenate([base + 1 + np.arange(len(v)) for v, base in zip(values, bases, strict=True)])
        capacity = max(8, int(len(keys) * 1.3))
        while (slots := _cuckoo(keys, rows, capacity)) is None:
            capacity = int(capacity * 1.3)
        vocabulary = cls(capacity, len(columns))
        vocabulary.salts_C.copy_(torch.from_numpy(salts))
        vocabulary.bases_C.copy_(torch.from_numpy(bases))
        for table in (0, 1):
            getattr(vocabulary, f"keys_{table}").copy_(torch.from_numpy(slots.keys[table]))
            getattr(vocabulary, f"rows_{table}").copy_(torch.from_numpy(slots.rows[table]))
        return vocabulary

    def forward(self, *parts: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Rows of the embedding table, of several parts in one look-up.

        Args:
            parts: hashes, int64 (..., n), one column of the vocabulary at each place of the last axis, 0 where missing,
                which is never known; and columns, int64 (n,), which column that is.

        Returns:
            of each part, int64 (..., n).
        """
        keys = torch.cat([torch.bitwise_xor(hashes, self.salts_C[columns]).flatten() for hashes, columns in parts])
        positive = torch.bitwise_and(keys, _POSITIVE)
        rows = torch.full_like(keys, -1)
        for table_keys, table_rows in ((self.keys_0, self.rows_0), (self.keys_1, self.rows_1)):
            slots = torch.remainder(positive, table_keys.shape[0])
            found = table_keys.index_select(0, slots) == keys
            rows = torch.where(found, table_rows.index_select(0, slots), rows)
        each = torch.split(rows, [hashes.numel() for hashes, _ in parts])
        # A column's known rows come after its default.
        return [
            torch.maximum(some.view(hashes.shape), self.bases_C[columns])
            for some, (hashes, columns) in zip(each, parts, strict=True)
        ]


def _cuckoo(keys: Int64s, rows: Int64s, capacity: int) -> Slots | None:
    """Place every key, or None where the tables are too small."""
    positive = keys & np.int64(_POSITIVE)
    places = [(positive % capacity).tolist(), (positive % (capacity + 1)).tolist()]
    tables = [[-1] * capacity, [-1] * (capacity + 1)]
    for start in range(len(keys)):
        item, table = start, 0
        for _ in range(_MAX_KICKS):
            slot = places[table][item]
            item, tables[table][slot] = tables[table][slot], item
            if item < 0:
                break
            table = 1 - table
        else:
            return None
    filled = []
    for slots in tables:
        at = np.array(slots, np.int64)
        empty = at < 0
        filled.append((np.where(empty, 0, keys[at]), np.where(empty, 0, rows[at])) if len(keys) else (at * 0, at * 0))
    return Slots((filled[0][0], filled[1][0]), (filled[0][1], filled[1][1]))
