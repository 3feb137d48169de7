"""The vocabulary: each known value has its own row, everything else its column's default."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.ranker.vocabulary import ValueCounts, Vocabulary

hashes = st.integers(-(2**63), 2**63 - 1).filter(bool)
columns = st.lists(st.lists(hashes, max_size=40, unique=True).map(sorted), min_size=1, max_size=4)


@settings(deadline=None)
@given(columns, st.lists(hashes, max_size=5), st.integers(0, 4))
def test_what_is_known_has_its_row_and_what_is_not_the_default(
    known: list[list[int]], others: list[int], cut: int
) -> None:
    vocabulary = Vocabulary.build(tuple("abcd"[: len(known)]), [np.array(one, np.int64) for one in known])
    asked = [0, *others, *(value for one in known for value in one)]
    rows = torch.tensor([[value] * len(known) for value in asked])
    places = torch.arange(len(known))
    (found,) = vocabulary((rows, places))
    first = 0
    for column, values in enumerate(known):
        expected = [first + 1 + values.index(value) if value in values else first for value in asked]
        assert found[:, column].tolist() == expected
        first += len(values) + 1
    head, rest = vocabulary((rows[:, :cut], places[:cut]), (rows[:, cut:], places[cut:]))
    assert torch.equal(torch.cat([head, rest], dim=1), found)


def test_a_value_is_known_that_occurs_often_enough_in_all_parts_together() -> None:
    counts = ValueCounts()
    counts.add(np.array([[7, 1], [7, 1], [0, 2]], np.int64))
    counts.add(np.array([[7, 2], [8, 3], [0, 2]], np.int64))
    assert [column.tolist() for column in counts.frequent(3)] == [[7], [2]]
    assert [column.tolist() for column in counts.frequent(1)] == [[7, 8], [1, 2, 3]]
