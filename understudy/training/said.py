"""What this run's teacher says: the release that the plan names, or an ensemble trained here and now."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from understudy.runs import Step
from understudy.sampling.config import Sampling
from understudy.section import canonical_json, content, stored
from understudy.training.ensemble import Lesson, Member, Spoken, digest_of, folds_of, mean_logits, members_of
from understudy.training.lessons import Lessons
from understudy.training.member import learn_all
from understudy.training.teacher import Taught, Teacher, teacher_targets

__all__ = ["Said", "release_that_teaches", "teach"]


@dataclass(frozen=True)
class Said:
    """A teacher's word on every row, and what the student is to follow.

    Args:
        taught: its own logits.
        targets_BH: on the training rows where it acts, moved onto their level; NaN elsewhere.
        fits: head → the affine map that moved them.
        members, spoken, fold_B: of an ensemble; empty for a release.
    """

    taught: Taught
    targets_BH: Tensor
    fits: dict[str, dict[str, float]]
    members: list[Member] = field(default_factory=list)
    spoken: list[Spoken] = field(default_factory=list)
    fold_B: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def rows(self) -> int:
        """Training rows on which it acts."""
        return int((~torch.isnan(self.targets_BH)).any(dim=1).sum())


def release_that_teaches(step: Step) -> Teacher | None:
    """The release that the plan names, verified; None where an ensemble or nobody teaches."""
    if step.plan.teacher is None:
        return None
    from understudy import releases

    release = releases.load(step.lake, step.plan.teacher)
    where, by = f"release {release.digest[:12]}", release.manifest["version"]
    sampling = _sampling_digest(release.manifest["config"], where, by)
    return Teacher(release.digest, release.files, release.manifest["window"]["end"], sampling)


def teach(lessons: Lessons, release: Teacher | None) -> Said | None:
    """Let the teacher speak of every row; None where nobody teaches."""
    step, config = lessons.step, lessons.config.distillation
    members: list[Member] = []
    spoken: list[Spoken] = []
    fold_B = np.zeros(0, np.int64)
    if release is not None:
        taught = release.speak(lessons.parts(), lessons.index, lessons.last, lessons.heads)
    elif config.teacher == "ensemble" and not step.plan.given_up:
        members, spoken, fold_B = _ensemble(lessons)
        taught = _together(
            members, spoken, fold_B, _sampling_digest(step.plan.config, f"run {step.run.id}", step.plan.version)
        )
    else:
        step.say(f"no teacher: {step.plan.teacher_note}")
        return None
    targets, fits = teacher_targets(
        taught.train_BH, lessons.labels, lessons.weights, taught.new_B, config, lessons.heads
    )
    said = Said(taught, torch.from_numpy(targets), fits, members, spoken, fold_B)
    step.say(f"taught by {taught.digest[:12]} on {said.rows} rows")
    return said


def _sampling_digest(config: dict[str, Any], where: str, by: str) -> str:
    sampling = content(stored(Sampling, config, "sampling", where, by))
    return hashlib.sha256(canonical_json(sampling).encode()).hexdigest()


def _ensemble(lessons: Lessons) -> tuple[list[Member], list[Spoken], npt.NDArray[np.int64]]:
    fold_B = folds_of(lessons.index["request_id"], lessons.config.ensemble.folds)
    days = np.asarray(lessons.index["day"].cast(pa.string()).cast(pa.date32()).cast(pa.int32()), np.int64)
    age_B, last = torch.from_numpy(days.max() - days), lessons.scored_only(lessons.last)
    lesson = Lesson(lessons.rows, lessons.stop, last, torch.from_numpy(fold_B), age_B)
    spoken = learn_all(lessons.base, lessons.config, lesson, lessons.checkpoints("ensemble"), lessons.step.say)
    return members_of(lessons.config), spoken, fold_B


def _together(members: list[Member], spoken: list[Spoken], fold_B: npt.NDArray[np.int64], sampling: str) -> Taught:
    """An ensemble as one teacher: as fresh as its student, and never overconfident on a row it teaches."""
    train = mean_logits([one.train for one in spoken], members, torch.from_numpy(fold_B))
    last = mean_logits([one.last for one in spoken], members)
    ages = [np.zeros(len(part), np.int32) for part in (train, last)]
    digest = digest_of([one.files for one in spoken])
    return Taught(digest, sampling, train, last, np.ones(len(train), bool), ages[0], ages[1])
