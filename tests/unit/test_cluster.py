"""The driver on Kubernetes: what it makes of the cluster, step by step, and through every fault."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import DENIED, NAMESPACE, Cluster, running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes import client
from plain_releases import produce, release
from test_judge import arm

from understudy.cli.place import Place
from understudy.errors import BadInput, Later
from understudy.experiments import ramp
from understudy.experiments.header import BUCKET
from understudy.kubernetes_api import Api, Conflict, Unreachable
from understudy.lake import Lake
from understudy.releases import aliases
from understudy.releases.quarantine import marks
from understudy.rollout.aftermath import Aftermath
from understudy.rollout.beginning import begin
from understudy.rollout.cluster.objects import route
from understudy.rollout.cluster.operator import Operator
from understudy.rollout.cluster.record import NAME, START, WORD, ClusterRollouts
from understudy.rollout.cluster.servers import ClusterServers
from understudy.rollout.config import Rollout
from understudy.rollout.driver import Driver
from understudy.rollout.record import Moved, Rollouts
from understudy.rollout.state import Decision, Seen, State, arms_of, releases_of

CONFIG = Rollout(steps=(1, 20, 45), tick="30m", look="1h", bake="1h", min_users=10)
DAY_S = 86_400.0


class Feed:
    """A clock, and what servers and people show: by default all is well."""

    def __init__(self) -> None:
        self.now_s = 1e9
        self.canary: dict[str, Any] = {}
        self.silent = False

    def clock(self) -> float:
        return self.now_s

    def sleep(self, _: float) -> None:
        self.now_s += 900

    def see(self, state: State, now_s: float) -> Seen:
        return Seen(now_s) if self.silent else Seen(now_s, arm(**self.canary), arm())


@dataclasses.dataclass
class Stage:
    """A cluster as the manifests leave it, a lake with production and a candidate, and a driver."""

    cluster: Cluster
    lake: Lake
    api: Api
    feed: Feed
    said: list[str]
    stable: str = ""
    candidate: str = ""

    def driver(self) -> Driver:
        record = ClusterRollouts(self.api, self.lake)
        servers, feed = ClusterServers(self.api), self.feed
        return Driver(
            self.lake, record, CONFIG, ("click",), servers, feed, self.said.append, clock=feed.clock, sleep=feed.sleep
        )

    def operator(self) -> Operator:
        return Operator(self.driver(), ClusterRollouts(self.api, self.lake))

    @property
    def record(self) -> ClusterRollouts:
        return ClusterRollouts(self.api, self.lake)

    def begin(self) -> State:
        self.operator().look()  # stable gets its release
        return begin(self.lake, self.record, CONFIG, "candidate", self.feed.now_s)

    def hours(self, count: int, state: State) -> State:
        for _ in range(count):
            self.feed.now_s += 3600
            state, _ = self.driver().tick(state.id)
        return state

    def annotate(self, **asked: str) -> None:
        names = {"word": WORD, "start": START}
        self.api.merge("ConfigMap", NAME, {"metadata": {"annotations": {names[k]: v for k, v in asked.items()}}})

    def release_of(self, arm: str) -> str | None:
        found = self.cluster.find("deployments", f"understudy-{arm}")
        if found is None:
            return None
        told = {
            env["value"]
            for key in ("initContainers", "containers")
            for one in found["spec"]["template"]["spec"][key]
            for env in one.get("env", [])
            if env["name"] == "UNDERSTUDY_RELEASE"
        }
        return told.pop() if len(told) == 1 else None

    def routed(self) -> dict[str, list[int]]:
        found = self.cluster.find("httproutes", "understudy-arms")
        arms: dict[str, list[int]] = {}
        for rule in found["spec"]["rules"] if found else []:
            (backend,) = rule["backendRefs"]
            arms.setdefault(backend["name"].removeprefix("understudy-"), []).extend(
                int(match["headers"][0]["value"]) for match in rule["matches"]
            )
        return arms


def stable_deployment() -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "understudy", "app.kubernetes.io/component": "serve"}
    labels["understudy.dev/arm"] = "stable"
    serve = {
        "name": "serve",
        "image": "understudy-serve:1",
        "args": ["--release", "$(UNDERSTUDY_RELEASE)"],
        "env": [{"name": "UNDERSTUDY_ARM", "value": "stable"}, {"name": "TMPDIR", "value": "/tmp"}],
        "ports": [{"containerPort": 8800, "name": "http"}],
    }
    fetch = {"name": "fetch", "image": "understudy-serve:1"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "understudy-stable", "labels": labels},
        "spec": {
            "replicas": 10,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"initContainers": [fetch], "containers": [serve]}},
        },
    }


def base_route() -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "understudy"},
        "spec": {
            "parentRefs": [{"name": "understudy"}],
            "hostnames": ["rank.example"],
            "rules": [{"backendRefs": [{"name": "understudy-stable", "port": 80}]}],
        },
    }


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with running() as (cluster, url):
        yield made(cluster, url, tmp_path)


def made(cluster: Cluster, url: str, folder: Path) -> Stage:
    cluster.put("deployments", stable_deployment())
    cluster.put("httproutes", base_route())
    cluster.put("configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}})
    settings = client.Configuration(host=url)
    settings.retries = 0
    lake = Lake.open_or_create(str(folder))
    one = Stage(cluster, lake, Api(client.ApiClient(settings), NAMESPACE), Feed(), [])
    first, one.stable, one.candidate = (release(lake, name) for name in ("first", "stable", "candidate"))
    produce(lake, first)
    produce(lake, one.stable)
    from understudy.releases import move

    move(lake, {"candidate": one.candidate}, "test", expected={})
    return one


def test_stable_gets_the_lakes_production(stage: Stage) -> None:
    stage.operator().look()
    assert stage.release_of("stable") == stage.stable
    assert stage.cluster.names("deployments") == ["understudy-stable"]
    assert stage.routed() == {}


def test_a_release_goes_on_stage_and_becomes_everybody_s(stage: Stage) -> None:
    state = stage.begin()
    first = aliases(stage.lake)["previous"]
    state, settled = stage.driver().tick(state.id)
    assert settled
    assert {arm: len(its) for arm, its in stage.routed().items()} == {"canary": 1, "baseline": 1, "previous": 2}
    assert [stage.release_of(arm) for arm in ("stable", "canary", "baseline", "previous", "month")] == [
        stage.stable, stage.candidate, stage.stable, first, None,
    ]  # fmt: skip  # month begins with production, which stable serves
    seen: set[int] = set()
    for buckets, baseline in ((20, 20), (45, 20)):
        state = stage.hours(1, state)
        routed = stage.routed()
        assert (len(routed["canary"]), len(routed["baseline"])) == (buckets, baseline)
        assert seen <= set(routed["canary"])
        seen = set(routed["canary"])
        assert stage.cluster.find("deployments", "understudy-canary")["spec"]["replicas"] >= 10 * buckets // 100  # type: ignore[index]
    ended = stage.hours(1, state)
    assert ended.phase == "promoted"
    assert stage.release_of("stable") == stage.candidate
    assert aliases(stage.lake)["production"] == stage.candidate
    assert stage.driver().drive(state.id).told
    stage.operator().look()
    assert stage.cluster.names("deployments") == ["understudy-month", "understudy-previous", "understudy-stable"]
    assert stage.release_of("previous") == stage.release_of("month") == stage.stable
    assert {arm: len(its) for arm, its in stage.routed().items()} == {"previous": 2, "month": 2}
    assert Rollouts(stage.lake).history(state.id) == stage.record.history(state.id)


def test_everybody_stays_with_the_canary_until_stable_has_rolled_out(stage: Stage) -> None:
    state = stage.hours(2, stage.begin())
    stage.cluster.stuck.add("understudy-stable")
    stage.annotate(word="promote")
    state, settled = stage.driver().tick(state.id)
    assert (state.phase, settled) == ("promoted", False)
    stage.operator()._keep(state)
    assert stage.release_of("canary") == stage.candidate
    assert len(stage.routed()["canary"]) == 45
    stable = stage.cluster.find("deployments", "understudy-stable")
    assert stable is not None
    assert stable["spec"]["replicas"] >= 10
    stage.cluster.unstick("understudy-stable")
    stage.operator().look()
    assert "canary" not in stage.routed()
    assert stage.release_of("canary") is None


def test_buckets_wait_for_pods(stage: Stage) -> None:
    stage.cluster.stuck.add("understudy-canary")
    state, settled = stage.driver().tick(stage.begin().id)
    assert not settled
    assert "canary" not in stage.routed()
    stage.cluster.unstick("understudy-canary")
    stage.driver().tick(state.id)
    assert len(stage.routed()["canary"]) == 1


def test_a_fault_is_taken_back_route_first(stage: Stage) -> None:
    state = stage.hours(2, stage.begin())
    stage.feed.canary = {"errors": 500}
    stage.cluster.calls.clear()
    state = stage.hours(3, state)
    assert (state.phase, state.reason) == ("aborted", "other")
    assert set(stage.routed()) == {"previous"}
    assert stage.release_of("canary") is stage.release_of("baseline") is None
    assert stage.release_of("stable") == stage.stable
    assert marks(stage.lake)[stage.candidate]["reason"] == "other"
    ours = [(method, name) for method, plural, name in stage.cluster.calls if plural in ("httproutes", "deployments")]
    assert ours.index(("DELETE", "understudy-canary")) > max(
        place for place, one in enumerate(ours) if one == ("PATCH", "understudy-arms")
    )
    assert stage.record.history(state.id)[-1]["said"].startswith("aborted: errors: 50.00% of requests fail")


def test_stable_gets_pods_before_it_bears_more(stage: Stage) -> None:
    state = stage.hours(2, stage.begin())
    found = stage.cluster.find("deployments", "understudy-stable")
    assert found is not None
    found["spec"]["replicas"] = 4  # an autoscaler's doing
    stage.cluster.put("deployments", found)
    stage.annotate(word="abort")
    stage.driver().tick(state.id)
    found = stage.cluster.find("deployments", "understudy-stable")
    assert found is not None
    assert found["spec"]["replicas"] >= 9


@pytest.mark.parametrize(("word", "phase"), [("pause", "paused"), ("promote", "promoted"), ("abort", "rejected")])
def test_an_annotation_wins(stage: Stage, word: str, phase: str) -> None:
    state = stage.hours(1, stage.begin())
    stage.annotate(word=word)
    state, _ = stage.driver().tick(state.id)
    assert state.phase == phase
    assert stage.record.word() is None
    assert "a person" in stage.record.history(state.id)[-1]["said"] or phase == "promoted"
    assert stage.record.load(state.id)[1].phase == phase


def test_a_word_that_nobody_understands_is_said_once(stage: Stage) -> None:
    state = stage.hours(1, stage.begin())
    stage.annotate(word="halt!")
    stage.driver().tick(state.id)
    assert "expected pause, resume, promote, abort, found 'halt!'" in stage.record.history(state.id)[-1]["said"]
    assert stage.record.word() is None
    assert stage.hours(1, state).phase == "running"


def test_a_word_about_a_rollout_that_has_ended_is_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    state = stage.begin()
    stage.annotate(word="abort")
    stage.operator().look()
    monkeypatch.setattr(Place, "record", lambda _: stage.record)
    with pytest.raises(BadInput, match=f"pause: expected a rollout to be on, found {state.id}, rejected"):
        Place("lake", cluster=True).ask("pause", None)
    assert stage.record.word() is None


def until_promoted(stage: Stage, operator: Operator) -> None:
    for _ in range(30):
        operator.look()
        last = stage.record.last()
        if last is not None and last.ended and "canary" not in stage.routed():
            return


def test_a_rollout_is_begun_by_an_annotation_and_driven_to_its_end(stage: Stage) -> None:
    operator = stage.operator()
    operator.look()
    stage.annotate(start="candidate")
    operator.look()
    assert stage.record.asked_to_start() is None
    last = stage.record.last()
    assert last is not None
    assert last.candidate == stage.candidate
    until_promoted(stage, operator)
    assert aliases(stage.lake)["production"] == stage.candidate
    assert stage.record.last().phase == "promoted"  # type: ignore[union-attr]


def test_a_holdout_without_pods_blocks_nothing(stage: Stage) -> None:
    operator = stage.operator()
    operator.look()
    stage.cluster.stuck |= {"understudy-previous", "understudy-month"}
    stage.annotate(start="candidate")
    until_promoted(stage, operator)
    assert stage.record.last().phase == "promoted"  # type: ignore[union-attr]
    assert "canary" not in stage.routed()
    stage.annotate(word="rollback")
    operator.look()
    assert aliases(stage.lake)["production"] == stage.release_of("stable") == stage.stable


def test_what_can_t_begin_is_said_and_forgotten(stage: Stage) -> None:
    stage.annotate(start="production")
    stage.operator().look()
    assert stage.record.asked_to_start() is None
    assert "expected another release than production" in stage.said[-1]


def test_what_was_promoted_is_watched_until_it_is_taken_back(stage: Stage) -> None:
    state = stage.hours(2, stage.begin())
    stage.annotate(word="promote")
    stage.driver().drive(state.id)
    assert aliases(stage.lake)["production"] == stage.candidate
    worse = {"stable": arm(0.05), "previous": arm(0.1)}
    operator = stage.operator()
    operator.aftermath = Aftermath(CONFIG, ("click",), lambda *_: worse)
    stage.said.clear()
    for _ in range(3):
        operator.look()
        stage.feed.now_s += DAY_S
    (text,) = [one for one in stage.said if "worse" in one]
    assert stage.record.said() == text
    assert f"production {stage.candidate[:12]} is shown to be worse: click -50" in text
    assert aliases(stage.lake)["production"] == stage.candidate, "only a person takes it back"
    stage.annotate(word="rollback")
    operator.look()
    assert aliases(stage.lake)["production"] == stage.stable


def test_a_rollback_moves_the_servers_long_after(stage: Stage) -> None:
    state = stage.hours(2, stage.begin())
    stage.annotate(word="promote")
    stage.driver().drive(state.id)
    stage.operator().look()
    assert stage.release_of("stable") == stage.candidate
    stage.annotate(word="rollback")
    stage.operator().look()
    assert aliases(stage.lake)["production"] == stage.stable
    assert stage.release_of("stable") == stage.stable
    assert stage.record.word() is None
    stage.operator().look()
    assert set(stage.routed()) == set()  # both holdouts see what stable serves


def test_who_moves_production_meanwhile_ends_the_rollout(stage: Stage) -> None:
    state = stage.hours(2, stage.begin())
    produce(stage.lake, release(stage.lake, "urgent"))
    state = stage.hours(1, state)
    assert state.phase == "rejected"
    stage.operator().look()
    assert stage.release_of("stable") == release(stage.lake, "urgent")


def test_who_makes_the_candidate_production_has_promoted_it(stage: Stage) -> None:
    state = stage.hours(2, stage.begin())
    produce(stage.lake, stage.candidate)
    state = stage.hours(1, state)
    stage.operator().look()
    assert state.phase == "promoted"
    assert aliases(stage.lake)["production"] == stage.release_of("stable") == stage.candidate
    assert stage.candidate not in marks(stage.lake)


def test_what_is_not_ours_stays(stage: Stage) -> None:
    other = stable_deployment()
    other["metadata"] = {"name": "understudy-canary", "labels": {"app": "theirs"}}
    stage.cluster.put("deployments", other)
    stage.operator().look()
    assert stage.cluster.find("deployments", "understudy-canary") is not None
    foreign = stage.cluster.find("deployments", "understudy-stable")
    assert foreign is not None
    serve = foreign["spec"]["template"]["spec"]["containers"][0]
    assert serve["image"] == "understudy-serve:1"
    assert {"name": "TMPDIR", "value": "/tmp"} in serve["env"]


def test_arms_differ_in_release_and_arm_alone(stage: Stage) -> None:
    stage.driver().tick(stage.begin().id)
    specs = []
    for name in ("stable", "canary", "baseline"):
        found = stage.cluster.find("deployments", f"understudy-{name}")
        assert found is not None
        text = json.dumps(found["spec"]["template"], sort_keys=True)
        for value in (str(stage.release_of(name)), str(stage.release_of(name))[:12], f'"{name}"'):
            text = text.replace(value, '"X"' if '"' in value else "X")
        template = json.loads(text)
        for one in template["spec"]["containers"] + template["spec"]["initContainers"]:
            one["env"] = sorted((env for env in one.get("env", []) if env["name"] != "UNDERSTUDY_ARM"), key=str)
        template["metadata"].pop("annotations", None)
        specs.append(template)
    assert specs[0] == specs[1] == specs[2]


def test_of_two_drivers_one_is_first(stage: Stage) -> None:
    state = stage.begin()
    number, before = stage.record.load(state.id)
    from understudy.rollout import judge

    assert stage.record.advance(number, before, judge.pause(before, "ada")) == number + 1
    with pytest.raises(Moved):
        stage.record.advance(number, before, judge.abort(before, "bob"))
    with pytest.raises(BadInput, match="expected it to have ended, found it paused"):
        begin(stage.lake, stage.record, CONFIG, "candidate", stage.feed.now_s)


def test_an_annotation_between_reading_and_writing_is_a_conflict_that_is_seen(stage: Stage) -> None:
    state = stage.begin()
    number, before = stage.record.load(state.id)
    original, done = stage.api.get, []

    def get(kind: str, name: str) -> Any:
        found = original(kind, name)
        if kind == "ConfigMap" and not done:
            done.append(1)
            stage.annotate(word="abort")
        return found

    object.__setattr__(stage.api, "get", get)
    from understudy.rollout import judge

    with pytest.raises(Moved):
        stage.record.advance(number, before, judge.pause(before, "ada"))
    assert stage.record.word() == "abort"


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("deployments", "understudy-stable", "Deployment understudy-stable in namespace recs: expected it, found none"),
        ("httproutes", "understudy", "HTTPRoute understudy in namespace recs: expected it, found none"),
    ],
)
def test_what_the_manifests_make_is_missed_by_name(stage: Stage, kind: str, name: str, expected: str) -> None:
    state = stage.begin()
    stage.api.delete({"deployments": "Deployment", "httproutes": "HTTPRoute"}[kind], name)
    with pytest.raises(BadInput, match=expected):
        stage.driver().tick(state.id)


def test_no_permission_is_one_line(stage: Stage) -> None:
    stage.cluster.fault = lambda _: 403
    with pytest.raises(BadInput, match=r"GET ConfigMap understudy-rollout in namespace recs: expected the server's"):
        stage.record.last()


def test_a_cluster_that_does_not_answer_is_tried_again(stage: Stage) -> None:
    first = len(stage.cluster.calls)
    stage.cluster.fault = lambda number: "before" if number == first else 503 if number == first + 1 else None
    assert stage.record.last() is None
    stage.cluster.fault = lambda _: 503
    with pytest.raises(Unreachable):
        stage.record.last()


class Killed(BaseException):
    """The driver's process ends here."""


def story(stage: Stage) -> tuple[Any, ...]:
    """What a rollout leaves behind."""
    routed = {arm: len(its) for arm, its in stage.routed().items()}
    releases = {arm: stage.release_of(arm) for arm in ("stable", "canary", "baseline", "previous", "month")}
    last = stage.record.last()
    assert last is not None
    names = {stage.stable: "stable", stage.candidate: "candidate", None: None}
    called = {arm: names.get(digest, "first") for arm, digest in releases.items()}
    return last.phase, routed, called, names[aliases(stage.lake)["production"]]


@pytest.mark.parametrize("spoiled", [False, True])
@pytest.mark.parametrize("how", ["before", "after"])
def test_killed_at_any_call_and_started_again_it_ends_the_same(
    stage: Stage, tmp_path: Path, how: str, spoiled: bool
) -> None:
    """A driver that is killed at every call that it makes, one after the other, before or after the server acted."""
    call = stage.api.client.call_api
    kill_at, calls = 0, 0

    def called(*given: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if how == "before" and calls == kill_at:
            raise Killed
        found = call(*given, **more)
        if how == "after" and calls == kill_at:
            raise Killed
        return found

    state = stage.begin()
    stage.api.client.call_api = called
    if spoiled:
        stage.feed.canary = {"errors": 500}
    kills = 0
    for tick in range(400):
        calls, kill_at = 0, 1 + tick % 40
        try:
            stage.driver().tick(state.id)
        except Killed:
            kills += 1
        else:
            stage.feed.now_s += 3600
        kill_at = 0
        last = stage.record.last()
        if last is not None and last.ended and last.told:
            break
    stage.api.client.call_api = call
    stage.driver().drive(state.id)
    stage.operator().look()
    assert kills >= 5
    assert story(stage) == (
        ("aborted", {"previous": 2}, {"stable": "stable", "canary": None, "baseline": None, "previous": "first",
                                      "month": None}, "stable")
        if spoiled
        else ("promoted", {"previous": 2, "month": 2}, {"stable": "candidate", "canary": None, "baseline": None,
                                                        "previous": "stable", "month": "stable"}, "candidate")
    )  # fmt: skip


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=st.dictionaries(st.integers(0, 400), st.sampled_from(["before", "after", 500, 429, 503]), max_size=60))
def test_whatever_the_network_does_the_end_is_all_new(tmp_path_factory: pytest.TempPathFactory, faults: Any) -> None:
    with running() as (cluster, url):
        stage = made(cluster, url, tmp_path_factory.mktemp("lake"))
        state = stage.begin()
        first = len(cluster.calls)
        cluster.fault = lambda number: faults.get(number - first)
        shrank = False
        before: set[int] = set()
        for _ in range(60):
            try:
                state, _ = stage.driver().tick(state.id)
            except (Later, Moved):  # a write that was cut off after it was done is a conflict when it is repeated
                continue
            stage.feed.now_s += 3600
            now = set(stage.routed().get("canary", []))
            shrank = shrank or (not state.ended and not before <= now)
            before = now
            if state.ended and state.told:
                break
        cluster.fault = lambda _: None
        stage.driver().drive(state.id)
        stage.operator().look()
        assert not shrank
        assert story(stage)[0] == "promoted"
        assert story(stage)[3] == "candidate"


def test_the_route_keeps_to_the_gateways_limits_and_matches_the_bucket_header() -> None:
    base = base_route()
    base["metadata"]["uid"] = "u"
    made = route(base, ramp("r", 100, 2).buckets)["spec"]
    assert made["parentRefs"] == [{"name": "understudy"}]
    assert made["hostnames"] == ["rank.example"]
    heads = [one for rule in made["rules"] for match in rule["matches"] for one in match["headers"]]
    assert {(one["type"], one["name"]) for one in heads} == {("Exact", BUCKET)}
    assert sorted(int(one["value"]) for one in heads) == list(range(100))
    assert all(len(rule["matches"]) <= 64 for rule in made["rules"])
    assert len(made["rules"]) <= 16


def test_a_changed_state_is_told(stage: Stage) -> None:
    stage.api.merge("ConfigMap", NAME, {"data": {"state": "{}", "number": "x"}})
    with pytest.raises(BadInput, match="ConfigMap understudy-rollout: expected number, state and history"):
        stage.record.last()


def replicas(stage: Stage, arm: str = "stable") -> int:
    found = stage.cluster.find("deployments", f"understudy-{arm}")
    assert found is not None
    return int(found["spec"]["replicas"])


@pytest.mark.parametrize("count", [1, 3, 10])
def test_pods_are_as_many_as_before_however_often_it_looks(stage: Stage, count: int) -> None:
    found = stage.cluster.find("deployments", "understudy-stable")
    assert found is not None
    found["spec"]["replicas"] = count
    stage.cluster.put("deployments", found)
    state = stage.begin()
    seen = []
    for _ in range(3):
        state = stage.hours(1, state)
        for _ in range(2):
            stage.driver().target.apply(*wanted(state))
        seen.append((replicas(stage), replicas(stage, "canary") if not state.ended else 0))
    assert seen[0][0] == seen[1][0] == count
    assert seen[1][1] <= count * 0.45 + 2
    for _ in range(4):
        stage.operator().look()
    assert replicas(stage) <= count + 1


def wanted(state: State) -> tuple[Any, Any]:
    return arms_of(state, CONFIG), releases_of(state)


def test_an_abort_restores_the_route_though_deployments_can_t_be_changed(stage: Stage) -> None:
    state = stage.hours(2, stage.begin())
    stage.cluster.refused = {"deployments": DENIED}
    stage.annotate(word="abort")
    stage.operator().look()
    assert set(stage.routed()) <= {"previous", "month"}
    last = stage.record.last()
    assert last is not None
    assert (last.phase, last.told) == ("rejected", True)
    assert stage.candidate in marks(stage.lake)
    assert state.id == last.id


def test_a_word_that_comes_while_it_looks_is_not_lost(stage: Stage) -> None:
    state = stage.hours(1, stage.begin())
    look = stage.feed.see

    def slow(state: State, now_s: float) -> Seen:
        stage.annotate(word="abort")
        return look(state, now_s)

    stage.feed.see = slow  # type: ignore[method-assign]
    state = stage.hours(1, state)
    assert stage.record.word() == "abort"
    assert state.phase == "running"
    state, _ = stage.driver().tick(state.id)
    assert state.phase == "rejected"


@pytest.mark.parametrize("status", [500, "after"])
def test_a_rollback_is_done_once(stage: Stage, status: int | str) -> None:
    operator = stage.operator()
    operator.look()
    before = aliases(stage.lake)
    for place in range(12):
        if stage.record.word() is None:
            stage.annotate(word="rollback")
        first = len(stage.cluster.calls)
        stage.cluster.fault = lambda number: status if number == first + place % 6 else None  # noqa: B023
        with contextlib.suppress(Unreachable, Moved):
            operator.look()
        stage.cluster.fault = lambda _: None
        if aliases(stage.lake) != before:
            break
    after = aliases(stage.lake)
    assert after["production"] == before["previous"]
    operator.look()
    operator.look()
    assert aliases(stage.lake) == after


def test_nothing_to_roll_back_to_is_said(stage: Stage) -> None:
    from understudy.releases import move

    stage.operator().look()
    move(stage.lake, {"previous": None}, "test", expected={})
    stage.annotate(word="rollback")
    stage.operator().look()
    assert stage.record.word() is None
    assert stage.record.said().startswith("not rolled back: ")


def test_a_candidate_in_quarantine_is_taken_back(stage: Stage) -> None:
    from understudy.releases.lifecycle import put_in_quarantine

    state = stage.hours(2, stage.begin())
    put_in_quarantine(stage.lake, stage.candidate, "data")
    state = stage.hours(1, state)
    assert state.phase == "rejected"
    assert stage.release_of("stable") == stage.stable


def test_an_arm_without_a_ready_pod_bears_nobody(stage: Stage) -> None:
    state = stage.hours(2, stage.begin())
    assert len(stage.routed()["canary"]) == 45
    found = stage.cluster.find("deployments", "understudy-canary")
    assert found is not None
    stage.cluster.stuck.add("understudy-canary")
    found["status"] = {"observedGeneration": found["metadata"]["generation"], "replicas": 5, "updatedReplicas": 5}
    stage.cluster.put("deployments", found)
    stage.annotate(word="pause")
    stage.driver().tick(state.id)
    assert "canary" not in stage.routed()


def test_the_arms_route_is_made_of_the_base_route_s_rule_and_follows_it(stage: Stage) -> None:
    state = stage.hours(1, stage.begin())
    base = base_route()
    base["spec"]["hostnames"] = ["other.example"]
    base["spec"]["rules"][0]["matches"] = [{"path": {"type": "PathPrefix", "value": "/v1"}}]
    base["spec"]["rules"][0]["timeouts"] = {"request": "1s"}
    stage.cluster.put("httproutes", {**base, "metadata": {**base["metadata"], "uid": "u"}})
    stage.driver().tick(state.id)
    found = stage.cluster.find("httproutes", "understudy-arms")
    assert found is not None
    assert found["spec"]["hostnames"] == ["other.example"]
    for rule in found["spec"]["rules"]:
        assert rule["timeouts"] == {"request": "1s"}
        assert all(match["path"]["value"] == "/v1" for match in rule["matches"])
    base["spec"]["rules"] *= 2
    stage.cluster.put("httproutes", {**base, "metadata": {**base["metadata"], "uid": "u"}})
    with pytest.raises(BadInput, match="HTTPRoute understudy: expected one rule with one match and one backend"):
        stage.driver().tick(state.id)


@pytest.mark.parametrize("kind", ["deployments", "httproutes"])
def test_another_s_object_of_that_name_is_refused(stage: Stage, kind: str) -> None:
    name = {"deployments": "understudy-canary", "httproutes": "understudy-arms"}[kind]
    other = {"deployments": stable_deployment, "httproutes": base_route}[kind]()
    other["metadata"] = {"name": name, "labels": {"app": "theirs"}}
    stage.cluster.put(kind, other)
    state = begin(stage.lake, stage.record, CONFIG, "candidate", stage.feed.now_s)
    with pytest.raises(BadInput, match=f"{name}: expected one that the rollout driver made, found another's"):
        stage.driver().tick(state.id)
    assert stage.cluster.find(kind, name)["metadata"]["labels"] == {"app": "theirs"}  # type: ignore[index]


def test_a_late_write_of_the_route_is_refused(stage: Stage) -> None:
    state = stage.hours(2, stage.begin())
    late = stage.driver()
    apply = stage.api.apply

    def slow(kind: str, name: str, content: Any) -> Any:
        if kind == "Deployment" and name == "understudy-baseline":
            object.__setattr__(stage.api, "apply", apply)
            stage.annotate(word="abort")
            stage.driver().tick(state.id)  # the other driver is done before this one goes on
        return apply(kind, name, content)

    object.__setattr__(stage.api, "apply", slow)
    with contextlib.suppress(Conflict):
        late.tick(state.id)
    assert set(stage.routed()) <= {"previous", "month"}


def test_a_rollout_keeps_the_steps_that_it_began_with(stage: Stage) -> None:
    state = stage.hours(2, stage.begin())
    before = stage.routed()
    driver = stage.driver()
    driver.config = dataclasses.replace(CONFIG, steps=(1,), held=5)
    driver.tick(state.id)
    assert stage.routed() == before


def test_a_long_rollout_keeps_what_was_said(stage: Stage) -> None:
    stage.feed.silent = True
    state = begin(stage.lake, stage.record, CONFIG, "candidate", stage.feed.now_s)
    record = stage.record
    for hour in range(1, 40):
        number, before = record.load(state.id)
        record.advance(number, before, Decision(dataclasses.replace(before, data_s=before.data_s + 3600.0 * hour)))
    assert [one["said"][:5] for one in record.history(state.id)] == ["begun"]


@pytest.mark.parametrize(
    "change",
    [
        {"step": "1"},
        {"step": 99},
        {"started_s": None},
        {"phase": "lost"},
        {"more": 1},
        {"strikes": []},
        {"steps": ["a"]},
    ],
)
def test_a_state_that_is_none_is_refused(stage: Stage, change: dict[str, Any]) -> None:
    state = begin(stage.lake, stage.record, CONFIG, "candidate", stage.feed.now_s)
    text = json.dumps({**state.to_json(), **change})
    stage.api.merge("ConfigMap", NAME, {"data": {"state": text}})
    with pytest.raises(BadInput, match="ConfigMap understudy-rollout: expected number, state and history"):
        stage.record.last()
    stage.operator().run(until=iter([False, True]).__next__, sleep=lambda _: None)
    assert "expected number, state and history" in stage.said[-1]
