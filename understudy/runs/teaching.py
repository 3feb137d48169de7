"""Who teaches the next student, and whether a control is trained beside it: decided from the releases before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from understudy.section import stored
from understudy.training.config import Training

__all__ = ["Teaching", "decide_teaching", "gained"]


@dataclass(frozen=True)
class Teaching:
    """The decision.

    Args:
        teacher: digest of the release that teaches; None for an ensemble, and where nobody does.
        note: why, in words.
        control: whether a network without a teacher is trained beside the student.
        given_up: whether distillation is off because it has not paid.
    """

    teacher: str | None
    note: str
    control: bool = False
    given_up: bool = False


def decide_teaching(
    training: Training, production: str | None, healthy: str | None, ancestors: Sequence[dict[str, Any]]
) -> Teaching:
    """Production teaches, or its nearest healthy ancestor, or an ensemble, or nobody.

    Args:
        healthy: production where it is in good health, or its nearest ancestor that is, or None.
        ancestors: manifests of production and of the releases before it, newest first.
    """
    distillation = training.distillation
    if distillation.teacher == "none":
        return Teaching(None, "distillation is off")
    controls = [one["control"] for one in ancestors if one.get("control") and _alike(one, training)]
    last = controls[: distillation.give_up_after]
    if distillation.give_up_after and len(last) == distillation.give_up_after and not any(map(gained, last)):
        return Teaching(None, f"distillation is off: it gained nothing in the last {len(last)} controls", given_up=True)
    since = next((at for at, one in enumerate(ancestors) if one.get("control")), len(ancestors))
    fresh = any(one.get("control") for one in ancestors)
    control = bool(training.control_every) and (not fresh or since + 1 >= training.control_every)
    if distillation.teacher == "ensemble":
        return Teaching(None, "an ensemble, trained in this run", control=control)
    if production is None:
        return Teaching(None, "first release: nothing in production")
    if healthy is None:
        return Teaching(None, "production is quarantined: no healthy ancestor")
    if healthy != production:
        return Teaching(healthy, "production is quarantined: its nearest healthy ancestor", control=control)
    return Teaching(healthy, "production", control=control)


def gained(control: dict[str, float]) -> bool:
    """Whether a student beat its control: AUC, mean over primary heads.

    Args:
        control: primary head → student − control.
    """
    return sum(control.values()) > 0


def _alike(manifest: dict[str, Any], training: Training) -> bool:
    where, by = f"release {manifest.get('digest', '')[:12]}", manifest.get("version", "")
    return stored(Training, manifest["config"], "training", where, by).distillation == training.distillation
