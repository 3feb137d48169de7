"""Releases as MLflow's own server shows them: once each, true after any accident, and never in a pipeline's way."""

import dataclasses
import json
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow_process import Proxy, mlflow_server, proxy
from s3_server import S3

from understudy import releases
from understudy.cli.main import main
from understudy.errors import Later
from understudy.lake import Lake
from understudy.releases import lifecycle, mirror
from understudy.releases.approvals import give_word
from understudy.releases.mirror import keep_mirror
from understudy.releases.mlflow_server import MODEL, URI
from understudy.releases.unit import build
from understudy.report.telling import tell_end
from understudy.rollout.ending import end
from understudy.rollout.record import Rollouts
from understudy.rollout.state import Decision, State

SECRET = "s3cret-of-ours"
PAGE = "<html>the run’s page</html>"


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Proxy]]:
    """A server, behind a proxy that counts."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri, proxy(uri) as found:
        yield found


@pytest.fixture
def between(through: tuple[str, Proxy], monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The proxy; the environment names it, and a model that nobody has used."""
    uri, state = through
    monkeypatch.setenv(URI, uri)
    monkeypatch.setenv(MODEL, f"ranker {uuid.uuid4().hex[:8]}")
    monkeypatch.setattr(mirror, "_PAUSE_S", 0.01)
    state.asked.clear()
    yield state
    state.fate = lambda _: ""


@pytest.fixture
def client(between: Proxy) -> Any:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow import MlflowClient

    return MlflowClient(f"http://127.0.0.1:{between.port}", f"http://127.0.0.1:{between.port}")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open_or_create(str(tmp_path / "lake"))


def release(lake: Lake, day: int, teacher: str | None = None, run: str | None = None) -> str:
    """A release that holds next to nothing, and is a candidate; its run has a page."""
    head = {"auc": 0.7 + day / 100, "auc_interval": [0.6, 0.8], "calibration_ratio": 1.01, "log_loss": 0.3}
    content = {
        "version": "0.1.0",
        "window": {"start": "2026-01-01", "end": f"2026-01-{day:02}"},
        "time_zone": "UTC",
        "heads": ["click"],
        "teacher": teacher,
        "parents": {"teacher": teacher, "production": teacher, "data": f"logs of {day}", "ranked_by": []},
        "config": {"window": {"days": day}},
    }
    digest = build(lake, content, {"metrics.json": json.dumps({"heads": {"click": head}, "rows": 10}).encode()})
    if run is not None:
        lake.replace(f"releases/evidence/{digest}.json", json.dumps({"release": digest, "run": run}).encode())
        lake.replace(f"runs/{run}/report.html", PAGE.encode())
    releases.move(lake, {"candidate": digest}, "test", expected={})
    return digest


def versions(client: Any) -> dict[str, Any]:
    """Digest → its version; each has but one, and a run of its own."""
    found = list(client.search_model_versions(f"name = '{os.environ[MODEL]}'"))
    shown = {one.tags["understudy.digest"]: one for one in found if "understudy.digest" in one.tags}
    ours = [one for one in found if "understudy.digest" in one.tags]
    assert len(shown) == len(ours)
    experiment = client.get_experiment_by_name(os.environ[MODEL])
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    assert sorted(run.info.run_id for run in runs) == sorted(one.run_id for one in ours)
    return shown


def aliases(client: Any) -> dict[str, str]:
    """Alias → digest, or the version where that is somebody else's."""
    model = client.get_registered_model(os.environ[MODEL])
    digests = {one.version: digest for digest, one in versions(client).items()}
    return {name: digests.get(version, version) for name, version in model.aliases.items()}


def artifact(client: Any, version: Any, name: str, folder: Path) -> str:
    return Path(client.download_artifacts(version.run_id, name, str(folder))).read_text()


def command(*arguments: str, lake: Lake) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["releases", *arguments, "--lake", lake.uri()])
    return int(ended.value.code or 0)


def test_a_release_becomes_a_version_with_its_run(lake: Lake, client: Any, tmp_path: Path) -> None:
    first = release(lake, 7, run="2026-01-07-aa")
    lifecycle.promote(lake, first)
    second = release(lake, 14, teacher=first)
    done = mirror.mirror(lake)
    assert done.created == {first: 1, second: 2}
    shown = versions(client)
    assert [shown[one].version for one in (first, second)] == ["1", "2"]
    assert aliases(client) == releases.aliases(lake) == {"production": first, "candidate": second}
    tags = shown[second].tags
    assert (tags["understudy.teacher"], tags["understudy.window"]) == (first, "2026-01-01 to 2026-01-14")
    assert tags["understudy.release"] == lake.uri("releases", second)
    assert shown[first].tags["understudy.run"] == "2026-01-07-aa"
    run = client.get_run(shown[first].run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["click/auc"] == pytest.approx(0.77)
    assert run.data.metrics["click/auc_interval/low"] == 0.6
    assert (run.data.params["heads"], run.data.params["window_days"]) == ("click", "7")
    assert artifact(client, shown[first], "report.html", tmp_path) == PAGE
    manifest = Path(lake.path("releases", first, "manifest.json")).read_text()
    assert artifact(client, shown[first], "manifest.json", tmp_path) == manifest


def test_what_is_so_already_stays(lake: Lake, between: Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    release(lake, 7, run="2026-01-07-aa")
    assert command("mirror", lake=lake) == 0
    assert "is version 1 of ranker" in capsys.readouterr().out
    before = len(between.asked)
    assert command("mirror", lake=lake) == 0
    told = capsys.readouterr()
    assert (told.out.startswith("nothing to do: "), told.err) == (True, "")
    again = between.asked[before:]
    assert between.writes()[-1] not in again
    assert len(again) == 4
    assert command("mirror", "--json", lake=lake) == 0
    assert json.loads(capsys.readouterr().out)["created"] == {}


def test_an_alias_that_has_moved_moves(lake: Lake, client: Any) -> None:
    first, second = release(lake, 7), release(lake, 14)
    lifecycle.promote(lake, first)
    mirror.mirror(lake)
    lifecycle.promote(lake, second)
    assert mirror.mirror(lake).aliases == {"production": second, "previous": first}
    assert aliases(client) == {"candidate": second, "production": second, "previous": first}
    releases.move(lake, {"candidate": None}, "test", expected={})
    assert mirror.mirror(lake).aliases == {"candidate": None}
    assert aliases(client) == {"production": second, "previous": first}


def test_quarantine_and_rejection_show(lake: Lake, client: Any) -> None:
    first = release(lake, 7)
    second = release(lake, 14, teacher=first)
    third, fourth = release(lake, 21), release(lake, 22)
    mirror.mirror(lake)
    lifecycle.put_in_quarantine(lake, first, "harm", "people left")
    lifecycle.put_in_quarantine(lake, third, "other")
    give_word(lake, fourth, "refused", "ada", "too new")
    assert mirror.mirror(lake).tagged == {first, second, third, fourth}
    tags = {digest: one.tags for digest, one in versions(client).items()}
    assert tags[first]["understudy.quarantine"] == "harm: people left"
    assert tags[second]["understudy.quarantine"].startswith("spread from")
    assert tags[third]["understudy.rejected"] == "other"
    assert tags[fourth]["understudy.rejected"] == "refused by ada: too new"
    lifecycle.put_in_quarantine(lake, third, "scoring")
    mirror.mirror(lake)
    tags = {digest: one.tags for digest, one in versions(client).items()}
    assert (tags[third]["understudy.quarantine"], "understudy.rejected" in tags[third]) == ("scoring", False)


def test_a_page_that_was_written_later_or_anew_is_shown(lake: Lake, client: Any, tmp_path: Path) -> None:
    digest = release(lake, 7)
    mirror.mirror(lake)
    for page in (PAGE, "<html>goes on</html>"):
        release(lake, 7, run="2026-01-07-aa")
        lake.replace("runs/2026-01-07-aa/report.html", page.encode())
        assert mirror.mirror(lake).reported == {digest}
        assert artifact(client, versions(client)[digest], "report.html", tmp_path) == page


def test_what_somebody_else_put_there_stays(lake: Lake, client: Any) -> None:
    name = os.environ[MODEL]
    client.create_registered_model(name, description="of people")
    other = client.create_model_version(name, "s3://bucket/model", await_creation_for=0)
    for alias in ("champion", "production"):
        client.set_registered_model_alias(name, alias, other.version)
    client.set_model_version_tag(name, other.version, "owner", "ada")
    digest = release(lake, 7)
    lifecycle.promote(lake, digest)
    mirror.mirror(lake)
    client.set_model_version_tag(name, "2", "owner", "ada")
    assert not mirror.mirror(lake).changed
    assert aliases(client) == {"champion": "1", "production": digest, "candidate": digest}
    assert client.get_model_version(name, "1").tags == {"owner": "ada"}
    assert versions(client)[digest].tags["owner"] == "ada"
    assert client.get_registered_model(name).description == "of people"


@pytest.mark.parametrize(
    "answer",
    [
        "POST registered-models/create",
        "POST experiments/create",
        "POST runs/create",
        "POST model-versions/create",
        "POST registered-models/alias",
        "POST runs/log-batch",
        "report.html",
        "POST runs/update",
    ],
)
def test_an_answer_that_is_lost_doubles_nothing(answer: str, lake: Lake, client: Any, between: Proxy) -> None:
    lost = []

    def fate(request: str) -> str:
        if request.endswith(answer) and not lost:
            lost.append(request)
            return "lost"
        return ""

    between.fate = fate
    digest = release(lake, 7, run="2026-01-07-aa")
    done = mirror.mirror(lake)
    assert (done.created, done.removed) == ({digest: 1}, set())
    assert lost
    for once in ("POST experiments/create", "POST runs/create", "POST model-versions/create"):
        assert between.asked.count(once) == 1
    assert versions(client)[digest].version == "1"
    assert aliases(client) == {"candidate": digest}
    assert not mirror.mirror(lake).changed


def test_a_mirror_that_is_cut_off_anywhere_goes_on(
    lake: Lake, client: Any, between: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    digests = [release(lake, 7, run="2026-01-07-aa"), release(lake, 14)]
    for after in range(100):
        left = [after]

        def fate(_: str, left: list[int] = left) -> str:
            left[0] -= 1
            return "refused" if left[0] < 0 else ""

        between.fate = fate
        try:
            done = mirror.mirror(lake)
        except Later:
            continue
        break
    assert after > 8
    assert not done.created
    assert set(versions(client)) == set(digests)
    for one in versions(client).values():
        run = client.get_run(one.run_id)
        assert (run.info.status, "click/auc" in run.data.metrics) == ("FINISHED", True)
    assert aliases(client) == releases.aliases(lake)


def test_what_two_processes_made_at_once_is_one_afterwards(lake: Lake, client: Any, between: Proxy) -> None:
    digest = release(lake, 7)
    mirror.mirror(lake)
    (one,) = versions(client).values()
    run = client.get_run(one.run_id)
    other = client.create_run(run.info.experiment_id, tags=run.data.tags)
    client.create_model_version(one.name, other.info.artifact_uri, other.info.run_id, one.tags, await_creation_for=0)
    client.set_registered_model_alias(one.name, "candidate", "2")
    assert mirror.mirror(lake).removed == {2}
    assert versions(client)[digest].version == "1"
    assert aliases(client) == {"candidate": digest}


def test_a_release_in_an_object_store_is_the_version_s_source(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3()
    try:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        lake = Lake.open_or_create("s3://lakes/shown")
        digest = release(lake, 7)
        mirror.mirror(lake)
    finally:
        store.stop()
    assert versions(client)[digest].source == f"s3://lakes/shown/releases/{digest}"


def test_the_end_of_a_run_is_shown_and_so_is_a_word_by_hand(
    lake: Lake, client: Any, between: Proxy, capfd: pytest.CaptureFixture[str]
) -> None:
    digest = release(lake, 7)
    tell_end(lake.uri(), None, "job", "build_features")
    assert not between.asked
    tell_end(lake.uri(), None, "job")
    assert aliases(client) == {"candidate": digest}
    assert command("promote", lake=lake) == 0
    assert aliases(client) == {"candidate": digest, "production": digest}
    assert command("quarantine", digest, "--reason", "harm", lake=lake) == 0
    assert aliases(client) == {}
    assert capfd.readouterr().err == ""


def test_the_end_of_a_rollout_is_shown(lake: Lake, client: Any) -> None:
    stable, candidate = release(lake, 7), release(lake, 14)
    lifecycle.promote(lake, stable)
    record, state = Rollouts(lake), State.begin("one", candidate, stable, 0.0)
    record.begin(state, "begun")
    record.advance(1, state, Decision(dataclasses.replace(state, phase="promoted"), ("promoted",)))
    end(lake, record, record.load("one")[1])
    assert aliases(client) == {"candidate": candidate, "production": candidate, "previous": stable}


def test_a_server_that_is_away_fails_the_command_and_nothing_else(
    lake: Lake, between: Proxy, capfd: pytest.CaptureFixture[str]
) -> None:
    between.fate = lambda _: "refused"
    digest = release(lake, 7)
    assert command("mirror", lake=lake) == 1
    told = capfd.readouterr()
    assert told.err.startswith(
        f"error: MLflow at {os.environ[URI]}: expected an answer within 10 s, found no connection"
    )
    assert (told.out, told.err.count("\n")) == ("", 1)
    tell_end(lake.uri(), None, "job")
    assert command("promote", lake=lake) == 0
    first, second = capfd.readouterr().err.splitlines()
    assert first == second
    assert first.startswith("MLflow does not show the releases as they are: MLflow at http://127.0.0.1:")
    assert releases.aliases(lake)["production"] == digest


def test_a_server_that_is_late_is_waited_for_as_long_as_it_is_said(
    lake: Lake, between: Proxy, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    release(lake, 7)
    between.fate = lambda _: "late"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Later, match="expected an answer within 1 s, found none in time"):
        mirror.mirror(lake)
    monkeypatch.setattr(mirror, "_LIMIT_S", 0.2)
    keep_mirror(lake.uri())
    assert "expected to be done within 0.2 s, found it slow" in capfd.readouterr().err
    for thread in threading.enumerate():
        if thread.name == "mirror":
            thread.join(30)


def test_where_credentials_are_refused_they_are_not_told(
    lake: Lake, between: Proxy, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    release(lake, 7)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    between.fate = lambda _: "denied"
    assert command("mirror", lake=lake) == 2
    keep_mirror(lake.uri())
    told = "".join(capfd.readouterr())
    assert between.credentials[-1] == f"Bearer {SECRET}"
    assert told.count("expected to be let in, found status 401") == 2
    assert SECRET not in told
