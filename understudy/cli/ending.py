"""How a command ends when it is asked to: by SIGTERM, as Kubernetes, docker and systemd ask, or by Ctrl-C.

Process 1 of a container never receives a SIGTERM for which it has no handler: it would stay until it is killed, with
its grace period lost. Every command therefore has one.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["ASKED", "end_at_once", "stopped_by_sigterm"]

ASKED = 128 + signal.SIGTERM  # the exit code of a command that was stopped before its end, as shells have it
_STDERR = 2  # its buffer may be in another thread's hands


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[list[int]]:
    """SIGTERM stops what runs inside as Ctrl-C does, so that what was begun is closed.

    Yields:
        the signals that have come. A second one disturbs nothing that is being closed.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # of a program that has signals of its own
        yield came
        return

    def stop(number: int, _: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def end_at_once(what: str) -> None:
    """From now on SIGTERM and SIGINT end this process at once, with 0, whatever it is in the middle of.

    It is for a process that may be cut at any call. A handler in Python waits until the main thread's call into C
    returns, such as a look-up of a name that nobody answers; a thread that reads the signal does not wait.

    The code is 0, as of `serve` and `collect`: the process did what it was asked to, and left nothing undone. With 143
    Kubernetes would report each update of the Deployment as an error.

    Args:
        what: the process, for the line that says so.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signals = (signal.SIGTERM, signal.SIGINT)

    def wait() -> None:
        while (number := os.read(reading, 1)[0]) not in signals:
            pass
        with contextlib.suppress(OSError):  # nobody reads it any more
            os.write(_STDERR, f"{what}: asked to end by {signal.Signals(number).name}\n".encode())
        os._exit(0)

    threading.Thread(target=wait, name="asked to end", daemon=True).start()
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for one in signals:
        signal.signal(one, lambda *_: None)  # Python writes a signal's number to the pipe where it has a handler
