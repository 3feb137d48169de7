"""The step ``compact_logs``: impressions and actions become labelled examples, by day.

Logs are delivered at least once and in any order: a row_key counts once, an action of an
impression counts once, at its earliest time. A label is 1 where the action came within the
attribution window. What came later is counted, and changes nothing: an impression that is in the
log only because of it leaves again, by the same hash that would have dropped it.
"""

import datetime
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from understudy import spark
from understudy.logs.config import Labels
from understudy.logs.keep import SEED
from understudy.runs import Outcome, Step, execute
from understudy.section import duration_s, part
from understudy.snapshot import Snapshot

__all__ = ["compact", "run"]

NAME = "compact_logs"


def run(lake: str, run_id: str, section: str) -> dict[str, Any]:
    """Write ``examples`` for the days from the plan's history to its window's end.

    Args:
        section: canonical JSON with ``labels``.
    """
    labels = part(Labels, section, "labels")
    return execute(lake, run_id, NAME, section, lambda step: _body(step, labels), needs=[])


def _body(step: Step, labels: Labels) -> Outcome:
    plan = step.plan
    window_s = duration_s(labels.attribution_window)
    snapshot = Snapshot.load(step.lake, plan.snapshot)
    last = datetime.date.fromisoformat(plan.window_end) + datetime.timedelta(days=1 + window_s // 86400)
    impressions = spark.read_logs(step.lake, snapshot, "impressions", plan.history_start, plan.window_end)
    actions = spark.read_logs(step.lake, snapshot, "actions", plan.history_start, str(last))
    assert impressions is not None, "a window has impressions"
    assert actions is not None, "and each head's positives"
    examples, figures = compact(impressions, actions, plan.heads, window_s, plan.time_zone)
    spark.write_days(examples, step.lake.uri(step.table("examples")))
    step.say(f"{figures['examples']} examples of {figures['impressions']} impressions")
    return Outcome(tables=["examples"], figures=figures)


def compact(
    impressions: DataFrame, actions: DataFrame, heads: tuple[str, ...], window_s: int, time_zone: str
) -> tuple[DataFrame, dict[str, Any]]:
    """Examples with a ``day``, and what was counted on the way.

    Args:
        impressions, actions: tables of the schema, in any order, with repeated rows.
        window_s: the attribution window in seconds.
    """
    once = _once(impressions).cache()
    acted = actions.groupBy("row_key", "action").agg(F.min("ts").alias("acted"))
    joined = acted.join(once.select("row_key", "ts"), "row_key", "left").cache()
    delay_us = spark.micros(F.col("acted")) - spark.micros(F.col("ts"))
    known = F.col("ts").isNotNull() & (delay_us >= 0)
    in_time = known & (delay_us <= window_s * 1_000_000)
    done = joined.filter(in_time).groupBy("row_key").pivot("action", list(heads)).agg(F.lit(1.0).cast("float"))
    renamed = done.select("row_key", *(F.col(f"`{head}`").alias(f"done_{head}") for head in heads))
    rows = once.join(renamed, "row_key", "left")
    labels = {f"label_{h}": F.when(F.col("seen"), F.coalesce(f"done_{h}", F.lit(0.0).cast("float"))) for h in heads}
    positive = F.lit(False)
    for head in heads:
        positive = positive | F.col(f"done_{head}").isNotNull()
    kept = positive | ~F.col("seen") | (_lot() < F.col("negative_keep_rate"))
    inclusion: Column = F.when(positive, F.lit(1.0)).otherwise(F.col("negative_keep_rate"))
    examples = (
        rows.filter(kept)
        .withColumns({**labels, "inclusion_probability": inclusion})
        .withColumn("day", spark.local_day(F.col("ts"), time_zone))
        .drop(*(f"done_{head}" for head in heads))
        .cache()
    )
    counted = joined.agg(
        F.count("*").alias("actions"),
        F.count_if(F.col("ts").isNull()).alias("without_impression"),
        F.count_if(F.col("ts").isNotNull() & (delay_us < 0)).alias("before_impression"),
        F.count_if(known & ~in_time).alias("after_window"),
    ).first()
    assert counted is not None, "an aggregate over no key has one row"
    figures = {"impressions": impressions.count(), "distinct": once.count(), "examples": examples.count()}
    figures |= counted.asDict()
    return examples, figures


def _lot() -> Column:
    """The twin of ``keep.lot``."""
    return spark.decision("logging", SEED, F.col("row_key"))


def _once(impressions: DataFrame) -> DataFrame:
    """Each row_key once: one that was seen before one that was not, then the one that sorts first."""
    others = [name for name in impressions.columns if name not in ("row_key", "ts")]
    first = F.min(F.struct((~F.col("seen")).alias("_unseen"), "ts", *others)).alias("first")
    return impressions.groupBy("row_key").agg(first).select("row_key", "first.*").select(*impressions.columns)
