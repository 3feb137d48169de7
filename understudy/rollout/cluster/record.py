"""The rollout as a ConfigMap: its state, what was said, and what a person asks for by an annotation.

A step replaces the object that was read, which the server refuses where it was changed meanwhile: two drivers do no
harm, and an annotation that comes in between is seen first. Rollouts that have ended are in the lake.
"""

import json
from dataclasses import dataclass
from typing import Any

from understudy import __version__, renames
from understudy.errors import BadInput
from understudy.kubernetes_api import Api, Conflict, Json
from understudy.lake import Lake
from understudy.rollout.record import Moved, Rollouts, entry_of, is_news, mend, refuse_if_on
from understudy.rollout.state import Decision, State

__all__ = ["NAME", "START", "WORD", "ClusterRollouts"]

NAME = "understudy-rollout"
WORD, START = "understudy.dev/word", "understudy.dev/start"
_MOST_ENTRIES = 500


@dataclass(frozen=True)
class ClusterRollouts:
    """The rollout of a namespace, and those before it in the lake; a ``Record``.

    Args:
        lake: None: only the newest rollout is known.
    """

    api: Api
    lake: Lake | None = None

    def last(self) -> State | None:
        found = _data(self.api.get("ConfigMap", NAME))
        return _state(found)

    def begin(self, state: State, text: str, asked: str = "") -> None:
        found = self.api.get("ConfigMap", NAME)
        old = _data(found)
        last = _state(old)
        if last is not None:
            refuse_if_on(last)
            self._keep(last.id, _entries(old))
        data = {"number": "1", "history": json.dumps([entry_of(state, (text,))]), **_told(state, (text,))}
        wish = _asked(found, START)
        mine = wish.names if asked and wish.value == asked else ()
        self._write(found, data, without=mine, moved=state.id)

    def load(self, rollout_id: str) -> tuple[int, State]:
        found = _data(self.api.get("ConfigMap", NAME))
        state = _state(found)
        if state is not None and state.id == rollout_id:
            return int(found["number"]), state
        return self._ended(rollout_id).load(rollout_id)

    def advance(self, number: int, before: State, decision: Decision, word: str | None = None) -> int:
        found = self.api.get("ConfigMap", NAME)
        data = _data(found)
        now = _state(data)
        if now is None or now.id != before.id or data["number"] != str(number):
            raise Moved(before.id)
        said = _asked(found, WORD)
        if not before.ended and said.value != word:
            raise Moved(before.id)
        if not is_news(before, decision) and word is None:
            return number
        entries = _entries(data)
        if decision.sentences:
            entries = [*entries, entry_of(decision.state, decision.sentences)][-_MOST_ENTRIES:]
        changed = {"number": str(number + 1), **_told(decision.state, decision.sentences)}
        changed["history"] = json.dumps(entries, ensure_ascii=False)
        self._write(found, {**data, **changed}, without=() if word is None else said.names, moved=before.id)
        if decision.state.ended:
            self._keep(before.id, entries)
        return number + 1

    def history(self, rollout_id: str) -> list[dict[str, Any]]:
        found = _data(self.api.get("ConfigMap", NAME))
        state = _state(found)
        if state is None or state.id != rollout_id:
            return self._ended(rollout_id).history(rollout_id)
        return [
            {"at": one["at"], "phase": one["state"]["phase"], "step": one["state"]["step"], "said": text}
            for one in _entries(found)
            for text in one["said"]
        ]

    def saw(self, rollout_id: str, seen: dict[str, Any]) -> None:
        value = json.dumps({"rollout": rollout_id, **seen})
        self.api.merge("ConfigMap", NAME, {"data": {"seen": value}})

    def seen(self, rollout_id: str) -> dict[str, Any] | None:
        try:
            found = json.loads(_data(self.api.get("ConfigMap", NAME)).get("seen", "{}"))
            return found if found.get("rollout") == rollout_id else None
        except (ValueError, AttributeError):
            return None

    def word(self) -> str | None:
        return _asked(self.api.get("ConfigMap", NAME), WORD).value

    def asked_to_start(self) -> str | None:
        """The release that a person asks to put on stage."""
        return _asked(self.api.get("ConfigMap", NAME), START).value

    def old_names(self) -> list[renames.Asked]:
        """Wishes under a name that has changed: each is to be told, and taken where it does not count."""
        found = self.api.get("ConfigMap", NAME)
        return [one for one in (_asked(found, WORD), _asked(found, START)) if one.warning or one.refusal]

    def refuse(self, asked: renames.Asked) -> None:
        """Take a wish that does not count off the object, and say why.

        Raises:
            Moved: something has changed meanwhile.
        """
        found = self.api.get("ConfigMap", NAME)
        self._write(found, {**_data(found), "said": asked.refusal}, without=asked.names, moved=asked.names[0])

    def ask(self, annotation: str, value: str) -> None:
        """Ask the driver for something, as `kubectl annotate` does."""
        if self.api.merge("ConfigMap", NAME, {"metadata": {"annotations": {annotation: value}}}) is None:
            raise BadInput(
                f"ConfigMap {NAME} in namespace {self.api.namespace}: expected it, found none; "
                "`kubectl apply -k manifests/overlays/...` makes it"
            )

    def take(self, annotation: str, value: str, said: str = "") -> None:
        """Take what was asked for off the object; whoever does so answers it, and nobody else.

        Args:
            said: the answer.

        Raises:
            Moved: it is asked for no more.
        """
        found = self.api.get("ConfigMap", NAME)
        asked = _asked(found, annotation)
        if asked.value != value:
            raise Moved(annotation)
        data = {**_data(found), "said": said} if said else _data(found)
        self._write(found, data, without=asked.names, moved=annotation)

    def say(self, text: str) -> None:
        """What people see last, where no rollout is on."""
        self.api.merge("ConfigMap", NAME, {"data": {"said": text}})

    def said(self) -> str:
        return _data(self.api.get("ConfigMap", NAME)).get("said", "")

    def _keep(self, rollout_id: str, entries: list[dict[str, Any]]) -> None:
        """A copy in the lake of what was said."""
        if self.lake is not None:
            Rollouts(self.lake).keep(rollout_id, entries)

    def _ended(self, rollout_id: str) -> Rollouts:
        if self.lake is None:
            raise BadInput(
                f"rollout {rollout_id}: expected the newest one, found another name; --lake says where older ones are"
            )
        return Rollouts(self.lake)

    def _write(self, found: Json | None, data: dict[str, str], without: tuple[str, ...], moved: str) -> None:
        try:
            if found is None:
                self.api.create("ConfigMap", {"metadata": {"name": NAME}, "data": data})
                return
            kept = {name: text for name, text in _annotations(found).items() if name not in without}
            self.api.replace(
                "ConfigMap", {**found, "metadata": {**found["metadata"], "annotations": kept}, "data": data}
            )
        except Conflict as error:
            raise Moved(moved) from error


def _data(found: Json | None) -> dict[str, str]:
    data: dict[str, str] = (found or {}).get("data") or {}
    return data


def _asked(found: Json | None, annotation: str) -> renames.Asked:
    return renames.asked(_annotations(found), annotation)


def _annotations(found: Json | None) -> dict[str, str]:
    kept: dict[str, str] = (found or {}).get("metadata", {}).get("annotations") or {}
    return kept


def _state(data: dict[str, str]) -> State | None:
    if "state" not in data:
        return None
    try:
        int(data["number"])
        return State.from_json(json.loads(data["state"]))
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(data) from error


def _entries(data: dict[str, str]) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(data["history"])
        for one in found:
            State.from_json(one["state"])
            if not (isinstance(one["said"], list) and isinstance(one["at"], str)):
                raise ValueError("an entry says something")
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(data) from error
    return found


def _damaged(data: dict[str, str]) -> BadInput:
    how = mend(data, "restore it, or remove its data, which forgets the rollout")
    return BadInput(
        f"ConfigMap {NAME}: expected number, state and history as a driver wrote them, found something else; {how}"
    )


def _told(state: State, said: tuple[str, ...]) -> dict[str, str]:
    """The state for the next driver, and what people read with `kubectl get`."""
    told = {"state": json.dumps(state.to_json(), sort_keys=True), "rollout": state.id, "phase": state.phase}
    told |= {"step": str(state.step + 1), "version": __version__}
    return told | ({"said": said[-1]} if said else {})
