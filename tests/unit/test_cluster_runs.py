"""`understudy runs submit|list|show|wait` on an emulated server: progress, and a gate's no told from a crash."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import Client
from kubeflow_config import configured, written
from kubeflow_server import Call, Kubeflow, running
from run_records import FAILED, PASSED, commit, recorded

from pipelines import cluster_runs
from pipelines.cluster_runs import end_of, find, submit, wait
from pipelines.connection import Connection, Lost, connect
from understudy.cli.main import main
from understudy.errors import BadInput, GateFailed, UnderstudyError
from understudy.lake import Lake


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setattr(cluster_runs.time, "sleep", lambda _: None)


@pytest.fixture
def kubeflow() -> Iterator[tuple[Kubeflow, Connection]]:
    server = Kubeflow()
    with running(server) as url:
        yield server, connect(configured().pipeline, url)


@pytest.fixture
def submitted(kubeflow: tuple[Kubeflow, Connection]) -> tuple[Kubeflow, Connection, str]:
    server, connection = kubeflow
    run, _ = submit(connection, configured(), "refresh")
    return server, connection, run.id


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["runs", *arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_a_run_is_started_with_what_it_needs(kubeflow: tuple[Kubeflow, Connection]) -> None:
    server, connection = kubeflow
    config = configured(service_account="runner")
    run, uploaded = submit(connection, config, lake="s3://lake", window_end="2026-11-27", again=None)
    made = server.tables["runs"][run.id]
    assert made["runtime_config"]["parameters"] == {"lake": "s3://lake", "window_end": "2026-11-27"}
    assert made["pipeline_version_reference"]["pipeline_version_id"] == uploaded.version_id
    assert made["service_account"] == "runner"
    assert (run.state, run.parameters["lake"]) == ("PENDING", "s3://lake")
    again, _ = submit(connection, config, lake="s3://lake")
    assert again.id != run.id
    assert len(server.versions) == 1


def test_an_answer_that_is_lost_starts_no_second_run(kubeflow: tuple[Kubeflow, Connection]) -> None:
    server, connection = kubeflow
    server.fault = lambda call: "after" if call.method == "POST" and call.path.endswith("/runs") else None
    run, _ = submit(connection, configured(), "refresh")
    assert list(server.tables["runs"]) == [run.id]
    server.fault = lambda call: "before" if call.method == "POST" and call.path.endswith("/runs") else None
    with pytest.raises(Lost, match="starting a run: expected an answer, found none"):
        submit(connection, configured(), "refresh")
    assert len(server.tables["runs"]) == 1


def progress(server: Kubeflow, run_id: str, *looks: dict[str, str]) -> None:
    """What each look at a run finds; the last one ends it."""
    left = list(looks)

    def next_look(call: Call) -> None:
        if call.method == "GET" and call.path.endswith(f"/runs/{run_id}") and left:
            steps = left.pop(0)
            states = set(steps.values())
            over = "FAILED" if "FAILED" in states else "SUCCEEDED"
            server.steps(run_id, "RUNNING" if left else over, **steps)

    server.fault = next_look


def test_every_step_is_told_as_it_begins_and_ends(submitted: tuple[Kubeflow, Connection, str]) -> None:
    server, connection, run_id = submitted
    progress(
        server,
        run_id,
        {"plan_window": "RUNNING"},
        {"plan_window": "SUCCEEDED", "compact_logs": "RUNNING"},
        {"plan_window": "SUCCEEDED", "compact_logs": "RUNNING"},
        {"plan_window": "SUCCEEDED", "compact_logs": "SUCCEEDED", "write_report": "SUCCEEDED"},
    )
    said: list[str] = []
    run = wait(connection, run_id, say=said.append)
    assert said == [
        "plan_window: running",
        "plan_window: succeeded after 7 s",
        "compact_logs: running",
        "compact_logs: succeeded after 7 s",
        "write_report: succeeded after 7 s",
    ]
    assert run.ended
    assert run.steps["compact_logs"]["seconds"] == 7
    end_of(run)


def test_what_the_server_runs_for_itself_is_no_step(submitted: tuple[Kubeflow, Connection, str]) -> None:
    server, connection, run_id = submitted
    server.steps(run_id, "RUNNING", compact_logs="SUCCEEDED", build_features="RUNNING")
    run = find(connection, run_id)
    assert list(run.steps) == ["compact_logs", "build_features"]
    assert run.steps["build_features"]["end"] is None


def test_a_server_that_is_away_is_waited_for(submitted: tuple[Kubeflow, Connection, str]) -> None:
    server, connection, run_id = submitted
    server.steps(run_id, "SUCCEEDED")
    left = [503, "before", 502]
    server.fault = lambda _: left.pop() if left else None
    assert wait(connection, run_id, say=lambda _: None).state == "SUCCEEDED"
    assert left == []


def test_one_that_stays_away_ends_the_wait(
    submitted: tuple[Kubeflow, Connection, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, connection, run_id = submitted
    monkeypatch.setattr(cluster_runs, "_PATIENCE_S", -1)
    server.fault = lambda _: 503
    with pytest.raises(Lost, match="found status 503"):
        wait(connection, run_id, say=lambda _: None)


def test_waiting_has_a_limit_and_leaves_the_run(submitted: tuple[Kubeflow, Connection, str]) -> None:
    server, connection, run_id = submitted
    server.steps(run_id, "RUNNING", compact_logs="RUNNING")
    with pytest.raises(UnderstudyError, match="expected its end within 0 s, found it under way; it goes on"):
        wait(connection, run_id, limit_s=0, say=lambda _: None)
    assert server.tables["runs"][run_id]["state"] == "RUNNING"


def test_a_cancelled_run_is_an_end(submitted: tuple[Kubeflow, Connection, str]) -> None:
    server, connection, run_id = submitted
    server.steps(run_id, "CANCELED", compact_logs="CANCELED")
    run = wait(connection, run_id, say=lambda _: None)
    with pytest.raises(UnderstudyError, match=f"run {run_id}: canceled"):
        end_of(run)


ENDS: dict[str, tuple[Any, type[UnderstudyError], str]] = {
    "a gate": (lambda run: commit(run, "evaluate", FAILED), GateFailed, "gate AUC: click said no: AUC click is .61"),
    "a crash": (lambda run: commit(run, "evaluate", error=OSError("no space")), UnderstudyError, "crashed in evaluate"),
    "bad input": (lambda run: commit(run, "evaluate", error=BadInput("no")), BadInput, "could not use its input"),
    "a word": (lambda run: commit(run, "promote", error=GateFailed("refused")), GateFailed, "was stopped in promote"),
    "a pod that vanished": (lambda run: commit(run, "evaluate", PASSED), UnderstudyError, "without a word"),
}


@pytest.mark.parametrize(("happened", "kind", "expected"), ENDS.values(), ids=ENDS.keys())
def test_the_record_tells_a_gate_s_no_from_a_crash(
    kubeflow: tuple[Kubeflow, Connection], tmp_path: Path, happened: Any, kind: type[UnderstudyError], expected: str
) -> None:
    server, connection = kubeflow
    lake = Lake.open_or_create(str(tmp_path / "lake"))
    started, _ = submit(connection, configured(), "refresh", lake=lake.uri())
    happened(recorded(lake, started.id))
    server.steps(started.id, "FAILED", evaluate="FAILED")
    with pytest.raises(UnderstudyError, match=expected) as error:
        end_of(find(connection, started.id))
    assert type(error.value) is kind
    assert f"run {started.id}: failed in evaluate: " in str(error.value)


def test_without_the_record_a_failure_is_a_failure(submitted: tuple[Kubeflow, Connection, str], tmp_path: Path) -> None:
    server, connection, run_id = submitted
    server.steps(run_id, "FAILED", compact_logs="FAILED")
    with pytest.raises(UnderstudyError, match="its record in /lake can't be read here") as error:
        end_of(find(connection, run_id))
    assert error.value.exit_code == 1
    lake = Lake.open_or_create(str(tmp_path / "lake"))
    with pytest.raises(UnderstudyError, match="it had no plan yet"):
        end_of(find(connection, run_id), lake.uri())


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = Lake.open_or_create(str(tmp_path / "lake"))
    config = written(tmp_path, lake=lake.uri())
    server = Kubeflow()
    with running(server) as url:
        there = ("--config", config, "--host", url)
        code, out, _ = command(capsys, "submit", "--kind", "refresh", "--json", *there)
        assert code == 0
        run_id = json.loads(out)["id"]
        commit(recorded(lake, run_id), "evaluate", FAILED)
        server.steps(run_id, "FAILED", evaluate="FAILED")
        code, out, err = command(capsys, "wait", run_id[:8], *there)
        assert (code, out) == (3, "")
        assert err.splitlines()[0] == "evaluate: failed after 7 s"
        assert "gate AUC: click said no" in err
        code, out, err = command(capsys, "wait", run_id, "--json", *there)
        assert (code, json.loads(out)["state"]) == (3, "FAILED")
        code, out, _ = command(capsys, "list", "--kubeflow", "--json", *there)
        assert [one["id"] for one in json.loads(out)] == [run_id]
        assert run_id[:8] in command(capsys, "list", "--kubeflow", *there)[1]
        code, out, _ = command(capsys, "show", run_id, "--kubeflow", "--json", *there)
        assert json.loads(out)["steps"]["evaluate"]["state"] == "FAILED"
        assert "evaluate" in command(capsys, "show", run_id, "--kubeflow", *there)[1]
        code, _, err = command(capsys, "show", "none", "--kubeflow", *there)
        assert (code, "expected one of that id among the newest, found 0" in err) == (2, True)
        code, _, err = command(capsys, "wait", run_id, "--every", "often", *there)
        assert (code, "--every: expected a duration" in err) == (2, True)
    code, out, _ = command(capsys, "list", "--lake", lake.uri(), "--json")
    assert json.loads(out)[0]["status"] == "gate failed"
