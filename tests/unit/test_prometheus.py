"""A rollout's figures from Prometheus' HTTP API: what is answered, what is not, and what is asked."""

import json
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest
from http_server import Answer, Asked, nobody, server

from understudy.errors import BadInput
from understudy.rollout import prometheus
from understudy.rollout.prometheus import Prometheus
from understudy.rollout.state import ArmSeen, State

NOW = 1_790_000_000.25
STATE = State.begin("r", "new", "old", NOW - 7200)
TOKEN = "s3cret-of-tests"
NOTHING = {"canary": ArmSeen(), "baseline": ArmSeen()}


def vector(*samples: tuple[dict[str, str], str]) -> bytes:
    """An answer as Prometheus documents it."""
    result = [{"metric": labels, "value": [NOW, value]} for labels, value in samples]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def of(arm: str, **more: str) -> dict[str, str]:
    return {"understudy_dev_arm": arm, **more}


FIGURES = {
    "status=~": vector((of("canary"), "3.02"), (of("baseline"), "0")),
    "requests_total": vector((of("canary"), "120.6"), (of("baseline"), "0"), (of("stable"), "9")),
    "histogram_quantile": vector((of("canary"), "0.0125"), (of("baseline"), "NaN")),
    "predicted_sum_total": vector(
        (of("canary", head="click"), "0.25"), (of("canary", head="hide"), "NaN"), (of("baseline", head="click"), "0.2")
    ),
    "users_total": vector((of("canary"), "980.4"), (of("baseline"), "1000")),
    "restarts_total": vector(),
    "resident_bytes": vector((of("canary"), str(300 * 2**20)), (of("baseline"), "+Inf")),
}


def query_of(asked: Asked) -> dict[str, str]:
    return {key: one for key, (one,) in urllib.parse.parse_qs(urllib.parse.urlsplit(asked.path).query).items()}


def figures(asked: Asked) -> Answer:
    query = query_of(asked)["query"]
    return Answer(body=next(body for text, body in FIGURES.items() if text in query))


def test_figures_are_those_of_the_arms_and_what_has_no_series_is_unknown() -> None:
    with server(figures) as (url, asked):
        source = Prometheus(url, "understudy")
        found = source.arms(STATE, NOW)
    assert found["canary"] == ArmSeen(121, 3, 12.5, 300.0, None, {"click": 0.25}, 980)
    assert found["baseline"] == ArmSeen(0, 0, None, None, None, {"click": 0.2}, 1000)
    assert source.unanswered == {}
    assert {one.path.partition("?")[0] for one in asked} == {"/api/v1/query"}
    assert {query_of(one)["time"] for one in asked} == {"1790000000.250"}
    assert not any("authorization" in one.headers for one in asked)


@pytest.mark.parametrize(
    ("tick_s", "began_s", "step_s", "ranges"),
    [
        (60, 7200, 3600, {"requests": 120, "scored": 3600, "restarts": 7200}),
        (300, 7200.9, 90.9, {"requests": 300, "scored": 90, "restarts": 7200}),
        (300, 100, 0, {"requests": 100, "scored": 1, "restarts": 100}),
        (60, 90 * 86_400, 40 * 86_400, {"requests": 120, "scored": 30 * 86_400, "restarts": 30 * 86_400}),
    ],
)
def test_ranges_are_whole_seconds_and_hold_nothing_from_before(
    tick_s: float, began_s: float, step_s: float, ranges: dict[str, int]
) -> None:
    state = State("r", "new", "old", NOW - began_s, NOW - step_s, NOW, NOW)
    with server(figures) as (url, asked):
        Prometheus(url, "understudy", tick_s=tick_s).arms(state, NOW)
    queries = [query_of(one)["query"] for one in asked]
    marks = {"requests": "requests_total{", "scored": "users_total{", "restarts": "restarts_total{"}
    for name, seconds in ranges.items():
        mine = [query for query in queries if marks[name] in query]
        assert mine
        assert all(f"[{seconds}s]" in query for query in mine)


def test_a_path_is_kept_and_a_token_sent() -> None:
    with server(figures) as (url, asked):
        source = Prometheus(f"{url}/prometheus/", "understudy", TOKEN)
        assert source.arms(STATE, NOW)["canary"].requests == 121
    assert all(one.path.startswith("/prometheus/api/v1/query?") for one in asked)
    assert {one.headers["authorization"] for one in asked} == {f"Bearer {TOKEN}"}
    assert TOKEN not in repr(source)


def error(status: int, kind: str) -> Answer:
    return Answer(status, json.dumps({"status": "error", "errorType": kind, "error": f"{kind}: {TOKEN}"}).encode())


def form(**more: Any) -> Answer:
    return Answer(body=json.dumps(more).encode())


NO_DATA: dict[str, tuple[Answer, str]] = {
    "bad data": (error(400, "bad_data"), "status 400"),
    "no token": (Answer(401, b"Unauthorized"), "status 401"),
    "can't be executed": (error(422, "execution"), "status 422"),
    "aborted": (error(503, "timeout"), "status 503"),
    "an error with status 200": (form(status="error", errorType="x", error="y"), "no vector"),
    "a page": (Answer(body=b"<html>sign in</html>"), "no answer of Prometheus' form"),
    "nothing": (Answer(), "no answer of Prometheus' form"),
    "a list": (Answer(body=b"[]"), "no answer of Prometheus' form"),
    "deep": (Answer(body=b"[" * 100_000), "no answer of Prometheus' form"),
    "no text": (Answer(body=b"\xff\xfe\x00"), "no answer of Prometheus' form"),
    "a scalar": (form(status="success", data={"resultType": "scalar", "result": [NOW, "1"]}), "no vector"),
    "another result": (form(status="success", data={"resultType": "vector", "result": None}), "form"),
    "no value": (form(status="success", data={"resultType": "vector", "result": [{"metric": of("canary")}]}), "form"),
    "a word": (Answer(body=vector((of("canary"), "many"))), "form"),
    "large": (Answer(body=b" " * (1 << 21)), "an answer of more than 1048576 bytes"),
    "cut off": (Answer(body=vector(), length=10_000), "a part of an answer"),
    "empty": (Answer(body=vector()), ""),
    "of nobody": (Answer(body=vector(({}, "1"), (of("stable"), "1"))), ""),
    "endless": (Answer(body=vector((of("canary"), "inf"), (of("baseline"), "NaN"))), ""),
}


@pytest.mark.parametrize("case", NO_DATA)
def test_what_is_not_answered_is_unknown(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    answer, reason = NO_DATA[case]
    with server(lambda _: answer) as (url, _):
        source = Prometheus(url, "understudy", TOKEN)
        assert source.arms(STATE, NOW) == NOTHING
    assert all(reason in text for text in source.unanswered.values())
    assert len(source.unanswered) == (7 if reason else 0)
    assert TOKEN not in str(source.unanswered) + "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "slow", [Answer(body=vector(), wait_s=60), Answer(body=vector(), pause_s=0.05)], ids=["silent", "by drops"]
)
def test_a_late_answer_is_none(slow: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "_QUERY_S", 0.2)
    monkeypatch.setattr(prometheus, "_LOOK_S", 0.5)
    began = time.monotonic()
    with server(lambda _: slow) as (url, asked):
        source = Prometheus(url, "understudy")
        assert source.arms(STATE, NOW) == NOTHING
    assert time.monotonic() - began < 5
    assert set(source.unanswered.values()) == {"no answer in time"}
    assert len(asked) < 7  # those that would come too late are not asked


def test_one_field_s_fault_is_not_another_s() -> None:
    with server(lambda asked: error(422, "x") if "quantile" in query_of(asked)["query"] else figures(asked)) as (
        url,
        _,
    ):
        source = Prometheus(url, "understudy")
        found = source.arms(STATE, NOW)["canary"]
        assert (found.requests, found.p99_ms, source.unanswered) == (121, None, {"p99": "status 422"})
        source.url = nobody()
        assert source.arms(STATE, NOW) == NOTHING
        assert source.unanswered["requests"] == "no connection"


def test_a_redirect_is_not_followed_and_the_token_stays() -> None:
    with (
        server(figures) as (elsewhere, asked),
        server(lambda one: Answer(307, headers={"Location": f"{elsewhere}{one.path}"})) as (url, _),
    ):
        source = Prometheus(url, "understudy", TOKEN)
        assert source.arms(STATE, NOW) == NOTHING
        assert set(source.unanswered.values()) == {"status 307"}
        assert asked == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Prometheus("file:///etc/passwd", "n"),
        lambda: Prometheus("prometheus:9090", "n"),
        lambda: Prometheus("http://", "n"),
        lambda: Prometheus("http://prometheus:99999", "n"),
        lambda: Prometheus("http://[::1", "n"),
        lambda: Prometheus(f"http://me:{TOKEN}@prometheus", "n"),
        lambda: Prometheus(f"http://prometheus?key={TOKEN}", "n"),
        lambda: Prometheus("http://prometheus", 'n"} or {a="b'),
        lambda: Prometheus("http://prometheus", "n", f"{TOKEN}\r\nx: y"),
        lambda: Prometheus("http://prometheus", "n", ""),
    ],
)
def test_what_could_never_be_asked_is_said_at_once(wrong: Callable[[], Prometheus]) -> None:
    with pytest.raises(BadInput) as refused:
        wrong()
    assert TOKEN not in str(refused.value)
