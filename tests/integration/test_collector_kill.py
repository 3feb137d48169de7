"""`kill -9` under load: no acknowledged event is lost, and nothing is there twice after compaction."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from collecting import Client, Server
from pyspark.sql import SparkSession

from understudy.hashing import request_row_key
from understudy.lake import Lake
from understudy.logs.compaction import compact
from understudy.logs.keep import is_random, lot
from understudy.snapshot import Snapshot

HEADS = ("click", "save")
KEEP_RATE, RANDOM_SHARE = 0.1, 0.02  # of examples/collector.yaml


def kill_under_load(server: Server, kills: int, clients: int) -> list[str]:
    """Kill and start the server while clients send; returns the requests that were acknowledged."""
    chance = random.Random(0)
    load = [Client(server, f"c{place}") for place in range(clients)]
    for one in load:
        one.start()
    for _ in range(kills):
        before = sum(len(one.acknowledged) for one in load)
        while sum(len(one.acknowledged) for one in load) < before + clients:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.3))
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(30)
        server.client.close()
        server.start()
    for one in load:
        one.enough.set()
    for one in load:
        one.join(30)
    server.stop()
    assert sum(one.again for one in load) >= kills, "the server was killed while clients waited"
    return [request for one in load for request in one.acknowledged]


def compacted(session: SparkSession, folder: Path) -> Any:
    lake = Lake.open(str(folder / "lake"))
    snapshot = Snapshot.current(lake)
    tables = [
        session.read.parquet(*(lake.uri(file) for file in snapshot.files(name))) for name in ("impressions", "actions")
    ]
    return compact(*tables, HEADS, 1_800, "UTC")[0].toPandas()


def check(examples: Any, known: list[str]) -> None:
    """Every acknowledged positive is there, every acknowledged negative that the hash keeps, and each once."""
    assert not examples["row_key"].duplicated().any()
    seen = examples[examples["seen"]]
    labels = seen.set_index("row_key")
    requests = pa.array(known)
    for item, head in (("i1", "click"), ("i2", "save")):
        keys = request_row_key(requests, pa.array([item] * len(known)))
        assert (labels.loc[keys, f"label_{head}"] == 1).all()
    keys = request_row_key(requests, pa.array(["i3"] * len(known)))
    kept = keys[(lot(keys) < KEEP_RATE) | is_random(requests, RANDOM_SHARE)]
    assert len(kept) > 0
    assert (labels.loc[kept, ["label_click", "label_save"]] == 0).all(axis=None)
    in_full = [request for request, one in zip(known, is_random(requests, RANDOM_SHARE), strict=True) if one]
    counts = examples[examples["request_id"].isin(in_full)].groupby("request_id").size()
    assert counts.tolist() == [5] * len(in_full)


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, session: SparkSession) -> None:
    known = kill_under_load(Server(tmp_path, "--flush-s", "0.2"), kills=3, clients=4)
    check(compacted(session, tmp_path), known)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_what_was_acknowledged_survives_kill_9_a_hundred_times(tmp_path: Path, session: SparkSession) -> None:
    known = kill_under_load(Server(tmp_path, "--flush-s", "0.2"), kills=100, clients=8)
    check(compacted(session, tmp_path), known)
    print(f"{len(known)} batches were acknowledged between 100 kills; all are there, each once")
