"""Compaction and sampling on real Spark: labels, weights, and decisions that NumPy takes alike."""

import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from understudy import schema, spark
from understudy.hashing import decision, hash64
from understudy.logs.compaction import compact
from understudy.logs.keep import lot
from understudy.sampling.config import Rule, Sampling
from understudy.sampling.step import sample

HEADS = ("click", "like")
START = datetime.datetime(2022, 5, 1, 12, tzinfo=datetime.UTC)


_LOTS = lot(np.arange(2_000))
ROW_KEYS = np.flatnonzero(_LOTS < 0.25).tolist()  # the hash keeps these at a rate of 0.25
DROPPED = int(np.flatnonzero(_LOTS > 0.25)[0])


def impression(key: int, **values: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(f.name for f in schema.arrow_schema("impressions", HEADS))
    row |= {
        "row_key": ROW_KEYS[key],
        "request_id": f"r{key}",
        "user_id": f"u{key % 7}",
        "item_id": f"i{key % 5}",
        "ts": START,
    }
    return row | {"seen": True, "slice": "policy", "negative_keep_rate": 0.25} | values


def action(key: int, name: str, after_s: float) -> dict[str, Any]:
    ts = START + datetime.timedelta(seconds=after_s)
    return {"row_key": ROW_KEYS[key], "request_id": f"r{key}", "item_id": "i", "action": name, "ts": ts, "value": 1.0}


def frame(session: SparkSession, rows: list[dict[str, Any]], table: str) -> DataFrame:
    return session.createDataFrame(
        pa.Table.from_pylist(rows, schema.arrow_schema(table, HEADS)).to_pandas(), _types(table)
    )


def _types(table: str) -> Any:
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema.arrow_schema(table, HEADS), prefer_timestamp_ntz=False)


@pytest.fixture(scope="module")
def compacted(session: SparkSession) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
    impressions = [impression(key) for key in range(5)] + [impression(0), impression(5, seen=False)]
    actions = [
        action(0, "click", 10),
        action(0, "click", 10),
        action(1, "click", 1801),
        action(2, "like", 1800),
        action(3, "click", -1),
        action(99, "click", 5),
    ]
    tables = frame(session, impressions, "impressions"), frame(session, actions, "actions")
    examples, figures = compact(*tables, HEADS, 1800, "Asia/Shanghai")
    return {ROW_KEYS.index(row["row_key"]): row.asDict() for row in examples.collect()}, figures


def test_an_impression_counts_once(compacted: Any) -> None:
    rows, figures = compacted
    assert sorted(rows) == [0, 1, 2, 3, 4, 5]
    assert (figures["impressions"], figures["examples"]) == (7, 6)


def test_an_action_in_the_window_is_a_label_and_includes_the_row_for_sure(compacted: Any) -> None:
    rows, _ = compacted
    assert (rows[0]["label_click"], rows[0]["label_like"], rows[0]["inclusion_probability"]) == (1.0, 0.0, 1.0)
    assert (rows[2]["label_like"], rows[2]["inclusion_probability"]) == (1.0, 1.0)


def test_an_action_outside_the_window_is_counted_and_changes_nothing(compacted: Any) -> None:
    rows, figures = compacted
    for key in (1, 3):
        assert (rows[key]["label_click"], rows[key]["inclusion_probability"]) == (0.0, 0.25)
    counted = {name: figures[name] for name in ("after_window", "before_impression", "without_impression")}
    assert counted == {"after_window": 1, "before_impression": 1, "without_impression": 1}


def test_what_was_never_on_screen_has_no_label(compacted: Any) -> None:
    rows, _ = compacted
    assert rows[5]["label_click"] is None


def test_a_day_is_one_of_the_time_zone(compacted: Any) -> None:
    rows, _ = compacted
    assert rows[0]["day"] == "2022-05-01"
    assert str(rows[0]["ts"])


def test_spark_and_numpy_take_the_same_decision(session: SparkSession) -> None:
    keys = np.concatenate([np.arange(2000), np.array([-(2**63), 2**63 - 1])])
    texts = [f"user-{'ü' * (key % 40)}{key}" for key in range(len(keys))]
    rows = session.createDataFrame(
        [(int(key), text) for key, text in zip(keys, texts, strict=True)], "k long, t string"
    )
    found = rows.select(
        spark.decision("sampling", 3, F.col("k")).alias("n"), F.xxhash64("t", "k").alias("h"), "k"
    ).collect()
    assert [row["n"] for row in found] == decision("sampling", 3, keys).tolist()
    assert [row["h"] for row in found] == hash64(pa.array(texts), keys).tolist()


@pytest.fixture(scope="module")
def sampled(session: SparkSession) -> Any:
    rows = session.range(40_000).select(
        F.col("id").alias("row_key"),
        F.concat(F.lit("u"), F.col("id") % 997).alias("user_id"),
        F.when(F.col("id") % 4 == 0, "video").otherwise("image").alias("kind"),
        F.when(F.col("id") % 10 == 0, 1.0).otherwise(0.0).cast("float").alias("label_click"),
        F.lit(0.0).cast("float").alias("label_like"),
        F.when(F.col("id") % 10 == 0, 1.0).otherwise(0.5).alias("inclusion_probability"),
        F.when(F.col("id") < 30_000, "2022-05-01").otherwise("2022-05-02").alias("day"),
    )
    rule = Rule(name="videos", column="kind", values=("video",), negative_rate=0.5, importance=2.0)
    kept, considered = sample(rows, Sampling(negative_rate=0.1, rules=(rule,)), HEADS, "2022-05-02")
    return kept.toPandas(), considered.toPandas()


def test_all_positives_stay(sampled: Any) -> None:
    kept, considered = sampled
    assert (kept["label_click"] > 0).sum() == (considered["label_click"] > 0).sum()


def test_weights_estimate_the_traffic(sampled: Any) -> None:
    kept, considered = sampled
    assert kept["sample_weight"].sum() == pytest.approx((1 / considered["inclusion_probability"]).sum(), rel=0.02)


def test_the_first_rule_that_matches_decides(sampled: Any) -> None:
    kept, _ = sampled
    negatives = kept[(kept["label_click"] == 0) & (kept["split"] == "train")]
    rates = negatives.groupby("kind")["sampling_rate"].unique()
    assert rates["video"].tolist() == [0.5]
    assert rates["image"].tolist() == [0.1]
    assert set(negatives[negatives["kind"] == "video"]["importance"]) == {2.0}


def test_the_last_day_is_split_by_user_and_never_sampled(sampled: Any) -> None:
    kept, considered = sampled
    last = kept[kept["day"] == "2022-05-02"]
    assert len(last) == (considered["day"] == "2022-05-02").sum()
    assert set(last["split"]) == {"stop", "calibrate", "gate"}
    assert (last.groupby("user_id")["split"].nunique() == 1).all()
    assert set(kept[kept["day"] == "2022-05-01"]["split"]) == {"train"}


def test_an_impression_that_only_a_late_action_kept_leaves_again(session: SparkSession) -> None:
    rows = [
        impression(0, row_key=DROPPED),
        impression(1, row_key=DROPPED + 5_000, slice="random", negative_keep_rate=1.0),
    ]
    actions = [{**action(0, "click", 1801), "row_key": DROPPED}]
    tables = frame(session, rows, "impressions"), frame(session, actions, "actions")
    examples, figures = compact(*tables, HEADS, 1800, "UTC")
    assert [row["row_key"] for row in examples.collect()] == [DROPPED + 5_000]
    assert (figures["distinct"], figures["examples"], figures["after_window"]) == (2, 1, 1)


def test_a_copy_that_was_seen_counts_before_one_that_was_only_served(session: SparkSession) -> None:
    rows = [impression(0, seen=False), impression(0, seen=True), impression(1, seen=False)]
    tables = frame(session, rows, "impressions"), frame(session, [], "actions")
    found = {row["row_key"]: row for row in compact(*tables, HEADS, 1800, "UTC")[0].collect()}
    assert (found[ROW_KEYS[0]]["seen"], found[ROW_KEYS[0]]["label_click"]) == (True, 0.0)
    assert (found[ROW_KEYS[1]]["seen"], found[ROW_KEYS[1]]["label_click"]) == (False, None)
