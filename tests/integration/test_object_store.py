"""A lake in an object store: a local S3 server, real requests, and the loop from the samples to an answer."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ranking import ROOT, RankServer, items_of, users_of
from redis_server import Redis
from s3_server import S3
from steps import RUN, SECOND, run_of, small
from waiting import eventually

from understudy import releases
from understudy.config import Config
from understudy.errors import BadInput, Later
from understudy.features import online, workplace
from understudy.features.offline_store import AsOfOfflineStoreConfig
from understudy.features.pointer import POINTER, REDIS_URL, current_features
from understudy.lake import Lake
from understudy.logs.ingest import ingest
from understudy.releases import lifecycle
from understudy.releases.aliases import history, move
from understudy.report.step import write as write_report
from understudy.rollout.places import need_folder
from understudy.runs import Run
from understudy.serving.copies import Copies
from understudy.snapshot import Snapshot

LAKES = "s3://lakes"
needs_redis = pytest.mark.needs("redis-server")


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[S3]:
    one = S3()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]:
            patch.delenv(name)
        for name, value in one.environment.items():
            patch.setenv(name, value)
        patch.delenv(REDIS_URL, raising=False)
        yield one
    one.stop()


@pytest.fixture
def lake(request: pytest.FixtureRequest) -> Lake:
    """An empty lake of the test's own."""
    return Lake.open_or_create(f"{LAKES}/{request.node.name}")


def understudy(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "understudy.cli", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120)


def at_once(works: list[Callable[[], Any]]) -> list[Any]:
    """What works give that all begin at the same moment."""
    gate = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> Any:
        gate.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


# Files


def test_a_name_is_given_once_whoever_asks(lake: Lake) -> None:
    for number in range(5):
        name, lakes = f"runs/{number}/manifest.json", [Lake.open(lake.root) for _ in range(12)]
        won = at_once([partial(one.create, name, b"%d" % i) for i, one in enumerate(lakes)])
        assert sum(won) == 1
        assert lake.read_bytes(name) == b"%d" % won.index(True)


def test_a_name_is_given_once_among_processes(lake: Lake, tmp_path: Path) -> None:
    code = (
        "import sys, time; from understudy.lake import Lake\n"
        "lake = Lake.open(sys.argv[1])\n"
        "while not lake.exists('go'): pass\n"
        "print([n for n in range(20) if lake.create(f'names/{n}', sys.argv[2].encode())])\n"
    )
    command = [sys.executable, "-c", code, lake.root]
    processes = [subprocess.Popen([*command, str(i)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for i in range(3)]
    lake.create("go", b"")
    won = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert sorted(name for names in won for name in names) == list(range(20))
    for i, names in enumerate(won):
        assert all(lake.read_bytes(f"names/{name}") == str(i).encode() for name in names)


def test_who_created_a_file_knows_it_though_the_answer_was_lost(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"2")
    assert lake.create("lost-answer-1", b"1")
    assert lake.put(tmp_path / "file", "lost-answer-2")
    assert not lake.create("lost-answer-1", b"1")
    assert lake.read_bytes("lost-answer-2") == b"2"


def test_a_put_that_another_stood_in_the_way_of_is_sent_again(lake: Lake) -> None:
    assert lake.create("in-the-way", b"1")
    assert lake.read_bytes("in-the-way") == b"1"


@pytest.mark.parametrize("size", [3, 20 << 20], ids=["small", "in parts"])
def test_a_file_that_is_put_never_overwrites(lake: Lake, tmp_path: Path, size: int) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(os.urandom(size))
    second.write_bytes(os.urandom(size))
    done = at_once([lambda: lake.put(first, "tables/a"), lambda: Lake.open(lake.root).put(second, "tables/a")])
    assert sorted(done) == [False, True]
    winner = first if done[0] else second
    lake.fetch(tmp_path / "copy", "tables/a")
    assert (tmp_path / "copy").read_bytes() == winner.read_bytes()
    assert not lake.fs.call_s3("list_multipart_uploads", Bucket="lakes").get("Uploads")


def test_what_another_writes_is_seen_at_once(lake: Lake) -> None:
    lake.fs.clear_instance_cache()  # as in another process, which shares nothing with this one
    other = Lake.open(lake.root)
    assert other.fs is not lake.fs
    assert lake.names("runs") == lake.files("runs") == []
    for number in range(3):
        other.create(f"runs/{number}/plan.json", b"{}")
        assert lake.exists("runs", str(number), "plan.json")
        assert lake.names("runs") == [str(n) for n in range(number + 1)]
        assert len(lake.files("runs")) == number + 1
    other.replace("runs/0/plan.json", b"[1, 2]")
    assert lake.read_json("runs", "0", "plan.json") == [1, 2]
    other.remove("runs/0")
    assert not lake.exists("runs", "0")
    assert lake.names("runs") == ["1", "2"]
    lake.remove("runs")
    lake.remove("runs")
    assert other.files("runs") == []


def test_empty_objects_that_stand_for_folders_are_no_files(lake: Lake) -> None:
    lake.create("runs/1/a", b"")
    for folder in ("runs/", "runs/1/", "runs/2/"):
        lake.fs.call_s3("put_object", Bucket="lakes", Key=f"{lake.root.removeprefix('s3://lakes/')}/{folder}")
    assert lake.names("runs") == ["1", "2"]
    assert lake.files("runs") == ["1/a"]
    assert lake.names("runs", "1", "a") == []


def test_a_table_is_there_whole_or_not_at_all(lake: Lake) -> None:
    batch = pa.record_batch({"a": pa.array(range(1000))})

    def broken() -> Iterator[pa.RecordBatch]:
        yield batch
        raise RuntimeError("a full head")

    with pytest.raises(RuntimeError, match="a full head"):
        lake.write_table("t/day=1/rows.parquet", broken(), batch.schema)
    assert not lake.exists("t")
    assert lake.write_table("t/day=1/rows.parquet", [batch, batch], batch.schema) == 2000
    assert lake.dataset("t").to_table().column_names == ["a", "day"]
    assert len(lake.digest("t/day=1/rows.parquet")) == 64


def test_the_same_logs_make_the_same_tables(released: Path, logs: Path, config: Config, lake: Lake) -> None:
    assert ingest(config, logs, lake.root).changed
    snapshot = Snapshot.latest(lake)
    assert snapshot == Snapshot.load(Lake.open(str(released)), 1)
    assert {name: lake.digest(name) for name in snapshot.files("impressions")} == {
        part["path"]: part["sha256"] for part in snapshot.parts("impressions")
    }
    assert not ingest(config, logs, lake.root).changed


# Records


def test_aliases_move_by_compare_and_swap_under_contention(lake: Lake) -> None:
    move(lake, {"production": "0" * 64}, "first", expected={"production": None})

    def swap(to: str) -> str:
        try:
            move(Lake.open(lake.root), {"production": to}, "", expected={"production": "0" * 64})
        except BadInput as error:
            return str(error)
        return to

    names = [f"{n:x}" * 64 for n in range(1, 9)]
    found = at_once([partial(swap, name) for name in names])
    (winner,) = set(found) & set(names)
    assert all("it has moved meanwhile" in text for text in found if text != winner)
    assert releases.aliases(lake) == {"production": winner}
    assert len(history(lake)) == 2


def test_a_swap_wins_only_over_what_it_read(lake: Lake) -> None:
    assert not lake.swap("pointer", b"0", b"1")
    assert sum(at_once([partial(lake.swap, "pointer", None, b"%d" % i) for i in range(6)])) == 1
    before = lake.read_bytes("pointer")
    others = [Lake.open(lake.root) for _ in range(6)]
    won = at_once([partial(one.swap, "pointer", before, b"after %d" % i) for i, one in enumerate(others)])
    assert sum(won) == 1
    assert lake.read_bytes("pointer") == b"after %d" % won.index(True)
    assert lake.swap("pointer", lake.read_bytes("pointer"), b"lost-answer")


# What can be wrong, each one line


def said(*arguments: str, **environment: str) -> str:
    done = understudy(*arguments, **environment)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "a-secret" not in done.stderr
    return done.stderr


def test_a_lake_that_is_not_there_is_told_apart_from_a_bucket_that_is_not_there() -> None:
    with pytest.raises(BadInput, match=r"s3://lakes/none: expected a lake .* found none"):
        Lake.open(f"{LAKES}/none")
    for action in (Lake.open, Lake.open_or_create):
        with pytest.raises(BadInput, match="s3://nobodys/x: expected its bucket, found none of that name"):
            action("s3://nobodys/x")
    assert "expected its bucket" in said("runs", "list", "--lake", "s3://nobodys/x")


def test_no_access_no_answer_no_credentials(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="s3://closed/x: expected access to the object store, found it denied"):
        Lake.open("s3://closed/x")
    gone = "http://user:a-secret@127.0.0.1:9"
    assert "at http://127.0.0.1:9, found no answer" in said("runs", "list", "--lake", lake.root, AWS_ENDPOINT_URL=gone)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "expected credentials for the object store" in said("runs", "list", "--lake", lake.root)


def test_a_store_that_stops_answering_may_answer_later(monkeypatch: pytest.MonkeyPatch) -> None:
    one = S3()
    for name, value in one.environment.items():
        monkeypatch.setenv(name, value)
    lake = Lake.open_or_create(f"{LAKES}/later")
    one.stop()
    with pytest.raises(Later, match="found no answer"):
        lake.exists("lake.json")


def test_without_the_package_the_extra_is_named(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "s3fs.py").write_text("raise ImportError('no s3fs here')\n")
    assert "pip install understudy[s3]" in said("runs", "list", "--lake", lake.root, PYTHONPATH=str(tmp_path))


@pytest.mark.parametrize("uri", ["ftp://host/lake", "s4://bucket/lake", "s3://", "https://host/lake"])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(BadInput, match=r"expected a folder, or a URI such as s3://bucket/lake"):
        Lake.open(uri)


def test_a_store_that_overwrites_all_the_same_gets_no_lake() -> None:
    lake = Lake.open_or_create("s3://careless/lake")
    with pytest.raises(BadInput, match="expected a store that refuses to overwrite an object"):
        lake.create("runs/1/manifest.json", b"{}")
    assert not lake.exists("runs")


def test_a_rollout_on_this_machine_needs_a_folder(lake: Lake) -> None:
    with pytest.raises(BadInput, match="expected a folder for a rollout on this machine"):
        need_folder(lake)


def test_the_feast_repository_needs_a_folder(lake: Lake) -> None:
    with pytest.raises(ValueError, match="expected a folder, where registry and online store are files"):
        AsOfOfflineStoreConfig(lake=lake.root)


# The loop


@pytest.fixture(scope="module")
def both(released: Path, taught: Path, config: Config, server: S3) -> tuple[Path, str, str, Config]:
    """A second window, its samples made by Spark in a folder and finished there and in the store; and the run's id."""
    run, quick, lake = run_of(str(taught), SECOND), small(config), Lake(f"{LAKES}/both/lake")
    lake.put(released / "lake.json", "lake.json")
    sampled = [taught / run.folder / "plan.json", *(taught / run.folder / "steps" / name for name in [*RUN][:3])]
    for root, parts in ((released, [released]), (taught, sampled)):
        for path in sorted(path for part in parts for path in (part, *part.rglob("*")) if path.is_file()):
            name = path.relative_to(root)
            if name.parts[0] not in ("lake.json", "features") and not path.name.startswith("."):
                lake.put(path, str(name))
    for name in [*RUN][3:]:
        step, needed = RUN[name]
        step(lake.root, run.id, quick.section(*needed))
    write_report(lake.root, run.id)
    return taught, lake.root, run.id, quick


def test_the_same_samples_make_the_same_release_in_a_folder_and_in_a_store(
    both: tuple[Path, str, str, Config],
) -> None:
    folder, uri, run_id, _ = both
    lakes = [Lake.open(str(folder)), Lake.open(uri)]
    first, second = (releases.aliases(lake) for lake in lakes)
    assert first == second
    assert first["production"] == first["candidate"] != first["previous"]
    assert releases.load(lakes[1], "production").manifest["teacher"] == first["previous"]
    kept = [{name: one["output_digest"] for name, one in Run(lake, run_id).committed_steps().items()} for lake in lakes]
    assert kept[0] == kept[1]
    assert b"<svg" in lakes[1].read_bytes("runs", run_id, "report.html")


def test_a_late_writer_of_a_manifest_loses(both: tuple[Path, str, str, Config]) -> None:
    _, uri, run_id, quick = both
    lake, folder = Lake.open(uri), f"runs/{run_id}/steps/publish_release"
    before = Run(lake, run_id).manifest("publish_release")
    assert before is not None
    lake.remove(folder, "manifest.json")
    step, parts = RUN["publish_release"]
    found = at_once([partial(step, uri, run_id, quick.section(*parts))] * 3)
    committed = Run(lake, run_id).manifest("publish_release")
    assert found == [committed] * 3
    assert committed is not None
    assert committed["output_digest"] == before["output_digest"]
    assert committed["attempt"] != before["attempt"]
    step(uri, run_id, quick.section(*parts))
    assert not [name for name in lake.names(folder) if name.startswith("attempt-")]


def test_the_command_line_reads_a_store(both: tuple[Path, str, str, Config], tmp_path: Path) -> None:
    _, uri, run_id, _ = both
    digest = releases.resolve(Lake.open(uri), "production")
    shown = understudy("runs", "show", run_id, "--lake", uri, "--json")
    assert json.loads(shown.stdout)["status"] == "released", shown.stderr
    assert digest[:12] in understudy("releases", "list", "--lake", uri).stdout
    fetched = understudy("releases", "fetch", "production", "--lake", uri, "--to", str(tmp_path / "copy"))
    assert fetched.returncode == 0, fetched.stderr
    assert releases.load(Lake.open(str(tmp_path / "copy")), digest).digest == digest


def test_without_redis_training_goes_on_and_one_line_says_what_does_not(
    both: tuple[Path, str, str, Config], capsys: pytest.CaptureFixture[str]
) -> None:
    _, uri, run_id, _ = both
    assert not online.refresh(uri, run_id)
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected a Redis for what serving reads of users" in line
    assert f"set {REDIS_URL}" in line
    assert "expected a Redis" in said("serve", "--lake", uri, UNDERSTUDY_SERVE_TOKEN="a-token-for-tests-only")
    assert "expected a Redis" in said("features", "refresh", "--config", "examples/generated.yaml", "--lake", uri)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    one = Redis(tmp_path_factory.mktemp("redis"), password="p@ss word")
    yield one
    one.stop()


@pytest.fixture(scope="module")
def refreshed(both: tuple[Path, str, str, Config], redis: Redis) -> Lake:
    """The lake in the store, its features online."""
    _, uri, run_id, _ = both
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(REDIS_URL, redis.url)
        assert online.refresh(uri, run_id)
    return Lake.open(uri)


def answer(server: RankServer, user: str, slate: list[str]) -> dict[str, Any]:
    """What a server says once it, and the store of users, find the time."""
    found: list[Any] = []

    def is_answered() -> bool:
        found.append(server.rank(user, slate, request_id="r"))
        return bool(found[-1].status_code == 200 and found[-1].json()["user"] == "known")

    server.wait(is_answered)
    return dict(found[-1].json())


@needs_redis
def test_a_store_serves_what_a_folder_serves(
    both: tuple[Path, str, str, Config], released: Path, refreshed: Lake, redis: Redis
) -> None:
    folder, uri, run_id, _ = both
    assert current_features(refreshed)["run_id"] == current_features(Lake.open(str(folder)))["run_id"] == run_id
    user, slate = users_of(released)[0], items_of(released)[:40]
    with contextlib.ExitStack() as ends:
        servers = [RankServer(folder), RankServer(uri, UNDERSTUDY_REDIS_URL=redis.url)]
        for one in servers:
            ends.callback(one.process.kill)
        answers = [answer(one, user, slate) for one in servers]
        previous = lifecycle.rollback(refreshed)
        servers[1].wait(lambda: answer(servers[1], user, slate)["release"] == previous)
        lifecycle.promote(refreshed, answers[1]["release"])
        assert [one.stop() for one in servers] == [0, 0]
    for head, values in answers[0].pop("probabilities").items():
        np.testing.assert_array_equal(values, answers[1]["probabilities"][head])
    del answers[1]["probabilities"]
    assert answers[0] == answers[1]


@needs_redis
def test_refreshes_take_turns_and_the_pointer_never_moves_backwards(
    both: tuple[Path, str, str, Config], refreshed: Lake, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    (_, uri, run_id, _), lake = both, refreshed
    monkeypatch.setenv(REDIS_URL, redis.url)
    before, writing = current_features(lake), threading.Semaphore(1)
    materialise = online.materialise

    def alone(*arguments: Any) -> str:
        assert writing.acquire(blocking=False), "two refreshes at a time"
        try:
            (lease,), left = redis.client.keys("understudy:refresh:*"), list[int]()

            def is_renewed() -> bool:
                left.append(redis.client.pttl(lease))
                return left[-1] > min(left)

            eventually(is_renewed)
            return materialise(*arguments)
        finally:
            writing.release()

    monkeypatch.setattr(workplace, "_RENEWED_EVERY_S", 0.05)
    monkeypatch.setattr(online, "materialise", alone)
    monkeypatch.setattr(online, "_settled", lambda plan: 1 << 62)  # each has something to write
    assert at_once([lambda: online.refresh(uri, run_id)] * 2) == [True] * 2
    after = current_features(lake)
    assert after["as_of_us"] > before["as_of_us"]
    assert after["items"] in lake.names("features", "items")
    assert 1 < len(lake.names("features", "items")) <= 3
    (older,) = [run.id for run in Run.all(lake) if run.plan().window_end < SECOND]
    assert not online.refresh(uri, older)
    assert current_features(lake) == after


@needs_redis
def test_a_refresh_that_lost_its_turn_leaves_the_pointer_and_a_doubt(
    both: tuple[Path, str, str, Config], refreshed: Lake, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    (_, uri, run_id, _), lake = both, refreshed
    monkeypatch.setenv(REDIS_URL, redis.url)
    newer = {**current_features(lake), "as_of_us": 1 << 60}

    def held_up(*_: Any) -> str:
        lake.replace(POINTER, json.dumps(newer).encode())
        return "another-snapshot"

    monkeypatch.setattr(online, "materialise", held_up)
    monkeypatch.setattr(online, "_settled", lambda plan: 1 << 62)
    assert not online.refresh(uri, run_id)
    assert current_features(lake) == {**newer, "online": "unknown"}


def test_copies_of_snapshots_are_whole_and_old_ones_go(lake: Lake, tmp_path: Path) -> None:
    for number in range(4):
        for name in ("ids.npy", "manifest.json"):
            lake.create(f"features/items/{number}/{name}", b"%d" % number)
    copies = [Copies(lake, str(tmp_path)) for _ in range(4)]
    assert {path.name for path in at_once([partial(one.of, "0") for one in copies])} == {"0"}
    for number in range(4):
        assert (copies[0].of(str(number)) / "manifest.json").read_bytes() == b"%d" % number
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
    lake.remove("features/items/0/manifest.json")
    with pytest.raises(BadInput, match="expected an item snapshot, found none"):
        copies[0].of("0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]
