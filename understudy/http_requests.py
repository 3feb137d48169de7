"""What comes in over HTTP, and its refusal: the clients' token, a bounded body, one line that says what is wrong."""

import asyncio
import hmac
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

__all__ = ["Refusal", "as_json", "body_of", "check_token", "refused", "size_of"]


class Refusal(Exception):
    """Why a request is not answered."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.headers = status, headers


def check_token(request: Request, token: str) -> None:
    """Compared in constant time.

    Raises:
        Refusal: no token, or another one.
    """
    given = request.headers.get("authorization", "").encode("latin-1")
    if not hmac.compare_digest(given, f"Bearer {token}".encode()):
        reason = "expected the header Authorization: Bearer <token>, found another token or none"
        raise Refusal(401, reason, {"WWW-Authenticate": "Bearer"})


def size_of(request: Request, most: int, remedy: str) -> int:
    """Bytes of the body as far as its head says them; ``most`` where it does not.

    Args:
        remedy: what a client with a larger one does.

    Raises:
        Refusal: it is larger.
    """
    length = request.headers.get("content-length", "")
    size = int(length) if length.isdecimal() else most
    if size > most:
        raise _too_large(most, remedy)
    return size


async def body_of(request: Request, most: int, seconds: float, remedy: str) -> bytes:
    """The body.

    Raises:
        Refusal: it is larger than ``most`` bytes, has not come in ``seconds``, or is compressed.
    """
    if (coding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise Refusal(415, f"Content-Encoding: expected identity, found {coding[:40]!r}; send it uncompressed")
    size_of(request, most, remedy)
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise _too_large(most, remedy)
                parts.append(part)
    except (TimeoutError, ClientDisconnect) as error:
        reason = f"expected the whole body within {seconds:g} s, found a part; send it again"
        raise Refusal(408, reason, {"Connection": "close"}) from error
    return b"".join(parts)


def _too_large(most: int, remedy: str) -> Refusal:
    return Refusal(413, f"body: expected at most {most} bytes; {remedy}", {"Connection": "close"})


def refused(error: Refusal) -> Response:
    """The answer to a request that is not answered."""
    return as_json({"error": str(error)}, error.status, error.headers)


def as_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value, or what was encoded already, as an answer."""
    body = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return Response(body, status, headers, "application/json")
