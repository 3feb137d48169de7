"""Features as serving would read them, kept in memory while a simulated feed runs.

The twin of ``build_features`` and ``retrieve_features``, for a feed that needs them now: an impression
counts from the first refresh after its outcome is known, and a test holds both against each other.

Shapes: n impressions; U users, I items; L half-lives, K = 1 + heads, S surfaces, E recent events;
R requests with M items each, B = R × M rows.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from understudy import schema
from understudy.features.config import Features
from understudy.features.views import CROSSES
from understudy.hashing import hash64
from understudy.inputs import IDS, NEVER, PER_REQUEST, Feeds, Inputs, local_hour
from understudy.simulator.world import COHORTS, CONTENT_TYPES, SURFACES, State, born_us, cohorts_of

__all__ = ["Live", "Shown", "inputs_of"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_TYPE, _LENGTH, _COHORT = "item_profile__content_type", "item_profile__length_s", "user_profile__cohort"
_CREATED = "item_profile__created_at"
_BY_NAME = np.argsort(SURFACES)


def inputs_of(heads: tuple[str, ...], time_zone: str, features: Features) -> Inputs:
    """What a ranker of the simulated feed is fed: the columns that its log and attributes give."""
    return Inputs(
        heads=heads,
        time_zone=time_zone,
        categorical=(*IDS, "surface", "hour", _TYPE, _COHORT),
        numeric=(_LENGTH, _CREATED),
        half_lives=features.half_lives,
        recent_events=features.recent_events,
        surfaces=features.max_surfaces,
        times=(_CREATED,),
        crosses=tuple(cross for cross in CROSSES if cross in features.crosses),
    )


@dataclass(frozen=True)
class Shown:
    """Impressions that compaction keeps: users, items, surfaces, us, row_keys, weights (n,); labels (n, H)."""

    users: Integers
    items: Integers
    surfaces: Integers
    us: Integers
    row_keys: Integers
    weights: Floats
    labels: npt.NDArray[np.float32]

    def take(self, at: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> "Shown":
        return Shown(**{name: column[at] for name, column in vars(self).items()})


class Live:
    """The rows that a server could read now.

    Args:
        inputs: what the rankers are fed.
        refresh_s: the grid of refreshes; 0: at once.
        window_s: the attribution window, after which an outcome is known.
        state: the world, for what the product itself knows of users and items.
        start_us: the origin of time, before every impression.
    """

    def __init__(self, inputs: Inputs, refresh_s: int, window_s: int, state: State, start_us: int) -> None:
        self.inputs, self.state, self.start_us = inputs, state, start_us
        self.grid_us, self.window_us = refresh_s * 1_000_000, window_s * 1_000_000
        half_lives_us = np.array(inputs.half_lives_s, np.float64) * 1e6
        width = (len(inputs.counts),)
        self.histories = [_Counters(half_lives_us, (), width) for _ in inputs.histories]
        self.surfaces = _Counters(half_lives_us[-1:], (len(SURFACES),), width)
        self.recent = _Recent(inputs.recent_events, len(inputs.heads))
        self.waiting: list[tuple[Integers, Shown]] = []
        self.names = _Names()

    def observe(self, shown: Shown) -> None:
        """Note impressions whose outcomes will be readable later."""
        known = shown.us + self.window_us + 1
        self.waiting.append((-(-known // self.grid_us) * self.grid_us if self.grid_us else known, shown))

    def advance(self, now_us: int) -> None:
        """Refresh: what is readable by now counts."""
        ready = [shown.take(created <= now_us) for created, shown in self.waiting]
        kept = [(created[created > now_us], shown.take(created > now_us)) for created, shown in self.waiting]
        self.waiting = [(created, shown) for created, shown in kept if len(created)]
        ready = [shown for shown in ready if len(shown.us)]
        if ready:
            joined = Shown(**{name: np.concatenate([vars(one)[name] for one in ready]) for name in vars(ready[0])})
            self._count(joined.take(np.lexsort((joined.row_keys, joined.us))))

    def _count(self, shown: Shown) -> None:
        labels = np.concatenate([np.ones((len(shown.us), 1)), shown.labels], axis=1)
        counts = labels * shown.weights[:, None]
        at_us = shown.us - self.start_us
        for history, keys in zip(self.histories, self._keys(shown.users, shown.items), strict=True):
            history.add(keys, at_us, counts)
        here = np.zeros((len(shown.us), len(SURFACES), counts.shape[1]))
        here[np.arange(len(here)), shown.surfaces] = counts
        self.surfaces.add(shown.items, at_us, here)
        self.recent.add(shown)

    def _keys(self, users: Integers, items: Integers) -> list[Integers]:
        """(n,) per history: the keys by which it is counted."""
        creators, topics = self.state.creator[items], self.state.topic[items]
        crossed = {
            "creator": users * len(self.state.creators) + creators,
            "topic": users * len(self.state.topics) + topics,
        }
        return [users, items, creators, topics, *(crossed[cross] for cross in self.inputs.crosses)]

    def feeds(self, users: Integers, surfaces: Integers, us: Integers, items: Integers) -> Feeds:
        """Feeds of R requests of M candidates: user, surface and time with each of its items, in order.

        Args:
            users, surfaces, us: (R,). items: (R, M).
        """
        repeats = items.shape[1]
        flat, row = items.ravel(), np.repeat(np.arange(len(users)), repeats)
        creators, topics = self.state.creator[flat], self.state.topic[flat]
        found = {
            name: np.zeros((len(flat), *shape), kind)
            for name, (kind, shape) in self.inputs.shapes().items()
            if name not in PER_REQUEST
        }
        self.names.grow(self.state)
        created_us = born_us(self.state, self.start_us)
        names = self.names
        hour = local_hour(pa.array(us).cast(schema.TIMESTAMP), self.inputs.time_zone)
        ids = (names.users[users][row], names.items[flat], names.creators[creators], names.topics[topics])
        request = (names.surfaces[surfaces], names.hours[hour.astype(np.int64)])
        cohort = names.cohorts[cohorts_of(self.state)[users]]
        others = (*(column[row] for column in request), names.types[self.state.kind[flat]], cohort[row])
        found["categorical"][:] = np.stack([*ids, *others], axis=1)
        found["numeric"][:, 0] = self.state.length_s[flat]
        found["numeric"][:, 1] = (us[row] - created_us[flat]) / 1e6
        for v, (history, keys) in enumerate(zip(self.histories, self._keys(users[row], flat), strict=True)):
            last_us, found["counters"][:, v] = history.read(keys)
            age_s = (us[row] - self.start_us - last_us) / 1e6
            found["counter_age_s"][:, v] = np.where(last_us < 0, NEVER, age_s)
        last_us, counters = self.surfaces.read(flat)
        found["surface_keys"][:, : len(SURFACES)] = np.where(last_us[:, None] < 0, 0, names.surfaces[_BY_NAME])
        found["surface_counters"][:, : len(SURFACES)] = counters[:, 0][:, _BY_NAME]
        found["hour"][:] = hour[row]
        found["position"][:] = np.nan
        return found | self._events(users, us)

    def _events(self, users: Integers, us: Integers) -> Feeds:
        """The users' last events, newest first; (R, E, …)."""
        items, surfaces, then_us, outcomes = self.recent.read(users)
        known = items >= 0
        keys = (
            self.names.items[items],
            self.names.creators[self.state.creator[items]],
            self.names.topics[self.state.topic[items]],
            self.names.surfaces[surfaces],
        )
        return {
            "event_keys": np.where(known[..., None], np.stack(keys, axis=-1), 0),
            "event_age_s": np.where(known, (us[:, None] - then_us) / 1e6, NEVER).astype(np.float32),
            "event_outcomes": np.where(known[..., None], outcomes, np.float32(0)),
        }


class _Counters:
    """Decayed counts per key, each as at the key's last event.

    Args:
        half_lives_us: (L,).
        parts, width: shape of what one event adds, (*parts, K).
    """

    def __init__(self, half_lives_us: Floats, parts: tuple[int, ...], width: tuple[int, ...]) -> None:
        self.half_lives_us = half_lives_us.reshape(-1, *(1 for _ in (*parts, *width)))
        self.shape = (len(half_lives_us), *parts, *width)
        self.sums = np.zeros((0, *self.shape))
        self.values = np.zeros((0, *self.shape), np.float32)
        self.last_us = np.zeros(0, np.int64)

    def add(self, keys: Integers, at_us: Integers, counts: Floats) -> None:
        """Count events in order of time."""
        self._grow(int(keys.max(initial=-1)) + 1)
        np.add.at(self.sums, keys, counts[:, None] * np.exp2(self._places(at_us)))
        np.maximum.at(self.last_us, keys, at_us)
        touched = np.unique(keys)
        self.values[touched] = self.sums[touched] * np.exp2(-self._places(self.last_us[touched]))

    def _places(self, at_us: Integers) -> Floats:
        places: Floats = at_us.reshape(-1, *(1 for _ in self.shape)) / self.half_lives_us
        return places

    def _grow(self, size: int) -> None:
        if (missing := size - len(self.last_us)) > 0:
            self.sums = np.concatenate([self.sums, np.zeros((missing, *self.shape))])
            self.values = np.concatenate([self.values, np.zeros((missing, *self.shape), np.float32)])
            self.last_us = np.concatenate([self.last_us, np.full(missing, -1)])

    def read(self, keys: Integers) -> tuple[Integers, npt.NDArray[np.float32]]:
        """Time of the last event (−1: none) and counts of keys."""
        self._grow(int(keys.max(initial=-1)) + 1)
        return self.last_us[keys], self.values[keys]


class _Recent:
    """The last E events of each user, as a ring."""

    def __init__(self, width: int, heads: int) -> None:
        self.width = width
        self.count = np.zeros(0, np.int64)
        self.items = np.zeros((0, width), np.int64)
        self.surfaces = np.zeros((0, width), np.int64)
        self.us = np.zeros((0, width), np.int64)
        self.labels = np.zeros((0, width, heads), np.float32)

    def add(self, shown: Shown) -> None:
        """Append events in order of time."""
        self._grow(int(shown.users.max(initial=-1)) + 1)
        order = np.argsort(shown.users, kind="stable")
        users = shown.users[order]
        starts = np.flatnonzero(np.concatenate([[True], users[1:] != users[:-1]]))
        lengths = np.diff(np.append(starts, len(users)))
        nth = np.arange(len(users)) - np.repeat(starts, lengths)
        place = (self.count[users] + nth) % self.width
        last = nth >= np.repeat(lengths, lengths) - self.width
        for own, new in (
            (self.items, shown.items),
            (self.surfaces, shown.surfaces),
            (self.us, shown.us),
            (self.labels, shown.labels),
        ):
            own[users[last], place[last]] = new[order][last]
        self.count[users[starts]] += lengths

    def _grow(self, size: int) -> None:
        if (missing := size - len(self.count)) > 0:
            for name in ("count", "items", "surfaces", "us", "labels"):
                old = vars(self)[name]
                setattr(self, name, np.concatenate([old, np.zeros((missing, *old.shape[1:]), old.dtype)]))

    def read(self, users: Integers) -> tuple[Integers, Integers, Integers, npt.NDArray[np.float32]]:
        """Items (−1: none), surfaces, times (R, E) and outcomes (R, E, H), newest first."""
        self._grow(int(users.max(initial=-1)) + 1)
        back = np.arange(self.width)
        place = (self.count[users][:, None] - 1 - back) % self.width
        known = back < self.count[users][:, None]
        at = users[:, None], place
        return np.where(known, self.items[at], -1), self.surfaces[at], self.us[at], self.labels[at]


class _Names:
    """Hashes of the texts by which the log names users, items and the rest."""

    def __init__(self) -> None:
        self.users = self.items = self.creators = self.topics = np.zeros(0, np.int64)
        self.surfaces, self.types = hash64(pa.array(SURFACES)), hash64(pa.array(CONTENT_TYPES))
        self.cohorts = hash64(pa.array(COHORTS))
        self.hours = hash64(pa.array([str(hour) for hour in range(24)]))

    def grow(self, state: State) -> None:
        """Take in those who have come since."""
        self.users = _more("u", self.users, len(state.taste))
        self.items = _more("i", self.items, len(state.kind))
        self.creators = _more("c", self.creators, len(state.creators))
        self.topics = _more("t", self.topics, len(state.topics))


def _more(prefix: str, known: Integers, size: int) -> Integers:
    new = pa.array([f"{prefix}{number}" for number in range(len(known), size)], pa.string())
    return np.concatenate([known, hash64(new)]) if len(new) else known
