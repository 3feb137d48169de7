"""What a rank server is asked, and what it answers: its own API, and the Open Inference Protocol v2 beside it.

https://github.com/open-inference/open-inference-protocol, of which the ranker takes tensors of text (``BYTES``).
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from understudy.http_guard import guarded

__all__ = [
    "MODEL",
    "REQUEST_ID",
    "About",
    "AboutModel",
    "Context",
    "Failure",
    "Guarded",
    "InferRequest",
    "InferResponse",
    "Invalid",
    "Live",
    "RankRequest",
    "Ranked",
    "Ready",
    "ReadyModel",
    "Tensor",
    "TensorKind",
    "described",
    "infer_answer",
    "of_tensors",
]

REQUEST_ID = "^[!-~]{1,200}$"  # it travels in headers
Id = Annotated[str, Meta(min_length=1, max_length=200)]
RequestId = Annotated[str, Meta(pattern=REQUEST_ID)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
_ANSWER_LIMIT = 10_000
MODEL = "ranker"

Guarded = guarded(32 << 10, 10, idle_s=75, connections=1_000)  # uvicorn's worker processes find it by its name


class Invalid(Exception):
    """The request can't be answered; the text names the field, what was expected and what was found."""


class Context(Struct, forbid_unknown_fields=True):
    """Where the slate will be seen."""

    surface: Name | None = None


class RankRequest(Struct, forbid_unknown_fields=True):
    """Candidates to order for a user; the time is the server's."""

    user_id: Id
    candidates: Annotated[list[Id], Meta(min_length=1, max_length=_ANSWER_LIMIT)]
    context: Context = msgspec.field(default_factory=Context)
    limit: Annotated[int, Meta(ge=1, le=_ANSWER_LIMIT)] | None = None
    request_id: RequestId | None = None


class Ranked(Struct):
    """The slate, best first: parallel lists.

    ``slice`` is ``random`` where the request belongs to the random slice, whose order is random. ``user`` says whether
    the user's features were found: ``known``, ``unknown``, or ``unavailable`` where the online store did not answer.
    """

    request_id: str
    release: str
    slice: str
    items: list[str]
    utility: list[float]
    probabilities: dict[str, list[float]]
    user: str
    unknown_items: int


class Failure(Struct):
    """Why a request was refused."""

    error: str


class Live(Struct):
    """The process lives."""

    live: bool


class Ready(Struct):
    """Requests are answered."""

    ready: bool


class ReadyModel(Struct):
    """The model answers."""

    name: str
    ready: bool


class About(Struct):
    """The server."""

    name: str
    version: str
    extensions: list[str]


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
    """A tensor of the Open Inference Protocol, its data in row-major order."""

    name: Annotated[str, Meta(max_length=64)]
    shape: Annotated[list[Annotated[int, Meta(ge=0, le=10_000_000)]], Meta(min_length=1, max_length=4)]
    datatype: Annotated[str, Meta(max_length=16)]
    data: Annotated[list[Any], Meta(max_length=1_000_000)]
    parameters: dict[str, Any] = {}


class Wanted(Struct, forbid_unknown_fields=True):
    """An output that is asked for."""

    name: Annotated[str, Meta(max_length=64)]
    parameters: dict[str, Any] = {}


class InferRequest(Struct, forbid_unknown_fields=True):
    """``user_id`` [1], ``item_id`` [M] and optionally ``surface`` [1], each ``BYTES``."""

    inputs: Annotated[list[Tensor], Meta(min_length=2, max_length=3)]
    id: RequestId | None = None
    outputs: Annotated[list[Wanted], Meta(max_length=8)] = []
    parameters: dict[str, Any] = {}


class InferResponse(Struct):
    """``probability`` [M, H] and ``utility`` [M], in the order of the candidates."""

    model_name: str
    model_version: str
    id: str
    outputs: list[Tensor]


def of_tensors(asked: InferRequest) -> RankRequest:
    """The same request in our own terms.

    Raises:
        Invalid: a tensor is missing, unknown or of another type or shape.
    """
    texts: dict[str, list[str]] = {}
    for place, tensor in enumerate(asked.inputs):
        at = f"inputs[{place}]"
        if tensor.name not in ("user_id", "item_id", "surface") or tensor.name in texts:
            raise Invalid(f"{at}.name: expected user_id, item_id and surface, each once, found {tensor.name!r}")
        if tensor.datatype != "BYTES":
            raise Invalid(f"{at}.datatype: expected BYTES, found {tensor.datatype!r}")
        most = _ANSWER_LIMIT if tensor.name == "item_id" else 1
        if tensor.shape != [len(tensor.data)] or not 1 <= len(tensor.data) <= most:
            raise Invalid(
                f"{at}.shape: expected [1{'' if most == 1 else f' to {most}'}] and as many texts in data, "
                f"found {tensor.shape} and {len(tensor.data)}"
            )
        if not all(
            isinstance(text, str) and 1 <= len(text) <= (64 if tensor.name == "surface" else 200)
            for text in tensor.data
        ):
            raise Invalid(f"{at}.data: expected texts of 1 to 200 characters (surface: 64), found something else")
        texts[tensor.name] = tensor.data
    for name in ("user_id", "item_id"):
        if name not in texts:
            raise Invalid(f"inputs: expected a tensor named {name}, found {', '.join(sorted(texts))}")
    for place, wanted in enumerate(asked.outputs):
        if wanted.name not in ("probability", "utility"):
            raise Invalid(f"outputs[{place}].name: expected probability or utility, found {wanted.name!r}")
    surface = texts.get("surface", [None])[0]
    return RankRequest(texts["user_id"][0], texts["item_id"], Context(surface), request_id=asked.id)


def described(release: str, heads: tuple[str, ...]) -> AboutModel:
    """The model's metadata."""
    inputs = [TensorKind(name, "BYTES", [-1 if name == "item_id" else 1]) for name in ("user_id", "item_id", "surface")]
    outputs = [TensorKind("probability", "FP32", [-1, len(heads)]), TensorKind("utility", "FP32", [-1])]
    return AboutModel(MODEL, [release], "understudy", inputs, outputs, list(heads))


def infer_answer(
    asked: InferRequest, request_id: str, release: str, probability: list[list[float]], utility: list[float]
) -> InferResponse:
    """Scores of candidates (M, H) and (M,), in their own order."""
    heads = len(probability[0])
    outputs = [
        Tensor("probability", [len(utility), heads], "FP32", [p for row in probability for p in row]),
        Tensor("utility", [len(utility)], "FP32", utility),
    ]
    wanted = {one.name for one in asked.outputs} or {"probability", "utility"}
    return InferResponse(MODEL, release, request_id, [one for one in outputs if one.name in wanted])
