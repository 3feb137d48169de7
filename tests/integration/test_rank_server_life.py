"""A rank server's life: what it is told to follow, what fails around it, and how it ends."""

import datetime
import json
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from collecting import Server as Collector
from collecting import action
from ranking import HEADERS, PATIENT, RankServer, another_release, items_of, releases_of, users_of
from redis_server import Redis
from roles import as_role
from uvicorn.supervisors import Multiprocess

from understudy.features import online
from understudy.features.pointer import POINTER, REDIS_URL, current_features
from understudy.lake import Lake
from understudy.releases.fetching import fetch
from understudy.releases.lifecycle import promote, put_in_quarantine
from understudy.runs import Run

COLLECT_TOKEN = "a-token-for-tests-only"
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture
def lake(released: Path, tmp_path: Path) -> Path:
    shutil.copytree(released, tmp_path / "lake")
    return tmp_path / "lake"


@pytest.fixture
def serve(lake: Path) -> Iterator[Callable[..., RankServer]]:
    started: list[RankServer] = []

    def start(*more: str, **environment: str) -> RankServer:
        started.append(RankServer(lake, *more, **environment))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()


class Crowd:
    """Clients that ask without pause, each on its own connection; ``answers``: status and body of each."""

    def __init__(self, server: RankServer, items: list[str], clients: int = 4) -> None:
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.broken: list[Exception] = []
        self.enough = threading.Event()
        self.server, self.items = server, items
        self.threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def _ask(self) -> None:
        with httpx.Client(base_url=self.server.url, headers=HEADERS, timeout=30) as client:
            while not self.enough.is_set():
                try:
                    answer = client.post("/v1/rank", json={"user_id": "u", "candidates": self.items})
                    self.answers.append((answer.status_code, answer.json()))
                except httpx.TransportError as error:
                    self.broken.append(error)
                    return

    def end(self) -> None:
        self.enough.set()
        for thread in self.threads:
            thread.join(30)


def refresh(lake: Path) -> str:
    """A newer item snapshot of the same features; its name."""
    opened = Lake.open(str(lake))
    pointer = current_features(opened)
    now = datetime.datetime.now(datetime.UTC)
    name = online.materialise(opened, Run(opened, pointer["run_id"]), EPOCH, now)
    opened.replace(POINTER, json.dumps(pointer | {"items": name, "as_of_us": online.micros(now)}).encode())
    return name


def test_a_promotion_and_a_refresh_are_taken_up_while_requests_are_answered(
    lake: Path, serve: Callable[..., RankServer]
) -> None:
    first = another_release(lake, serving=PATIENT)
    promote(Lake.open(str(lake)), first)
    digest = another_release(lake, serving={**PATIENT, "utility": {"like": 2.0}})
    server = serve("--no-log-requests")
    crowd = Crowd(server, items_of(lake)[:20])
    server.wait(lambda: len(crowd.answers) > 5)
    promote(Lake.open(str(lake)), digest)
    server.wait(lambda: crowd.answers[-1][1].get("release") == digest)
    name = refresh(lake)
    server.wait(lambda: any(name in line for line in server.lines))
    crowd.end()
    assert {status for status, _ in crowd.answers} == {200}
    assert not crowd.broken
    assert {answer["release"] for _, answer in crowd.answers} == {first, digest}
    last = crowd.answers[-1][1]
    assert last["utility"] == pytest.approx([2 * p for p in last["probabilities"]["like"]], rel=1e-5)
    assert server.metric('reloads_total{outcome="done"}') == 2
    assert server.metric(f'release_info{{release="{first}"}}') == 0
    assert server.metric(f'release_info{{release="{digest}"}}') == 1


def test_what_can_not_be_taken_up_is_told_once_and_the_stage_stays(
    lake: Path, serve: Callable[..., RankServer]
) -> None:
    first = releases_of(lake)
    digest = another_release(lake, serving={"max_candidates": 5})
    server = serve()
    promote(Lake.open(str(lake)), digest)
    (lake / "releases" / digest / "served.onnx").write_bytes(b"no model")
    server.wait(lambda: server.metric('reloads_total{outcome="failed"}') >= 2)
    told = [json.loads(line) for line in server.lines if "reload_failed" in line]
    assert len(told) == 1
    assert "served.onnx: expected SHA-256" in told[0]["reason"]
    answer = server.rank("u", items_of(lake)[:10])
    assert (answer.status_code, answer.json()["release"]) == (200, first)


def test_fresh_features_are_taken_up_where_the_release_beside_them_can_not_be(
    lake: Path, serve: Callable[..., RankServer]
) -> None:
    first, digest = releases_of(lake), another_release(lake, serving={"max_candidates": 5})
    server = serve()
    promote(Lake.open(str(lake)), digest)
    (lake / "releases" / digest / "served.onnx").write_bytes(b"no model")
    name = refresh(lake)
    server.wait(lambda: any("on_stage" in line and name in line for line in server.lines))
    assert server.rank("u", items_of(lake)[:10]).json()["release"] == first
    assert server.metric('reloads_total{outcome="failed"}') >= 1
    assert server.metric("feature_age_seconds") < 3600


def test_another_online_store_is_read_after_a_refresh(lake: Path, serve: Callable[..., RankServer]) -> None:
    server, user, items = serve(), users_of(lake)[0], items_of(lake)[:3]
    assert server.rank(user, items).json()["user"] == "known"
    for path in (lake / "features").glob("online.db*"):
        path.unlink()
    sqlite3.connect(lake / "features" / "online.db").close()  # restored, or made anew: it has no rows yet
    opened = Lake.open(str(lake))
    pointer = current_features(opened)
    name = f"{pointer['items']}-again"
    shutil.copytree(lake / "features" / "items" / pointer["items"], lake / "features" / "items" / name)
    opened.replace(POINTER, json.dumps(pointer | {"items": name}).encode())
    server.wait(lambda: server.rank(user, items).json()["user"] == "unknown")


def test_a_damaged_value_costs_features_and_no_answers(lake: Path, serve: Callable[..., RankServer]) -> None:
    with sqlite3.connect(lake / "features" / "online.db") as db:
        db.execute("UPDATE understudy_user_history SET value = x'ffffffffff'")
    server = serve()
    answer = server.rank(users_of(lake)[0], items_of(lake)[:3])
    assert (answer.status_code, answer.json()["user"]) == (200, "unavailable")
    assert server.metric('online_store_failures_total{cause="damaged"}') == 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_fetched_release_is_served_whatever_becomes_of_the_lake_s_copy(
    lake: Path, tmp_path: Path, serve: Callable[..., RankServer], workers: str
) -> None:
    digest = releases_of(lake)
    fetch(Lake.open(str(lake)), "production", str(tmp_path / "fetched"))
    shutil.rmtree(lake / "releases" / digest)
    server = serve("--fetched", str(tmp_path / "fetched"), "--release", digest, "--workers", workers)
    answer = server.rank(users_of(lake)[0], items_of(lake)[:10]).json()
    assert (answer["release"], answer["user"], len(answer["items"])) == (digest, "known", 10)


def test_what_is_under_way_is_answered_when_the_server_ends(lake: Path, serve: Callable[..., RankServer]) -> None:
    server = serve("--no-log-requests", "--release", another_release(lake, serving=PATIENT))
    slate = [f"i{place}" for place in range(1000)]
    answers: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=server.url, headers=HEADERS, timeout=30) as client:
            client.get("/v2/health/live")  # a connection that is open before the end
            ready.wait()
            answers.append(client.post("/v1/rank", json={"user_id": "u", "candidates": slate}).status_code)

    ready = threading.Barrier(7)
    threads = [threading.Thread(target=ask, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    before = server.metric("slate_candidates_count")
    ready.wait()
    server.wait(lambda: server.metric("slate_candidates_count") > before)  # all six have come, not all are answered
    assert server.stop() == 0
    for thread in threads:
        thread.join(30)
    assert answers == [200] * 6


@pytest.mark.needs("redis-server")
def test_slow_and_dead_redis_cost_features_and_no_answers(
    lake: Path, serve: Callable[..., RankServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis, (user, *others), items = Redis(tmp_path), users_of(lake), items_of(lake)[:20]
    monkeypatch.setenv(REDIS_URL, redis.url)
    refresh(lake)
    release = another_release(lake, serving={**PATIENT, "online_timeout_ms": 100.0})  # the machine may be busy
    server = serve("--release", release, UNDERSTUDY_REDIS_URL=redis.url)
    new = iter(others)
    features = lambda: server.rank(next(new), items).json()["user"]  # noqa: E731
    known = server.rank(user, items).json()
    assert known["user"] == "known"
    redis.process.send_signal(signal.SIGSTOP)
    assert [features() for _ in range(5)] == ["unavailable"] * 5
    redis.process.send_signal(signal.SIGCONT)
    server.wait(lambda: features() == "known")
    redis.stop()
    answer = server.rank(next(new), items).json()
    assert (answer["user"], len(answer["items"])) == ("unavailable", 20)
    assert server.rank(user, items).json()["utility"] == known["utility"]  # what was read is kept
    redis.start()
    server.wait(lambda: features() in ("known", "unknown"))
    causes = ("redis", "slow", "paused")
    assert sum(server.metric(f'online_store_failures_total{{cause="{cause}"}}') for cause in causes) >= 6
    assert server.metric('users_total{features="unavailable"}') >= 6
    redis.stop()


def test_a_lost_sqlite_file_costs_features_and_no_answers(lake: Path, serve: Callable[..., RankServer]) -> None:
    server, users, items = serve(), iter(users_of(lake)), items_of(lake)[:20]
    (lake / "features" / "online.db").rename(lake / "features" / "away.db")
    for name in ("online.db-wal", "online.db-shm"):
        (lake / "features" / name).unlink(missing_ok=True)
    assert server.rank(next(users), items).json()["user"] == "unavailable"
    (lake / "features" / "away.db").rename(lake / "features" / "online.db")
    server.wait(lambda: server.rank(next(users), items).json()["user"] == "known")


def test_what_was_served_reaches_the_collector_or_is_counted_as_lost(
    lake: Path, serve: Callable[..., RankServer], tmp_path: Path
) -> None:
    (tmp_path / "collector").mkdir()
    collector = Collector(tmp_path / "collector")
    server = serve("--collector", collector.url, UNDERSTUDY_COLLECT_TOKEN=COLLECT_TOKEN)
    answer = server.rank("u1", items_of(lake)[:8], context={"surface": "home"}, limit=3, request_id="told").json()
    server.wait(lambda: server.metric('context_total{outcome="told"}') == 1)
    clicked = collector.send("b1", [action("told", answer["items"][0])]).json()
    assert clicked == {"accepted": 1, "refused": []}
    refused = collector.send("b2", [action("never served", "i1")]).json()
    assert refused["accepted"] == 0
    collector.stop()
    (row,) = collector.rows("impressions").to_dict("records")
    assert (row["request_id"], row["item_id"], row["position"]) == ("told", answer["items"][0], 0)
    assert (row["user_id"], row["surface"], row["release"]) == ("u1", "home", answer["release"])
    assert (row["candidate_count"], row["slice"]) == (8, "policy")
    assert row["p_click"] == pytest.approx(answer["probabilities"]["click"][0])
    assert server.rank("u1", items_of(lake)[:8]).status_code == 200
    server.wait(lambda: server.metric('context_total{outcome="lost"}') == 1)
    assert any("context_lost" in line for line in server.lines)


def test_the_random_slice_is_ordered_at_random_and_says_so(lake: Path, serve: Callable[..., RankServer]) -> None:
    release = another_release(lake, logging={"random_share": 0.5})
    server, items = serve("--release", release), items_of(lake)[:12]
    found = [server.rank("u", items, request_id=f"r{i}").json() for i in range(60)]
    random = [one for one in found if one["slice"] == "random"]
    assert 15 < len(random) < 45
    assert len({tuple(one["items"]) for one in random}) == len(random)
    assert len({tuple(one["items"]) for one in found if one["slice"] == "policy"}) == 1
    again = server.rank("u", items, request_id=random[0]["request_id"]).json()
    assert again["items"] == random[0]["items"]


def test_stale_features_are_used_and_counted(lake: Path, serve: Callable[..., RankServer]) -> None:
    opened = Lake.open(str(lake))
    pointer = current_features(opened)
    opened.replace(POINTER, json.dumps(pointer | {"as_of_us": pointer["as_of_us"] - 7 * 3_600_000_000}).encode())
    server, user = serve(), users_of(lake)[0]
    assert server.rank(user, items_of(lake)[:3]).json()["user"] == "known"
    assert server.metric("stale_requests_total") == 1
    assert server.metric("feature_age_seconds") > 7 * 3600


def test_several_workers_count_together_and_one_that_dies_is_replaced(
    lake: Path, serve: Callable[..., RankServer]
) -> None:
    server, items = serve("--workers", "2"), items_of(lake)[:10]
    server.wait(lambda: sum("on_stage" in line for line in server.lines) == 2)
    for _ in range(20):
        with httpx.Client(base_url=server.url, headers=HEADERS, timeout=30) as client:
            assert client.post("/v1/rank", json={"user_id": "u", "candidates": items}).status_code == 200
    assert server.metric("slate_candidates_count") == 20
    workers = [
        int(pid) for pid in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    ]
    serving = [pid for pid in workers if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(serving) == 2
    os.kill(serving[0], signal.SIGKILL)
    server.wait(lambda: sum("on_stage" in line for line in server.lines) == 3)
    time.sleep(0.2)
    with httpx.Client(base_url=server.url, headers=HEADERS, timeout=30) as client:
        assert client.post("/v1/rank", json={"user_id": "u", "candidates": items}).status_code == 200
    first = releases_of(lake)
    promote(Lake.open(str(lake)), another_release(lake, serving=PATIENT))
    server.wait(lambda: sum("on_stage" in line for line in server.lines) == 5)
    assert server.metric(f'release_info{{release="{first}"}}') == 0  # the dead worker's word does not count
    assert server.stop() == 0


def test_the_end_is_announced_before_it_comes(lake: Path, serve: Callable[..., RankServer]) -> None:
    server = serve("--drain-s", "3")
    server.process.send_signal(signal.SIGTERM)
    server.wait(lambda: server.client.get("/v2/health/ready").status_code == 503)
    answer = server.rank("u", items_of(lake)[:3])
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")
    assert server.client.get("/v2/health/live").status_code == 200
    assert server.process.wait(60) == 0


def test_a_server_needs_no_more_than_its_own_role_s_packages(lake: Path) -> None:
    code = (
        "import httptools, uvloop, understudy.serving.app, understudy.serving.worker\n"
        "from understudy.cli import serve\n"
        "from understudy.serving.following import Following\n"
        "from understudy.serving.online import RedisStore\n"
        "from understudy.serving.ranker import rank\n"
        f"following = Following({str(lake)!r}, 'production')\n"
        "RedisStore('redis://127.0.0.1:1/0', following.stage.model.views)\n"
        f"items = {items_of(lake)[:9]!r}\n"
        "found = rank(following.stage, following.store(), 'u', items, request_id='r', surface=None, now_us=1)\n"
        "assert sorted(found.order.tolist()) == list(range(9))\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'torch', 'pandas', 'kfp', 'feast', 'duckdb', 'pyspark', 'sklearn'}, loaded\n"
    )
    done = as_role("serve", code)
    assert done.returncode == 0, done.stderr[-2000:]


def bad_alias(lake: Path) -> list[str]:
    return ["--release", "previous"]


def no_features(lake: Path) -> list[str]:
    (lake / POINTER).unlink()
    return []


def damaged_items(lake: Path) -> list[str]:
    name = current_features(Lake.open(str(lake)))["items"]
    (lake / "features" / "items" / name / "ids.npy").write_bytes(b"")
    return []


def quarantined(lake: Path) -> list[str]:
    digest = releases_of(lake)
    put_in_quarantine(Lake.open(str(lake)), digest, "harm")
    return ["--release", digest]


def fetched_alias(lake: Path) -> list[str]:
    fetch(Lake.open(str(lake)), "production", str(lake.parent / "fetched"))
    return ["--fetched", str(lake.parent / "fetched")]


def fetched_other(lake: Path) -> list[str]:
    return [*fetched_alias(lake), "--release", another_release(lake, serving={"max_candidates": 5})]


def fetched_quarantined(lake: Path) -> list[str]:
    return [*fetched_alias(lake), *quarantined(lake)]


def other_heads(lake: Path) -> list[str]:
    return ["--release", another_release(lake, serving={"utility": {"share": 1.0}})]


CASES: list[tuple[Callable[[Path], list[str]], str]] = [
    (bad_alias, "release 'previous': expected the alias"),
    (no_features, "expected features, found none; run `understudy features refresh"),
    (damaged_items, "expected an item snapshot, found a damaged one"),
    (quarantined, "expected a healthy release, found one in quarantine"),
    (fetched_alias, "--release production: expected the digest of what was fetched, found an alias"),
    (fetched_other, "or one digest in lake"),
    (fetched_quarantined, "expected a healthy release, found one in quarantine"),
    (lambda _: ["--fetched", "/nowhere", "--release", "ab" * 32], "--fetched /nowhere: expected a release, found none"),
    (other_heads, "serving.utility: expected heads click, like, long_view, found share"),
    (lambda _: ["--lake", "/nowhere"], "lake /nowhere: expected a lake"),
    (lambda _: ["--collector", "here"], "--collector here: expected http://host:port"),
    (lambda _: ["--collector", "http://here/there"], "--collector http://here/there: expected http://host:port"),
    (lambda _: ["--collector", "http://here:99999"], "--collector http://here:99999: expected http://host:port"),
    (lambda _: ["--token-file", "/nowhere"], "--token-file /nowhere: expected a file that can be read"),
]


@pytest.mark.parametrize(("spoil", "said"), CASES)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_bad_input_is_one_clear_line(
    lake: Path,
    spoil: Callable[[Path], list[str]],
    said: str,
    workers: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from understudy.cli import main

    monkeypatch.setenv("UNDERSTUDY_SERVE_TOKEN", "a-token-for-tests-only")
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, **_: server.config.load())  # no further
    monkeypatch.setattr(Multiprocess, "run", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--lake", str(lake), "--port", "0", "--workers", workers, *spoil(lake)])
    told = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("serve: listening")]
    assert ended.value.code == 2
    assert len(told) == 1
    assert said in told[0]
