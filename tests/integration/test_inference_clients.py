"""The Open Inference Protocol as others speak it: KServe's own client against a real rank server."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from kserve import InferenceRESTClient, InferInput, InferRequest, InferResponse, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from ranking import HEADERS, PATIENT, RankServer, another_release, items_of, users_of

MODEL = "ranker"


@pytest.fixture(scope="module")
def lake(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clients") / "lake"
    shutil.copytree(released, folder)
    return folder


@pytest.fixture(scope="module")
def server(lake: Path) -> Iterator[RankServer]:
    one = RankServer(lake, "--release", another_release(lake, serving={**PATIENT, "online_timeout_ms": 10_000.0}))
    yield one
    assert one.stop() == 0


def request(texts: dict[str, list[str]], as_bytes: bool, *outputs: str) -> InferRequest:
    inputs = []
    for name, values in texts.items():
        one = InferInput(name, [len(values)], "BYTES", None if as_bytes else values)
        if as_bytes:
            one.set_data_from_numpy(np.array(values, dtype=np.object_))
        inputs.append(one)
    wanted = [RequestedOutput(name, {"binary_data": as_bytes}) for name in outputs]
    return InferRequest(MODEL, inputs, request_id="q", request_outputs=wanted or None)


def asked(server: RankServer, data: Any) -> InferResponse:
    async def ask() -> InferResponse:
        async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
            assert await client.is_server_live(server.url)
            assert await client.is_server_ready(server.url)
            assert await client.is_model_ready(server.url, MODEL)
            return await client.infer(server.url, data, model_name=MODEL, headers=dict(HEADERS))

    return asyncio.run(ask())


@pytest.mark.parametrize("as_bytes", [False, True], ids=["lists", "arrays"])
def test_kserve_s_client_gets_the_scores_of_our_own_api(lake: Path, server: RankServer, as_bytes: bool) -> None:
    user, items = users_of(lake)[0], [*items_of(lake)[:7], "nie gesehen: ä"]
    ranked = server.rank(user, items, context={"surface": "1"}).json()
    own = dict(zip(ranked["items"], ranked["utility"], strict=True))
    texts = {"user_id": [user], "item_id": items, "surface": ["1"]}
    answer = asked(server, request(texts, as_bytes, "utility", "probability"))
    found = {output.name: output.as_numpy() for output in answer.outputs}
    assert answer.id == "q"
    assert found["probability"].shape == (8, len(ranked["probabilities"]))
    np.testing.assert_allclose(found["utility"], [own[item] for item in items], atol=1e-6)


def test_kserve_s_client_is_told_what_is_wrong(server: RankServer) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="inputs: expected a tensor named user_id, found item_id, surface"):
        asked(server, request({"item_id": ["i"], "surface": ["1"]}, True))


def test_outputs_come_as_bytes_where_they_are_asked_for(server: RankServer) -> None:
    inputs = [
        {"name": "user_id", "datatype": "BYTES", "shape": [1], "data": ["u"]},
        {"name": "item_id", "datatype": "BYTES", "shape": [2], "data": ["i", "j"]},
    ]
    plain = ask_raw(server, {"inputs": inputs}).json()
    mixed = [{"name": "utility", "parameters": {"binary_data": False}}, {"name": "probability"}]
    for more in ({}, {"outputs": mixed}):
        answer = ask_raw(server, {"inputs": inputs, "parameters": {"binary_data_output": True}, **more})
        assert answer.headers["content-type"] == "application/octet-stream"
        json_bytes = int(answer.headers["inference-header-content-length"])
        assert len(answer.content) > json_bytes
        response = InferResponse.from_bytes(answer.content, json_bytes)
        for output, expected in zip(response.outputs, plain["outputs"], strict=True):
            assert (output.name, output.shape) == (expected["name"], expected["shape"])
            np.testing.assert_allclose(output.as_numpy().ravel(), expected["data"], atol=1e-6)


def ask_raw(server: RankServer, body: Any, behind: bytes = b"", **headers: str) -> httpx.Response:
    content = httpx.Request("POST", server.url, json=body).content
    return server.client.post(f"/v2/models/{MODEL}/infer", content=content + behind, headers=headers)


def binary(size: Any, **more: Any) -> dict[str, Any]:
    return {"name": "item_id", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}, **more}


TWO = b"\x01\x00\x00\x00i\x01\x00\x00\x00j"
BAD: list[tuple[str, dict[str, Any], bytes, str | None, str]] = [
    ("nothing behind", binary(5), b"", None, "inputs[1].parameters.binary_data_size: expected"),
    ("fewer bytes than said", binary(50), TWO[:5], "", "at most the 5 bytes"),
    ("more bytes than said", binary(5), TWO, "", "found 5 more"),
    ("a size below none", binary(-1), TWO, "", "binary_data_size"),
    ("a size that is a truth", binary(True), TWO[:1], "", "binary_data_size"),
    ("both kinds of data", binary(5, data=["i"]), TWO[:5], "", "a tensor without data"),
    ("neither kind of data", {**binary(5), "parameters": {}}, b"", None, "inputs[1]: expected data or"),
    ("a text cut off", binary(4), TWO[:4], "", "found 5"),
    ("a length cut off", binary(2), TWO[:2], "", "inputs[1]: expected UTF-8 texts"),
    ("no UTF-8", binary(5), b"\x01\x00\x00\x00\xff", "", "inputs[1]: expected UTF-8 texts"),
    ("two texts for a shape of one", binary(10), TWO, "", "inputs[1].shape"),
    ("a longer head than the body", binary(5), TWO[:5], "100000", "Inference-Header-Content-Length: expected at most"),
    ("a head that is no number", binary(5), TWO[:5], "-1", "Inference-Header-Content-Length: expected at most"),
]


@pytest.mark.parametrize(("name", "tensor", "behind", "length", "said"), BAD, ids=[name for name, *_ in BAD])
def test_wrong_bytes_are_refused_and_named(
    server: RankServer, name: str, tensor: dict[str, Any], behind: bytes, length: str | None, said: str
) -> None:
    body = {"inputs": [{"name": "user_id", "datatype": "BYTES", "shape": [1], "data": ["u"]}, tensor]}
    own = str(len(httpx.Request("POST", server.url, json=body).content))
    headers = {} if length is None else {"Inference-Header-Content-Length": length or own}
    answer = ask_raw(server, body, behind, **headers)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]
