"""A rollout as the lake records it: ``rollouts/<id>/``, numbered entries that are created once.

An entry holds the whole state, what was said, and when. To take a step is to create the next number, which succeeds
only once: two drivers do no harm, and one that was killed goes on from the newest entry.
"""

import datetime
from dataclasses import dataclass, replace
from typing import Any

from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.rollout.state import Decision, State

__all__ = ["Moved", "Rollouts"]

_FOLDER = "rollouts"
_HOUR_S = 3600


class Moved(Exception):
    """Another driver, or a person, was first; read the rollout again."""


@dataclass(frozen=True)
class Rollouts:
    """Every rollout of a lake."""

    lake: Lake

    def ids(self) -> list[str]:
        """Oldest first."""
        return self.lake.names(_FOLDER)

    def newest(self) -> str:
        """The last that was begun.

        Raises:
            BadInput: there is none.
        """
        known = self.ids()
        if not known:
            raise BadInput(
                f"lake {self.lake.root}: expected a rollout, found none; `understudy rollout start` begins one"
            )
        return known[-1]

    def begin(self, state: State, text: str) -> None:
        """Record a rollout's first entry.

        Raises:
            BadInput: another one has not ended.
        """
        for one in self.ids():
            _, other = self.load(one)
            if not other.ended:
                raise BadInput(
                    f"rollout {one}: expected it to have ended, found it {other.phase}; "
                    "`understudy rollout abort` ends it, `status` shows it"
                )
        if not self._write(state.id, 1, state, (text,)):
            raise Moved(state.id)

    def load(self, rollout_id: str) -> tuple[int, State]:
        """The newest entry's number, and the state.

        Raises:
            BadInput: no such rollout.
        """
        names = self.lake.names(_FOLDER, rollout_id)
        if not names:
            known = ", ".join(self.ids()[-5:]) or "none"
            raise BadInput(f"rollout {rollout_id}: expected one of {known}, found none of that name")
        value = self.lake.read_json(_FOLDER, rollout_id, names[-1])
        return int(names[-1].split(".")[0]), State.from_json(value["state"])

    def advance(self, number: int, before: State, decision: Decision) -> int:
        """Record a decision that was taken on the entry ``number``; the number of the newest entry.

        That requests came is worth an entry once an hour.

        Raises:
            Moved: another entry was first.
        """
        came_s = decision.state.data_s - before.data_s
        if replace(decision.state, data_s=before.data_s) == before and came_s < _HOUR_S:
            return number
        if not self._write(before.id, number + 1, decision.state, decision.sentences):
            raise Moved(before.id)
        return number + 1

    def history(self, rollout_id: str) -> list[dict[str, Any]]:
        """Entries that said something, oldest first: ``at``, ``phase``, ``step``, ``said``."""
        entries = (self.lake.read_json(_FOLDER, rollout_id, name) for name in self.lake.names(_FOLDER, rollout_id))
        return [
            {"at": one["at"], "phase": one["state"]["phase"], "step": one["state"]["step"], "said": text}
            for one in entries
            for text in one["said"]
        ]

    def _write(self, rollout_id: str, number: int, state: State, said: tuple[str, ...]) -> bool:
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        entry = {"at": at, "said": list(said), "state": state.to_json()}
        return self.lake.create_json(f"{_FOLDER}/{rollout_id}/{number:08d}.json", entry)
