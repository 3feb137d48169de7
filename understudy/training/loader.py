"""The training set as a stream: decided, shuffled and cut into batches while it is read, never all in memory.

The trade-off: order is random on two levels only. Row groups are drawn at random, some at a time; rows are mixed among
those. It follows from seed and epoch alone, so training goes on in the middle of an epoch without reading what came
before. What memory holds is a few groups, and some forty bytes of every kept row.
"""

import collections
import concurrent.futures
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from understudy.inputs import Feeds
from understudy.lake import Lake
from understudy.ranker.network import RankerModel
from understudy.sampling.config import Sampling
from understudy.sampling.decide import decide, random_factor, rule_columns
from understudy.training.batches import Rows

__all__ = ["Loader", "Stream"]

Int64s = npt.NDArray[np.int64]
Prepare = Callable[[pa.Table], Feeds]

_AHEAD = 1  # blocks that are read while one is used
_INDEX = ("row_key", "request_id", "day", "slice")


@dataclass(frozen=True)
class Group:
    """A row group with the rows of it that train.

    Args:
        file: path in the lake; ``day``: of its folder.
        kept: places in the group, rising.
        first: place of its first row among all kept ones.
    """

    file: str
    day: str
    number: int
    kept: Int64s
    first: int


class Loader:
    """Reads the rows of a training set that a sampling configuration keeps.

    Args:
        folder: of the training set, in the lake.
        heads: whose positives are all kept.
        attributes: as ``understudy.sampling.decide.decide`` takes them.
    """

    def __init__(
        self, lake: Lake, folder: str, sampling: Sampling, heads: tuple[str, ...], attributes: dict[str, pa.Table]
    ) -> None:
        self.lake, self.folder = lake, folder
        self.groups: list[Group] = []
        self.considered = 0
        self._texts: dict[str, set[str]] = {}
        files = [name for name in lake.files(folder) if name.endswith(".parquet")]
        parts = [part for name in files for part in self._survey(name, sampling, heads, attributes)]
        index = pa.concat_tables(parts) if parts else pa.table({})
        self.index = _with_random_share(index, sampling) if parts else index

    def __len__(self) -> int:
        return int(self.index.num_rows)

    def table(self, columns: Sequence[str]) -> pa.Table:
        """All kept rows, in the order of ``index``."""
        return pa.concat_tables(self.read(group, columns) for group in self.groups)

    def read(self, group: Group, columns: Sequence[str]) -> pa.Table:
        """The kept rows of a group, with their weights."""
        with self._open(group.file, self._texts[group.file] & set(columns)) as file:
            known = [name for name in columns if name in file.schema_arrow.names]
            found = file.read_row_group(group.number, known, use_threads=False)
        if len(group.kept) < found.num_rows:
            found = found.take(pa.array(group.kept))
        own = self.index.slice(group.first, len(group.kept))
        for name in columns:
            if name in own.column_names:
                found = found.drop_columns([name]) if name in found.column_names else found
                found = found.append_column(name, own[name])
        return found

    def batches(
        self, columns: Sequence[str], prepare: Prepare, size: int, block: int, seed: int, epoch: int, first: int = 0
    ) -> Iterator[tuple[Feeds, Int64s]]:
        """The rows of an epoch in shuffled batches, each with its rows' places in ``index``.

        Args:
            columns: of the training set.
            prepare: makes arrays of a row group's rows, (rows, ...) each; mixing them is cheaper than mixing lists.
            size: rows of a batch.
            block: rows that are mixed, about; what memory holds is twice that.
            first: number of the batch to begin with.
        """
        waiting: list[tuple[Feeds, Int64s]] = []
        held = 0
        for arrays, at, order in self._mixed(columns, prepare, block, seed, epoch, first * size):
            start = 0
            while start < len(order):
                some = order[start : start + size - held]
                waiting.append(({name: array.take(some, axis=0) for name, array in arrays.items()}, at[some]))
                held, start = held + len(some), start + len(some)
                if held == size:
                    yield _joined(waiting)
                    waiting, held = [], 0
        if waiting:
            yield _joined(waiting)

    def _mixed(
        self, columns: Sequence[str], prepare: Prepare, block: int, seed: int, epoch: int, skip: int
    ) -> Iterator[tuple[Feeds, Int64s, Int64s]]:
        """Some row groups at a time, their rows' places in ``index`` and their order; the next are read meanwhile.

        Args:
            skip: rows of the epoch to leave out; groups that hold only such rows are not read.
        """
        wanted = []
        for number, groups in enumerate(self._blocks(block, seed, epoch)):
            rows = sum(len(group.kept) for group in groups)
            if skip < rows:
                wanted.append((number, groups, skip))
            skip = max(0, skip - rows)

        largest = max((sum(len(group.kept) for group in groups) for _, groups, _ in wanted), default=0)
        spare: collections.deque[Feeds] = collections.deque({} for _ in range(_AHEAD + 2))  # used, waiting, being read

        def read(number: int, groups: list[Group], skip: int) -> tuple[Feeds, Int64s, Int64s]:
            at = np.concatenate([np.arange(g.first, g.first + len(g.kept)) for g in groups])
            whole = spare.pop()
            rows = 0
            for arrays in pool.map(lambda group: prepare(self.read(group, columns)), groups):
                rows = _put(whole, arrays, rows, largest)
            order = np.random.default_rng([seed, epoch, 1 + number]).permutation(len(at))
            return whole, at, order[skip:]

        with concurrent.futures.ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for mixed in _ahead(read, wanted):
                yield mixed
                spare.append(mixed[0])

    def _blocks(self, block: int, seed: int, epoch: int) -> Iterator[list[Group]]:
        order = np.random.default_rng([seed, epoch, 0]).permutation(len(self.groups))
        some: list[Group] = []
        for place in order:
            some.append(self.groups[place])
            if sum(len(group.kept) for group in some) >= block:
                yield some
                some = []
        if some:
            yield some

    def _survey(
        self, file_name: str, sampling: Sampling, heads: tuple[str, ...], attributes: dict[str, pa.Table]
    ) -> Iterator[pa.Table]:
        """Decide every training row of a file; yields, per group, what is kept in memory of them."""
        day = file_name.split("/", maxsplit=1)[0].removeprefix("day=")
        labels = [f"label_{head}" for head in heads]
        wanted = {*_INDEX, "split", "inclusion_probability", "user_id", "item_id", *labels, *rule_columns(sampling)}
        with self._open(file_name) as file:
            columns = sorted(wanted & set(file.schema_arrow.names))
            self._texts[file_name] = {f.name for f in file.schema_arrow if pa.types.is_string(f.type)} - {*_INDEX}
            for number in range(file.num_row_groups):
                rows = file.read_row_group(number, columns)
                if "day" not in rows.column_names:
                    rows = rows.append_column("day", pa.repeat(pa.scalar(day), rows.num_rows))
                train = np.flatnonzero(np.asarray(rows["split"]) == "train")
                self.considered += len(train)
                found = rows.take(pa.array(train))
                decided = decide(found, sampling, heads, attributes)
                kept = train[decided.keep]
                if not len(kept):
                    continue
                first = self.groups[-1].first + len(self.groups[-1].kept) if self.groups else 0
                self.groups.append(Group(file_name, day, number, kept, first))
                narrow = found.filter(pa.array(decided.keep)).select([*_INDEX, *labels])
                narrow = narrow.append_column("sample_weight", pa.array(decided.weight[decided.keep]))
                yield narrow.append_column("importance", pa.array(decided.importance[decided.keep]))

    def _open(self, name: str, coded: Iterable[str] = ()) -> pq.ParquetFile:
        """A file of the training set.

        Args:
            coded: columns whose texts come as codes and a dictionary, as the file holds them.
        """
        path = self.lake.path(self.folder, name)
        return pq.ParquetFile(path, filesystem=self.lake.fs, memory_map=False, read_dictionary=list(coded))


class Stream:
    """A ``Source`` of training batches.

    Args:
        model: whose preprocessing is fitted.
        labels_BH, weights_B, traffic_B, teacher_BH: of all kept rows, in the order of the loader's index.
        block: rows that are mixed.
    """

    def __init__(
        self,
        loader: Loader,
        model: RankerModel,
        labels_BH: Tensor,
        weights_B: Tensor,
        traffic_B: Tensor,
        *,
        block: int,
        device: str,
        teacher_BH: Tensor | None = None,
    ) -> None:
        self.loader, self.model, self.block = loader, model, block
        self.labels, self.teacher = labels_BH, teacher_BH
        self.weights, self.traffic = weights_B / weights_B.mean(), traffic_B / traffic_B.mean()
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self.loader)

    def steps(self, size: int) -> int:
        return -(-len(self) // size)

    def batches(self, size: int, seed: int, epoch: int, first: int) -> Iterator[Rows]:
        inputs = self.model.inputs
        for feeds, at in self.loader.batches(inputs.columns(), inputs.encode, size, self.block, seed, epoch, first):
            places = torch.from_numpy(at)
            labels, weights = self.labels[places], self.weights[places]
            teacher = None if self.teacher is None else self.teacher[places].to(self.device)
            rows = Rows.prepare(self.model, feeds, labels, weights, device=str(self.device))
            yield replace(
                rows, weights=weights.to(self.device), traffic=self.traffic[places].to(self.device), teacher=teacher
            )


def _with_random_share(index: pa.Table, sampling: Sampling) -> pa.Table:
    """The random slice's importance, scaled to its share of the loss."""
    if sampling.random_slice_share is None:
        return index
    random = np.asarray(index["slice"]) == "random"
    importance = np.array(index["importance"])
    factor = random_factor(random, np.asarray(index["sample_weight"]) * importance, sampling.random_slice_share)
    importance[random] *= factor
    return index.set_column(index.schema.get_field_index("importance"), "importance", pa.array(importance))


def _put(whole: Feeds, arrays: Feeds, at: int, capacity: int) -> int:
    """Copy rows into arrays that are used again and again: touching new memory costs more than copying.

    Returns:
        The place after the last row.
    """
    end = at
    for name, array in arrays.items():
        if name not in whole:
            whole[name] = np.empty((capacity, *array.shape[1:]), array.dtype)
        end = at + len(array)
        whole[name][at:end] = array
    return end


def _joined(parts: list[tuple[Feeds, Int64s]]) -> tuple[Feeds, Int64s]:
    if len(parts) == 1:
        return parts[0]
    arrays = {name: np.concatenate([part[name] for part, _ in parts]) for name in parts[0][0]}
    return arrays, np.concatenate([at for _, at in parts])


def _ahead(read: Any, wanted: list[Any]) -> Iterator[Any]:
    """Call ``read`` on each in turn, in a thread that stays one ahead; an error is raised where it is met."""
    results: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(_AHEAD)
    stopped = threading.Event()

    def put(result: Any, error: BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                results.put((result, error), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for one in wanted:
                if not put(read(*one), None):
                    return
            put(None, StopIteration())
        except BaseException as error:
            put(None, error)

    thread = threading.Thread(target=work, name="loader", daemon=True)
    thread.start()
    try:
        while True:
            result, error = results.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield result
    finally:
        stopped.set()
        thread.join()
