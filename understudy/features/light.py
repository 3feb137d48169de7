"""Feast's start without what these steps never use, which takes longer than what they do."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TypeVar

__all__ = ["light_imports"]

T = TypeVar("T")


@contextlib.contextmanager
def light_imports() -> Iterator[None]:
    """Import Feast without PyTorch, which it loads where it finds it, and without checks of its own types.

    Feast compiles the run-time type checks of its classes (typeguard) anew in every process.
    """
    import typeguard

    checked = typeguard.typechecked
    typeguard.typechecked = _as_it_is  # type: ignore[assignment]  # one of its overloads
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]  # Python's way to say: not there
    try:
        yield
    finally:
        typeguard.typechecked = checked
        if hide:
            del sys.modules["torch"]


def _as_it_is(target: T) -> T:
    return target
