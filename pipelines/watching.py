"""How a step's process has ended, and the last lines that it wrote: of both, kfp keeps only whether it ended well."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TextIO

from understudy.processes import how_it_ended
from understudy.redaction import last_lines

__all__ = ["End", "watched"]

_KEPT = 16_000  # characters of a process's last words, before they are cut to what is shown
_STEP = "--function_to_execute"


class End(NamedTuple):
    """A process that has not ended well.

    Args:
        code: None: its container vanished before it was asked.
        lines: that it wrote last, fit to be shown.
    """

    step: str
    code: int | None
    lines: list[str]

    def said(self) -> str:
        """What was expected and what was found, with the last line."""
        how = "vanished, with its exit code" if self.code is None else how_it_ended(self.code)
        last = f"its last line: {self.lines[-1]}" if self.lines else "it wrote nothing"
        return f"expected its process to commit the step, found that it {how}; {last}"


@contextlib.contextmanager
def watched(module: Any, name: str, run: Callable[..., int | None], told: Callable[[End], None]) -> Iterator[None]:
    """While inside, kfp runs a step's process by ``run``.

    Args:
        module: of kfp, whose function ``name`` runs one.
        run: takes what that function takes, prints what the process writes, and returns its exit code.
        told: hears of each that has not ended well, before the next step begins.
    """

    def watching(*given: Any, **named: Any) -> int:
        command = named.get("full_command") or named["command"]
        tail = _Tail(sys.stdout)
        with contextlib.redirect_stdout(tail):
            code = run(*given, **named)
        if code != 0:
            told(End(command[command.index(_STEP) + 1], code, last_lines(tail.kept)))
        return 1 if code is None else code

    before = getattr(module, name)
    setattr(module, name, watching)
    try:
        yield
    finally:
        setattr(module, name, before)


class _Tail(io.TextIOBase):
    """Passes on what is written, and keeps the end of it."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.kept = ""

    def write(self, text: str) -> int:
        self.kept = (self.kept + text)[-_KEPT:]
        return self.out.write(text)

    def flush(self) -> None:
        self.out.flush()
