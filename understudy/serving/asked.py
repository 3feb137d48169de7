"""What comes in over HTTP, and its refusal: the token, the body and its limit, the text that names the field."""

import asyncio
import hmac
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from understudy.serving.protocol import Failure

__all__ = ["Refusal", "as_json", "body_of", "check_token", "decoded", "not_here", "refused"]

_BODY_S = 5.0
_JSON = "application/json"


class Refusal(Exception):
    """Why a request is not answered."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.headers = status, headers


def check_token(request: Request, expected: bytes) -> None:
    """Compared in constant time."""
    given = request.headers.get("authorization", "").encode("latin-1")
    if not hmac.compare_digest(given, expected):
        reason = "expected the header Authorization: Bearer <token>, found another token or none"
        raise Refusal(401, reason, {"WWW-Authenticate": "Bearer"})


async def body_of(request: Request, most: int) -> bytes:
    """The body, of ``most`` bytes or fewer."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise _too_large(most)
    parts, size = [], 0
    try:
        async with asyncio.timeout(_BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise _too_large(most)
                parts.append(part)
    except (TimeoutError, ClientDisconnect) as error:
        reason = f"expected the whole body within {_BODY_S:g} s, found a part; send it again"
        raise Refusal(408, reason, {"Connection": "close"}) from error
    return b"".join(parts)


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"body: expected at most {most} bytes; send fewer candidates", {"Connection": "close"})


def decoded(decoder: "msgspec.json.Decoder[Any]", body: bytes) -> Any:
    """The body as its type; what is wrong is named by its place, such as ``$.candidates[3]``."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"expected another request: {str(error)[:300]}; see /openapi.json") from error


def refused(error: Refusal) -> Response:
    """The answer to a request that is not answered."""
    return as_json(Failure(str(error)), error.status, error.headers)


async def not_here(request: Request, error: Exception) -> Response:
    """Another path, or another method than it has."""
    assert isinstance(error, HTTPException)
    reason = f"{request.method} {request.url.path}: expected a path and method of /openapi.json"
    return refused(Refusal(error.status_code, reason, dict(error.headers or {})))


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value, or what was encoded already, as an answer."""
    return Response(value if isinstance(value, bytes) else msgspec.json.encode(value), status, headers, _JSON)
