"""Between publishing and promotion a person is waited for: once, with a limit, and the first word counts."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from http_server import Answer, server
from plain_releases import produce, release
from run_records import PASSED, commit, recorded

from understudy import releases
from understudy.alerts import WEBHOOK
from understudy.cli.main import main
from understudy.errors import BadInput, GateFailed
from understudy.lake import Lake
from understudy.releases import approvals, lifecycle
from understudy.releases import promote as step
from understudy.releases.approvals import approval, give_word
from understudy.releases.quarantine import quarantine
from understudy.runs import Run
from understudy.section import canonical_json


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approvals, "_LOOK_S", 0.01)
    monkeypatch.delenv(WEBHOOK, raising=False)


@pytest.fixture
def waiting(tmp_path: Path) -> tuple[Lake, Run, str]:
    """A run whose release is published."""
    lake = Lake.open_or_create(str(tmp_path / "lake"))
    digest = release(lake, "new")
    releases.move(lake, {"candidate": digest}, "test", expected={})
    run = recorded(lake, "job")
    commit(run, "check_drift", PASSED)
    commit(run, "evaluate", PASSED)
    commit(run, "publish_release", digest=digest)
    return lake, run, digest


def promote(run: Run, wait: str = "1h") -> dict[str, Any]:
    section = canonical_json({"rollout": {"approval": "required", "approval_wait": wait}})
    return dict(step.run(run.lake.uri(), run.id, section))


def in_a_moment(action: Any) -> threading.Thread:
    thread = threading.Timer(0.1, action)
    thread.start()
    return thread


def production(lake: Lake) -> str | None:
    return releases.resolve_alias(lake, "production")


def test_a_run_waits_until_a_person_approves(waiting: tuple[Lake, Run, str], capfd: pytest.CaptureFixture[str]) -> None:
    lake, run, digest = waiting
    began = time.monotonic()
    in_a_moment(lambda: give_word(lake, "candidate", "approved", "Ada", "looks right"))
    assert promote(run)["figures"]["promoted"] is True
    assert time.monotonic() - began > 0.09
    assert production(lake) == digest
    word = approval(lake, digest)
    assert word is not None
    assert (word["word"], word["by"], word["note"]) == ("approved", "Ada", "looks right")
    said = capfd.readouterr().err
    assert f"promote: waits for `understudy releases approve {digest[:12]}` until " in said
    assert "was approved by Ada" in said


def test_a_refusal_is_a_gate_s_no(waiting: tuple[Lake, Run, str]) -> None:
    lake, run, digest = waiting
    in_a_moment(lambda: give_word(lake, digest, "refused", "Ada", "the launch is tomorrow"))
    with pytest.raises(GateFailed, match=f"release {digest[:12]} was refused by Ada at .*: the launch is tomorrow"):
        promote(run)
    assert production(lake) is None
    assert run.status() == "gate failed"


def test_nobody_s_word_ends_it_after_the_limit(waiting: tuple[Lake, Run, str]) -> None:
    lake, run, digest = waiting
    with pytest.raises(GateFailed, match=r"nobody approved it within 1s, until .*; it stays a candidate"):
        promote(run, wait="1s")
    assert production(lake) is None
    began = time.monotonic()
    with pytest.raises(GateFailed, match="nobody approved it"):
        promote(run, wait="1s")  # a step that is tried again waits no second time
    assert time.monotonic() - began < 0.5
    assert releases.resolve_alias(lake, "candidate") == digest


def test_a_word_that_is_there_is_not_waited_for(waiting: tuple[Lake, Run, str]) -> None:
    lake, run, digest = waiting
    give_word(lake, digest, "approved", "Ada")
    assert promote(run)["figures"]["digest"] == digest
    assert production(lake) == digest


def test_quarantine_and_a_promotion_by_hand_end_the_wait(waiting: tuple[Lake, Run, str]) -> None:
    lake, run, digest = waiting
    in_a_moment(lambda: quarantine(lake, digest, "harm"))
    with pytest.raises(GateFailed, match="is in quarantine"):
        promote(run)
    other = release(lake, "other")
    second = recorded(lake, "job 2", "2026-11-27-eeeeeeee")
    for name in ("check_drift", "evaluate"):
        commit(second, name, PASSED)
    commit(second, "publish_release", digest=other)
    in_a_moment(lambda: lifecycle.promote(lake, other))
    assert promote(second)["figures"]["promoted"] is True


def test_the_first_word_counts(waiting: tuple[Lake, Run, str]) -> None:
    lake, _, digest = waiting
    give_word(lake, digest, "approved", "Ada")
    assert give_word(lake, digest[:8], "approved", "Bob") == digest
    with pytest.raises(BadInput, match="expected no word on it yet, found it approved by Ada"):
        give_word(lake, digest, "refused", "Bob")
    word = approval(lake, digest)
    assert word is not None
    assert word["by"] == "Ada"


def test_a_sick_release_is_not_approved(waiting: tuple[Lake, Run, str]) -> None:
    lake, _, digest = waiting
    quarantine(lake, digest, "harm")
    with pytest.raises(BadInput, match="expected a healthy release"):
        give_word(lake, digest, "approved", "Ada")
    give_word(lake, digest, "refused", "Ada")
    with pytest.raises(BadInput):
        give_word(lake, "none", "approved", "Ada")


def test_who_is_asked_is_told_once(waiting: tuple[Lake, Run, str], monkeypatch: pytest.MonkeyPatch) -> None:
    lake, run, digest = waiting
    with server(lambda _: Answer(body=b"ok")) as (url, asked):
        monkeypatch.setenv(WEBHOOK, f"{url}/x")
        for _ in range(2):
            with pytest.raises(GateFailed):
                promote(run, wait="1s")
    (one,) = asked
    assert (
        f"waits for `understudy releases approve {digest[:12]} --lake {lake.uri()}` until"
        in json.loads(one.body)["text"]
    )


def test_without_the_key_nobody_is_asked(waiting: tuple[Lake, Run, str]) -> None:
    lake, run, digest = waiting
    step.run(lake.uri(), run.id, canonical_json({"rollout": {}}))
    assert production(lake) == digest
    assert approval(lake, digest) is None


def test_the_commands(waiting: tuple[Lake, Run, str], capsys: pytest.CaptureFixture[str]) -> None:
    lake, _, digest = waiting

    def command(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["releases", *arguments, "--lake", lake.uri()])
        return int(ended.value.code or 0), "".join(capsys.readouterr())

    assert command("approve", "--by", "Ada") == (0, f"{digest[:12]} is approved\n")
    code, said = command("refuse", digest)
    assert code == 2
    assert "found it approved by Ada" in said
    produce(lake, digest)
