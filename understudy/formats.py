"""Formats of what is stored: what older versions wrote is read, what this version cannot know is refused in one line.

What is stored has the number of its format; where it has none, it is of format 1. Whoever reads it brings it forward in
memory, by one small function for each number that is still read. Its bytes stay as they were written.

A version reads what the two minor versions before it wrote. Who changes a format adds 1 to ``newest`` and a step from
the number before; a step leaves when no version within the promise has written its number.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import understudy
from understudy.errors import BadInput

__all__ = ["Format"]

T = TypeVar("T")
_KEY = "format"


@dataclass(frozen=True)
class Format(Generic[T]):
    """The formats of one kind of thing.

    Args:
        what: the thing is called in messages.
        newest: the number that this version writes.
        instead: what a person does with one that is too old, such as ``release again``.
        steps: number → brings what is of that number to the next one. The lowest number is the oldest that is read.
    """

    what: str
    newest: int
    instead: str
    steps: Mapping[int, Callable[[T], T]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert sorted(self.steps) == list(range(self.oldest, self.newest)), f"{self.what}: a step for each number"

    @property
    def oldest(self) -> int:
        return min((*self.steps, self.newest))

    def reads(self, found: object) -> bool:
        """Whether this version reads what is of a number."""
        return type(found) is int and self.oldest <= found <= self.newest

    def forward(self, value: T, found: Any, where: str, by: object = None) -> T:
        """Bring something to the newest format.

        Args:
            found: the number of its format.
            where: it lies, for the message.
            by: the version of the package that wrote it, where that is known.

        Raises:
            BadInput: this version does not read that number.
        """
        self.check(found, where, by)
        for number in range(found, self.newest):
            value = self.steps[number](value)
        return value

    def check(self, found: object, where: str, by: object = None) -> None:
        """Refuse what ``forward`` could not bring to the newest format; see there."""
        if not self.reads(found):
            numbers = str(self.newest) if self.oldest == self.newest else f"{self.oldest} to {self.newest}"
            raise BadInput(f"{where}: expected a {self.what} of format {numbers}, found {self._told(found, by)}")

    def mark(self) -> dict[str, Any]:
        """What a JSON object holds beside its content: its format and who wrote it. Format 1 has no mark."""
        return {} if self.newest == 1 else {_KEY: self.newest, "version": understudy.__version__}

    def unmarked(self, value: dict[str, Any], where: str) -> Any:
        """A JSON object brought forward, without the number of its format.

        Raises:
            BadInput: this version does not read that number.
        """
        content: Any = {name: one for name, one in value.items() if name != _KEY}
        return self.forward(content, value.get(_KEY, 1), where, value.get("version"))

    def _told(self, found: object, by: object) -> str:
        """What was found instead, and what to do."""
        if type(found) is not int:
            return f"{found!r}, which no version writes; restore it from a copy"
        if found > self.newest:
            writer = f"understudy {by}" if by else "a newer version"
            return f"{found}, which {writer} wrote; install the version that wrote it, or a newer one"
        writer = f"understudy {by}" if by else "an older version"
        return (
            f"{found}, which {writer} wrote and understudy {understudy.__version__} no longer reads; {self.instead}, "
            "or install a version that reads it"
        )
