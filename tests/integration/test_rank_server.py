"""The rank server as its clients meet it: a real process on a real release."""

import contextlib
import gzip
import http.client
import json
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from ranking import HEADERS, TOKEN, RankServer, items_of, users_of

PATH = "/v1/rank"
INFER = "/v2/models/ranker/infer"


@pytest.fixture(scope="module")
def lake(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving") / "lake"
    shutil.copytree(released, folder)
    return folder


@pytest.fixture(scope="module")
def server(lake: Path) -> Iterator[RankServer]:
    one = RankServer(lake)
    yield one
    assert one.stop() == 0


@pytest.fixture(scope="module")
def items(lake: Path) -> list[str]:
    return items_of(lake)


@pytest.fixture(scope="module")
def user(lake: Path) -> str:
    return users_of(lake)[0]


def test_a_slate_comes_back_best_first(server: RankServer, user: str, items: list[str]) -> None:
    before = server.metric('candidates_total{features="unknown"}')
    answer = server.rank(user, [*items[:30], "never seen"], context={"surface": "1"}, limit=20, request_id="r-1")
    assert answer.status_code == 200
    found = answer.json()
    assert (found["request_id"], found["slice"], found["user"]) == ("r-1", "policy", "known")
    assert answer.headers["x-request-id"] == "r-1"
    assert len(found["items"]) == len(found["utility"]) == 20
    assert set(found["items"]) <= {*items[:30], "never seen"}
    assert found["utility"] == sorted(found["utility"], reverse=True)
    assert {head: len(values) for head, values in found["probabilities"].items()} == dict.fromkeys(
        ("click", "like", "long_view"), 20
    )
    np.testing.assert_allclose(found["utility"], found["probabilities"]["click"])
    assert found["unknown_items"] == 1
    assert server.metric('candidates_total{features="unknown"}') == before + 1


def test_who_is_not_known_is_ranked_for_too(server: RankServer, items: list[str]) -> None:
    before = server.metric('users_total{features="unknown"}')
    found = server.rank("a new user", items[:5]).json()
    assert (found["user"], len(found["items"])) == ("unknown", 5)
    assert server.metric('users_total{features="unknown"}') == before + 1


def test_the_order_of_candidates_changes_no_score(server: RankServer, user: str, items: list[str]) -> None:
    one = server.rank(user, items[:40]).json()
    other = server.rank(user, items[:40][::-1]).json()
    assert one["items"] == other["items"]
    np.testing.assert_allclose(one["utility"], other["utility"], atol=1e-6)


BAD: list[tuple[str, Any, str]] = [
    ("no JSON", b"{", "truncated"),
    ("no UTF-8", b'{"user_id": "\xff", "candidates": ["i"]}', "utf"),
    ("no user", {"candidates": ["i"]}, "user_id"),
    ("a number as user", {"user_id": 7, "candidates": ["i"]}, "$.user_id"),
    ("an empty user", {"user_id": "", "candidates": ["i"]}, "$.user_id"),
    ("no candidates", {"user_id": "u", "candidates": []}, "$.candidates"),
    ("a null", {"user_id": "u", "candidates": ["i", None]}, "$.candidates[1]"),
    ("a long id", {"user_id": "u", "candidates": ["i" * 201]}, "$.candidates[0]"),
    ("too many", {"user_id": "u", "candidates": [str(i) for i in range(1001)]}, "candidates: expected at most 1000"),
    ("twice", {"user_id": "u", "candidates": ["i", "j", "i"]}, "candidates: expected each id once, found one twice"),
    ("a limit of none", {"user_id": "u", "candidates": ["i"], "limit": 0}, "$.limit"),
    ("another key", {"user_id": "u", "candidates": ["i"], "features": [1.0]}, "features"),
    ("another context", {"user_id": "u", "candidates": ["i"], "context": {"place": "x"}}, "place"),
    ("two lines", {"user_id": "u", "candidates": ["i"], "request_id": "a\r\nset-cookie: x"}, "$.request_id"),
    ("a line's end", {"user_id": "u", "candidates": ["i"], "request_id": "a\n"}, "request_id: expected 1 to 200"),
    ("an array", [], "expected"),
    ("a deep array", b"[" * 100_000, "expected"),
]


@pytest.mark.parametrize(("name", "body", "said"), BAD, ids=[name for name, *_ in BAD])
def test_wrong_input_is_refused_and_the_field_is_named(server: RankServer, name: str, body: Any, said: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = server.client.post(PATH, content=content)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]


def test_without_the_token_nothing_is_read(server: RankServer) -> None:
    for headers in ({}, {"Authorization": "Bearer another"}, {"Authorization": HEADERS["Authorization"].lower()}):
        for path in (PATH, INFER):
            answer = httpx.post(f"{server.url}{path}", json={"user_id": "u", "candidates": ["i"]}, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"


def test_a_body_is_bounded_whether_it_says_its_length_or_not(server: RankServer) -> None:
    body = json.dumps({"user_id": "u", "candidates": [f"{i:0200}" for i in range(2000)]}).encode()
    assert server.client.post(PATH, content=body).status_code == 413
    parts = (body[start : start + 10_000] for start in range(0, len(body), 10_000))
    try:
        assert server.client.post(PATH, content=parts).status_code == 413
    except httpx.WriteError:  # the server has hung up on the rest
        assert server.is_ready()


def test_a_compressed_body_is_refused_and_the_header_named(server: RankServer) -> None:
    body = gzip.compress(json.dumps({"user_id": "u", "candidates": ["i"]}).encode())
    answer = server.client.post(PATH, content=body, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415
    assert "Content-Encoding: expected identity, found 'gzip'" in answer.json()["error"]


def raw(server: RankServer, *headers: str, token: str = TOKEN) -> tuple[socket.socket, bytes]:
    """A connection, and the head of a request to rank."""
    url = httpx.URL(server.url)
    head = [f"POST {PATH} HTTP/1.1", "Host: ranker", f"Authorization: Bearer {token}", *headers]
    return socket.create_connection((url.host, url.port), 30), "\r\n".join([*head, "", ""]).encode()


def test_an_offer_of_another_protocol_is_ignored(server: RankServer) -> None:
    url, body = httpx.URL(server.url), b'{"user_id": "u", "candidates": ["i"]}'
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    connection = http.client.HTTPConnection(url.host, url.port, timeout=30)
    for _ in range(2):
        connection.request("POST", PATH, body, HEADERS | offer)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["items"]) == (200, ["i"])
    connection.close()


@pytest.mark.parametrize("token", [TOKEN, "another"])
@pytest.mark.parametrize("piece", [b"a: b\r\n" * 1000, b"b" * 6000], ids=["many", "one"])
def test_trailers_without_end_are_cut_off(server: RankServer, token: str, piece: bytes) -> None:
    connection, head = raw(server, "Transfer-Encoding: chunked", token=token)
    with connection:
        connection.sendall(head + b"0\r\na: ")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 64 << 20:
                connection.sendall(piece)
                sent += len(piece)
    assert sent < 16 << 20  # what the kernel holds may be some megabytes
    assert server.is_ready()


def test_what_is_not_there_is_told(server: RankServer) -> None:
    assert server.client.get(PATH).status_code == 405
    assert server.client.get("/v1/none").status_code == 404
    assert "/openapi.json" in server.client.get("/v1/none").json()["error"]


def tensors(user: str, items: list[str], **more: Any) -> dict[str, Any]:
    inputs = [
        {"name": "user_id", "datatype": "BYTES", "shape": [1], "data": [user]},
        {"name": "item_id", "datatype": "BYTES", "shape": [len(items)], "data": items},
    ]
    return {"inputs": inputs, **more}


def test_the_open_inference_protocol_gives_the_same_scores(server: RankServer, user: str, items: list[str]) -> None:
    client = server.client
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/models/ranker/ready").json() == {"name": "ranker", "ready": True}
    model = client.get("/v2/models/ranker").json()
    assert (model["name"], model["heads"]) == ("ranker", ["click", "like", "long_view"])
    answer = client.post(INFER, json=tensors(user, items[:7], id="q"))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["id"], found["model_name"], found["model_version"]) == ("q", "ranker", model["versions"][0])
    outputs = {one["name"]: one for one in found["outputs"]}
    assert (outputs["probability"]["shape"], outputs["utility"]["shape"]) == ([7, 3], [7])
    ranked = server.rank(user, items[:7]).json()
    by_item = dict(zip(ranked["items"], ranked["probabilities"]["click"], strict=True))
    np.testing.assert_allclose(outputs["probability"]["data"][::3], [by_item[item] for item in items[:7]], atol=1e-6)
    one = client.post(INFER, json=tensors(user, items[:7], outputs=[{"name": "utility"}])).json()["outputs"]
    assert [output["name"] for output in one] == ["utility"]


def test_a_version_is_the_release_on_stage(server: RankServer, user: str, items: list[str]) -> None:
    client, (version,) = server.client, server.client.get("/v2/models/ranker").json()["versions"]
    at = f"/v2/models/ranker/versions/{version}"
    assert client.get(at).json()["versions"] == [version]
    assert client.get(f"{at}/ready").json() == {"name": "ranker", "ready": True}
    answer = client.post(f"{at}/infer", json=tensors(user, items[:3]))
    assert (answer.status_code, answer.json()["model_version"]) == (200, version)
    for method, end in (("GET", ""), ("GET", "/ready"), ("POST", "/infer")):
        other = client.request(method, f"/v2/models/ranker/versions/{'0' * 64}{end}")
        assert other.status_code == 404
        assert f"version: expected the release on stage, {version}, found" in other.json()["error"]


def test_a_wrong_tensor_is_named(server: RankServer) -> None:
    good = tensors("u", ["i", "j"])["inputs"]
    cases = [
        ([good[0]], "$.inputs"),
        ([good[0], good[0]], "inputs[1].name"),
        ([good[0], {**good[1], "name": "item"}], "inputs[1].name"),
        ([good[0], {**good[1], "datatype": "FP32"}], "inputs[1].datatype"),
        ([good[0], {**good[1], "shape": [3]}], "inputs[1].shape"),
        ([good[0], {**good[1], "data": ["i", 7]}], "inputs[1].data"),
        ([{**good[0], "shape": [2], "data": ["u", "v"]}, good[1]], "inputs[0].shape"),
        ([good[0], {**good[1], "data": ["i", "i"]}], "item_id: expected each id once, found one twice"),
        (tensors("u", [str(i) for i in range(1001)])["inputs"], "item_id: expected at most 1000, found 1001"),
    ]
    for inputs, said in cases:
        answer = server.client.post(INFER, json={"inputs": inputs})
        assert answer.status_code == 400
        assert said in answer.json()["error"]


def test_more_than_it_can_do_is_refused_at_once_and_the_rest_is_served(server: RankServer, items: list[str]) -> None:
    slate = (items * 4)[:300]
    body = {"user_id": "u", "candidates": [f"{item}-{place}" for place, item in enumerate(slate)]}
    url = f"{server.url}{PATH}"
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda _: httpx.post(url, json=body, headers=HEADERS, timeout=60), range(300)))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 503}
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 503)
    shed = sum(server.metric(f'shed_total{{cause="{cause}"}}') for cause in ("queue", "deadline"))
    assert shed == sum(answer.status_code == 503 for answer in answers)
    assert server.rank("u", items[:3]).status_code == 200


def test_metrics_tell_what_happened(server: RankServer, user: str, items: list[str]) -> None:
    before, sums = server.metric("slate_candidates_count"), server.metric('predicted_sum_total{head="click"}')
    found = server.rank(user, items[:50]).json()
    assert server.metric("slate_candidates_count") == before + 1
    expected = sums + sum(found["probabilities"]["click"])
    assert server.metric('predicted_sum_total{head="click"}') == pytest.approx(expected, rel=1e-4)
    assert server.metric(f'release_info{{release="{found["release"]}"}}') == 1
    for stage in ("queue", "online_store", "features", "scoring"):
        assert server.metric(f'stage_seconds_count{{stage="{stage}"}}') > 0
    assert server.metric("feature_age_seconds") >= 0
    lines = [json.loads(line) for line in server.lines if line.startswith("{")]
    asked = next(line for line in lines if line["event"] == "request" and line.get("request_id") == "r-1")
    assert (asked["status"], asked["candidates"]) == (200, 31)
