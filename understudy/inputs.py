"""The model's inputs: names, order, shapes, defaults. Training, evaluation and serving encode alike.

``Inputs`` says what the network is fed; ``encode`` makes the feeds from a training set, or from
rows of the same columns. Values are fed raw: identifiers as hashes, counters as counted, missing
as zero, NaN or a negative age. All transformation is inside the network, so it cannot differ
between training and serving.

Shapes: B rows, C categorical columns, N numbers, V histories (crosses included), L half-lives, K = 1 + heads
(impressions, then each head), S surfaces, T events, H heads. The B rows are R requests of B / R
candidates each, in order; what a user's events say is fed once per request, and what else they share
(``is_of_request``, the user's counters) is read from the first of them. Logged rows are requests of one.
"""

import json
import zoneinfo
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from understudy.features.views import CROSSES, HISTORIES, cross_view
from understudy.hashing import hash64
from understudy.section import canonical_json, duration_s

__all__ = [
    "IDS",
    "NEVER",
    "PER_REQUEST",
    "Feeds",
    "Inputs",
    "batches",
    "encode",
    "is_of_request",
    "local_hour",
    "per_row",
]

Feeds = dict[str, npt.NDArray[Any]]
Lists = tuple[npt.NDArray[np.int32], npt.NDArray[Any]]  # the length of each row's list, and all elements

IDS = ("user_id", "item_id", "creator_id", "topic_id")
EVENT_KEYS = ("item", "creator", "topic", "surface")
PER_REQUEST = ("event_keys", "event_age_s", "event_outcomes")
NEVER = -1.0  # age in seconds of what has not happened
_HOUR = "hour"
_HOURS = pa.array([str(hour) for hour in range(24)]).dictionary_encode()


@dataclass(frozen=True)
class Inputs:
    """What the network is fed, in order.

    Args:
        heads: H outcomes.
        time_zone: of the hour of the day.
        categorical: C columns; the first are ids, then surface and hour, then attributes.
        numeric: N attribute columns: first numbers, then times, whose ages in seconds are fed.
        half_lives: of the counters, as configured.
        recent_events: T.
        surfaces: S.
        times: which of ``numeric`` are times, in microseconds.
        crosses: with what each user's own history is counted: ``creator``, ``topic``.
    """

    heads: tuple[str, ...]
    time_zone: str
    categorical: tuple[str, ...]
    numeric: tuple[str, ...]
    half_lives: tuple[str, ...]
    recent_events: int
    surfaces: int
    times: tuple[str, ...] = ()
    crosses: tuple[str, ...] = ()

    @classmethod
    def derive(
        cls,
        columns: pa.Schema,
        *,
        heads: tuple[str, ...],
        time_zone: str,
        half_lives: tuple[str, ...],
        recent_events: int,
        surfaces: int,
        crosses: tuple[str, ...] = CROSSES,
    ) -> "Inputs":
        """Inputs for the columns of a training set: all attributes, no outcome.

        Args:
            crosses: those that are read where the columns have them.
        """
        profile = [f for f in columns if f.name.startswith(("user_profile__", "item_profile__"))]
        own_ids = {"item_profile__creator_id", "item_profile__topic_id"}
        texts = [f.name for f in profile if pa.types.is_string(f.type) and f.name not in own_ids]
        numbers = sorted(f.name for f in profile if pa.types.is_floating(f.type))
        times = sorted(f.name for f in profile if pa.types.is_integer(f.type))
        return cls(
            heads=heads,
            time_zone=time_zone,
            categorical=(*IDS, "surface", _HOUR, *sorted(texts)),
            numeric=(*numbers, *times),
            half_lives=half_lives,
            recent_events=recent_events,
            surfaces=surfaces,
            times=tuple(times),
            crosses=tuple(c for c in CROSSES if c in crosses and f"{cross_view(c)}__last_event_us" in columns.names),
        )

    @property
    def half_lives_s(self) -> tuple[int, ...]:
        return tuple(duration_s(text) for text in self.half_lives)

    @property
    def histories(self) -> tuple[str, ...]:
        """Names of the V histories."""
        return (*HISTORIES, *(cross_view(cross) for cross in self.crosses))

    @property
    def counts(self) -> tuple[str, ...]:
        """Names of the K counts."""
        return ("impressions", *self.heads)

    def columns(self) -> list[str]:
        """Columns of a training set that ``encode`` reads."""
        histories = [
            f"{view}__{name}"
            for view in self.histories
            for name in ("last_event_us", *(f"{c}_{h}" for h in self.half_lives for c in self.counts))
        ]
        surfaces = ["item_history__surface_keys", *(f"item_history__surface_{c}" for c in self.counts)]
        events = [f"user_history__events_{name}" for name in (*EVENT_KEYS, "us", *self.heads)]
        plain = [name for name in self.categorical if name != _HOUR]
        return ["ts", "position", *plain, *self.numeric, *histories, *surfaces, *events]

    def shapes(self) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
        """Feed → (type, shape without B; without R for ``PER_REQUEST``), in the order of the served file's inputs."""
        v, half_lives, k = len(self.histories), len(self.half_lives), len(self.counts)
        return {
            "categorical": (np.int64, (len(self.categorical),)),
            "numeric": (np.float32, (len(self.numeric),)),
            "counters": (np.float32, (v, half_lives, k)),
            "counter_age_s": (np.float32, (v,)),
            "surface_keys": (np.int64, (self.surfaces,)),
            "surface_counters": (np.float32, (self.surfaces, k)),
            "event_keys": (np.int64, (self.recent_events, len(EVENT_KEYS))),
            "event_age_s": (np.float32, (self.recent_events,)),
            "event_outcomes": (np.float32, (self.recent_events, len(self.heads))),
            "hour": (np.float32, ()),
            "position": (np.float32, ()),
        }

    def to_json(self) -> str:
        return canonical_json(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Inputs":
        value = json.loads(text)
        plain: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
        return cls(**plain)

    def with_events(self, recent_events: int) -> "Inputs":
        return replace(self, recent_events=recent_events)

    def encode(self, table: pa.Table) -> Feeds:
        return encode(table, self)


def encode(table: pa.Table, inputs: Inputs) -> Feeds:
    """Feeds of the network for the rows of ``table``; shapes as in ``Inputs.shapes``.

    A column that the table lacks is fed as missing.
    """
    rows = table.num_rows
    ts_us = table["ts"].cast(pa.int64()).to_numpy()
    hour = local_hour(table["ts"], inputs.time_zone)
    feeds = {name: np.zeros((rows, *shape), kind) for name, (kind, shape) in inputs.shapes().items()}
    for i, name in enumerate(inputs.categorical):
        column = _HOURS.take(pa.array(hour.astype(np.int64))) if name == _HOUR else _column(table, name)
        feeds["categorical"][:, i] = _hashes(column, rows)
    for i, name in enumerate(inputs.numeric):
        column = _column(table, name)
        feeds["numeric"][:, i] = _since_s(ts_us, column) if name in inputs.times else _numbers(column, rows, np.nan)
    for v, view in enumerate(inputs.histories):
        for h, half_life in enumerate(inputs.half_lives):
            for k, count in enumerate(inputs.counts):
                feeds["counters"][:, v, h, k] = _numbers(_column(table, f"{view}__{count}_{half_life}"), rows, 0.0)
        feeds["counter_age_s"][:, v] = _age_s(ts_us, _column(table, f"{view}__last_event_us"))
    surface, events = "item_history__surface_", "user_history__events_"
    _pad(feeds["surface_keys"][:, :, None], [_lists(table, f"{surface}keys")])
    _pad(feeds["surface_counters"], [_lists(table, f"{surface}{count}") for count in inputs.counts])
    _pad(feeds["event_keys"], [_lists(table, f"{events}{key}") for key in EVENT_KEYS])
    _pad(feeds["event_outcomes"], [_lists(table, f"{events}{head}") for head in inputs.heads])
    feeds["event_age_s"].fill(NEVER)
    _pad(feeds["event_age_s"][:, :, None], [_ages_s(ts_us, _lists(table, f"{events}us"))])
    feeds["hour"][:] = hour
    feeds["position"][:] = _numbers(_column(table, "position"), rows, np.nan)
    return feeds


def is_of_request(column: str) -> bool:
    """Whether an input is the same for all candidates of a request."""
    return column in ("user_id", "surface", _HOUR) or column.startswith("user_profile__")


def batches(feeds: Feeds, rows: int) -> Iterator[Feeds]:
    """The same feeds, some requests at a time: about so many rows."""
    requests = len(feeds[PER_REQUEST[0]])
    width = len(feeds["hour"]) // max(requests, 1)
    size = max(1, rows // max(width, 1))
    for start in range(0, requests, size):
        some, theirs = slice(start, start + size), slice(start * width, (start + size) * width)
        yield {name: array[some if name in PER_REQUEST else theirs] for name, array in feeds.items()}


def per_row(feeds: Feeds) -> Feeds:
    """The same feeds with the events of each row's request: R = B."""
    rows = len(feeds["hour"])
    return {
        name: np.repeat(array, rows // len(array), axis=0) if name in PER_REQUEST else array
        for name, array in feeds.items()
    }


def _column(table: pa.Table, name: str) -> pa.Array | None:
    if name not in table.column_names:
        return None
    column = table[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def local_hour(ts: pa.Array | pa.ChunkedArray, time_zone: str) -> npt.NDArray[np.float32]:
    """Hour of the day in a time zone, with its fraction.

    Args:
        ts: times as an Arrow array.
    """
    zoneinfo.ZoneInfo(time_zone)
    local = pc.local_timestamp(ts.cast(pa.timestamp("us", tz=time_zone)))
    hours = np.asarray(pc.hour(local), np.float32)
    return hours + np.asarray(pc.minute(local), np.float32) / np.float32(60)


def _hashes(column: pa.Array | None, rows: int) -> npt.NDArray[np.int64]:
    """Hash of each text; 0 where it is missing."""
    if column is None or column.null_count == rows:
        return np.zeros(rows, np.int64)
    hashes = hash64(column)
    if column.null_count:
        hashes[column.is_null().to_numpy(zero_copy_only=False)] = 0
    return hashes


def _numbers(column: pa.Array | None, rows: int, missing: float) -> npt.NDArray[np.float32]:
    if column is None or column.null_count == rows:
        return np.full(rows, missing, np.float32)
    return np.asarray(column.cast(pa.float32(), safe=False).fill_null(missing), np.float32)


def _since_s(ts_us: npt.NDArray[np.int64], then_us: pa.Array | None) -> npt.NDArray[np.float32]:
    """Seconds since an attribute's time; NaN where it is missing, or had not come yet."""
    age_s = _age_s(ts_us, then_us)
    return np.where(age_s < 0, np.float32(np.nan), age_s)


def _age_s(ts_us: npt.NDArray[np.int64], then_us: pa.Array | None) -> npt.NDArray[np.float32]:
    if then_us is None or then_us.null_count == len(ts_us):
        return np.full(len(ts_us), NEVER, np.float32)
    age = (ts_us - then_us.fill_null(0).to_numpy(zero_copy_only=False)) / 1e6
    age[then_us.is_null().to_numpy(zero_copy_only=False)] = NEVER
    return np.asarray(age, np.float32)


def _lists(table: pa.Table, name: str) -> Lists | None:
    column = _column(table, name)
    if column is None or column.null_count == len(column):
        return None
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    return lengths, column.flatten().to_numpy(zero_copy_only=False)


def _ages_s(ts_us: npt.NDArray[np.int64], then_us: Lists | None) -> Lists | None:
    if then_us is None:
        return None
    lengths, values = then_us
    return lengths, ((np.repeat(ts_us, lengths) - values) / 1e6).astype(np.float32)


def _pad(target: npt.NDArray[Any], columns: list[Lists | None]) -> None:
    """Copy lists into ``target`` (B, width, n), each column at its place of the last axis; what is longer is cut."""
    width = target.shape[1]
    known, within = None, None
    for i, column in enumerate(columns):
        if column is None:
            continue
        lengths, values = column
        if known is None or not np.array_equal(known, lengths):
            known, within = lengths, np.arange(width) < lengths[:, None]
        target[:, :, i][within] = values if lengths.max() <= width else values[_places(lengths) < width]


def _places(lengths: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Place in its list of every element of lists that follow each other."""
    ends = np.cumsum(lengths, dtype=np.int64)
    places: npt.NDArray[np.int64] = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    return places
