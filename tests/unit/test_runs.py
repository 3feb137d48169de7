"""The record of a run: committed once, skipped when there, stopped by what a gate said."""

import dataclasses
import datetime
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from run_records import FAILED, PASSED, recorded
from run_records import commit as recorded_step

from understudy import releases, schema
from understudy.cli.main import cli
from understudy.config import Config
from understudy.errors import BadInput, GateFailed, UnderstudyError
from understudy.lake import Lake
from understudy.logs.ingest import ingest
from understudy.releases.quarantine import quarantine
from understudy.releases.unit import build
from understudy.report.step import write
from understudy.report.telling import ending
from understudy.runs import Outcome, Run, Step, Verdict, execute
from understudy.runs.planning import newest_complete_day, plan_window, run_of_job
from understudy.section import canonical_json


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, logs: Path, config: Config) -> str:
    folder = tmp_path_factory.mktemp("lake")
    ingest(config, logs, str(folder))
    return str(folder)


@pytest.fixture
def planned(tmp_path: Path, logs: Path, config: Config) -> tuple[str, str]:
    lake = str(tmp_path / "lake")
    ingest(config, logs, lake)
    return lake, plan_window(lake, config, "2022-04-30").run_id


@pytest.mark.parametrize(
    ("window", "hour", "expected"),
    [("0s", 12, "2026-11-29"), ("1d", 12, "2026-11-28"), ("6h", 22, "2026-11-29"), ("6h", 21, "2026-11-28")],
)
def test_a_day_is_complete_when_all_its_outcomes_are_known(
    config: Config, window: str, hour: int, expected: str
) -> None:
    """Days of Shanghai, which begin at 16:00 UTC of the day before."""
    labels = dataclasses.replace(config.labels, attribution_window=window)
    days = SimpleNamespace(days=lambda: ["2026-11-27", "2026-11-28", "2026-11-29", "2026-11-30"])
    now = datetime.datetime(2026, 11, 29 if hour > 12 else 30, hour, tzinfo=datetime.UTC)
    assert newest_complete_day(dataclasses.replace(config, labels=labels), days, now) == expected  # type: ignore[arg-type]


def commit(lake: str, run_id: str, name: str, needs: list[str], *verdicts: Verdict) -> Any:
    return execute(lake, run_id, name, "{}", lambda _: Outcome(figures={"n": 1}, verdicts=verdicts), needs=needs)


def test_the_same_command_finds_the_same_run(ingested: str, config: Config) -> None:
    first, second = plan_window(ingested, config, "2022-04-30"), plan_window(ingested, config, "2022-04-30")
    assert first == second
    assert plan_window(ingested, config, "2022-05-01").run_id != first.run_id


def test_again_plans_a_fresh_run(planned: tuple[str, str], config: Config) -> None:
    lake, run_id = planned
    assert plan_window(lake, config, "2022-04-30", again=True).run_id == f"{run_id}-2"


def test_a_job_keeps_its_plan(planned: tuple[str, str], config: Config) -> None:
    lake, _ = planned
    first = plan_window(lake, config, "2022-04-30", again=True, job="job 1")
    assert plan_window(lake, config, "2022-04-30", again=True, job="job 1").run_id == first.run_id
    assert run_of_job(Lake.open(lake), "job 1") == first.run_id
    assert run_of_job(Lake.open(lake), "job 2") is None


def test_a_job_that_nobody_has_named_is_refused(planned: tuple[str, str], config: Config) -> None:
    """An old Kubeflow leaves the placeholder as it is: every run would be taken for the first."""
    with pytest.raises(BadInput, match="expected the id of this run, found"):
        plan_window(planned[0], config, "2022-04-30", job="{{$.pipeline_job_uuid}}")


def test_a_plan_stands_when_aliases_move(planned: tuple[str, str], config: Config) -> None:
    lake, run_id = planned
    releases.move(Lake.open(lake), {"production": "f" * 64}, "test", expected={})
    assert plan_window(lake, config, "2022-04-30").production is None
    assert Run(Lake.open(lake), run_id).plan().production is None


def test_a_production_in_quarantine_neither_teaches_nor_is_the_reference(
    planned: tuple[str, str], config: Config
) -> None:
    lake = Lake.open(planned[0])
    healthy = _release(lake, "a", config)
    sick = _release(lake, "b", config, parent=healthy)
    releases.move(lake, {"production": sick}, "test", expected={})
    quarantine(lake, sick, "other")
    plan = plan_window(planned[0], config, "2022-05-01")
    assert (plan.production, plan.teacher, plan.reference) == (sick, healthy, healthy)
    assert plan.reference_features == json.loads(canonical_json(config.features))
    quarantine(lake, healthy, "other")
    plan = plan_window(planned[0], config, "2022-05-02")
    assert (plan.production, plan.teacher, plan.reference) == (sick, None, None)


def _release(lake: Lake, name: str, config: Config, parent: str | None = None) -> str:
    parents = {"teacher": None, "production": parent, "data": name, "ranked_by": []}
    content = {"window": {}, "teacher": None, "parents": parents, "config": json.loads(canonical_json(config))}
    return build(lake, content, {"name": name.encode()})


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        ("2022-06-01", "expected a complete day, found none after 2022-05-04"),
        ("2022-04-25", "expected impressions on 2 days or more"),
        ("2021-01-01", "expected impressions on 2 days or more"),
        ("yesterday", "expected a day such as"),
    ],
)
def test_a_window_without_data_is_refused(ingested: str, config: Config, day: str, expected: str) -> None:
    with pytest.raises(BadInput, match=expected):
        plan_window(ingested, config, day)


def test_a_committed_step_is_not_done_again(planned: tuple[str, str]) -> None:
    lake, run_id = planned
    first = commit(lake, run_id, "a", [])
    again = execute(lake, run_id, "a", "{}", lambda _: pytest.fail("done twice"), needs=[])
    assert again == first


def test_another_configuration_must_not_go_on(planned: tuple[str, str]) -> None:
    lake, run_id = planned
    commit(lake, run_id, "a", [])
    with pytest.raises(BadInput, match="start a fresh run"):
        execute(lake, run_id, "a", '{"x":1}', lambda _: Outcome(), needs=[])


def test_a_late_writer_loses(planned: tuple[str, str]) -> None:
    lake, run_id = planned

    def slow(step: Step) -> Outcome:
        commit(lake, run_id, "a", [])
        return Outcome(figures={"n": 2})

    assert execute(lake, run_id, "a", "{}", slow, needs=[])["figures"] == {"n": 1}


def test_a_late_writer_that_has_lost_its_attempt_loses_too(planned: tuple[str, str]) -> None:
    lake, run_id = planned

    def robbed(step: Step) -> Outcome:
        commit(lake, run_id, "a", [])
        return Outcome(files=["gone.bin"])

    assert execute(lake, run_id, "a", "{}", robbed, needs=[])["figures"] == {"n": 1}


def test_attempts_of_killed_processes_are_removed_when_the_step_is_committed(planned: tuple[str, str]) -> None:
    lake, run_id = planned
    folder = Path(lake, "runs", run_id, "steps", "a")
    (folder / "attempt-killed" / "examples").mkdir(parents=True)
    commit(lake, run_id, "a", [])
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("file", ["plan.json", "steps/a/manifest.json"])
def test_a_damaged_record_is_named(planned: tuple[str, str], file: str) -> None:
    lake, run_id = planned
    commit(lake, run_id, "a", [])
    path = Path(lake, "runs", run_id, file)
    path.write_text(path.read_text()[:100])
    with pytest.raises(BadInput, match=f"{file}: expected JSON, found a damaged file"):
        commit(lake, run_id, "b", ["a"])


def test_a_table_that_lost_a_file_is_refused(planned: tuple[str, str]) -> None:
    lake, run_id = planned
    fields = schema.arrow_schema("users", ())

    def write(step: Step) -> Outcome:
        for name in ("1", "2"):
            step.lake.write_table(f"{step.table('users')}/{name}.parquet", fields.empty_table(), fields)
        return Outcome(tables=["users"])

    manifest = execute(lake, run_id, "a", "{}", write, needs=[])
    Path(lake, manifest["tables"]["users"]["path"], "2.parquet").unlink()
    with pytest.raises(BadInput, match=r"2\.parquet: expected the file that step a committed, found none"):
        execute(lake, run_id, "b", "{}", lambda step: step.dataset("a", "users"), needs=["a"])


def test_a_step_waits_for_its_predecessors(planned: tuple[str, str]) -> None:
    lake, run_id = planned
    with pytest.raises(UnderstudyError, match="expected a to be committed"):
        commit(lake, run_id, "b", ["a"])


@pytest.mark.parametrize("outcome", ["fail", "insufficient data"])
def test_a_verdict_stops_the_step_and_all_after_it(planned: tuple[str, str], outcome: str) -> None:
    lake, run_id = planned
    verdict = Verdict("AUC: click", outcome, "AUC click", 0.5, "AUC click is 0.5", low=0.6)
    for name, needs in (("a", []), ("b", ["a"])):
        with pytest.raises(GateFailed, match="AUC click is"):
            commit(lake, run_id, name, needs, verdict)
    run = Run(Lake.open(lake), run_id)
    assert run.status() == "gate failed"
    assert run.manifest("b") is None


def test_a_refusal_outside_the_gates_says_why(planned: tuple[str, str]) -> None:
    lake, run_id = planned

    def refuse(step: Step) -> Outcome:
        raise GateFailed("the release is in quarantine")

    with pytest.raises(GateFailed):
        execute(lake, run_id, "promote", "{}", refuse, needs=[])
    run = Run(Lake.open(lake), run_id)
    assert (run.status(), run.last_error()["error"]) == ("gate failed", "the release is in quarantine")


def test_a_warning_stops_nothing(planned: tuple[str, str]) -> None:
    lake, run_id = planned
    commit(lake, run_id, "a", [], Verdict("drift", "warn", "PSI", 0.3, "PSI is 0.3"))
    commit(lake, run_id, "b", ["a"])


def test_a_crash_leaves_no_half_written_attempt_and_says_why(planned: tuple[str, str]) -> None:
    lake, run_id = planned

    def crash(step: Step) -> Outcome:
        step.lake.create(f"{step.attempt}/half.bin", b"x")
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError):
        execute(lake, run_id, "a", "{}", crash, needs=[])
    run = Run(Lake.open(lake), run_id)
    assert Lake.open(lake).names(run.folder, "steps", "a") == ["errors"]
    assert (run.status(), run.last_error()["error"]) == ("crashed", "RuntimeError: out of luck")


# Purpose of the plan, last steps of the graphs that were begun → the steps that commit one after the other; the run is
# done with the last of them, and not before.
GRAPHS = [
    ("train", (), ("check_drift", "evaluate", "promote")),
    ("train", ("promote",), ("check_drift", "evaluate", "promote")),
    ("train", ("check_drift",), ("compact_logs", "retrieve_features", "check_drift")),
    ("train", ("check_drift", "promote"), ("check_drift", "evaluate", "promote")),
    ("refresh", (), ("compact_logs", "build_features")),
    ("refresh", ("build_features",), ("compact_logs", "build_features")),
    ("evaluate", (), ("compact_logs", "build_features", "retrieve_features")),
    ("compare", (), ("compact_logs", "build_features", "retrieve_features")),
]


@pytest.mark.parametrize(("purpose", "asked", "steps"), GRAPHS)
def test_a_run_is_done_when_the_last_step_of_its_graph_has_committed(
    tmp_path: Path, purpose: str, asked: tuple[str, ...], steps: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    lake = Lake.open_or_create(str(tmp_path / "lake"))
    run = recorded(lake, "job", purpose=purpose)
    for last in asked:
        run.ask_for(last)
    done = "released" if steps[-1] == "promote" else "done"
    figures = {"digest": "ab" * 32, "promoted": True, "reason": "every verdict is a pass"}
    for step in steps:
        assert (run.status(), run.is_done()) == ("unfinished", False)
        recorded_step(run, step, PASSED, **(figures if step == "promote" else {}))
    assert (run.status(), run.is_done(), run.last_step()) == (done, True, steps[-1])
    cli.main(["runs", "list", "--lake", lake.root, "--json"], standalone_mode=False)
    (told,) = json.loads(capfd.readouterr().out)
    assert told["status"] == done


def test_a_page_says_what_a_run_was_for_and_that_it_is_done(tmp_path: Path) -> None:
    lake = Lake.open_or_create(str(tmp_path / "lake"))
    run = recorded(lake, "job", purpose="refresh")
    page = lake.read_bytes(write(lake.uri(), run.id)).decode()
    assert "Not finished." in page
    assert "<h1>Features 2026-11-14 to 2026-11-27</h1>" in page
    recorded_step(run, "build_features")
    page = lake.read_bytes(write(lake.uri(), run.id)).decode()
    assert "Done: build_features was its last step." in page
    assert "banner stopped" not in page
    assert ending(run)[0] == f"run {run.id}: done up to build_features"


def test_a_drift_run_that_a_gate_stopped_is_no_done_run(tmp_path: Path) -> None:
    lake = Lake.open_or_create(str(tmp_path / "lake"))
    run = recorded(lake, "job")
    run.ask_for("check_drift")
    recorded_step(run, "check_drift", FAILED)
    assert (run.status(), run.is_done()) == ("gate failed", False)


def test_the_plan_of_a_graph_keeps_its_last_step(planned: tuple[str, str], config: Config) -> None:
    lake, run_id = planned
    for _ in range(2):
        plan_window(lake, config, "2022-04-30", job="job 1", last="check_drift")
    assert Run(Lake.open(lake), run_id).last_step() == "check_drift"
    plan_window(lake, config, "2022-04-30", job="job 2", last="promote")
    assert Run(Lake.open(lake), run_id).last_step() == "promote"
