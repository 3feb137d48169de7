"""What commands that serve HTTP share: the clients' token, and the address."""

import os
import signal
import socket
from pathlib import Path

__all__ = ["end_well", "listen", "token_of"]

_LEAST_TOKEN = 16
_BACKLOG = 1_024


def token_of(path: str | None, variable: str) -> str:
    """A secret from a file, or from a variable; never from the command line."""
    from understudy.errors import BadInput

    where = f"--token-file {path}" if path else variable
    try:
        token = (Path(path).read_text() if path else os.environ.get(variable, "")).strip()
    except OSError as error:
        raise BadInput(f"{where}: expected a file that can be read, found: {error.strerror}") from error
    if len(token) < _LEAST_TOKEN:
        raise BadInput(f"{where}: expected a token of {_LEAST_TOKEN} characters or more, found {len(token)}; make one")
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise BadInput(f"{where}: expected printable ASCII characters without spaces, found others; make another token")
    return token


def listen(host: str, port: int) -> socket.socket:
    """A bound, listening socket; port 0 takes any free one."""
    from understudy.errors import BadInput

    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        raise BadInput(f"--host {host} --port {port}: expected a free address, found: {error.strerror}") from error
    return listening


def end_well() -> None:
    """When asked to end, end with 0: uvicorn raises the signal again after its graceful shutdown."""
    signal.signal(signal.SIGTERM, lambda *_: None)
