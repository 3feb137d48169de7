"""What a rank server is asked, and what it answers; the Open Inference Protocol's tensors are in ``tensors``."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from understudy.http_guard import guarded

__all__ = [
    "MODEL",
    "MOST_CANDIDATES",
    "REQUEST_ID",
    "About",
    "Context",
    "Failure",
    "Guarded",
    "Live",
    "RankRequest",
    "Ranked",
    "Ready",
    "ReadyModel",
    "RequestId",
]

REQUEST_ID = "^[!-~]{1,200}$"  # it travels in headers
Id = Annotated[str, Meta(min_length=1, max_length=200)]
RequestId = Annotated[str, Meta(pattern=REQUEST_ID)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
MOST_CANDIDATES = 10_000
MODEL = "ranker"

Guarded = guarded(32 << 10, 10, idle_s=75, connections=1_000)  # uvicorn's worker processes find it by its name


class Context(Struct, forbid_unknown_fields=True):
    """Where the slate will be seen."""

    surface: Name | None = None


class RankRequest(Struct, forbid_unknown_fields=True):
    """Candidates to order for a user; the time is the server's."""

    user_id: Id
    candidates: Annotated[list[Id], Meta(min_length=1, max_length=MOST_CANDIDATES)]
    context: Context = msgspec.field(default_factory=Context)
    limit: Annotated[int, Meta(ge=1, le=MOST_CANDIDATES)] | None = None
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
