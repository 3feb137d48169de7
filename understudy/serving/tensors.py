"""The Open Inference Protocol v2: a request and its answer as tensors, in JSON or as bytes behind it.

https://github.com/open-inference/open-inference-protocol. Of its extension ``binary_tensor_data`` both directions are
spoken: KServe's and Triton's clients use it wherever they are given arrays.
"""

import struct
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from understudy.serving.protocol import MODEL, MOST_CANDIDATES, Context, RankRequest, RequestId

__all__ = [
    "JSON_BYTES",
    "AboutModel",
    "InferRequest",
    "InferResponse",
    "Invalid",
    "described",
    "infer_answer",
    "of_tensors",
    "parted",
]

JSON_BYTES = "Inference-Header-Content-Length"  # how much of a body is JSON; what follows are tensors

_LONGEST = {"user_id": 200, "item_id": 200, "surface": 64}  # characters
_LENGTH = struct.Struct("<I")  # before each text
_OUTPUTS = ("probability", "utility")

Floats = npt.NDArray[np.float32]


class Invalid(Exception):
    """The request can't be answered; the text names the field, what was expected and what was found."""


class TensorKind(Struct):
    """A tensor's name, type and shape; −1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class AboutModel(Struct):
    """The release on stage; ``heads`` are the columns of ``probability``."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorKind]
    outputs: list[TensorKind]
    heads: list[str]


class Tensor(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A tensor in row-major order: in ``data``, or ``binary_data_size`` bytes (a parameter) behind the JSON."""

    name: Annotated[str, Meta(max_length=64)]
    shape: Annotated[list[Annotated[int, Meta(ge=0, le=10_000_000)]], Meta(min_length=1, max_length=4)]
    datatype: Annotated[str, Meta(max_length=16)]
    data: Annotated[list[Any], Meta(max_length=1_000_000)] | None = None
    parameters: dict[str, Any] = {}


class Wanted(Struct, forbid_unknown_fields=True):
    """An output that is asked for; with the parameter ``binary_data`` as bytes."""

    name: Annotated[str, Meta(max_length=64)]
    parameters: dict[str, Any] = {}


class InferRequest(Struct, forbid_unknown_fields=True):
    """``user_id`` [1], ``item_id`` [M] and optionally ``surface`` [1], each ``BYTES``.

    The path says which model is meant; KServe's client says it again in ``model_name``.
    """

    inputs: Annotated[list[Tensor], Meta(min_length=2, max_length=3)]
    id: RequestId | None = None
    outputs: Annotated[list[Wanted], Meta(max_length=8)] = []
    parameters: dict[str, Any] = {}
    model_name: Annotated[str, Meta(max_length=64)] | None = None
    model_version: Annotated[str, Meta(max_length=64)] | None = None


class InferResponse(Struct):
    """``probability`` [M, H] and ``utility`` [M], in the order of the candidates."""

    model_name: str
    model_version: str
    id: str
    outputs: list[Tensor]


def parted(body: bytes, json_bytes: str | None) -> tuple[bytes, bytes]:
    """A body's JSON, and the bytes behind it.

    Args:
        json_bytes: the header of that name; None: all is JSON.

    Raises:
        Invalid: the header is no length within the body.
    """
    if json_bytes is None:
        return body, b""
    if not (json_bytes.isascii() and json_bytes.isdecimal() and len(json_bytes) < 12 and int(json_bytes) <= len(body)):
        raise Invalid(f"{JSON_BYTES}: expected at most the body's {len(body)} bytes, found {json_bytes[:20]!r}")
    return body[: int(json_bytes)], body[int(json_bytes) :]


def of_tensors(asked: InferRequest, behind: bytes) -> RankRequest:
    """The same request in our own terms.

    Args:
        behind: what came behind the JSON.

    Raises:
        Invalid: a tensor is missing, unknown or of another type or shape.
    """
    texts: dict[str, list[str]] = {}
    for place, tensor in enumerate(asked.inputs):
        at = f"inputs[{place}]"
        if tensor.name not in _LONGEST or tensor.name in texts:
            raise Invalid(f"{at}.name: expected user_id, item_id and surface, each once, found {tensor.name!r}")
        if tensor.datatype != "BYTES":
            raise Invalid(f"{at}.datatype: expected BYTES, found {tensor.datatype!r}")
        data, behind = _data(tensor, behind, at)
        most = MOST_CANDIDATES if tensor.name == "item_id" else 1
        if tensor.shape != [len(data)] or not 1 <= len(data) <= most:
            raise Invalid(
                f"{at}.shape: expected [1{'' if most == 1 else f' to {most}'}] and as many texts in data, "
                f"found {tensor.shape} and {len(data)}"
            )
        longest = _LONGEST[tensor.name]
        if not all(isinstance(text, str) and 1 <= len(text) <= longest for text in data):
            raise Invalid(f"{at}.data: expected texts of 1 to {longest} characters, found something else")
        texts[tensor.name] = data
    if behind:
        raise Invalid(f"body: expected no more bytes than the inputs' binary_data_size, found {len(behind)} more")
    for name in ("user_id", "item_id"):
        if name not in texts:
            raise Invalid(f"inputs: expected a tensor named {name}, found {', '.join(sorted(texts))}")
    for place, wanted in enumerate(asked.outputs):
        if wanted.name not in _OUTPUTS:
            raise Invalid(f"outputs[{place}].name: expected probability or utility, found {wanted.name!r}")
    surface = texts.get("surface", [None])[0]
    return RankRequest(texts["user_id"][0], texts["item_id"], Context(surface), request_id=asked.id)


def _data(tensor: Tensor, behind: bytes, at: str) -> tuple[list[Any], bytes]:
    """A tensor's texts, and what is behind them."""
    if "binary_data_size" not in tensor.parameters:
        if tensor.data is None:
            raise Invalid(f"{at}: expected data or the parameter binary_data_size, found neither")
        return tensor.data, behind
    size = tensor.parameters["binary_data_size"]
    if tensor.data is not None or type(size) is not int or not 0 <= size <= len(behind):
        raise Invalid(
            f"{at}.parameters.binary_data_size: expected a tensor without data and at most the {len(behind)} bytes "
            f"that are left behind the JSON (see the header {JSON_BYTES}), found {str(size)[:20]}"
        )
    return _texts(behind[:size], at), behind[size:]


def _texts(data: bytes, at: str) -> list[str]:
    """Each text behind its length in bytes, 4 bytes of little endian."""
    found, start = [], 0
    try:
        while start < len(data):
            (length,) = _LENGTH.unpack_from(data, start)
            start += _LENGTH.size + length
            found.append(data[start - length : start].decode())
    except (struct.error, UnicodeDecodeError) as error:
        raise Invalid(f"{at}: expected UTF-8 texts, each behind its length in 4 bytes, found other bytes") from error
    if start != len(data):
        raise Invalid(f"{at}: expected texts of {len(data)} bytes with their lengths, found {start}")
    return found


def described(release: str, heads: tuple[str, ...]) -> AboutModel:
    """The model's metadata."""
    inputs = [TensorKind(name, "BYTES", [-1 if name == "item_id" else 1]) for name in _LONGEST]
    outputs = [TensorKind("probability", "FP32", [-1, len(heads)]), TensorKind("utility", "FP32", [-1])]
    return AboutModel(MODEL, [release], "understudy", inputs, outputs, list(heads))


def infer_answer(
    asked: InferRequest, request_id: str, release: str, probability: Floats, utility: Floats
) -> tuple[bytes, int | None]:
    """The body that answers with scores of candidates (M, H) and (M,), in their own order.

    Returns:
        the body, and how much of it is JSON; None: all.
    """
    as_bytes = asked.parameters.get("binary_data_output") is True
    wanted = {one.name: one.parameters.get("binary_data", as_bytes) is True for one in asked.outputs}
    wanted = wanted or dict.fromkeys(_OUTPUTS, as_bytes)
    outputs, behind = [], []
    for name, values in zip(_OUTPUTS, (probability, utility), strict=True):
        if name not in wanted:
            continue
        tensor = Tensor(name, list(values.shape), "FP32")
        if wanted[name]:
            behind.append(values.astype("<f4").tobytes())
            tensor.parameters = {"binary_data_size": len(behind[-1])}
        else:
            tensor.data = values.ravel().tolist()
        outputs.append(tensor)
    head = msgspec.json.encode(InferResponse(MODEL, release, request_id, outputs))
    return b"".join([head, *behind]), len(head) if behind else None
