"""Totals estimated from the hybrid log agree with the truth: 1,000 worlds through the collector and Spark's compaction.

Ids begin with the world's seed, so that all worlds are one journal, one lake and one Spark job.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from understudy.config import Config
from understudy.lake import Lake
from understudy.logs.compaction import compact
from understudy.logs.config import Logging
from understudy.logs.events import decode
from understudy.logs.flush import flush
from understudy.logs.journal import Journal
from understudy.snapshot import Snapshot

WORLDS, REQUESTS, ITEMS, SEEN = 1_000, 20, 12, 10
WINDOW_S = 1_800
START_US = 1_767_614_400_000_000
HEADS = ("click", "save")
CONFIG = Config(logging=Logging(heads=HEADS, negative_keep_rate=0.4, random_share=0.05))


def world() -> pd.DataFrame:
    """Every seen item of every world, and when it was clicked and saved, if at all (seconds after it was served)."""
    random = np.random.default_rng(0)
    rows = WORLDS * REQUESTS * SEEN
    request = np.arange(rows) // SEEN
    truth = pd.DataFrame({"seed": request // REQUESTS, "request": request, "position": np.arange(rows) % SEEN})
    truth["request_id"] = truth["seed"].astype(str) + "-" + truth["request"].astype(str)
    truth["surface"] = np.where(request % 3 == 0, "search", "home")
    truth["user"] = np.char.add("u", (request % 7).astype(str))
    truth["p"] = np.round(random.beta(1, 9, rows), 6)
    for head, rate in zip(HEADS, (0.10, 0.03), strict=True):
        acts = random.random(rows) < rate
        truth[head] = np.where(acts, np.ceil(random.exponential(1_200, rows)), np.nan)
    truth["again"] = random.random(rows) < 0.1
    return truth


def served(part: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """One event per request; its rows stand together. Its last items are never on screen."""
    firsts = part.iloc[::SEEN]
    p = part["p"].to_numpy().reshape(-1, SEEN).tolist()
    for request, user, surface, shown in zip(firsts["request_id"], firsts["user"], firsts["surface"], p, strict=True):
        items = [
            {"item_id": f"i{place}", "position": place, "p": {"click": (shown + [0.5] * ITEMS)[place]}}
            for place in range(ITEMS)
        ]
        whole = {"kind": "served", "request_id": request, "user_id": user, "at": START_US, "items": items}
        yield {**whole, "candidate_count": 50, "surface": surface}


def seen(part: pd.DataFrame) -> list[dict[str, Any]]:
    rows = zip(part["request_id"], part["position"], strict=True)
    return [{"kind": "seen", "request_id": r, "item_id": f"i{place}", "at": START_US} for r, place in rows]


def actions(part: pd.DataFrame, after_s: float, until_s: float) -> list[dict[str, Any]]:
    found = []
    for head in HEADS:
        acted = part[(part[head] > after_s) & (part[head] <= until_s)]
        rows = zip(acted["request_id"], acted["position"], acted[head], strict=True)
        same = {"kind": "action", "action": head}
        found += [
            {**same, "request_id": r, "item_id": f"i{p}", "at": START_US + int(s) * 1_000_000} for r, p, s in rows
        ]
    return found


def send(journal: Journal, name: str, events: list[dict[str, Any]], at_s: int) -> None:
    """A batch that a client sends, and the collector receives, at a time."""
    now_us = START_US + at_s * 1_000_000
    body = json.dumps({"batch_id": name, "sent_at": now_us, "events": events}).encode()
    (answer,) = journal.take([(decode(body), now_us)])
    assert answer == b'{"accepted":%d,"refused":[]}' % len(events)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, pd.DataFrame]:
    """The lake after a feed has reported all worlds: at once, and again with what came later."""
    assert CONFIG.logging is not None
    folder, truth = tmp_path_factory.mktemp("hybrid"), world()
    lake = Lake.open_or_create(str(folder / "lake"))
    journal = Journal(Path(folder / "state.db"), CONFIG.logging, keep_s=10 * 365 * 86_400)
    for name, part in truth.groupby(truth["seed"] // 20):
        send(journal, f"{name}-first", [*served(part), *seen(part), *actions(part, 0, 60)], 60)
    flush(journal, lake, CONFIG)
    for name, part in truth.groupby(truth["seed"] // 20):
        send(journal, f"{name}-late", actions(part, 60, np.inf), 20_000)
        again = part[part["again"]]
        send(journal, f"{name}-again", [*seen(again), *actions(again, 0, np.inf)], 20_001)
    flush(journal, lake, CONFIG)
    journal.close()
    return lake, truth


@pytest.fixture(scope="module")
def estimated(session: SparkSession, logged: tuple[Lake, pd.DataFrame]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Per world: estimate and Horvitz–Thompson variance of each total, from weighting what compaction made."""
    lake, _ = logged
    snapshot = Snapshot.current(lake)
    tables = [
        session.read.parquet(*(lake.uri(file) for file in snapshot.files(name))) for name in ("impressions", "actions")
    ]
    examples, figures = compact(*tables, HEADS, WINDOW_S, "UTC")
    pi = F.col("inclusion_probability")
    columns = []
    for name, amount in totals().items():
        columns += [F.sum(amount / pi).alias(name), F.sum((1 - pi) / pi**2 * amount**2).alias(f"var {name}")]
    found = examples.filter("seen").groupBy(F.split("request_id", "-")[0].cast("int").alias("seed")).agg(*columns)
    return found.toPandas().set_index("seed").sort_index(), figures


def totals() -> dict[str, Any]:
    """What is added up over the seen examples, in Spark."""
    one = F.lit(1.0)
    return {
        "impressions": one,
        "impressions on search": F.when(F.col("surface") == "search", one).otherwise(0.0),
        "impressions of some users": F.when(F.col("user_id").isin("u0", "u1", "u2"), one).otherwise(0.0),
        "predicted clicks": F.col("p_click").cast("double"),
        "clicks": F.col("label_click"),
        "saves": F.col("label_save"),
        "clicks on search": F.when(F.col("surface") == "search", F.col("label_click")).otherwise(0.0),
    }


def true_totals(truth: pd.DataFrame) -> pd.DataFrame:
    search = truth["surface"] == "search"
    click = truth["click"] <= WINDOW_S
    amounts = {
        "impressions": np.ones(len(truth)),
        "impressions on search": search,
        "impressions of some users": truth["user"].isin(["u0", "u1", "u2"]),
        "predicted clicks": truth["p"],
        "clicks": click,
        "saves": truth["save"] <= WINDOW_S,
        "clicks on search": click & search,
    }
    return pd.DataFrame(amounts).astype(float).groupby(truth["seed"]).sum()


@pytest.mark.parametrize(
    "total", ["impressions", "impressions on search", "impressions of some users", "predicted clicks"]
)
def test_the_95_percent_intervals_cover_the_truth(total: str, logged: Any, estimated: Any) -> None:
    found, truth = estimated[0], true_totals(logged[1])[total]
    covered = float(((found[total] - truth).abs() <= 1.96 * found[f"var {total}"] ** 0.5).mean())
    print(f"{total}: {covered:.1%} of {len(found)} intervals cover the truth")
    assert len(found) == WORLDS
    assert 0.93 <= covered <= 0.97
    assert found[total].mean() == pytest.approx(truth.mean(), rel=0.01)


@pytest.mark.parametrize("total", ["clicks", "saves", "clicks on search"])
def test_positives_are_all_in_the_log(total: str, logged: Any, estimated: Any) -> None:
    found, truth = estimated[0], true_totals(logged[1])[total]
    assert (found[f"var {total}"] == 0).all()
    assert found[total].tolist() == truth.tolist()


def test_actions_after_the_window_are_counted(logged: Any, estimated: Any) -> None:
    late = sum(int((logged[1][head] > WINDOW_S).sum()) for head in HEADS)
    figures = estimated[1]
    assert late > 5_000
    assert figures["after_window"] == late
    assert (figures["without_impression"], figures["before_impression"]) == (0, 0)
    assert figures["impressions"] > figures["distinct"] > figures["examples"]
