"""The step ``build_features``: what is known of users, items, creators and topics, and since when.

A row is stamped 1 µs after the event that made it and created at the refresh that lets a server
read it, so that training sees exactly what serving could have read.
"""

from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from understudy import spark
from understudy.features import aggregates
from understudy.features.config import Features
from understudy.features.needed import needed
from understudy.features.views import PROFILES, VIEWS, views_of
from understudy.logs.config import Labels
from understudy.runs import Outcome, Step, execute, say_error
from understudy.section import duration_s, part
from understudy.snapshot import Snapshot

__all__ = ["run"]

NAME = "build_features"


def run(lake: str, run_id: str, section: str) -> dict[str, Any]:
    """Write the feature tables of all days that the plan reads, and refresh the online store.

    Args:
        section: canonical JSON with ``features`` and ``labels``.
    """
    features, labels = part(Features, section, "features"), part(Labels, section, "labels")
    body = lambda step: _body(step, needed(step, features), duration_s(labels.attribution_window))  # noqa: E731
    manifest = execute(lake, run_id, NAME, section, body, needs=["compact_logs"])
    from understudy.features.online import refresh

    try:
        refresh(lake, run_id)
    except Exception as error:
        say_error(NAME, error)
        raise
    return manifest


def _body(step: Step, features: Features, window_s: int) -> Outcome:
    session = spark.session()
    examples = session.read.parquet(step.table_uri("compact_logs", "examples"))
    snapshot = Snapshot.load(step.lake, step.plan.snapshot)
    users, items = (spark.read_logs(step.lake, snapshot, table) for table in ("users", "items"))
    events = _events(examples, items, step.plan.heads, window_s, features.refresh_s()).cache()
    figures: dict[str, Any] = {}
    for name, frame in _histories(events, features, step.plan.heads).items():
        step.say(f"writing {name}")
        spark.write_sorted(frame, step.lake.uri(step.table(name)), *VIEWS[name].keys, "created_timestamp")
    for name, frame, key in (
        ("user_profile", users if users is not None else events.select("user_id").distinct(), "user_id"),
        ("item_profile", items if items is not None else _bare_items(events), "item_id"),
    ):
        spark.write_sorted(_profile(frame), step.lake.uri(step.table(name)), key)
    events.unpersist()
    views = [view.name for view in views_of(features.crosses)]
    for name in views:
        figures[name] = step.lake.dataset(step.table(name)).count_rows()
    return Outcome(tables=views, figures={"rows": figures})


def _events(
    examples: DataFrame, items: DataFrame | None, heads: tuple[str, ...], window_s: int, refresh_s: int
) -> DataFrame:
    """What was seen, with its weight, and when serving may know of it."""
    seen = examples.filter("seen").select(
        "row_key", "user_id", "item_id", "surface", "inclusion_probability", "ts", *(f"label_{h}" for h in heads)
    )
    if items is None:
        seen = seen.withColumns({name: F.lit(None).cast("string") for name in ("creator_id", "topic_id")})
    else:
        seen = seen.join(items.select("item_id", "creator_id", "topic_id"), "item_id", "left")
    us = spark.micros(F.col("ts"))
    start = seen.agg(F.min(us)).first()
    assert start is not None, "an aggregate over no key has one row"
    return seen.withColumns(
        {
            "us": us,
            "start_us": F.lit(start[0] or 0).cast("long"),
            "weight": 1.0 / F.col("inclusion_probability"),
            "created_us": aggregates.created_us(us, window_s, refresh_s),
        }
    ).drop("ts", "inclusion_probability")


def _histories(events: DataFrame, features: Features, heads: tuple[str, ...]) -> dict[str, DataFrame]:
    counts: dict[str, Column] = {"impressions": F.col("weight")}
    counts |= {head: F.col("weight") * F.col(f"label_{head}") for head in heads}
    surfaces = aggregates.frequent_surfaces(events, features.max_surfaces)
    extras = {
        "user_history": aggregates.user_history(events, features.recent_events, heads),
        "item_history": aggregates.item_history(surfaces, features.half_lives[-1], counts),
    }
    counters = [f"{name}_{half_life}" for half_life in features.half_lives for name in counts]
    tables = {}
    for view in views_of(features.crosses):
        if view.name in PROFILES:
            continue
        extra = extras.get(view.name, {})
        rows = aggregates.history(events, view.keys, features.half_lives, counts)
        rows = rows.select("*", *(column.alias(column_name) for column_name, column in extra.items()))
        latest = aggregates.latest_per_refresh(rows, view.keys)
        stamps = {
            "event_timestamp": F.timestamp_micros(F.col("us") + 1),
            "created_timestamp": F.timestamp_micros("created_us"),
        }
        columns = [*view.keys, *stamps, "last_event_us", *counters, *extra]
        tables[view.name] = latest.withColumns(stamps).select(*columns)
    return tables


def _bare_items(events: DataFrame) -> DataFrame:
    return events.select("item_id", "creator_id", "topic_id").distinct()


def _profile(frame: DataFrame) -> DataFrame:
    """Attributes have no history in the logs: they hold since ever."""
    ever = F.timestamp_micros(F.lit(0).cast("long"))
    return frame.withColumns({"event_timestamp": ever, "created_timestamp": ever})
