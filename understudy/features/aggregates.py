"""Counters and event sequences, as Spark computes them: one row per key and refresh.

A counter with half-life L holds Σ w · 2^(−Δt / L) over the key's events, w being one over the
inclusion probability and Δt the age at the key's latest event, whose time stands beside it. It is
computed as a running sum of w · 2^((t − t₀) / L), which is exact in double precision as long as
the history spans fewer than about a thousand half-lives (the configuration sees to that).
"""

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from understudy import spark
from understudy.section import duration_s

__all__ = ["created_us", "frequent_surfaces", "history", "item_history", "latest_per_refresh", "user_history"]


def created_us(ts_us: Column, window_s: int, refresh_s: int) -> Column:
    """When a server could first read the row: its outcome known, and the next refresh done."""
    known = ts_us + F.lit(window_s * 1_000_000 + 1).cast("long")
    if not refresh_s:
        return known
    grid = F.lit(refresh_s * 1_000_000).cast("long")
    return F.ceil(known / grid).cast("long") * grid


def history(
    events: DataFrame, keys: tuple[str, ...], half_lives: tuple[str, ...], counts: dict[str, Column]
) -> DataFrame:
    """Events with ``<count>_<half-life>`` and ``last_event_us`` of their keys, themselves included.

    Args:
        events: ``keys``, ``us``, ``row_key``, and what ``counts`` use; ``start_us`` is the origin t₀.
        counts: name → value per event, already weighted.
    """
    counters = {
        f"{name}_{half_life}": _decayed(value, half_life, *keys)
        for half_life in half_lives
        for name, value in counts.items()
    }
    return events.dropna(subset=list(keys)).withColumns({**counters, "last_event_us": F.col("us")})


def _decayed(value: Column, half_life: str, *keys: str) -> Column:
    span = F.lit(duration_s(half_life) * 1e6)
    place = (F.col("us") - F.col("start_us")) / span
    order = Window.partitionBy(*keys).orderBy("us", "row_key")
    until_now = order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    return (F.sum(value * F.pow(F.lit(2.0), place)).over(until_now) * F.pow(F.lit(2.0), -place)).cast("float")


def latest_per_refresh(rows: DataFrame, keys: tuple[str, ...]) -> DataFrame:
    """Of the rows of the same keys that become readable at the same moment, the last."""
    order = Window.partitionBy(*keys, "created_us").orderBy(F.desc("us"), F.desc("row_key"))
    return rows.withColumn("_place", F.row_number().over(order)).filter("_place = 1").drop("_place")


def user_history(events: DataFrame, recent: int, heads: tuple[str, ...]) -> dict[str, Column]:
    """The user's last events, newest first, as aligned lists ``events_<what>``."""
    order = Window.partitionBy("user_id").orderBy("us", "row_key").rowsBetween(-(recent - 1), Window.currentRow)
    names = {"item": "item_id", "creator": "creator_id", "topic": "topic_id", "surface": "surface"}
    values = {f"events_{name}": spark.text_hash(F.col(column)) for name, column in names.items()}
    values |= {"events_us": F.col("us")} | {f"events_{h}": F.col(f"label_{h}") for h in heads}
    return {name: F.reverse(F.collect_list(value).over(order)) for name, value in values.items()}


def frequent_surfaces(events: DataFrame, at_most: int) -> list[str]:
    """The surfaces with most events, in order of their names."""
    counted = events.filter(F.col("surface").isNotNull()).groupBy("surface").count()
    rows = counted.orderBy(F.desc("count"), "surface").limit(at_most).collect()
    return sorted(row["surface"] for row in rows)


def item_history(surfaces: list[str], half_life: str, counts: dict[str, Column]) -> dict[str, Column]:
    """Counters per surface, as aligned lists: ``surface_keys`` and ``surface_<count>``."""
    if not surfaces:
        empty = F.array().cast("array<float>")
        return {"surface_keys": F.array().cast("array<long>"), **{f"surface_{name}": empty for name in counts}}
    keys = F.array(*(F.xxhash64(F.lit(surface)) for surface in surfaces))
    columns: dict[str, Column] = {"surface_keys": keys}
    for name, value in counts.items():
        here = [F.when(F.col("surface") == surface, value).otherwise(F.lit(0.0)) for surface in surfaces]
        columns[f"surface_{name}"] = F.array(*(_decayed(one, half_life, "item_id") for one in here))
    return columns
