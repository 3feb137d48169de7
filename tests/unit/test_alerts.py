"""Alerts: what is sent to whom, what a failure says, and that a webhook's URL never shows."""

import datetime
import json
import re
import time

import pytest
from http_server import Answer, nobody, server

from understudy import alerts
from understudy.alerts import ALERTMANAGER, WEBHOOK, tell
from understudy.http_calls import stays_inside

SECRET = "T0secret/B0secret/x9secret"
DIGEST = "ab" * 32


def said(capfd: pytest.CaptureFixture[str]) -> str:
    out, err = capfd.readouterr()
    assert out == ""
    return str(err)


def test_where_nobody_is_named_nobody_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert tell("a gate said no") is False
    assert said(capfd) == ""


def test_a_chat_is_told(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with server(lambda _: Answer(body=b"ok")) as (url, asked):
        monkeypatch.setenv(WEBHOOK, f"{url}/services/{SECRET}\n")
        assert tell("aborted: errors 3% > 1% <!channel>", details={"candidate": DIGEST, "step": 2}) is True
    (one,) = asked
    assert (one.method, one.path, one.headers["content-type"]) == ("POST", f"/services/{SECRET}", "application/json")
    text = f"aborted: errors 3% &gt; 1% &lt;!channel&gt;\ncandidate: {DIGEST}\nstep: 2"
    assert json.loads(one.body) == {"text": text}
    assert said(capfd) == ""


def test_alertmanager_is_told_and_one_alert_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(lambda _: Answer()) as (url, asked):
        monkeypatch.setenv(ALERTMANAGER, f"{url}/prefix/")
        for _ in range(2):
            assert tell("aborted: harm", details={"candidate": DIGEST, "2nd-try": True, "alertname": "x"}) is True
        assert tell("another") is True
    assert {one.path for one in asked} == {"/prefix/api/v2/alerts"}
    (first,), (second,), (third,) = (json.loads(one.body) for one in asked)
    event = first["labels"].pop("event")
    assert first["labels"] == {"alertname": "Understudy", "candidate": DIGEST, "_2nd_try": "True"}
    assert first["annotations"] == {"summary": "aborted: harm"}
    begins, ends = (datetime.datetime.fromisoformat(first[name]) for name in ("startsAt", "endsAt"))
    assert abs(time.time() - begins.timestamp()) < 60
    assert ends > begins
    assert second["labels"] == {**first["labels"], "event": event}
    assert third["labels"]["event"] != event


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_what_is_refused_is_tried_twice_and_said(
    status: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with server(lambda _: Answer(status, f"no such {SECRET}".encode())) as (url, asked):
        monkeypatch.setenv(WEBHOOK, f"{url}/services/{SECRET}")
        assert tell("text") is False
    assert len(asked) == 2
    assert said(capfd) == f"alert could not be sent: the webhook: status {status}\n"


def test_a_second_try_may_do(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    answers = iter([Answer(500), Answer(body=b"ok")])
    with server(lambda _: next(answers)) as (url, _):
        monkeypatch.setenv(WEBHOOK, f"{url}/services/{SECRET}")
        assert tell("text") is True
    assert said(capfd) == ""


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with (
        server(lambda _: Answer()) as (elsewhere, followed),
        server(lambda _: Answer(302, headers={"Location": f"{elsewhere}/{SECRET}"})) as (url, _),
    ):
        monkeypatch.setenv(WEBHOOK, f"{url}/services/{SECRET}")
        assert tell("text") is False
        assert followed == []
    assert said(capfd) == "alert could not be sent: the webhook: status 302\n"


@pytest.mark.parametrize("slow", [Answer(wait_s=60), Answer(body=b"." * 100, pause_s=0.05)], ids=["silent", "by drops"])
def test_who_is_too_slow_is_left(
    slow: Answer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alerts, "_LIMIT_S", 0.2)
    began = time.monotonic()
    with server(lambda _: slow) as (url, _):
        monkeypatch.setenv(WEBHOOK, f"{url}/services/{SECRET}")
        assert tell("text") is False
    assert time.monotonic() - began < 5
    assert said(capfd) == "alert could not be sent: the webhook: no answer in time\n"


def test_one_that_fails_does_not_keep_the_other_from_being_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(WEBHOOK, f"{nobody()}/services/{SECRET}")
    with server(lambda _: Answer()) as (url, asked):
        monkeypatch.setenv(ALERTMANAGER, url)
        assert tell("text") is False
    assert len(asked) == 1
    assert said(capfd) == "alert could not be sent: the webhook: no connection\n"
    monkeypatch.setenv(ALERTMANAGER, nobody())
    assert tell("text") is False
    both = "the webhook: no connection; Alertmanager: no connection"
    assert said(capfd) == f"alert could not be sent: {both}\n"


@pytest.mark.parametrize(
    "url",
    [
        f"http://hooks.example.com/{SECRET}",
        f"http://8.8.8.8/{SECRET}",
        f"http://{SECRET}",
        f"ftp://localhost/{SECRET}",
        f"file:///{SECRET}",
        f"https:///{SECRET}",
        f"http://[::1/{SECRET}",
        SECRET,
    ],
)
def test_nobody_outside_reads_along(
    url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(WEBHOOK, url)
    assert tell("text") is False
    line = said(capfd)
    assert re.fullmatch(r"alert could not be sent: the webhook: [^\n]+\n", line)
    assert not any(part in line for part in [*SECRET.split("/"), "example", "8.8.8.8"])


def test_what_can_t_be_sent_is_said_without_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for url in (f"http://localhost:{SECRET}", f"http://localhost/\r\n{SECRET}", f"http://me:{SECRET}@localhost/"):
        monkeypatch.setenv(WEBHOOK, url)
        assert tell("text") is False
        line = said(capfd)
        assert line.startswith("alert could not be sent: the webhook: ")
        assert "secret" not in line


def test_within_a_cluster_http_does() -> None:
    may_go = ["http://127.0.0.1:1/x", "http://[::1]/", "http://localhost", "http://alertmanager:9093", "https://a.b/c"]
    may_go += ["http://alertmanager.monitoring.svc:9093", "http://am.monitoring.svc.cluster.local", "http://10.0.0.7"]
    assert all(stays_inside(url) for url in may_go)
