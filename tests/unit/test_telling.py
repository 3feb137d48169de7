"""How a run has ended, told from its record: a release, which figure missed which bound, or a crash."""

import json
from pathlib import Path
from typing import Any

import pytest
from http_server import Answer, nobody, server
from run_records import FAILED, PASSED, commit, recorded

from components.write_report.component import write_report
from understudy.alerts import ALERTMANAGER, WEBHOOK
from understudy.errors import BadInput, GateFailed
from understudy.lake import Lake
from understudy.releases.mlflow_server import URI
from understudy.report.telling import tell_end

JOB = "4f1c"
DIGEST = "ab" * 32


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open_or_create(str(tmp_path / "lake"))


def told(lake: Lake, run_id: str | None, last: str = "promote", monkeypatch: Any = None) -> tuple[str, dict[str, str]]:
    """What Alertmanager is told: the sentence, and its labels."""
    with server(lambda _: Answer()) as (url, asked):
        monkeypatch.setenv(ALERTMANAGER, url)
        tell_end(lake.uri(), run_id, JOB, last)
    if not asked:
        return "", {}
    ((alert,),) = (json.loads(one.body) for one in asked)
    return alert["annotations"]["summary"], alert["labels"]


def test_a_release_is_told(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    run = recorded(lake, JOB)
    commit(run, "evaluate", PASSED)
    commit(run, "promote", digest=DIGEST, promoted=True, reason="every verdict is a pass")
    text, labels = told(lake, run.id, monkeypatch=monkeypatch)
    assert text == f"run {run.id}: release {DIGEST[:12]} is production"
    assert (labels["run"], labels["release"], labels["window"]) == (run.id, DIGEST, "2026-11-14 to 2026-11-27")


def test_a_candidate_that_waits_is_told(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    run = recorded(lake, JOB)
    commit(run, "promote", digest=DIGEST, promoted=False, reason="rollout.mode is none")
    text, _ = told(lake, run.id, monkeypatch=monkeypatch)
    assert text.endswith("waits as candidate: rollout.mode is none")


def test_a_gate_tells_its_figure_and_its_bound(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    run = recorded(lake, JOB)
    commit(run, "evaluate", PASSED, FAILED)
    text, labels = told(lake, run.id, monkeypatch=monkeypatch)
    assert text == (
        f"run {run.id}: evaluate: gate AUC: click said no: AUC click is .61; it must be at least .7; "
        "production is as it was"
    )
    assert {key: labels[key] for key in ("step", "gate", "figure", "value", "low")} == {
        "step": "evaluate",
        "gate": "AUC: click",
        "figure": "AUC click",
        "value": "0.61",
        "low": "0.7",
    }


def test_of_several_gates_the_first_is_told_and_how_many_more(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    run = recorded(lake, JOB)
    commit(run, "evaluate", FAILED, FAILED)
    text, _ = told(lake, run.id, monkeypatch=monkeypatch)
    assert text.endswith("it must be at least .7 (and 1 more); production is as it was")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError("no space"), "crashed in train_ranker: OSError: no space"),
        (BadInput("table examples: expected a column"), "could not use its input in train_ranker: table examples"),
        (GateFailed("release abc was refused by me"), "was stopped in train_ranker: release abc was refused by me"),
    ],
)
def test_a_crash_is_told_as_what_it_was(
    lake: Lake, error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recorded(lake, JOB)
    commit(run, "train_ranker", error=error)
    text, labels = told(lake, run.id, monkeypatch=monkeypatch)
    assert expected in text
    assert labels["step"] == "train_ranker"


def test_a_pod_that_vanished_is_told(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    run = recorded(lake, JOB)
    assert "ended before its first step without a word" in told(lake, run.id, monkeypatch=monkeypatch)[0]
    commit(run, "compact_logs")
    assert "ended after compact_logs without a word" in told(lake, run.id, monkeypatch=monkeypatch)[0]
    text, labels = told(lake, None, monkeypatch=monkeypatch)
    assert text == f"a run ended before it had a plan; the log of job {JOB} says why"
    assert labels["job"] == JOB


def test_only_a_release_is_good_news(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    run = recorded(lake, JOB)
    commit(run, "check_drift", PASSED)
    assert told(lake, run.id, "check_drift", monkeypatch) == ("", {})
    assert told(lake, run.id, "build_features", monkeypatch)[0].startswith(f"run {run.id} ended after check_drift")


def test_drift_is_told(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    run = recorded(lake, JOB)
    commit(run, "check_drift", FAILED)
    assert "check_drift: gate AUC: click said no" in told(lake, run.id, "check_drift", monkeypatch)[0]


def test_a_webhook_that_fails_fails_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = recorded(lake, JOB)
    commit(run, "evaluate", FAILED)
    monkeypatch.setenv(WEBHOOK, f"{nobody()}/services/T0secret")
    assert tell_end(lake.uri(), run.id, JOB) is False
    assert tell_end("/no/such/lake", run.id, JOB) is False
    assert "T0secret" not in "".join(capfd.readouterr())


class Page:
    def __init__(self, path: Path) -> None:
        self.path = str(path)


def test_the_exit_handler_writes_the_page_and_tells(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recorded(lake, JOB)
    commit(run, "evaluate", error=OSError("no space"))
    page = Page(tmp_path / "out" / "page.html")
    with server(lambda _: Answer(body=b"ok")) as (url, asked):
        monkeypatch.setenv(WEBHOOK, f"{url}/services/x")
        write_report.python_func(lake=lake.uri(), job=JOB, page=page)
        write_report.python_func(lake=lake.uri(), job="another", page=page)
        monkeypatch.setattr("understudy.report.step.write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_report.python_func(lake=lake.uri(), job=JOB, page=page)
    texts = [json.loads(one.body)["text"] for one in asked]
    assert "Stopped in evaluate" in Path(page.path).read_text()
    assert "crashed in evaluate: OSError: no space" in texts[0]
    assert "before it had a plan" in texts[1]
    assert "crashed in evaluate" in texts[2]


def test_an_mlflow_that_cannot_be_told_fails_nothing(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = recorded(lake, JOB)
    commit(run, "promote", digest=DIGEST, promoted=True, reason="every verdict is a pass")
    monkeypatch.setenv(URI, "http://ada:s3cret@mlflow")
    capfd.readouterr()
    write_report.python_func(lake=lake.uri(), job=JOB, page=Page(tmp_path / "page.html"))
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("MLflow does not show the releases as they are: UNDERSTUDY_MLFLOW: expected http")
    assert "s3cret" not in err


def test_where_nobody_is_named_nobody_is_told(lake: Lake, capfd: pytest.CaptureFixture[str]) -> None:
    run = recorded(lake, JOB)
    assert tell_end(lake.uri(), run.id, JOB) is False
    assert "".join(capfd.readouterr()) == ""
