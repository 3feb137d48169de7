"""A rollout as the lake records it: ``rollouts/<id>/``, numbered entries that are created once.

An entry holds the whole state, what was said, and when. To take a step is to create the next number, which succeeds
only once: two drivers do no harm, and one that was killed goes on from the newest entry.
"""

import datetime
import json
from dataclasses import dataclass, replace
from typing import Any, Protocol

from understudy import __version__
from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.renames import is_newer
from understudy.rollout.state import Decision, State

__all__ = ["Moved", "Record", "Rollouts", "entry_of", "is_news", "mend", "refuse_if_on"]

_FOLDER = "rollouts"
_SEEN = ".seen.json"  # hidden: no entry
_HOUR_S = 3600


class Moved(Exception):
    """Another driver, or a person, was first; read the rollout again."""


class Record(Protocol):
    """Where rollouts are recorded: a lake, or an object in a cluster."""

    def last(self) -> State | None:
        """The newest rollout's."""

    def begin(self, state: State, text: str, asked: str = "") -> None:
        """Record a rollout's first entry.

        Args:
            asked: the wish of a person that it answers.

        Raises:
            BadInput: another one has not ended.
        """

    def load(self, rollout_id: str) -> tuple[int, State]:
        """The newest entry's number, and the state.

        Raises:
            BadInput: no such rollout.
        """

    def advance(self, number: int, before: State, decision: Decision, word: str | None = None) -> int:
        """Record a decision that was taken on the entry ``number``; the number of the newest entry.

        That requests came is worth an entry once an hour.

        Args:
            word: what a person has asked for, which the decision answers.

        Raises:
            Moved: another entry was first, or a person has asked for something else.
        """

    def history(self, rollout_id: str) -> list[dict[str, Any]]:
        """What was said, oldest first: ``at``, ``phase``, ``step``, ``said``."""

    def saw(self, rollout_id: str, seen: dict[str, Any]) -> None:
        """Keep what was seen last, as JSON, for people."""

    def seen(self, rollout_id: str) -> dict[str, Any] | None:
        """What was seen last; None: nothing yet."""

    def word(self) -> str | None:
        """What a person has asked for beside the record, if anything."""


@dataclass(frozen=True)
class Rollouts:
    """Every rollout of a lake; a ``Record``."""

    lake: Lake

    def ids(self) -> list[str]:
        """Oldest first."""
        return [name for name in self.lake.names(_FOLDER) if not name.endswith(".json")]  # the route lies there too

    def last(self) -> State | None:
        ids = self.ids()
        return self.load(ids[-1])[1] if ids else None

    def begin(self, state: State, text: str, asked: str = "") -> None:
        refuse_if_on(self.last())
        if not self._write(state.id, 1, entry_of(state, (text,))):
            raise Moved(state.id)

    def load(self, rollout_id: str) -> tuple[int, State]:
        names = self.lake.names(_FOLDER, rollout_id)
        if not names:
            known = ", ".join(self.ids()[-5:]) or "none"
            raise BadInput(f"rollout {rollout_id}: expected one of {known}, found none of that name")
        value = self.lake.read_json(_FOLDER, rollout_id, names[-1])
        try:
            return int(names[-1].split(".")[0]), State.from_json(value["state"])
        except (ValueError, KeyError, TypeError) as error:
            where = self.lake.path(_FOLDER, rollout_id, names[-1])
            raise BadInput(f"{where}: {error or 'expected a state'}; {mend(value)}") from error

    def advance(self, number: int, before: State, decision: Decision, word: str | None = None) -> int:
        if not is_news(before, decision):
            return number
        if not self._write(before.id, number + 1, entry_of(decision.state, decision.sentences)):
            raise Moved(before.id)
        return number + 1

    def history(self, rollout_id: str) -> list[dict[str, Any]]:
        entries = (self.lake.read_json(_FOLDER, rollout_id, name) for name in self.lake.names(_FOLDER, rollout_id))
        return [
            {"at": one["at"], "phase": one["state"]["phase"], "step": one["state"]["step"], "said": text}
            for one in entries
            for text in one["said"]
        ]

    def saw(self, rollout_id: str, seen: dict[str, Any]) -> None:
        self.lake.replace(f"{_FOLDER}/{rollout_id}/{_SEEN}", json.dumps(seen).encode())

    def seen(self, rollout_id: str) -> dict[str, Any] | None:
        if not self.lake.exists(_FOLDER, rollout_id, _SEEN):
            return None
        found: dict[str, Any] = self.lake.read_json(_FOLDER, rollout_id, _SEEN)
        return found

    def word(self) -> str | None:
        """None: a person's command writes an entry."""
        return None

    def keep(self, rollout_id: str, entries: list[dict[str, Any]]) -> None:
        """A copy of another record's entries; what is there already stays."""
        for place, entry in enumerate(entries):
            self._write(rollout_id, place + 1, entry)

    def _write(self, rollout_id: str, number: int, entry: dict[str, Any]) -> bool:
        return self.lake.create_json(f"{_FOLDER}/{rollout_id}/{number:08d}.json", entry)


def entry_of(state: State, said: tuple[str, ...]) -> dict[str, Any]:
    """An entry of now: ``at``, ``said``, ``state``, and the ``version`` that writes it."""
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"at": at, "said": list(said), "state": state.to_json(), "version": __version__}


def mend(entry: Any, restore: str = "restore it from a copy") -> str:
    """What to do about an entry that can't be read."""
    version = entry.get("version") if isinstance(entry, dict) else None
    if isinstance(version, str) and is_newer(version):
        return f"version {version} wrote it, and this is version {__version__}: use version {version} or newer"
    return restore


def is_news(before: State, decision: Decision) -> bool:
    """Whether a decision is worth an entry."""
    came_s = decision.state.data_s - before.data_s
    return replace(decision.state, data_s=before.data_s) != before or came_s >= _HOUR_S


def refuse_if_on(last: State | None) -> None:
    """A rollout begins when the one before it has ended.

    Raises:
        BadInput: it has not.
    """
    if last is not None and not last.ended:
        raise BadInput(
            f"rollout {last.id}: expected it to have ended, found it {last.phase}; "
            "`understudy rollout abort` ends it, `status` shows it"
        )
