"""The promise about versions: lakes that older versions wrote, used as a later version.

``tests/golden/<minor version>/`` holds lakes as ``tests/golden/make.py`` of that version made them, elsewhere: each is
unpacked into a folder of its own, as a user's lake that has moved. This version, under the number of a later one, must
read them, serve, learn and roll back.
"""

import contextlib
import dataclasses
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pyspark.sql import SparkSession
from ranking import RankServer
from steps import through

import understudy
from understudy import config as configuration
from understudy import releases
from understudy.cli.main import cli
from understudy.comparison import compare
from understudy.config import Config
from understudy.errors import BadInput
from understudy.evaluation.adhoc import evaluate_release
from understudy.experiments import Outcomes
from understudy.features.pointer import current_features
from understudy.lake import Lake
from understudy.logs.flush import flush
from understudy.logs.ingest import ingest
from understudy.logs.journal import Journal
from understudy.releases import lifecycle
from understudy.rollout.driver import Driver
from understudy.rollout.record import Rollouts
from understudy.rollout.state import ArmSeen, Seen, State
from understudy.runs import Run
from understudy.section import duration_s
from understudy.snapshot import Snapshot

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
NEXT, LAST = "0.2.0", "0.3.0"  # the versions that read what 0.1 wrote
OLD = ("0.1",)
_OURS = ("understudy", "pipelines", "components")
_MOST_BYTES = 2_000_000


def _call_it(version: str, before: str) -> None:
    """Give every module that knows the version of the package another."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in _OURS:
            for attribute in ("__version__", "VERSION"):
                if getattr(module, attribute, None) == before:
                    setattr(module, attribute, version)


@contextlib.contextmanager
def called(version: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This version under another number, in this process and in those that it starts."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import understudy\n\nunderstudy.__version__ = {version!r}\n")
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    before = understudy.__version__
    _call_it(version, before)
    try:
        yield
    finally:
        _call_it(before, version)


@pytest.fixture
def later(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The number that this version has in a test."""
    version = getattr(request, "param", NEXT)
    with called(version, tmp_path / "called", monkeypatch):
        yield version


both = pytest.mark.parametrize("later", [NEXT, LAST], indirect=True)


@dataclasses.dataclass(frozen=True)
class Golden:
    """A lake, its user's configuration, and what lies beside them."""

    folder: Path
    config: Config
    lake: Lake

    def heads(self) -> tuple[str, ...]:
        return Snapshot.latest(self.lake).heads

    def journal(self) -> Journal:
        assert self.config.logging is not None
        keep_s = duration_s(self.config.labels.attribution_window) + duration_s(self.config.logging.lateness)
        return Journal(self.folder / "collector.db", self.config.logging, keep_s=keep_s)

    def releases(self) -> dict[str, str]:
        return releases.aliases(self.lake)


def unpacked(name: str, version: str, folder: Path) -> Golden:
    with tarfile.open(GOLDEN / version / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return Golden(folder, configuration.load(folder / "understudy.yaml"), Lake.open(str(folder / "lake")))


@pytest.fixture(params=OLD)
def ingested(request: pytest.FixtureRequest, tmp_path: Path, later: str) -> Golden:
    """Logs of eight days, and the files of ten."""
    return unpacked("ingested", request.param, tmp_path / "golden")


@pytest.fixture(params=OLD)
def feed(request: pytest.FixtureRequest, tmp_path: Path, later: str) -> Golden:
    """Two releases and a rollout, an online store, and a journal with a day that the lake does not hold."""
    return unpacked("feed", request.param, tmp_path / "golden")


def told(*arguments: str) -> Any:
    done = CliRunner().invoke(cli, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_they_are_small_and_name_no_machine() -> None:
    for version in OLD:
        archives = sorted((GOLDEN / version).glob("*.tar.xz"))
        assert [path.name for path in archives] == ["feed.tar.xz", "ingested.tar.xz"]
        assert sum(path.stat().st_size for path in archives) <= _MOST_BYTES
        for path in archives:
            with tarfile.open(path) as archive:
                for info in archive:
                    file = archive.extractfile(info)
                    assert file is not None, f"{info.name} is no plain file"
                    assert (info.uname, info.gname, info.uid, info.mtime) == ("", "", 0, 0)
                    data = file.read()
                    for name in (b"/home/", b"/root/", b"/work/", b"/Users/"):
                        assert name not in data, f"{info.name} names {name!r}"


def test_ingested_logs_take_more_and_are_run(ingested: Golden, session: SparkSession, later: str) -> None:
    before = Snapshot.latest(ingested.lake)
    done = ingest(ingested.config, ingested.folder / "logs", ingested.lake.root)
    assert (before.days()[-1], done.last_day, done.changed) == ("2022-05-02", "2022-05-04", True)
    after = Snapshot.latest(ingested.lake)
    for table, parts in before.tables.items():  # rows that were there are the same rows
        assert {day: after.tables[table][day] for day in parts} == parts

    run = through(ingested.lake.root, ingested.config, "2022-05-04", "promote")
    assert (run.status(), run.plan().version) == ("released", later)
    assert releases.load(ingested.lake, "production").manifest["version"] == later


def test_configurations_are_compared_on_ingested_logs(ingested: Golden, session: SparkSession) -> None:
    other = dataclasses.replace(
        ingested.config, sampling=dataclasses.replace(ingested.config.sampling, negative_rate=0.5)
    )
    found = compare(ingested.lake.root, {"own": ingested.config, "half": other}, "2022-05-02", 1, lambda _: None)
    assert list(found["heads"]["click"]) == ["own", "half"]


def test_what_was_not_flushed_is_and_teaches_with_the_old_release_s_help(
    feed: Golden, session: SparkSession, later: str
) -> None:
    teacher = feed.releases()["production"]
    journal = feed.journal()
    flushed = flush(journal, feed.lake, feed.config)
    assert flushed.impressions > 200
    assert flushed.actions > 50
    assert flush(journal, feed.lake, feed.config) == (0, 0)
    journal.close()
    assert Snapshot.current(feed.lake).days()[-1] == "2026-01-09"
    assert Snapshot.current(feed.lake).rows("impressions", "2026-01-09") == flushed.impressions

    run = through(feed.lake.root, feed.config, "2026-01-09", "promote")
    plan = run.plan()
    assert (run.status(), plan.version, plan.teacher, plan.reference) == ("released", later, teacher, teacher)
    made = releases.load(feed.lake, "production")
    assert (made.manifest["teacher"], made.manifest["version"]) == (teacher, later)
    assert [one["digest"] for one in releases.ancestors(feed.lake, made.digest)][1] == teacher
    assert current_features(feed.lake)["run_id"] == run.id  # also in Feast's registry, which had the lake's old path


def test_an_old_release_is_evaluated(feed: Golden, session: SparkSession) -> None:
    found = evaluate_release(feed.lake.root, "previous", "2026-01-08", "2026-01-08")
    assert found["release"] == feed.releases()["previous"]
    assert list(found["heads"]) == list(feed.heads())
    assert found["rows"] > 200


def test_an_old_release_serves_and_a_rollback_reaches_its_server(feed: Golden, later: str) -> None:
    stable, before = feed.releases()["production"], feed.releases()["previous"]
    server = RankServer(feed.lake.root, "--workers", "1", "--no-log-requests")
    try:
        assert server.client.get("/v2").json()["version"] == later
        answer = server.rank("u1", ["i1", "i2", "i3"], context={"surface": "home"}).json()
        assert (answer["release"], sorted(answer["items"])) == (stable, ["i1", "i2", "i3"])
        assert 0 < answer["probabilities"]["click"][0] < 1
        lifecycle.rollback(feed.lake)
        server.wait(lambda: server.rank("u1", ["i1"]).json()["release"] == before)
    finally:
        server.stop()
    assert feed.releases() == {**feed.releases(), "production": before, "previous": stable}


class Nowhere:
    """Stands for servers and their route."""

    def apply(self, *_: Any) -> bool:
        return True


class Crowd:
    """Sees many people, who like both arms alike."""

    def see(self, _: State, now_s: float) -> Seen:
        n = np.full(400, 10.0)
        outcomes = {"click": Outcomes.of(np.tile([4.0, 0.0], 200), n)}
        arm = ArmSeen(500, 0, 12.0, 300.0, 0, {"click": 0.2, "save": 0.05}, 1_000, len(n), outcomes)
        return Seen(now_s, arm, arm)


@both
def test_a_rollout_that_was_on_goes_on_to_its_end(feed: Golden) -> None:
    record = Rollouts(feed.lake)
    (rollout,) = record.ids()
    number, state = record.load(rollout)
    assert (state.phase, state.step, state.looks) == ("running", 1, 1)
    assert record.seen(rollout) is not None
    said = [one["said"] for one in record.history(rollout)]
    assert state.stable == feed.releases()["production"]
    now_s = iter(state.started_s + hours * 3_600 for hours in (48, 49))
    driver = Driver(feed.lake, record, feed.config.rollout, ("click",), Nowhere(), Crowd(), said.append)
    ended, _ = dataclasses.replace(driver, clock=lambda: next(now_s)).tick(rollout)
    assert (ended.phase, ended.told) == ("promoted", True)
    assert [one["said"] for one in record.history(rollout)] == said
    assert record.load(rollout)[0] > number
    assert (feed.releases()["production"], feed.releases()["previous"]) == (state.candidate, state.stable)


@both
def test_what_is_there_is_listed_and_shown(feed: Golden) -> None:
    lake = ("--lake", feed.lake.root)
    listed = told("releases", "list", *lake)
    assert {alias for one in listed for alias in one["aliases"]} == {"production", "previous", "candidate"}
    for one in listed:
        assert told("releases", "show", one["digest"], *lake)["manifest"]["version"].startswith("0.1.")
    runs = told("runs", "list", *lake)
    assert {one["status"] for one in runs} == {"released"}
    for one in runs:
        assert told("runs", "show", one["run"], *lake)["seconds"]
    assert told("rollout", "status", *lake)["phase"] == "running"
    assert told("rollout", "history", *lake)[0]["said"].startswith("begun")


def test_a_run_that_another_version_began_is_not_gone_on_with(feed: Golden, later: str) -> None:
    """It could mix what two versions compute; a fresh one is a command away, and the same command finds it."""
    run = Run.all(feed.lake)[0]
    with pytest.raises(BadInput, match=rf"expected a record by this version \({later}\).*`understudy run --again`"):
        _again(feed, run)


def _again(feed: Golden, run: Run) -> None:
    from understudy.calibration import step

    step.run(feed.lake.root, run.id, feed.config.section("calibration", "training"))
