"""The ways in which a command ends other than done, each with its exit code."""

__all__ = ["BadInput", "GateFailed", "Later", "UnderstudyError", "first_line"]


class UnderstudyError(Exception):
    """A failure whose message is written for the person who ran the command."""

    exit_code = 1


class BadInput(UnderstudyError):
    """Input that cannot be used: says what was expected, what was found, where, what to do."""

    exit_code = 2


class Later(UnderstudyError):
    """Something that is needed gave no answer; the same may succeed later."""


class GateFailed(UnderstudyError):
    """A gate said no: names the figure and the bound."""

    exit_code = 3


def first_line(error: BaseException) -> str:
    """One line that names the error, for people and for the run record."""
    text = " ".join(str(error).split())
    if isinstance(error, UnderstudyError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
