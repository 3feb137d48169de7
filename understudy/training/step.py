"""The step ``train_ranker``: a student from labels, and from the teacher where there is one."""

import contextlib
import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch

from understudy.lake import Lake
from understudy.ranker.files import to_files
from understudy.ranker.network import RankerModel
from understudy.runs import Outcome, Run, Step, Verdict, execute
from understudy.sampling.config import Sampling
from understudy.section import part
from understudy.training.config import Training, Variant
from understudy.training.lessons import Lessons, checkpoints_of, choose_device
from understudy.training.loop import State
from understudy.training.records import write_member_scores, write_model, write_teacher_scores
from understudy.training.said import Said, release_that_teaches, teach

__all__ = ["accompany", "is_committed", "run"]

NAME = "train_ranker"


def run(lake: str, run_id: str, section: str) -> dict[str, Any]:
    """Write the uncalibrated model, what its teacher says of every row, and the control where one is due.

    Args:
        section: canonical JSON with ``training`` and ``sampling``.
    """
    training, sampling = _parts(section)
    processes = _processes(training)
    if processes > 1 and not _is_settled(lake, run_id):
        from understudy.training import workers

        workers.start(lake, run_id, section, processes)
    body = lambda step: _body(step, training, sampling, section)  # noqa: E731
    manifest = execute(lake, run_id, NAME, section, body, needs=["retrieve_features", "check_drift"])
    opened = Lake.open(lake)
    with contextlib.suppress(OSError):  # a late trainer may still write there, and clears it when it has lost
        opened.remove(checkpoints_of(Run(opened, run_id)))
    return manifest


def is_committed(lake: str, run_id: str) -> bool:
    """Whether nothing is left to do."""
    return Run(Lake.open(lake), run_id).manifest(NAME) is not None


def accompany(lake: str, run_id: str, section: str) -> None:
    """Do one of several processes' share of what the first one's ``run`` fits; nothing is written."""
    training, sampling = _parts(section)
    opened = Lake.open(lake)
    found = Run(opened, run_id)
    _fit(_Silent(opened, found, found.plan(), NAME, attempt=""), training, sampling, section)


class _Silent(Step):
    """A step of which another process speaks."""

    def say(self, text: str) -> None:
        pass


def _processes(config: Training) -> int:
    """One for each accelerator that this pod has; one where this is such a process already, or there are none."""
    if "WORLD_SIZE" in os.environ or choose_device(config.device) != "cuda":
        return 1
    return torch.cuda.device_count()


def _is_settled(lake: str, run_id: str) -> bool:
    """Whether nothing will be fitted: it is committed, or an earlier gate said no."""
    return is_committed(lake, run_id) or bool(Run(Lake.open(lake), run_id).failed_verdicts())


def _parts(section: str) -> tuple[Training, Sampling]:
    return part(Training, section, "training"), part(Sampling, section, "sampling")


@dataclass
class _Fitted:
    """What was fitted.

    Args:
        control: alike in all but the teacher; None: none was due.
    """

    lessons: Lessons
    said: Said | None
    student: RankerModel
    state: State
    control: RankerModel | None


def _fit(step: Step, config: Training, sampling: Sampling, section: str) -> _Fitted:
    torch.set_num_threads(config.threads)
    release = release_that_teaches(step)
    lessons = Lessons(step, config, sampling, section, release.columns() if release else ())
    said = teach(lessons, release)
    student, state = lessons.fitted("student", None if said is None else said.targets_BH)
    control = lessons.fitted("control")[0] if step.plan.control and said is not None else None
    return _Fitted(lessons, said, student, state, control)


@dataclass
class _Written:
    """What the step has written so far."""

    tables: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def _body(step: Step, config: Training, sampling: Sampling, section: str) -> Outcome:
    fitted = _fit(step, config, sampling, section)
    lessons, state, written = fitted.lessons, fitted.state, _Written(figures={"teacher": None})
    if fitted.said is not None:
        _record(lessons, fitted.said, written)
    written.files += write_model(step, "", to_files(fitted.student))
    if fitted.control is not None:
        written.files += write_model(step, "control/", to_files(fitted.control))
    written.figures |= {
        "rows": len(lessons.index),
        "considered": lessons.loader.considered if lessons.loader else len(lessons.index),
        "parameters": sum(p.numel() for name, p in fitted.student.named_parameters() if "auxiliary" not in name),
        "curve": [{key: round(value, 9) for key, value in point.items()} for point in state.curve],
        "best": state.best,
        "device": lessons.device,
        "threads": config.threads,
    }
    return Outcome(written.tables, written.figures, _verdicts(step), written.files)


def _record(lessons: Lessons, said: Said, written: _Written) -> None:
    """Keep what the teacher said of every row, and its members where it is an ensemble."""
    step, taught = lessons.step, said.taught
    keys = pa.concat_arrays([*lessons.index["row_key"].chunks, *lessons.last["row_key"].chunks])
    written.tables.append(write_teacher_scores(step, taught, keys))
    written.figures["teacher"] = {
        "digest": taught.digest, "sampling": taught.sampling, "rows": said.rows, "fit": said.fits,
    }  # fmt: skip
    if not said.members:
        return
    for member, one in zip(said.members, said.spoken, strict=True):
        written.files += write_model(step, f"members/{member.name}/", one.files)
    written.tables.append(write_member_scores(step, said.members, said.spoken, said.fold_B, keys))
    written.figures["members"] = [
        {"fold": member.fold, "seed": member.seed, "stop_loss": round(one.stop_loss, 9), **_differs(member.variant)}
        for member, one in zip(said.members, said.spoken, strict=True)
    ]


def _differs(variant: Variant) -> dict[str, Any]:
    """What a variant changes, for the record."""
    changed = {one.name: getattr(variant, one.name) for one in dataclasses.fields(variant)}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}
    return {one.name: plain[one.name] for one in dataclasses.fields(variant) if changed[one.name] != one.default}


def _verdicts(step: Step) -> list[Verdict]:
    if not step.plan.given_up:
        return []
    reason = f"{step.plan.teacher_note}; change training.distillation to try it again"
    return [Verdict("distillation", "warn", "controls without a gain", None, reason)]
