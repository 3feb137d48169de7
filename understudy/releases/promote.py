"""The step ``promote``: the candidate becomes production, or goes on stage, when every verdict is a pass."""

from typing import Any

from understudy.errors import GateFailed, UnderstudyError
from understudy.releases.aliases import aliases, move
from understudy.releases.approvals import await_approval
from understudy.releases.quarantine import quarantined
from understudy.rollout.config import Rollout
from understudy.runs import Outcome, Step, execute
from understudy.section import part, stored

__all__ = ["run"]

NAME = "promote"


def run(lake: str, run_id: str, section: str) -> dict[str, Any]:
    """Move ``production`` by compare-and-swap, and ``previous`` with it.

    Args:
        section: canonical JSON with ``rollout``.
    """
    rollout = part(Rollout, section, "rollout")
    needs = ["check_drift", "evaluate", "publish_release"]
    return execute(lake, run_id, NAME, section, lambda step: _body(step, rollout), needs=needs)


def _body(step: Step, rollout: Rollout) -> Outcome:
    digest = str(step.figures("publish_release")["digest"])
    failed = step.run.failed_verdicts()
    if failed:
        raise GateFailed(f"{failed[0]['step']}: gate {failed[0]['gate']} said no: {failed[0]['reason']}")
    if not (step.run.manifest("evaluate") or {"verdicts": []})["verdicts"]:
        raise UnderstudyError(
            f"run {step.run.id}: expected verdicts of evaluate in the record, found none; run it again"
        )
    if digest in quarantined(step.lake):
        raise GateFailed(
            f"release {digest[:12]} is in quarantine, or was made from one that is; "
            "start a fresh run with `understudy run --again`"
        )
    if rollout.mode == "none":
        step.say(f"candidate {digest[:12]} waits for `understudy releases promote`")
        return Outcome(figures={"digest": digest, "promoted": False, "reason": "rollout.mode is none"})
    if rollout.approval == "required":
        await_approval(step, rollout, digest)
    if rollout.mode == "canary" and step.plan.production is not None:
        return _on_stage(step, rollout, digest)
    _promote(step, digest)
    step.say(f"{digest[:12]} is production")
    return Outcome(figures={"digest": digest, "promoted": True, "reason": "every verdict is a pass"})


def _on_stage(step: Step, rollout: Rollout, digest: str) -> Outcome:
    from understudy.config import Config
    from understudy.rollout.staging import stage

    config = stored(Config, step.plan.config, where=f"run {step.run.id}", by=step.plan.version)
    state, sentence = stage(step.lake, config, digest, step.say)
    figures = {"digest": digest, "promoted": state.phase == "promoted", "rollout": state.id, "reason": sentence}
    if state.ended and state.phase != "promoted":
        raise GateFailed(f"rollout {state.id}: {sentence}")
    return Outcome(figures=figures)


def _promote(step: Step, digest: str) -> None:
    now = aliases(step.lake)
    if now.get("production") == digest:
        return
    changes = {"production": digest, "previous": now.get("production")}
    move(step.lake, changes, f"promoted by run {step.run.id}", expected={"production": step.plan.production})
