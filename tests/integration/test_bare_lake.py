"""A lake that only a collector filled knows of users and items what they did, no more: enough for a release."""

import random
import time
from pathlib import Path
from typing import Any

import pytest
from collecting import Server, action, seen, served
from pyspark.sql import SparkSession
from ranking import PATIENT, RankServer, another_release
from steps import small, through

from understudy import config as configuration
from understudy.features.online import refresh_now
from understudy.inputs import Inputs

ROOT = Path(__file__).resolve().parent.parent.parent
DAYS, REQUESTS = 3, 200  # requests a day
DAY_US = 86_400_000_000


def requests(now_us: int) -> list[list[dict[str, Any]]]:
    """The events of each request: people like the first half of the items."""
    lot, found = random.Random(0), []
    for place in range(DAYS * REQUESTS):
        at = now_us - now_us % DAY_US - DAYS * DAY_US + place * DAY_US // REQUESTS
        user, request = lot.randrange(60), f"r{place}"
        shown = lot.sample(range(40), 6)
        listed = [{"item_id": f"i{item}", "position": rank} for rank, item in enumerate(shown)]
        events = [served(request, user_id=f"u{user}", at=at, candidate_count=40) | {"items": listed}]
        for item in shown[:5]:
            events.append(seen(request, f"i{item}") | {"at": at + 1_000_000})
            if lot.random() < (0.7 if item < 20 else 0.1):
                events.append(action(request, f"i{item}", at=at + 2_000_000))
            if item == 7 and lot.random() < 0.5:
                events.append(action(request, f"i{item}", "save", at=at + 3_000_000))
        del events[0]["surface"], events[0]["release"]
        found.append(events)
    return found


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, session: SparkSession) -> Path:
    folder = tmp_path_factory.mktemp("collected")
    late = (
        (ROOT / "examples" / "collector.yaml")
        .read_text()
        .replace("lateness: 1d", "lateness: 30d")
        .replace("rate: 0.1", "rate: 0.6")
    )
    (folder / "late.yaml").write_text(late)
    server, now = Server(folder, "--config", str(folder / "late.yaml")), time.time_ns() // 1_000
    sent = requests(now)
    for start in range(0, len(sent), 50):
        events = [event for events in sent[start : start + 50] for event in events]
        assert server.send(f"b{start}", events, now).json() == {"accepted": len(events), "refused": []}
    server.stop()
    return folder / "lake"


def test_it_trains_releases_refreshes_and_serves(lake: Path) -> None:
    config = small(configuration.load(ROOT / "examples" / "collector.yaml"), batch_size=16, learning_rate=0.005)
    run = through(str(lake), config, "", "promote")
    (file,) = lake.glob("runs/*/steps/train_ranker/*/inputs.json")
    inputs = Inputs.from_json(file.read_text())
    assert (inputs.numeric, [name for name in inputs.categorical if "profile" in name]) == ((), [])
    assert refresh_now(config, str(lake))["window_end"] >= run.plan().window_end
    patient = another_release(lake, serving={**PATIENT, "online_timeout_ms": 1000.0})
    server = RankServer(lake, "--release", patient)
    for user in (4, 5):
        answer = server.rank(f"u{user}", [f"i{item}" for item in range(40)]).json()
        assert sum(int(item[1:]) < 20 for item in answer["items"][:10]) >= 8
    assert server.rank("nobody", ["i1", "unheard"]).status_code == 200
    assert server.metric('users_total{features="known"}') == 2
    assert server.stop() == 0
