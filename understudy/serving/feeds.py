"""A request's feeds, from the user's row, the item snapshot and the context: the twin of ``understudy.inputs.encode``.

What does not change from candidate to candidate is made once. What is unknown is fed as in training: texts as 0,
numbers as NaN, counters as 0, times as never. Shapes as in ``understudy.inputs``: one request of M candidates.
"""

import datetime
import zoneinfo
from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from understudy.errors import BadInput
from understudy.features.items import UNKNOWN_US, ItemSnapshot
from understudy.features.views import CROSSES, HISTORIES, cross_view
from understudy.inputs import EVENT_KEYS, IDS, NEVER, Feeds, Inputs
from understudy.serving.hashes import hash_of
from understudy.serving.online import Asked, Row

__all__ = ["Assembler", "Known"]

_USER, _ITEM = "user_profile__", "item_profile__"

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Known:
    """What is known of a user: rows of ``user_history`` and ``user_profile``, and a row per cross and its value."""

    history: Row
    profile: Row
    crosses: dict[tuple[str, str], Row]


class Assembler:
    """Feeds of one release from one snapshot.

    Raises:
        BadInput: the features lack what the release is fed.
    """

    def __init__(self, inputs: Inputs, items: ItemSnapshot) -> None:
        self.inputs, self.items = inputs, items
        self.zone = zoneinfo.ZoneInfo(inputs.time_zone)
        self.shapes = inputs.shapes()
        self.counters = [[f"{c}_{h}" for c in inputs.counts] for h in inputs.half_lives]
        self.columns = {view: _places(items, view, list(chain(*self.counters))) for view in HISTORIES[1:]}
        self.surface_columns = _places(items, "surface_counters", [f"surface_{c}" for c in inputs.counts])
        self.item_texts = _attributes(items, "hashes", inputs.categorical, inputs.categorical)
        self.item_numbers = _attributes(items, "numbers", inputs.numeric, set(inputs.numeric) - set(inputs.times))
        self.item_times = _attributes(items, "times_us", inputs.numeric, inputs.times)
        self.hours = [hash_of(str(hour)) for hour in range(24)]

    def asked(self, user_id: str, at: Int64s) -> list[Asked]:
        """The rows that a request needs: the user's history and profile, and one per cross and value.

        Args:
            at: (M,) the candidates' rows in the snapshot.
        """
        asked: list[Asked] = [("user_history", (user_id,)), ("user_profile", (user_id,))]
        for cross in self.inputs.crosses:
            codes = self.items.codes[cross][at[at >= 0]]
            names = self.items.names[cross]
            asked += [(cross_view(cross), (user_id, names[code].decode())) for code in np.unique(codes[codes >= 0])]
        return asked

    def known(self, asked: list[Asked], rows: list[Row]) -> Known:
        """The rows that the store gave for ``asked``, by what they are."""
        crosses = {(view, values[1]): row for (view, values), row in zip(asked[2:], rows[2:], strict=True) if row}
        return Known(rows[0], rows[1], crosses)

    def feeds(
        self, user_id: str, item_ids: Int64s, at: Int64s, known: Known, surface: str | None, now_us: int
    ) -> Feeds:
        """Feeds of one request.

        Args:
            item_ids: (M,) hashes. at: (M,) their rows in the snapshot; −1: unknown.
            known: of the user.
            now_us: when it is served.
        """
        found = {
            name: np.zeros((1 if name.startswith("event_") else len(at), *shape), kind)
            for name, (kind, shape) in self.shapes.items()
        }
        there: Any = at >= 0
        # Most slates are known throughout; a slice is written to faster than a mask, as `take` is faster than an index.
        there, rows = (slice(None), at) if there.all() else (there, at[there])
        local = datetime.datetime.fromtimestamp(now_us // 1_000_000, self.zone)
        found["hour"][:] = np.float32(local.hour) + np.float32(local.minute) / np.float32(60)
        found["position"][:] = np.nan
        texts = found["categorical"]
        texts[:, 0], texts[:, 1] = hash_of(user_id), item_ids
        texts[:, self.inputs.categorical.index("surface")] = hash_of(surface) if surface is not None else 0
        texts[:, self.inputs.categorical.index("hour")] = self.hours[local.hour]
        hashes = self.items.hashes.take(rows, axis=0)
        for to, column in self.item_texts:
            texts[there, to] = hashes[:, column]
        self._attributes(found, known.profile, there, rows, now_us)
        self._counters(found, known, there, rows, now_us)
        self._events(found, known.history, now_us)
        return found

    def _attributes(self, found: Feeds, profile: Row, there: Any, rows: Int64s, now_us: int) -> None:
        for to, name in enumerate(self.inputs.categorical):
            value = profile.get(name.removeprefix(_USER)) if name.startswith(_USER) else None
            if value is not None:
                found["categorical"][:, to] = hash_of(value)
        numbers = found["numeric"]
        numbers[:] = np.nan
        known, times_us = self.items.numbers.take(rows, axis=0), self.items.times_us.take(rows, axis=0)
        for to, column in self.item_numbers:
            numbers[there, to] = known[:, column]
        for to, column in self.item_times:
            numbers[there, to] = _age_s(times_us[:, column], now_us, np.nan)
        for to, name in enumerate(self.inputs.numeric):
            value = profile.get(name.removeprefix(_USER)) if name.startswith(_USER) else None
            if value is not None:
                then = np.array([value], np.int64) if name in self.inputs.times else None
                numbers[:, to] = value if then is None else _age_s(then, now_us, np.nan)

    def _counters(self, found: Feeds, known: Known, there: Any, rows: Int64s, now_us: int) -> None:
        counters, ages = found["counters"], found["counter_age_s"]
        ages[:] = NEVER
        self._user_counters(counters[:, 0], ages[:, 0], known.history, slice(None), now_us)
        for v, view in enumerate(HISTORIES[1:], start=1):
            values = _columns(self.items.counters[view].take(rows, axis=0), self.columns[view])
            counters[there, v] = values.reshape(-1, *counters.shape[2:])
            ages[there, v] = _age_s(self.items.last_us[view].take(rows), now_us, NEVER)
        for v, cross in enumerate(self.inputs.crosses, start=len(HISTORIES)):
            codes = np.full(len(ages), -1, np.int64)
            codes[there] = self.items.codes[cross].take(rows)
            for code in np.unique(codes[codes >= 0]):
                row = known.crosses.get((cross_view(cross), self.items.names[cross][code].decode()))
                if row:
                    self._user_counters(counters[:, v], ages[:, v], row, codes == code, now_us)
        width = min(found["surface_keys"].shape[1], self.items.surface_keys.shape[1])
        found["surface_keys"][there, :width] = self.items.surface_keys.take(rows, axis=0)[:, :width]
        own = self.items.surface_counters.take(rows, axis=0)
        found["surface_counters"][there, :width] = _columns(own, self.surface_columns)[:, :width]

    def _user_counters(self, counters: Any, ages: Any, row: Row, which: Any, now_us: int) -> None:
        """Counters (M, L, K) and ages (M,) from one row of the online store."""
        if row.get("last_event_us") is None:
            return
        counters[which] = [[row.get(name) or 0.0 for name in names] for names in self.counters]
        ages[which] = (now_us - row["last_event_us"]) / 1e6

    def _events(self, found: Feeds, history: Row, now_us: int) -> None:
        """The user's last events, newest first; what is longer than the release reads is cut."""
        found["event_age_s"][:] = NEVER
        width = self.inputs.recent_events
        times = np.array(history.get("events_us") or [], np.int64)[:width]
        found["event_age_s"][0, : len(times)] = (now_us - times) / 1e6
        for to, key in enumerate(EVENT_KEYS):
            values = (history.get(f"events_{key}") or [])[:width]
            found["event_keys"][0, : len(values), to] = values
        for to, head in enumerate(self.inputs.heads):
            values = (history.get(f"events_{head}") or [])[:width]
            found["event_outcomes"][0, : len(values), to] = values


def _columns(values: npt.NDArray[Any], places: list[int]) -> npt.NDArray[Any]:
    """Places of the last axis, without a copy where it is all of them."""
    return values if places == list(range(values.shape[-1])) else values[..., places]


def _age_s(then_us: Int64s, now_us: int, missing: float) -> npt.NDArray[np.float32]:
    """Seconds since; ``missing`` where it is unknown, and of an attribute also where it has not come yet."""
    known = then_us != UNKNOWN_US
    age = (now_us - np.where(known, then_us, now_us)) / 1e6
    late = np.isnan(missing) & (age < 0)
    return np.where(known & ~late, age, missing).astype(np.float32)


def _attributes(
    items: ItemSnapshot, array: str, inputs: tuple[str, ...], wanted: Collection[str]
) -> list[tuple[int, int]]:
    """Place of each of an item's attributes among the inputs, and in the snapshot's array."""
    of_item = [
        (to, name.removeprefix(_ITEM))
        for to, name in enumerate(inputs)
        if name in wanted and (name.startswith(_ITEM) or name in IDS[2:])
    ]
    places = _places(items, array, [name for _, name in of_item])
    return [(to, place) for (to, _), place in zip(of_item, places, strict=True)]


def _places(items: ItemSnapshot, array: str, names: list[str]) -> list[int]:
    missing = [name for name in names if name not in items.columns[array]]
    if missing:
        raise BadInput(
            f"item snapshot {items.name}: expected {array} {', '.join(missing)}, which the release is fed, found "
            f"{', '.join(items.columns[array])}; refresh the features with the release's configuration"
        )
    return [items.columns[array].index(name) for name in names]


assert set(CROSSES) == {"creator", "topic"}, "the snapshot has codes of these"
