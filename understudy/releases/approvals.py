"""A person's word on a release, where a run has to wait for it: approved or refused, once.

``releases/approvals/<digest>.json`` is created once: the first word counts. Since when a run waits stands in its own
record, so that a step that is run again waits no longer than the first.
"""

import datetime
import time
from typing import Any

from understudy.alerts import tell
from understudy.errors import BadInput, GateFailed
from understudy.lake import Lake
from understudy.releases.aliases import resolve_alias
from understudy.releases.quarantine import quarantined
from understudy.releases.unit import load
from understudy.rollout.config import Rollout
from understudy.runs import Step
from understudy.section import duration_s

__all__ = ["approval", "await_approval", "give_word"]

_FOLDER = "releases/approvals"
_LOOK_S = 15.0


def approval(lake: Lake, digest: str) -> dict[str, Any] | None:
    """``word``, ``by``, ``at`` and ``note`` of a release, or None where nobody has said anything."""
    path = f"{_FOLDER}/{digest}.json"
    return dict(lake.read_json(path)) if lake.exists(path) else None


def give_word(lake: Lake, ref: str, word: str, by: str, note: str = "") -> str:
    """Approve or refuse a release; returns its digest.

    Raises:
        BadInput: no such release, a damaged one, one in quarantine, or another word was given before.
    """
    digest = load(lake, ref).digest
    if word == "approved" and digest in quarantined(lake):
        raise BadInput(f"release {digest[:12]}: expected a healthy release, found one in quarantine; choose another")
    value = {"word": word, "by": by, "at": _iso(time.time()), "note": note}
    if not lake.create_json(f"{_FOLDER}/{digest}.json", value):
        known = approval(lake, digest) or value
        if known["word"] != word:
            raise BadInput(
                f"release {digest[:12]}: expected no word on it yet, found it {_said(known)}; "
                "`understudy releases promote` or `rollback` still do what you say"
            )
    return digest


def await_approval(step: Step, rollout: Rollout, digest: str) -> None:
    """Return once the release is approved.

    Raises:
        GateFailed: it was refused, went into quarantine, or nobody said anything in time.
    """
    until_s = _since(step, digest, rollout) + duration_s(rollout.approval_wait)
    told = False
    while (word := approval(step.lake, digest)) is None:
        if resolve_alias(step.lake, "production") == digest:
            step.say(f"{digest[:12]} was promoted by hand")
            return
        if digest in quarantined(step.lake):
            raise GateFailed(f"release {digest[:12]} is in quarantine; it was waiting for approval")
        if time.time() >= until_s:
            raise GateFailed(
                f"release {digest[:12]}: nobody approved it within {rollout.approval_wait}, until {_iso(until_s)}; "
                f"it stays a candidate: `understudy releases promote {digest[:12]}`"
            )
        if not told:
            step.say(f"waits for `understudy releases approve {digest[:12]}` until {_iso(until_s)}")
            told = True
        time.sleep(min(_LOOK_S, max(0.0, until_s - time.time())))
    if word["word"] != "approved":
        raise GateFailed(f"release {digest[:12]} was {_said(word)}")
    step.say(f"{digest[:12]} was {_said(word)}")


def _since(step: Step, digest: str, rollout: Rollout) -> float:
    """When this run began to wait, in seconds; people are told when it begins."""
    path = f"{step.run.folder}/evidence/approval.json"
    now_s = time.time()
    if step.lake.create_json(path, {"release": digest, "asked_at": now_s}):
        until = _iso(now_s + duration_s(rollout.approval_wait))
        command = f"understudy releases approve {digest[:12]} --lake {step.lake.uri()}"
        tell(f"release {digest[:12]} waits for `{command}` until {until}", details={"run": step.run.id})
        return now_s
    return float(step.lake.read_json(path)["asked_at"])


def _said(word: dict[str, Any]) -> str:
    note = f": {word['note']}" if word["note"] else ""
    return f"{word['word']} by {word['by']} at {word['at']}{note}"


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
