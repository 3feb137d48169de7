"""What should be scheduled against what is: pure decisions, also after a stop anywhere."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from understudy.kubeflow.schedules import Action, Running, Wanted, decide, schedule_of, steps

WEEKLY = Wanted("understudy", "weekly", "understudy-retrain-1", "0 0 3 * * 1", {"lake": "/lake"})


def running(wanted: Wanted, id: str = "a", **changed: Any) -> Running:
    """What is on the server once ``wanted`` was created."""
    facts = {one: getattr(wanted, one) for one in ("name", "version", "cron", "parameters", "max_concurrency")}
    value = Running(
        id, **facts, service_account=wanted.service_account or "pipeline-runner", no_catchup=True, enabled=True
    )
    return dataclasses.replace(value, **changed)


def changed(**facts: Any) -> Wanted:
    return dataclasses.replace(WEEKLY, **facts)


HERE = running(WEEKLY)
OFF = dataclasses.replace(HERE, enabled=False)
OLD = running(changed(cron="0 0 4 * * 1"), "old")
OLD_OFF = dataclasses.replace(OLD, enabled=False)
FLYING = dataclasses.replace(OLD, in_flight=1)

# case: what is wanted, what runs → the verb, a part of why, the calls
CASES: dict[str, tuple[list[Wanted], list[Running], str, str, list[tuple[str, str]]]] = {
    "nothing is there": ([WEEKLY], [], "create", "0 0 3 * * 1", [("create", ""), ("resume", "")]),
    "nothing is there, and off": ([changed(enabled=False)], [], "create", ", off", [("create", "")]),
    "all as wanted": ([WEEKLY], [HERE], "unchanged", "", []),
    "switched off by hand": ([WEEKLY], [OFF], "resume", "on: no → yes", [("resume", "a")]),
    "off in the configuration": ([changed(enabled=False)], [HERE], "pause", "on: yes → no", [("pause", "a")]),
    "another cron": (
        [WEEKLY], [OLD], "replace", "cron: 0 0 4 * * 1 → 0 0 3 * * 1",
        [("create", ""), ("pause", "old"), ("resume", ""), ("delete", "old")],
    ),
    "another cron while it runs": (
        [WEEKLY], [FLYING], "replace", "cron", [("create", ""), ("pause", "old"), ("resume", "")],
    ),
    "another version": (
        [changed(version="understudy-retrain-2")], [HERE], "replace",
        "version: understudy-retrain-1 → understudy-retrain-2",
        [("create", ""), ("pause", "a"), ("resume", ""), ("delete", "a")],
    ),
    "another lake": (
        [changed(parameters={"lake": "s3://b"})], [HERE], "replace",
        'parameters: {"lake":"/lake"} → {"lake":"s3://b"}',
        [("create", ""), ("pause", "a"), ("resume", ""), ("delete", "a")],
    ),
    "catching up": (
        [WEEKLY], [dataclasses.replace(HERE, no_catchup=False)], "replace", "no catchup: no → yes",
        [("create", ""), ("pause", "a"), ("resume", ""), ("delete", "a")],
    ),
    "several at a time": (
        [WEEKLY], [dataclasses.replace(HERE, max_concurrency=3)], "replace", "max concurrency: 3 → 1",
        [("create", ""), ("pause", "a"), ("resume", ""), ("delete", "a")],
    ),
    "another account": (
        [changed(service_account="runner")], [HERE], "replace", "service account: pipeline-runner → runner",
        [("create", ""), ("pause", "a"), ("resume", ""), ("delete", "a")],
    ),
    "an account no more": (
        [WEEKLY], [running(changed(service_account="runner"))], "replace", "another → the installation's own",
        [("create", ""), ("pause", "a"), ("resume", ""), ("delete", "a")],
    ),
    "stopped after the new one was made": (
        [WEEKLY], [OLD, OFF], "resume", "on: no → yes", [("pause", "old"), ("resume", "a"), ("delete", "old")],
    ),
    "stopped before the new one was on": (
        [WEEKLY], [OLD_OFF, OFF], "resume", "on: no → yes", [("resume", "a"), ("delete", "old")],
    ),
    "stopped before the old one was gone": ([WEEKLY], [OLD_OFF, HERE], "clear", "1 left", [("delete", "old")]),
    "one twice": (
        [WEEKLY], [HERE, running(WEEKLY, "b")], "clear", "1 left", [("pause", "b"), ("delete", "b")],
    ),
    "what ran has ended": ([WEEKLY], [HERE, OLD_OFF], "clear", "1 left", [("delete", "old")]),
    "no longer in the configuration": (
        [], [HERE], "remove", "not in the configuration", [("pause", "a"), ("delete", "a")],
    ),
    "no longer, but it runs": ([], [FLYING], "remove", "not in", [("pause", "old")]),
}  # fmt: skip


@pytest.mark.parametrize(("wanted", "found", "verb", "why", "calls"), CASES.values(), ids=CASES.keys())
def test_only_what_differs_is_changed(
    wanted: Sequence[Wanted], found: Sequence[Running], verb: str, why: str, calls: list[tuple[str, str]]
) -> None:
    (action,) = decide("understudy", wanted, found)
    assert (action.schedule, action.verb) == ("weekly", verb)
    assert why in "; ".join(action.why)
    assert [tuple(step) for step in steps(action)] == calls


def test_what_others_have_made_is_left_alone() -> None:
    others = [dataclasses.replace(HERE, name=name) for name in ("weekly", "recs/weekly@01234567", "understudy/weekly")]
    assert [action.verb for action in decide("understudy", [WEEKLY], others)] == ["create"]
    assert [schedule_of(one.name, "understudy") for one in [HERE, *others]] == ["weekly", None, None, None]


contents = st.fixed_dictionaries(
    {},
    optional={
        name: st.builds(
            Wanted,
            prefix=st.just("u"),
            schedule=st.just(name),
            version=st.sampled_from(["v1", "v2"]),
            cron=st.sampled_from(["0 0 1 * * *", "0 0 2 * * *"]),
            parameters=st.just({"lake": "/lake"}),
            enabled=st.booleans(),
        )
        for name in ("a", "b")
    },
)


class Applied(RuleBasedStateMachine):
    """Configurations change, applies stop anywhere, runs begin and end: the server as a model."""

    def __init__(self) -> None:
        super().__init__()
        self.server: dict[str, Running] = {}
        self.wanted: list[Wanted] = []
        self.made = 0

    @rule(contents=contents)
    def configure(self, contents: dict[str, Wanted]) -> None:
        self.wanted = list(contents.values())

    @rule(calls=st.integers(0, 6))
    def stop_in_between(self, calls: int) -> None:
        self.apply(calls)

    @rule()
    def go_through(self) -> None:
        self.apply()
        on = {schedule_of(one.name, "u") for one in self.server.values() if one.enabled}
        assert on == {one.schedule for one in self.wanted if one.enabled}
        names = [one.name for one in self.server.values() if not one.in_flight]
        assert sorted(names) == sorted({one.name for one in self.wanted} & set(names))

    @rule()
    def land(self) -> None:
        self.server = {id: dataclasses.replace(one, in_flight=0) for id, one in self.server.items()}
        self.apply()
        assert all(one.verb == "unchanged" for one in decide("u", self.wanted, list(self.server.values())))
        assert len(self.server) == len(self.wanted)

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        on = [id for id, one in self.server.items() if one.enabled]
        if on:
            id = data.draw(st.sampled_from(on))
            self.server[id] = dataclasses.replace(self.server[id], in_flight=1)

    @rule(data=st.data())
    def switch_off_by_hand(self, data: st.DataObject) -> None:
        if self.server:
            id = data.draw(st.sampled_from(sorted(self.server)))
            self.server[id] = dataclasses.replace(self.server[id], enabled=False)

    def apply(self, calls: int = 1000) -> None:
        for action in decide("u", self.wanted, list(self.server.values())):
            calls = self.act(action, calls)

    def act(self, action: Action, calls: int) -> int:
        new = ""
        for step in steps(action):
            if calls == 0:
                break
            calls -= 1
            if step.call == "create":
                assert action.wanted is not None
                self.made += 1
                new = f"{self.made:04d}"
                self.server[new] = running(action.wanted, new, enabled=False)
            elif step.call == "delete":
                assert not self.server[step.id].in_flight, "a run in flight was ended"
                del self.server[step.id]
            else:
                id = step.id or new
                self.server[id] = dataclasses.replace(self.server[id], enabled=step.call == "resume")
            self.never_two()
        return calls

    @invariant()
    def never_two(self) -> None:
        on = [schedule_of(one.name, "u") for one in self.server.values() if one.enabled]
        assert len(on) == len(set(on)), "a schedule would run twice"


Applied.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestApplied = Applied.TestCase


@given(st.permutations([HERE, OLD, OFF, OLD_OFF]))
def test_the_order_in_which_the_server_lists_does_not_matter(found: list[Running]) -> None:
    named = [dataclasses.replace(one, id=f"{one.name}{one.enabled}") for one in found]
    (action,) = decide("understudy", [WEEKLY], named)
    assert (action.verb, action.current) == ("clear", f"{HERE.name}True")
