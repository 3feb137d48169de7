"""The OpenAPI description, made from the types that requests and answers are decoded and encoded with."""

from typing import Any

import msgspec

from understudy import __version__
from understudy.experiments.header import BUCKET
from understudy.serving import protocol, tensors
from understudy.serving.config import Serving

__all__ = ["described"]

_TYPES = (
    protocol.RankRequest,
    protocol.Ranked,
    protocol.Failure,
    tensors.InferRequest,
    tensors.InferResponse,
    protocol.Live,
    protocol.Ready,
    protocol.ReadyModel,
    protocol.About,
    tensors.AboutModel,
)
_PLACE = "#/components/schemas/{name}"
_FAILURES = {
    "400": "The body is not as described; the text names the field.",
    "401": "No token, or another one.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is compressed.",
    "500": "A fault of the server.",
    "503": "Too busy, or ending; `Retry-After` says when to come again.",
}


def described(config: Serving) -> dict[str, Any]:
    """What this server takes and gives.

    Args:
        config: of the release on stage, whose limits are part of the description.
    """
    references, components = msgspec.json.schema_components(_TYPES, ref_template=_PLACE)
    schema = {kind: reference for kind, reference in zip(_TYPES, references, strict=True)}
    candidates = components["RankRequest"]["properties"]["candidates"]
    candidates |= {"maxItems": config.max_candidates, "uniqueItems": True}
    rank = _post("Order candidates for a user", schema[protocol.RankRequest], schema[protocol.Ranked])
    infer = _post("Score candidates, as tensors", schema[tensors.InferRequest], schema[tensors.InferResponse])
    _also_in_bytes(infer)
    about = _get("The model: release, inputs, outputs", schema[tensors.AboutModel])
    ready = _get("Whether the model is ready", schema[protocol.ReadyModel], "503")
    model, version = "/v2/models/ranker", "/v2/models/ranker/versions/{version}"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Understudy's rank server",
            "version": __version__,
            "description": "Its own API under /v1; the Open Inference Protocol v2 under /v2.",
        },
        "security": [{"token": []}],
        "paths": {
            "/v1/rank": {"post": rank},
            f"{model}/infer": {"post": infer},
            model: {"get": about},
            f"{model}/ready": {"get": ready},
            f"{version}/infer": {"post": _of_version(infer)},
            version: {"get": _of_version(about)},
            f"{version}/ready": {"get": _of_version(ready)},
            "/v2": {"get": _get("The server", schema[protocol.About])},
            "/v2/health/live": {"get": _get("Whether the process lives", schema[protocol.Live])},
            "/v2/health/ready": {"get": _get("Whether requests are answered", schema[protocol.Ready], "503")},
            "/metrics": {"get": _text("Prometheus' metrics", "text/plain")},
            "/openapi.json": {"get": _text("This description", "application/json")},
        },
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _post(summary: str, asked: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    failure = {"schema": {"$ref": _PLACE.format(name="Failure")}}
    failures = {
        status: {"description": text, "content": {"application/json": failure}} for status, text in _FAILURES.items()
    }
    return {
        "summary": summary,
        "parameters": [
            {
                "name": BUCKET,
                "in": "header",
                "description": "The user's bucket.",
                "schema": {"type": "integer", "minimum": 0, "maximum": 99},
            }
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": asked}}},
        "responses": {"200": _answer("Done", answer), **failures},
    }


def _of_version(route: dict[str, Any]) -> dict[str, Any]:
    """The same under the path that names the release on stage as the model's version."""
    version = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
    failure = {"application/json": {"schema": {"$ref": _PLACE.format(name="Failure")}}}
    missing = {"404": {"description": "Another release is on stage.", "content": failure}}
    return {
        **route,
        "parameters": [version, *route.get("parameters", [])],
        "responses": {**route["responses"], **missing},
    }


def _also_in_bytes(route: dict[str, Any]) -> None:
    """The protocol's extension ``binary_tensor_data``."""
    kind: dict[str, Any] = {"application/octet-stream": {"schema": {}}}
    length = {"schema": {"type": "integer", "minimum": 0}}
    text = "How many bytes of the body are JSON; tensors with `binary_data_size` follow them."
    route["parameters"].append({"name": tensors.JSON_BYTES, "in": "header", "description": text, **length})
    route["requestBody"]["content"] |= kind
    route["responses"]["200"]["content"] |= kind
    route["responses"]["200"]["headers"] = {tensors.JSON_BYTES: {"description": "The same.", **length}}


def _get(summary: str, answer: dict[str, Any], *not_yet: str) -> dict[str, Any]:
    responses = {"200": _answer("So it is", answer), **{status: _answer("Not now", answer) for status in not_yet}}
    return {"summary": summary, "security": [], "responses": responses}


def _text(summary: str, kind: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "security": [],
        "responses": {"200": {"description": "So it is", "content": {kind: {"schema": {}}}}},
    }


def _answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
