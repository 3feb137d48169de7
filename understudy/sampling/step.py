"""The step ``sample_examples``: what trains, what stops, calibrates and gates, and at which weight."""

from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from understudy import spark
from understudy.errors import BadInput
from understudy.runs import Outcome, Step, execute
from understudy.sampling import rules
from understudy.sampling.config import Sampling
from understudy.section import part
from understudy.snapshot import Snapshot

__all__ = ["run", "sample"]

NAME = "sample_examples"


def run(lake: str, run_id: str, section: str) -> dict[str, Any]:
    """Write ``samples`` for the days of the plan's window.

    Args:
        section: canonical JSON with ``sampling``.
    """
    sampling = part(Sampling, section, "sampling")
    return execute(lake, run_id, NAME, section, lambda step: _body(step, sampling), needs=["compact_logs"])


def _body(step: Step, sampling: Sampling) -> Outcome:
    plan = step.plan
    session = spark.session()
    examples = session.read.parquet(step.table_uri("compact_logs", "examples"))
    # Spark reads the folder's day as a date.
    examples = examples.withColumn("day", F.col("day").cast("string"))
    window = examples.filter(F.col("day").between(plan.window_start, plan.window_end) & F.col("seen"))
    if plan.quarantined:
        window = window.filter(F.col("release").isNull() | ~F.col("release").isin(*plan.quarantined))
    snapshot = Snapshot.load(step.lake, plan.snapshot)
    tables = {table: spark.read_logs(step.lake, snapshot, table) for table in ("items", "users")}
    rows = _with_attributes(window, sampling, tables["items"], tables["users"])
    if plan.purpose == "evaluate" or sampling.mode == "loader":
        sampling = Sampling()  # every example stays: nothing trains, or the loader decides
    kept, considered = sample(rows, sampling, plan.heads, None if plan.purpose == "evaluate" else plan.window_end)
    columns = [*examples.columns, "creator_id", "topic_id", "split", "sampling_rate", "importance", "sample_weight"]
    result = _random_share(kept, sampling).select(*columns).cache()
    figures = _report(considered, result, plan.heads)
    if not figures["rows"]:
        raise BadInput(
            f"window {plan.window_start} to {plan.window_end}: expected examples, found none outside quarantine; "
            "choose another window"
        )
    spark.write_days(result, step.lake.uri(step.table("samples")))
    step.say(f"kept {figures['rows']} of {figures['considered']} examples")
    return Outcome(tables=["samples"], figures=figures)


def _with_attributes(
    window: DataFrame, sampling: Sampling, items: DataFrame | None, users: DataFrame | None
) -> DataFrame:
    """Examples with the item's creator and topic, and the columns that rules ask for."""
    wanted = {rule.column for rule in sampling.rules} - set(window.columns)
    if items is None:
        window = window.withColumns({c: F.lit(None).cast("string") for c in ("creator_id", "topic_id")})
    else:
        extra = sorted(wanted & set(items.columns) - {"creator_id", "topic_id"})
        window = window.join(items.select("item_id", "creator_id", "topic_id", *extra), "item_id", "left")
    if users is not None and (extra := sorted((wanted & set(users.columns)) - set(window.columns))):
        window = window.join(users.select("user_id", *extra), "user_id", "left")
    for rule in sampling.rules:
        if rule.column not in window.columns:
            raise BadInput(
                f"sampling.rules, rule {rule.name!r}: expected a column of the examples or an attribute, "
                f"found {rule.column!r}; correct its name"
            )
    return window


def sample(
    rows: DataFrame, sampling: Sampling, heads: tuple[str, ...], window_end: str | None
) -> tuple[DataFrame, DataFrame]:
    """The rows that stay, with split, rate, importance and weight; and all rows with their rule.

    Args:
        window_end: the last day, which is split for stopping, calibration and gates and never
            sampled; None: every row is for gates.
    """
    positive: Column = reduce(lambda a, b: a | b, [F.coalesce(F.col(f"label_{h}") > 0, F.lit(False)) for h in heads])
    split = F.lit("gate") if window_end is None else rules.split(window_end)
    training = F.col("split") == "train"
    considered = (
        rows.withColumn("split", split)
        .withColumn("rule", rules.rule_name(sampling))
        .withColumn("sampling_rate", F.when(training, rules.sampling_rate(sampling, positive)).otherwise(F.lit(1.0)))
        .withColumn("importance", F.when(training, rules.importance(sampling)).otherwise(F.lit(1.0)))
        .withColumn("sample_weight", 1.0 / (F.col("inclusion_probability") * F.col("sampling_rate")))
        .withColumn("kept", rules.keep(sampling, F.col("sampling_rate")))
    )
    return considered.filter("kept"), considered


def _random_share(kept: DataFrame, sampling: Sampling) -> DataFrame:
    """Scale the random slice's importance to its configured share of the loss."""
    share = sampling.random_slice_share
    if share is None:
        return kept
    weight = F.col("sample_weight") * F.col("importance")
    sums = kept.filter(F.col("split") == "train").groupBy("slice").agg(F.sum(weight).alias("weight")).collect()
    total = {row["slice"]: row["weight"] for row in sums}
    if not total.get("random") or not total.get("policy"):
        raise BadInput(
            "sampling.random_slice_share: expected training rows of both slices, found "
            f"{', '.join(sorted(total)) or 'none'}; remove the key, or ingest a random log"
        )
    factor = share / (1 - share) * total["policy"] / total["random"]
    random = (F.col("slice") == "random") & (F.col("split") == "train")
    return kept.withColumn("importance", F.when(random, F.col("importance") * factor).otherwise(F.col("importance")))


def _report(considered: DataFrame, kept: DataFrame, heads: tuple[str, ...]) -> dict[str, Any]:
    """Rows, positives and weight, per rule (before and after) and per split; which releases ranked the kept rows."""
    positives = [F.sum(F.col(f"label_{h}").cast("double")).alias(h) for h in heads]
    per_rule = considered.groupBy("rule", "split").agg(
        F.count("*").alias("rows"),
        F.count_if("kept").alias("kept"),
        F.sum(1 / F.col("inclusion_probability")).alias("traffic"),
        F.sum(F.when(F.col("kept"), F.col("sample_weight"))).alias("estimated_traffic"),
        F.collect_set(F.when(F.col("kept"), F.col("release"))).alias("releases"),
        *positives,
    )
    rows = sorted((row.asDict() for row in per_rule.collect()), key=lambda row: (row["split"], row["rule"]))
    ranked_by: set[str] = set()
    for row in rows:
        ranked_by.update(row.pop("releases"))
        row["traffic"], row["estimated_traffic"] = round(row["traffic"], 6), round(row["estimated_traffic"] or 0.0, 6)
        row["positives"] = {head: row.pop(head) or 0.0 for head in heads}
    considered_rows = sum(row["rows"] for row in rows)
    return {"rules": rows, "considered": considered_rows, "rows": kept.count(), "ranked_by": sorted(ranked_by)}
