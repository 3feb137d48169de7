"""No skew: logged impressions, replayed in time order through features that are refreshed on the grid.

Hours of a day are served by the real server's code with the clock of the log and the features that a refresh at that
hour would have left; every input of the network and every score is held against what the pipeline retrieved for the
row, and what the offline network says of it.
"""

import asyncio
import datetime
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from ranking import HEADERS, TOKEN, another_release
from steps import FIRST

from understudy import releases
from understudy.calibration.fit import Calibrator
from understudy.features import online
from understudy.features.pointer import POINTER
from understudy.inputs import PER_REQUEST, Feeds
from understudy.lake import Lake
from understudy.ranker.files import from_files
from understudy.ranker.fitting import as_tensors
from understudy.releases.lifecycle import promote
from understudy.runs import Run
from understudy.serving.app import Options, rank_server
from understudy.serving.following import Following
from understudy.serving.hashes import hashes_of

HOUR_US = 3_600_000_000


@dataclass
class Replayed:
    """What the server fed and scored, and what the pipeline has for the same rows, in one order."""

    rows: pa.Table
    served: list[Feeds]
    scores: list[dict[str, float]]
    following: Following


@pytest.fixture(scope="module")
def replayed(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    folder = tmp_path_factory.mktemp("skew") / "lake"
    shutil.copytree(released, folder)
    lake = Lake.open(str(folder))
    promote(lake, another_release(folder, serving={"online_timeout_ms": 10_000.0}))  # however busy the machine is
    run = Run(lake, lake.read_json(POINTER)["run_id"])
    table = lake.dataset(run.table_path("retrieve_features", "training_set")).to_table()
    rows = table.filter(pc.equal(table["day"].cast(pa.string()), FIRST)).sort_by("ts").combine_chunks()
    ts_us = rows["ts"].cast(pa.int64()).to_numpy()
    (folder / "features" / "online.db").unlink()
    hours = np.unique(ts_us // HOUR_US)[::3]  # some hours of the day, each refreshed from the one before
    rows = rows.filter(pa.array(np.isin(ts_us // HOUR_US, hours)))
    ts_us = rows["ts"].cast(pa.int64()).to_numpy()
    served, scores, start, following = [], [], datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), None
    for hour in hours:
        start = refreshed(lake, run, start, int(hour) * HOUR_US)
        following = Following(str(folder), "production")
        some = rows.filter(pa.array(ts_us // HOUR_US == hour))
        asyncio.run(replay(following, some, served, scores))
    assert following is not None
    return Replayed(rows, served, scores, following)


def refreshed(lake: Lake, run: Run, start: datetime.datetime, end_us: int) -> datetime.datetime:
    """Features as a refresh at that moment leaves them."""
    end = datetime.datetime.fromtimestamp(end_us / 1e6, datetime.UTC)
    pointer = lake.read_json(POINTER) | {"items": online.materialise(lake, run, start, end), "as_of_us": end_us}
    lake.replace(POINTER, json.dumps(pointer).encode())
    return end


async def replay(following: Following, rows: pa.Table, served: list[Feeds], scores: list[dict[str, float]]) -> None:
    now = [0.0]
    app = rank_server(following, Options(TOKEN, look_s=3600, log_requests=False, clock=lambda: now[0]))
    transport, store = httpx.ASGITransport(app), following.store()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://ranker", headers=HEADERS) as client,
    ):
        for row in rows.select(["user_id", "item_id", "surface", "ts"]).to_pylist():
            now_us = (row["ts"] - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(
                microseconds=1
            )
            now[0] = now_us / 1e6
            body = {"user_id": row["user_id"], "candidates": [row["item_id"]], "context": {"surface": row["surface"]}}
            answer = await client.post("/v1/rank", json=body)
            assert answer.status_code == 200, answer.text
            scores.append({head: values[0] for head, values in answer.json()["probabilities"].items()})
            assembler = following.stage.assembler
            ids = hashes_of([row["item_id"]])
            at = following.stage.items.find(ids)
            asked = assembler.asked(row["user_id"], at)
            known = assembler.known(asked, store.read(asked))
            served.append(assembler.feeds(row["user_id"], ids, at, known, row["surface"], now_us))
    store.close()


def test_every_input_is_what_the_pipeline_retrieved(replayed: Replayed) -> None:
    expected = replayed.following.stage.model.inputs.encode(replayed.rows)
    assert replayed.rows.num_rows > 150
    for name, values in expected.items():
        if name == "position":
            continue  # known only after ranking
        found = np.concatenate([feeds[name] for feeds in replayed.served])
        np.testing.assert_array_equal(found, values, err_msg=name)
    seen = {name: (values != 0) & ~np.isnan(values.astype(np.float64)) for name, values in expected.items()}
    for name in (*PER_REQUEST, "counters", "surface_counters"):
        assert seen[name].mean() > 0.02, name
    crossed = expected["counters"][:, 4:]
    assert crossed.shape[1] == 2
    assert (crossed > 0).any(axis=(2, 3)).mean(axis=0).min() > 0.02


def test_every_score_is_what_the_offline_network_says(replayed: Replayed) -> None:
    release = releases.load(replayed.following.lake, "production")
    network = from_files(release.files)
    feeds = network.inputs.encode(replayed.rows)
    feeds["position"][:] = np.nan
    with torch.no_grad():
        logits = network(as_tensors(feeds)).numpy().astype(np.float64)
    known = json.loads(release.files["calibrators.json"])
    for h, head in enumerate(network.inputs.heads):
        expected = Calibrator.from_json(known[head]).probabilities(logits[:, h])
        found = np.array([scores[head] for scores in replayed.scores])
        difference = np.abs(found - expected).max()
        print(f"{head}: largest difference {difference:.2e}")
        assert difference < 1e-5


def test_a_slate_is_fed_as_each_of_its_candidates_alone(replayed: Replayed) -> None:
    assembler, items = replayed.following.stage.assembler, replayed.following.stage.items
    store, now_us = replayed.following.store(), replayed.following.as_of_us
    rows = replayed.rows.slice(replayed.rows.num_rows - 200)
    slate = [*dict.fromkeys(rows["item_id"].to_pylist()), "never seen"]
    found = 0
    for user in dict.fromkeys(rows["user_id"].to_pylist()[:5]):

        def feeds(candidates: list[str], user: str = user) -> Feeds:
            ids = hashes_of(candidates)
            at = items.find(ids)
            asked = assembler.asked(user, at)
            return assembler.feeds(user, ids, at, assembler.known(asked, store.read(asked)), "1", now_us)

        whole = feeds(slate)
        for place, candidate in enumerate(slate):
            for name, values in feeds([candidate]).items():
                expected = values[0] if name in PER_REQUEST else whole[name][place]
                np.testing.assert_array_equal(values[0], expected, err_msg=name)
        found += int((whole["counters"][:, 4:] > 0).any())
    assert found, "somebody has met a creator or topic of the slate before"
    assert len(np.unique(whole["categorical"][:, 2])) > 10, "the slate has several creators"
    store.close()


def test_what_is_unknown_is_fed_as_in_training(replayed: Replayed) -> None:
    assembler, items = replayed.following.stage.assembler, replayed.following.stage.items
    ids = hashes_of(["never", "seen"])
    at = items.find(ids)
    assert at.tolist() == [-1, -1]
    wanted = assembler.asked("nobody", at)
    known = assembler.known(wanted, [{} for _ in wanted])
    now = datetime.datetime(2022, 5, 1, 7, 30, tzinfo=datetime.UTC)
    found = assembler.feeds("nobody", ids, at, known, None, int(now.timestamp() * 1e6))
    bare = {"user_id": ["nobody"] * 2, "item_id": ["never", "seen"], "surface": pa.nulls(2, pa.string())}
    expected = assembler.inputs.encode(pa.table({"ts": pa.array([now] * 2, pa.timestamp("us", "UTC")), **bare}))
    for name, values in expected.items():
        values = values[:1] if name in PER_REQUEST else values
        np.testing.assert_array_equal(found[name], values, err_msg=name)
