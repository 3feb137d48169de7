"""Rollouts on this machine: real servers of two releases, a real router, the real driver and judge."""

import dataclasses
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from ranking import HEADERS, PATIENT, ROOT, TOKEN, another_release, items_of, spoiled_release
from waiting import eventually

from understudy.config import load
from understudy.errors import BadInput
from understudy.experiments import Outcomes
from understudy.experiments.header import BUCKET
from understudy.lake import Lake
from understudy.releases import aliases, quarantined
from understudy.releases.lifecycle import promote
from understudy.releases.quarantine import marks
from understudy.rollout import judge
from understudy.rollout.beginning import begin
from understudy.rollout.config import Guardrails, Rollout
from understudy.rollout.driver import Driver
from understudy.rollout.ending import end
from understudy.rollout.local import ROUTE, LocalServers, LocalSource
from understudy.rollout.record import Moved, Rollouts
from understudy.rollout.router import router
from understudy.rollout.state import ArmSeen, State, arms_of

CONFIG = Rollout(
    steps=(5, 40), tick="1s", look="1s", bake="2s", min_users=10, no_data="1h",
    guardrails=Guardrails(ticks=2, min_requests=5, min_scored=20, p99_ms=60_000.0),
)  # fmt: skip

WISHES = {**PATIENT, "utility": {"click": 2.0}}  # a candidate's digest differs from production's


@pytest.fixture
def lake(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNDERSTUDY_SERVE_TOKEN", TOKEN)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))  # as Feast does; arms count apart all the same
    lake = tmp_path / "lake"
    shutil.copytree(released, lake)
    promote(Lake.open(str(lake)), another_release(lake, serving=PATIENT))
    return lake


def production(lake: Path) -> str:
    return aliases(Lake.open(str(lake)))["production"]


class Stage:
    """A rollout in a thread, a router, and people who come all the time, by bucket."""

    def __init__(self, lake: Path, candidate: str, ratio: float = 0.1) -> None:
        self.lake, self.ratio = Lake.open(str(lake)), ratio
        self.items = items_of(lake)[:10]
        self.said: list[str] = []
        self.answers: list[tuple[float, int, int, str]] = []  # when, bucket, status, release
        now = time.time()
        self.state = State.begin("test", candidate, aliases(self.lake)["production"], now)
        Rollouts(self.lake).begin(self.state, "begun")
        self.servers = LocalServers(self.lake)
        self.source = LocalSource(self.servers, self.engagement)
        self.driver = Driver(
            self.lake, Rollouts(self.lake), CONFIG, ("click",), self.servers, self.source, self.said.append
        )
        self.enough = threading.Event()
        self.ended: State | None = None

    def engagement(self, state: State, now_s: float, arms: dict[str, ArmSeen]) -> dict[str, ArmSeen]:
        """As if many people had come: ``ratio`` in the canary, a tenth in the baseline."""
        n = np.full(200_000, 10.0)

        def filled(arm: str) -> ArmSeen:
            ratio = self.ratio if arm == "canary" else 0.1
            y = np.where(np.arange(len(n)) % 10 < 5, 20 * ratio, 0.0)
            return dataclasses.replace(arms[arm], outcomes={"click": Outcomes.of(y, n)}, users=len(n))

        return {arm: filled(arm) for arm in arms}

    def drive(self) -> None:
        self.ended = self.driver.drive("test")

    def people(self, url: str) -> None:
        place = 0
        with httpx.Client(base_url=url, headers=HEADERS, timeout=30) as client:
            while not self.enough.is_set():
                bucket = place * 37 % 100
                place += 1
                body = {"user_id": f"u{bucket}", "candidates": self.items}
                answer = client.post("/v1/rank", json=body, headers={BUCKET: str(bucket)})
                found = answer.json()
                self.answers.append((time.time(), bucket, answer.status_code, found.get("release", found)))


@pytest.fixture
def stage(lake: Path) -> Iterator[Callable[..., Stage]]:
    stages: list[Stage] = []

    def begin(candidate: str, **more: Any) -> Stage:
        one = Stage(lake, candidate, **more)
        stages.append(one)
        driver = threading.Thread(target=one.drive, daemon=True)
        driver.start()
        path = Path(one.lake.path(ROUTE))
        eventually(path.exists)
        one.server = uvicorn.Server(uvicorn.Config(router(path), port=0, log_level="error"))  # type: ignore[attr-defined]
        threading.Thread(target=one.server.run, daemon=True).start()  # type: ignore[attr-defined]
        eventually(lambda: one.server.started)  # type: ignore[attr-defined]
        port = one.server.servers[0].sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        one.crowd = threading.Thread(target=one.people, args=[f"http://127.0.0.1:{port}"], daemon=True)  # type: ignore[attr-defined]
        one.crowd.start()  # type: ignore[attr-defined]
        return one

    yield begin
    for one in stages:
        one.enough.set()
        one.crowd.join(30)  # type: ignore[attr-defined]
        one.server.should_exit = True  # type: ignore[attr-defined]
        one.servers.close()


def test_a_release_that_is_no_worse_becomes_everybody_s(lake: Path, stage: Callable[..., Stage]) -> None:
    stable, candidate = production(lake), another_release(lake, serving=WISHES)
    one = stage(candidate)
    eventually(lambda: one.ended is not None)
    assert one.ended is not None
    assert one.ended.phase == "promoted", one.said
    assert [text.split(":")[0] for text in one.said] == ["step 2", "promoted"]
    seen = len(one.answers)
    eventually(lambda: len(one.answers) > seen + 120)
    assert {status for _, _, status, _ in one.answers} == {200}
    arms = arms_of(one.ended, CONFIG)
    for _, bucket, _, release in one.answers[-100:]:
        assert release == (candidate if arms.of(bucket) == "canary" else stable)  # holdouts keep the release before
    first = {bucket for _, bucket, _, release in one.answers[: len(one.answers) // 3] if release == candidate}
    assert first <= set(arms_of(one.state, CONFIG).buckets["canary"]) | set(
        arms_of(dataclasses.replace(one.state, step=1), CONFIG).buckets["canary"]
    )
    assert (production(lake), aliases(one.lake)["previous"]) == (candidate, stable)


def test_a_spoiled_release_is_taken_back_and_marked(lake: Path, stage: Callable[..., Stage]) -> None:
    stable, candidate = production(lake), spoiled_release(lake)
    one = stage(candidate)
    eventually(lambda: one.ended is not None)
    assert one.ended is not None
    assert (one.ended.phase, one.ended.reason) == ("aborted", "scoring"), one.said
    assert one.said[-1].startswith("aborted: scores click: click is predicted +")
    assert marks(one.lake)[candidate]["reason"] == "scoring"
    assert candidate in quarantined(one.lake)
    assert aliases(one.lake)["production"] == stable
    eventually(lambda: len(one.answers) > 10)
    seen = len(one.answers)
    eventually(lambda: len(one.answers) > seen + 100)
    assert {(status, release) for _, _, status, release in one.answers[-100:]} == {(200, stable)}
    counted = Counter(status for _, _, status, _ in one.answers)
    assert counted[200] == len(one.answers)


def test_harm_is_taken_back(lake: Path, stage: Callable[..., Stage]) -> None:
    candidate = another_release(lake, serving=WISHES)
    one = stage(candidate, ratio=0.09)
    eventually(lambda: one.ended is not None)
    assert one.ended is not None
    assert (one.ended.phase, one.ended.reason) == ("aborted", "harm")
    assert "harm: click -10.00%" in one.said[-1]


def test_a_person_s_word_counts_and_a_driver_that_ended_goes_on(lake: Path, stage: Callable[..., Stage]) -> None:
    from understudy.cli import main

    stable, candidate = production(lake), another_release(lake, serving=WISHES)
    one = stage(candidate)
    eventually(lambda: any("step 2" in text for text in one.said))
    with pytest.raises(SystemExit) as ended:
        main(["rollout", "abort", "--lake", str(lake)])
    assert ended.value.code == 0
    eventually(lambda: one.ended is not None)
    assert one.ended is not None
    assert one.ended.phase == "rejected"
    assert set(json.loads(Path(one.lake.path(ROUTE)).read_text())["arms"]) == {"previous", "month"}
    assert aliases(one.lake)["production"] == stable
    assert marks(one.lake)[candidate]["reason"] == "other"
    assert one.driver.drive("test") == one.ended


def test_of_two_drivers_one_is_first(lake: Path) -> None:
    rollouts = Rollouts(Lake.open(str(lake)))
    state = State.begin("r", "a" * 64, "b" * 64, 0.0)
    rollouts.begin(state, "begun")
    number, found = rollouts.load("r")
    assert found == state
    paused = judge.pause(state, "ada")
    assert rollouts.advance(number, state, paused) == number + 1
    with pytest.raises(Moved):
        rollouts.advance(number, state, judge.abort(state, "bob"))
    assert [one["said"] for one in rollouts.history("r")] == ["begun", "paused by ada"]
    with pytest.raises(BadInput, match="expected it to have ended, found it paused"):
        rollouts.begin(State.begin("s", "c" * 64, "b" * 64, 1.0), "begun")
    came = dataclasses.replace(paused.state, data_s=60.0)
    assert rollouts.advance(number + 1, paused.state, judge.Decision(came)) == number + 1


def test_a_run_puts_its_release_on_stage_and_a_second_call_finds_the_end(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody comes, so the rollout ends without a verdict; begun by `promote`, it is the same when called again."""
    from understudy.rollout.staging import stage as put_on_stage

    opened, candidate = Lake.open(str(lake)), another_release(lake, serving=WISHES)
    rollout = Rollout(mode="canary", steps=(5,), tick="1s", no_data="1s", port=0)
    config = dataclasses.replace(load(ROOT / "examples" / "generated.yaml"), rollout=rollout)
    said: list[str] = []
    state, sentence = put_on_stage(opened, config, candidate, said.append)
    assert (state.phase, state.told) == ("rejected", True)
    assert sentence == "rejected: no verdict: nobody was served for 1s"
    assert any("is on stage" in text for text in said)
    assert put_on_stage(opened, config, candidate, said.append) == (state, sentence)
    assert len(Rollouts(opened).ids()) == 1
    assert candidate in quarantined(opened)
    with pytest.raises(BadInput, match="expected a healthy release, found one in quarantine"):
        begin(opened, Rollouts(opened), CONFIG, candidate, time.time())


def test_holdouts_keep_their_releases_and_the_month_s_is_drawn_anew(lake: Path) -> None:
    opened, record = Lake.open(str(lake)), Rollouts(Lake.open(str(lake)))
    first, second = production(lake), aliases(opened)["previous"]
    days = 86_400.0
    one = begin(opened, record, CONFIG, another_release(lake, serving=WISHES), 0.0)
    assert (one.previous, one.month, one.month_s) == (second, first, 0.0)
    number, before = record.load(one.id)
    record.advance(number, before, judge.promote(before, "ada"))
    end(opened, record, record.load(one.id)[1])
    other = {**WISHES, "utility": {"click": 3.0}}
    two = begin(opened, record, CONFIG, another_release(lake, serving=other), 27 * days)
    assert (two.stable, two.previous, two.month, two.month_s) == (one.candidate, first, first, 0.0)
    number, before = record.load(two.id)
    record.advance(number, before, judge.abort(before, "bob"))
    end(opened, record, record.load(two.id)[1])
    other = {**WISHES, "utility": {"click": 4.0}}
    three = begin(opened, record, CONFIG, another_release(lake, serving=other), 28 * days)
    assert (three.month, three.month_s) == (one.candidate, 28 * days)
    assert arms_of(one, CONFIG).buckets["previous"] == arms_of(three, CONFIG).buckets["previous"]
    assert arms_of(one, CONFIG).buckets["month"] != arms_of(three, CONFIG).buckets["month"]


def test_commands_show_where_a_rollout_stands(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from understudy.cli import main

    def said(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["rollout", *arguments, "--lake", str(lake)])
        assert ended.value.code == 0
        return capsys.readouterr().out

    opened = Lake.open(str(lake))
    state = begin(opened, Rollouts(opened), CONFIG, another_release(lake, serving=WISHES), time.time())
    assert state.id in said("status")
    assert json.loads(said("status", "--json"))["releases"]["canary"] == state.candidate
    said("pause")
    assert "paused by" in said("history")
    said("resume")
    assert "aborted by" in said("abort")
    watched = said("watch")
    assert [line.split("  ")[2].split()[0] for line in watched.splitlines()] == [
        "begun:", "paused", "resumed", "rejected:",
    ]  # fmt: skip
    assert json.loads(said("history", "--json"))[-1]["phase"] == "rejected"
