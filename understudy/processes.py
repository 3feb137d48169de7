"""How a process has ended, in words."""

import signal
import sys

from understudy.errors import UnderstudyError
from understudy.redaction import last_lines

__all__ = ["died", "how_it_ended"]

_MEANING = {
    signal.SIGKILL: ", as it is where memory runs out",
    signal.SIGSEGV: ", a fault of native code",
    signal.SIGBUS: ", as it is where /dev/shm or a disk is full",
    signal.SIGILL: ", as it is on a CPU that is too old for a package",
}
_SHELL = 128  # a shell, and a container, tell a signal as 128 and its number


def how_it_ended(code: int) -> str:
    """Such as ``ended with exit code 1`` or ``was killed by SIGKILL (exit code 137), as it is where memory runs out``.

    Args:
        code: of a child (a signal is a negative number), of a shell or of a container (a signal is above 128).
    """
    number = -code if code < 0 else code - _SHELL
    try:
        name = signal.Signals(number)
    except ValueError:
        return f"ended with exit code {code}"
    return f"was killed by {name.name} (exit code {_SHELL + number}){_MEANING.get(name, '')}"


def died(who: str, expected: str, code: int, wrote: str) -> UnderstudyError:
    """The error of a child that did not do its work; the last lines that it wrote go to stderr."""
    lines = last_lines(wrote)
    print("\n".join([f"{who}: last lines of its process:", *lines]), file=sys.stderr, flush=True)
    last = f"its last line: {lines[-1]}" if lines else "it wrote nothing"
    return UnderstudyError(f"{who}: expected {expected}, found that its process {how_it_ended(code)}; {last}")
