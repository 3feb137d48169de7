"""Waiting for something that happens elsewhere, as short as it takes."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

__all__ = ["eventually"]


def eventually(
    holds: Callable[[], Any],
    limit_s: float = 60,
    process: "subprocess.Popen[Any] | None" = None,
    told: Callable[[], str] = str,
) -> None:
    """Return once it holds; fail when the limit has passed, or the process that should bring it about has ended.

    Args:
        holds: asked every few hundredths of a second.
        limit_s: for a machine that is busy with other things.
        told: what the failure says.
    """
    end = time.monotonic() + limit_s
    while not holds():
        assert process is None or process.poll() is None, f"{process.args} ended: {told()}"
        assert time.monotonic() < end, f"it did not happen within {limit_s:g} s: {told()}"
        time.sleep(0.03)
