"""What goes out over HTTP, with the standard library: no redirect is followed, time and answer are bounded.

A URL or a header may be a secret, so a failure is told in words of its own: nothing of the request, nothing of the
answer's text.
"""

import http.client
import ipaddress
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

__all__ = ["Unanswered", "call", "stays_inside"]

_CHUNK = 64 << 10
_IN_CLUSTER = re.compile(r"localhost|[a-z0-9-]+|[a-z0-9.-]+\.svc(\.cluster\.local)?")


class Unanswered(Exception):
    """Why there is no answer."""


class _Here(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """An answer that sends elsewhere is an answer like any other that is not 2xx."""


def call(
    url: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None, limit_s: float, most_bytes: int
) -> bytes:
    """The answer's body.

    Args:
        url: of http or https. body: makes it a POST.
        limit_s: until the answer is whole.
        most_bytes: of the answer.

    Raises:
        Unanswered: another status than 2xx, too late, too large, or nobody there.
    """
    end = time.monotonic() + limit_s
    try:
        if not url.startswith(("http://", "https://")):
            raise ValueError
        request = urllib.request.Request(url, body, dict(headers or {}))
        with urllib.request.build_opener(_Here).open(request, timeout=limit_s) as answer:
            return _read(answer, end, most_bytes)
    except Unanswered:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        raise Unanswered(f"status {error.code}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unanswered(_why(error)) from None


def _read(answer: http.client.HTTPResponse, end: float, most_bytes: int) -> bytes:
    parts, size = [], 0
    while part := answer.read1(_CHUNK):
        size += len(part)
        if size > most_bytes:
            raise Unanswered(f"an answer of more than {most_bytes} bytes")
        if time.monotonic() > end:
            raise TimeoutError
        parts.append(part)
    if answer.length:
        raise Unanswered("a part of an answer")
    return b"".join(parts)


def _why(error: Exception) -> str:
    """In words that hold no address, as the error's own may."""
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    if isinstance(inner, socket.gaierror):
        return "no such host"
    if isinstance(inner, ssl.SSLError):
        return "no trusted TLS connection"
    if isinstance(inner, OSError):
        return "no connection"
    if isinstance(inner, http.client.HTTPException):
        return "no HTTP answer"
    return "no URL or header that can be sent"


def stays_inside(url: str) -> bool:
    """Whether nobody outside can read along: https, or http to loopback, a Service or a private address."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme != "http":
        return parts.scheme == "https" and bool(host)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _IN_CLUSTER.fullmatch(host) is not None
    return address.is_loopback or address.is_private
