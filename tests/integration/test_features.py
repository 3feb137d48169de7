"""Feature tables on real Spark: counts by hand, and rows that are readable only after the next refresh."""

import datetime
import math
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from understudy.features import aggregates
from understudy.features.building import _events, _histories
from understudy.features.config import Features
from understudy.hashing import hash64

START = datetime.datetime(2022, 5, 1, 12, 10, tzinfo=datetime.UTC)
HEADS = ("click",)
# user, item, minute, surface, click, inclusion probability
LOG = [
    ("a", "x", 0, "home", 1.0, 1.0),
    ("a", "y", 60, "home", 0.0, 0.5),
    ("b", "x", 60, "feed", 0.0, 0.25),
    ("a", "x", 65, "feed", 1.0, 1.0),
]


@pytest.fixture(scope="module")
def histories(session: SparkSession) -> dict[str, list[dict[str, Any]]]:
    rows = [
        (place, user, item, surface, p, START + datetime.timedelta(minutes=minute), click, True)
        for place, (user, item, minute, surface, click, p) in enumerate(LOG)
    ]
    types = "row_key long, user_id string, item_id string, surface string, inclusion_probability double, "
    examples = session.createDataFrame(rows, types + "ts timestamp, label_click float, seen boolean")
    items = session.createDataFrame(
        [("x", "c1", "t1"), ("y", "c1", None)], "item_id string, creator_id string, topic_id string"
    )
    events = _events(examples, items, HEADS, 600, 3600)
    features = Features(half_lives=("1h",), history="1d", recent_events=2, crosses=("creator", "topic"))
    tables = _histories(events, features, HEADS)
    return {
        name: [row.asDict() for row in frame.orderBy("created_timestamp", F.desc("last_event_us")).collect()]
        for name, frame in tables.items()
    }


def test_a_counter_forgets_with_its_half_life_and_honours_inclusion(histories: Any) -> None:
    *_, last = [row for row in histories["user_history"] if row["user_id"] == "a"]
    decay = [2 ** (-minutes / 60) for minutes in (65, 5, 0)]
    assert last["impressions_1h"] == pytest.approx(decay[0] + decay[1] / 0.5 + decay[2])
    assert last["click_1h"] == pytest.approx(decay[0] + decay[2])


def test_a_row_is_stamped_after_its_event_and_readable_after_the_next_refresh(histories: Any) -> None:
    first = next(row for row in histories["user_history"] if row["user_id"] == "a")
    us = math.floor(START.timestamp() * 1e6)
    assert first["last_event_us"] == us
    assert first["event_timestamp"].replace(tzinfo=datetime.UTC) == START + datetime.timedelta(microseconds=1)
    # The outcome is known at 12:20, and the next refresh is at 13:00.
    assert first["created_timestamp"].replace(tzinfo=datetime.UTC).strftime("%H:%M") == "13:00"


def test_of_events_that_become_readable_together_one_row_stays(histories: Any) -> None:
    assert len([row for row in histories["user_history"] if row["user_id"] == "a"]) == 2


def test_the_users_last_events_stand_newest_first(histories: Any) -> None:
    *_, last = [row for row in histories["user_history"] if row["user_id"] == "a"]
    assert last["events_item"] == [int(hash64(["x"])[0]), int(hash64(["y"])[0])]
    assert last["events_topic"][1] == 0
    assert last["events_click"] == [1.0, 0.0]


def test_an_item_counts_per_surface(histories: Any) -> None:
    *_, last = [row for row in histories["item_history"] if row["item_id"] == "x"]
    place = last["surface_keys"].index(int(hash64(["feed"])[0]))
    assert last["surface_impressions"][place] == pytest.approx(4 * 2 ** (-5 / 60) + 1)
    assert last["surface_click"][place] == pytest.approx(1.0)


def test_creators_count_over_their_items_and_unknown_topics_not_at_all(histories: Any) -> None:
    assert {row["creator_id"] for row in histories["creator_history"]} == {"c1"}
    assert {row["topic_id"] for row in histories["topic_history"]} == {"t1"}


def test_what_a_user_did_with_a_creator_counts_apart(histories: Any) -> None:
    rows = histories["user_creator_history"]
    assert {(row["user_id"], row["creator_id"]) for row in rows} == {(user, "c1") for user in {u for u, *_ in LOG}}
    *_, last = [row for row in histories["user_topic_history"] if row["user_id"] == "a"]
    x = [(minute, click, p) for user, item, minute, _, click, p in LOG if (user, item) == ("a", "x")]
    newest = max(minute for minute, *_ in x)
    decay = [2 ** ((minute - newest) / 60) for minute, *_ in x]
    assert last["impressions_1h"] == pytest.approx(sum(d / p for d, (*_, p) in zip(decay, x, strict=True)))
    assert last["click_1h"] == pytest.approx(sum(d * c / p for d, (_, c, p) in zip(decay, x, strict=True)))


@pytest.mark.parametrize(
    ("minute", "window_s", "refresh_s", "expected"),
    [(0, 0, 3600, 60), (60, 0, 3600, 120), (59, 0, 3600, 60), (30, 1800, 3600, 120), (0, 0, 900, 15)],
)
def test_the_refresh_grid(session: SparkSession, minute: int, window_s: int, refresh_s: int, expected: int) -> None:
    """At the very moment of a refresh, an event is not yet part of it."""
    value = aggregates.created_us(F.lit(minute * 60_000_000), window_s, refresh_s)
    (row,) = session.range(1).select(value.alias("us")).collect()
    assert row["us"] == expected * 60_000_000


def test_refresh_at_once_is_a_microsecond_after_the_outcome(session: SparkSession) -> None:
    (row,) = session.range(1).select(aggregates.created_us(F.lit(5), 1, 0).alias("us")).collect()
    assert row["us"] == 1_000_006
