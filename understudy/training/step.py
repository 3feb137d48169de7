"""The step ``train_ranker``: a student from labels, and from the teacher where there is one."""

import contextlib
import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from understudy.lake import Lake
from understudy.ranker.files import to_files
from understudy.runs import Outcome, Run, Step, Verdict, execute
from understudy.sampling.config import Sampling
from understudy.section import canonical_json, part
from understudy.training.config import Training, Variant
from understudy.training.ensemble import Lesson, digest_of, folds_of, mean_logits, members_of
from understudy.training.lessons import Lessons, checkpoints_of
from understudy.training.member import learn_all
from understudy.training.records import write_member_scores, write_model, write_teacher_scores
from understudy.training.teacher import Taught, Teacher, teacher_targets

__all__ = ["run"]

NAME = "train_ranker"


def run(lake: str, run_id: str, section: str) -> dict[str, Any]:
    """Write the uncalibrated model, what its teacher says of every row, and the control where one is due.

    Args:
        section: canonical JSON with ``training`` and ``sampling``.
    """
    training, sampling = part(Training, section, "training"), part(Sampling, section, "sampling")
    body = lambda step: _body(step, training, sampling, section)  # noqa: E731
    manifest = execute(lake, run_id, NAME, section, body, needs=["retrieve_features", "check_drift"])
    opened = Lake.open(lake)
    with contextlib.suppress(OSError):  # a late trainer may still write there, and clears it when it has lost
        opened.remove(checkpoints_of(Run(opened, run_id)))
    return manifest


@dataclass
class _Written:
    """What the step has written so far."""

    tables: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def _body(step: Step, config: Training, sampling: Sampling, section: str) -> Outcome:
    torch.set_num_threads(config.threads)
    release = _release(step)
    lessons = Lessons(step, config, sampling, section, release.columns() if release else ())
    written = _Written()
    taught = _taught(lessons, release, written)
    targets = None if taught is None else _targets(lessons, taught, written)
    model, state = lessons.fitted("student", targets)
    written.files += write_model(step, "", to_files(model))
    if step.plan.control and taught is not None:
        control, _ = lessons.fitted("control")
        written.files += write_model(step, "control/", to_files(control))
    written.figures |= {
        "rows": len(lessons.index),
        "considered": lessons.loader.considered if lessons.loader else len(lessons.index),
        "parameters": sum(p.numel() for name, p in model.named_parameters() if "auxiliary" not in name),
        "curve": [{key: round(value, 9) for key, value in point.items()} for point in state.curve],
        "best": state.best,
        "device": lessons.device,
        "threads": config.threads,
    }
    return Outcome(written.tables, written.figures, _verdicts(step), written.files)


def _release(step: Step) -> Teacher | None:
    """The release that teaches."""
    if step.plan.teacher is None:
        return None
    from understudy import releases

    release = releases.load(step.lake, step.plan.teacher)
    sampling = _sampling_digest(release.manifest["config"])
    return Teacher(release.digest, release.files, release.manifest["window"]["end"], sampling)


def _sampling_digest(config: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(config["sampling"]).encode()).hexdigest()


def _taught(lessons: Lessons, release: Teacher | None, written: _Written) -> Taught | None:
    """What the teacher says of every row, kept as a table."""
    step = lessons.step
    keys = pa.concat_arrays([*lessons.index["row_key"].chunks, *lessons.last["row_key"].chunks])
    if release is not None:
        taught = release.speak(lessons.parts(), lessons.index, lessons.last, lessons.heads)
    elif lessons.config.distillation.teacher == "ensemble" and not step.plan.given_up:
        taught = _ensemble(lessons, keys, written)
    else:
        step.say(f"no teacher: {step.plan.teacher_note}")
        written.figures["teacher"] = None
        return None
    written.tables.append(write_teacher_scores(step, taught, keys))
    return taught


def _ensemble(lessons: Lessons, keys: pa.Array, written: _Written) -> Taught:
    step, config = lessons.step, lessons.config
    members = members_of(config)
    fold_B = folds_of(lessons.index["request_id"], config.ensemble.folds)
    days = np.asarray(lessons.index["day"].cast(pa.string()).cast(pa.date32()).cast(pa.int32()), np.int64)
    age_B, last = torch.from_numpy(days.max() - days), lessons.scored_only(lessons.last)
    lesson = Lesson(lessons.rows, lessons.stop, last, torch.from_numpy(fold_B), age_B)
    spoken = learn_all(lessons.base, config, lesson, lessons.checkpoints("ensemble"), step.say)
    for member, one in zip(members, spoken, strict=True):
        written.files += write_model(step, f"members/{member.name}/", one.files)
    written.tables.append(write_member_scores(step, members, spoken, fold_B, keys))
    written.figures["members"] = [
        {"fold": member.fold, "seed": member.seed, "stop_loss": round(one.stop_loss, 9), **_differs(member.variant)}
        for member, one in zip(members, spoken, strict=True)
    ]
    train = mean_logits([one.train for one in spoken], members, torch.from_numpy(fold_B))
    whole = mean_logits([one.last for one in spoken], members)
    ages = [np.zeros(len(said), np.int32) for said in (train, whole)]
    digest, sampling = digest_of([one.files for one in spoken]), _sampling_digest(step.plan.config)
    return Taught(digest, sampling, train, whole, np.ones(len(train), bool), ages[0], ages[1])


def _differs(variant: Variant) -> dict[str, Any]:
    """What a variant changes, for the record."""
    changed = {one.name: getattr(variant, one.name) for one in dataclasses.fields(variant)}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}
    return {one.name: plain[one.name] for one in dataclasses.fields(variant) if changed[one.name] != one.default}


def _targets(lessons: Lessons, taught: Taught, written: _Written) -> torch.Tensor:
    """The teacher's logits on the rows where it acts, moved onto their level."""
    config, new_B = lessons.config.distillation, taught.new_B
    targets, fits = teacher_targets(taught.train_BH, lessons.labels, lessons.weights, new_B, config, lessons.heads)
    rows = int((~np.isnan(targets)).any(axis=1).sum())
    lessons.step.say(f"taught by {taught.digest[:12]} on {rows} rows")
    written.figures["teacher"] = {"digest": taught.digest, "sampling": taught.sampling, "rows": rows, "fit": fits}
    return torch.from_numpy(targets)


def _verdicts(step: Step) -> list[Verdict]:
    if not step.plan.given_up:
        return []
    reason = f"{step.plan.teacher_note}; change training.distillation to try it again"
    return [Verdict("distillation", "warn", "controls without a gain", None, reason)]
