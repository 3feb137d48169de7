"""What a simulated day leaves in the lake: the log as a real feed would keep it, and the truth beside it.

The log goes through the same keep decision as the collector's. Clients send some reports twice, in any
order. The truth lies outside the tables, where no step of the pipeline looks.
"""

import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from understudy import schema
from understudy.config import Config
from understudy.hashing import bucket, request_row_key
from understudy.lake import Lake
from understudy.logs.keep import keeps
from understudy.logs.segments import write_attributes, write_segments
from understudy.section import duration_s
from understudy.simulator.config import World
from understudy.simulator.live import Shown
from understudy.simulator.traffic import Outcomes, Requests
from understudy.simulator.world import ACTIONS, COHORTS, CONTENT_TYPES, SURFACES, State, born_us, cohorts_of

__all__ = ["TRUTH", "day_of", "log_attributes", "log_day", "logged_days", "shown_of", "start_us", "times_us"]

TRUTH = "simulator/truth"

_DAY_US = 86_400_000_000
_TWICE = 0.01


def day_of(world: World, day: int) -> str:
    """The calendar day (``YYYY-MM-DD``) of a day of the world."""
    return str(datetime.date.fromisoformat(world.first_day) + datetime.timedelta(days=day))


def start_us(world: World) -> int:
    """The world's first midnight, in microseconds since 1970."""
    start = datetime.datetime.fromisoformat(world.first_day).replace(tzinfo=datetime.UTC)
    return int(start.timestamp()) * 1_000_000


def times_us(world: World, requests: Requests) -> npt.NDArray[np.int64]:
    """When requests were made, in microseconds since 1970."""
    return start_us(world) + (requests.time_days * _DAY_US).astype(np.int64)


def logged_days(lake: Lake) -> list[str]:
    """Days that are in the lake as a whole."""
    return [name.removesuffix(".parquet") for name in lake.names(TRUTH)]


def log_day(
    lake: Lake, config: Config, world: World, day: int, requests: Requests, outcomes: Outcomes, *, release: str | None
) -> dict[str, int]:
    """Write a day's log and its truth; a day that is written again changes nothing.

    Returns:
        rows: ``served``, ``seen``, ``impressions`` (kept) and ``actions``.
    """
    assert config.logging is not None, "the simulator runs on a configuration with logging"
    heads = config.heads
    frame = _Frame(world, requests, outcomes, config)
    seen, rate = outcomes.seen.ravel(), frame.rate
    kept = (seen & keeps(frame.row_keys, np.logical_or.reduce(frame.done(heads), axis=1), rate)) | frame.random
    rng = np.random.default_rng([world.seed, 6, day])
    impressions = frame.impressions(_some_twice(np.flatnonzero(kept), rng), rate, release, heads)
    actions = frame.actions(rng)
    write_segments(lake, heads, config.time_zone, impressions, actions)
    _write_truth(lake, world, day, frame, heads)
    return {
        "served": len(seen),
        "seen": int(seen.sum()),
        "impressions": int(kept.sum()),
        "actions": int(outcomes.done.sum()),
    }


def shown_of(config: Config, world: World, requests: Requests, outcomes: Outcomes) -> Shown:
    """What compaction will keep of these impressions, with its labels and weights."""
    frame = _Frame(world, requests, outcomes, config)
    in_time = frame.delay_us <= duration_s(config.labels.attribution_window) * 1_000_000
    labels = frame.done(config.heads) & in_time[:, [ACTIONS.index(head) for head in config.heads]]
    positive: npt.NDArray[np.bool_] = np.logical_or.reduce(labels, axis=1)
    kept = np.flatnonzero(outcomes.seen.ravel() & keeps(frame.row_keys, positive, frame.rate))
    request = frame.request[kept]
    return Shown(
        users=requests.users[request],
        items=outcomes.items.ravel()[kept],
        surfaces=requests.surfaces[request],
        us=frame.ts_us[request],
        row_keys=frame.row_keys[kept],
        weights=1 / np.where(positive[kept], 1.0, frame.rate[kept]),
        labels=labels[kept].astype(np.float32),
    )


class _Frame:
    """The slots of a span of time as flat columns, n = R × K."""

    def __init__(self, world: World, requests: Requests, outcomes: Outcomes, config: Config) -> None:
        count, slots = outcomes.items.shape
        self.outcomes, self.slots = outcomes, slots
        self.request = np.repeat(np.arange(count), slots)
        self.requests = requests
        self.items = _names("i", outcomes.items.ravel())
        self.request_ids = requests.ids.take(pa.array(self.request))
        self.row_keys = request_row_key(self.request_ids, self.items)
        self.ts_us = times_us(world, requests)
        self.random = np.repeat(outcomes.random, slots)
        assert config.logging is not None, "checked by the caller"
        self.rate = np.where(self.random, 1.0, config.logging.negative_keep_rate)
        self.delay_us = (outcomes.delay_s.reshape(-1, len(ACTIONS)) * 1e6).astype(np.int64)
        self.buckets = bucket(config.logging.salt, [f"u{user}" for user in requests.users])

    def done(self, heads: tuple[str, ...]) -> npt.NDArray[np.bool_]:
        """(n, H): which actions of the heads were done, whenever."""
        done: npt.NDArray[np.bool_] = self.outcomes.done.reshape(-1, len(ACTIONS))
        return done[:, [ACTIONS.index(head) for head in heads]]

    def impressions(
        self, at: npt.NDArray[np.int64], rate: npt.NDArray[np.float64], release: str | None, heads: tuple[str, ...]
    ) -> pa.Table:
        request, candidates = self.request[at], self.requests.candidates.shape[1]
        predicted = self.outcomes.predicted.reshape(-1, len(ACTIONS))[at]
        surfaces = np.array(SURFACES)[self.requests.surfaces[request]]
        values: dict[str, Any] = {
            "row_key": self.row_keys[at],
            "request_id": self.request_ids.take(pa.array(at)),
            "user_id": _names("u", self.requests.users[request]),
            "item_id": self.items.take(pa.array(at)),
            "ts": pa.array(self.ts_us[request]).cast(schema.TIMESTAMP),
            "position": pa.array(at % self.slots, pa.int32()),
            "surface": pa.array(surfaces.tolist(), pa.string()),
            "candidate_count": pa.array(np.full(len(at), candidates), pa.int32()),
            "seen": pa.array(self.outcomes.seen.ravel()[at]),
            "slice": pa.array(np.where(self.random[at], "random", "policy").tolist(), pa.string()),
            "propensity": pa.array(np.full(len(at), 1 / candidates), mask=~self.random[at]),
            "bucket": pa.array(self.buckets[request], pa.int32()),
            "arm": pa.array(self.outcomes.arms[request].tolist(), pa.string()),
            "release": pa.array([one or release for one in self.outcomes.releases[request]], pa.string()),
            "negative_keep_rate": rate[at],
        }
        for head in heads:
            p = predicted[:, ACTIONS.index(head)]
            values[f"p_{head}"] = pa.array(p, pa.float32(), mask=np.isnan(p))
        fields = schema.arrow_schema("impressions", heads)
        return pa.table([values[name] for name in fields.names], schema=fields)

    def actions(self, rng: np.random.Generator) -> pa.Table:
        done = self.outcomes.done.reshape(-1, len(ACTIONS))
        at, action = np.nonzero(done)
        twice = _some_twice(np.arange(len(at)), rng)
        at, action = at[twice], action[twice]
        ts = self.ts_us[self.request[at]] + self.delay_us[at, action]
        clicked = action == ACTIONS.index("click")
        value = np.where(clicked, self.outcomes.dwell_s.ravel()[at], 1.0)
        return pa.table(
            {
                "row_key": self.row_keys[at],
                "request_id": self.request_ids.take(pa.array(at)),
                "item_id": self.items.take(pa.array(at)),
                "action": pa.array(np.array(ACTIONS)[action].tolist(), pa.string()),
                "ts": pa.array(ts).cast(schema.TIMESTAMP),
                "value": pa.array(value, pa.float64()),
            }
        )


def _some_twice(at: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Some reports are sent twice, and all come in any order."""
    return rng.permutation(np.concatenate([at, at[rng.random(len(at)) < _TWICE]]))


def _names(prefix: str, numbers: npt.NDArray[np.int64]) -> pa.StringArray:
    distinct, places = np.unique(numbers, return_inverse=True)
    return pa.array([f"{prefix}{number}" for number in distinct], pa.string()).take(pa.array(places.ravel()))


def _write_truth(lake: Lake, world: World, day: int, frame: _Frame, heads: tuple[str, ...]) -> None:
    fields = schema.arrow_schema("truth", heads)
    true = frame.outcomes.true.reshape(-1, len(ACTIONS))
    columns = [pa.array(frame.row_keys), *(pa.array(true[:, ACTIONS.index(head)], pa.float64()) for head in heads)]
    lake.write_table(f"{TRUTH}/{day_of(world, day)}.parquet", pa.table(columns, schema=fields), fields)


def log_attributes(lake: Lake, config: Config, state: State) -> None:
    """What the product knows of its users and items: no latent of the world among it."""
    assert config.world is not None, "a simulated feed has a world"
    users = pa.table(
        {
            "user_id": _names("u", np.arange(len(state.taste))),
            "cohort": pa.array(np.array(COHORTS)[cohorts_of(state)].tolist(), pa.string()),
        }
    )
    kinds = np.array(CONTENT_TYPES)[state.kind]
    items = pa.table(
        {
            "item_id": _names("i", np.arange(len(state.kind))),
            "creator_id": _names("c", state.creator),
            "topic_id": _names("t", state.topic),
            "content_type": pa.array(kinds.tolist(), pa.string()),
            "length_s": pa.array(state.length_s, pa.float64()),
            "created_at": pa.array(born_us(state, start_us(config.world))),
        }
    )
    write_attributes(lake, config.heads, {"users": users, "items": items})
