"""The teacher ``ensemble``: diverse networks, cross-fitted, so that a row is taught by those that did not see it.

Rows fall into folds by a hash of their request; each member leaves one fold out. A training row's target is the mean
logit of the members that left its fold out, any other row's the mean over all. (L. Breiman, "Stacked Regressions",
1996, on why a model must not speak of rows it was fitted to.)
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from understudy.hashing import decision
from understudy.ranker.files import to_files
from understudy.ranker.fitting import new_like
from understudy.ranker.network import ID_COLUMNS, RankerModel
from understudy.training.batches import Rows
from understudy.training.checkpoint import Checkpoints
from understudy.training.config import Training, Variant
from understudy.training.loop import State, fit, scores

__all__ = ["Lesson", "Member", "Spoken", "digest_of", "folds_of", "learn", "mean_logits", "members_of"]

Floats = npt.NDArray[np.float32]

_SEED_STEP = 7919  # seeds of members and of neighbouring students never meet


@dataclass(frozen=True)
class Member:
    """One network of the ensemble.

    Args:
        number: from 0.
        fold: the one that it leaves out.
    """

    number: int
    variant: Variant
    fold: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.number:02d}"

    def training(self, config: Training) -> Training:
        """The student's configuration with what the member has of its own."""
        wanted = ("hidden", "cross_layers", "id_dimension")
        own = {name: value for name in wanted if (value := getattr(self.variant, name)) is not None}
        return replace(config, ranker=replace(config.ranker, **own), seed=self.seed, threads=1)


@dataclass(frozen=True)
class Lesson:
    """What every member is given.

    Args:
        train, stop: rows to learn from, and those that end it.
        last: rows of the last day, which are scored alone.
        fold_B: of the training rows.
        age_B: days from the training row to the newest one.
    """

    train: Rows
    stop: Rows
    last: Rows
    fold_B: Tensor
    age_B: Tensor


@dataclass(frozen=True)
class Spoken:
    """What a member says, and what it is.

    Args:
        train, last: logits (B, H).
        files: as ``to_files`` gives them.
        stop_loss: its best.
    """

    train: Tensor
    last: Tensor
    files: dict[str, bytes]
    stop_loss: float


def members_of(config: Training) -> list[Member]:
    """The members, in order: variants in turn, so that every fold is left out by several of them."""
    ensemble = config.ensemble
    return [
        Member(
            number,
            ensemble.variants[number % len(ensemble.variants)],
            number % ensemble.folds,
            config.seed + _SEED_STEP * (number + 1),
        )
        for number in range(ensemble.members)
    ]


def folds_of(request_ids: pa.Array | pa.ChunkedArray, folds: int) -> npt.NDArray[np.int64]:
    """The fold of each row (B,)."""
    return (decision("fold", 0, request_ids) * folds).astype(np.int64)


def learn(base: RankerModel, member: Member, config: Training, lesson: Lesson, checkpoints: Checkpoints) -> Spoken:
    """Train a member and let it speak of every row.

    Args:
        base: a network whose preprocessing the member shares.
        config: the student's.
    """
    own = member.training(config)
    model = new_like(base, own.ranker, own.seed)
    _narrow(model, member)
    model.to(lesson.train.device)
    train, stop, last = (_narrowed(rows, model, member) for rows in (lesson.train, lesson.stop, lesson.last))
    days = int(lesson.age_B.max()) + 1
    seen = (lesson.fold_B != member.fold) & (lesson.age_B < max(1, round(member.variant.day_share * days)))
    state = fit(
        model,
        train.take(seen.nonzero()[:, 0]),
        stop,
        own,
        resume=checkpoints.resume,
        save=checkpoints.save,
        progress=lambda _: None,
    )
    said = [scores(model, rows).cpu() for rows in (train, last)]
    return Spoken(said[0], said[1], to_files(model.cpu()), _stop_loss(state))


def mean_logits(spoken: Sequence[Tensor], members: Sequence[Member], fold_B: Tensor | None = None) -> Floats:
    """The ensemble's logits (B, H): of the members that left each row's fold out; of all where ``fold_B`` is None."""
    total = torch.zeros(spoken[0].shape, dtype=torch.float64)
    count = torch.zeros(len(total), dtype=torch.float64)
    for said, member in zip(spoken, members, strict=True):
        speaks = torch.ones(len(total), dtype=torch.bool) if fold_B is None else fold_B == member.fold
        total[speaks] += said[speaks].to(torch.float64)
        count += speaks
    mean: Floats = (total / count[:, None]).to(torch.float32).numpy()
    return mean


def digest_of(files: Sequence[dict[str, bytes]]) -> str:
    """Digest of an ensemble: of its members' weights and shapes, in order."""
    parts = [hashlib.sha256(one[name]).hexdigest() for one in files for name in sorted(one)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _stop_loss(state: State) -> float:
    return state.curve[state.best]["stop_loss"]


def _narrow(model: RankerModel, member: Member) -> None:
    """Take from the preprocessing what the member must not read, so that its files say it too."""
    vocabulary = model.preprocess.vocabulary
    if not member.variant.ids:
        first_other = int(vocabulary.bases_C[ID_COLUMNS - 1])
        for keys, rows in ((vocabulary.keys_0, vocabulary.rows_0), (vocabulary.keys_1, vocabulary.rows_1)):
            keys[rows < first_other] = 0
    if member.variant.feature_share < 1:
        model.preprocess.scale_D[_unread(member, len(model.preprocess.scale_D))] = 0


def _narrowed(rows: Rows, model: RankerModel, member: Member) -> Rows:
    """Rows as the narrowed preprocessing gives them."""
    changes: dict[str, Any] = {}
    if not member.variant.ids:
        bases = model.preprocess.vocabulary.bases_C.to(rows.rows)
        own, events = rows.rows.clone(), rows.event_rows.clone()
        own[:, : ID_COLUMNS - 1] = bases[: ID_COLUMNS - 1]
        events[..., : ID_COLUMNS - 2] = bases[1 : ID_COLUMNS - 1]
        changes |= {"rows": own, "event_rows": events}
    if member.variant.feature_share < 1:
        dense = rows.dense.clone()
        dense[:, _unread(member, dense.shape[1]).to(dense.device)] = 0
        changes["dense"] = dense
    return replace(rows, **changes)


def _unread(member: Member, width: int) -> Tensor:
    """Columns of the dense input that the member does not read."""
    generator = torch.Generator().manual_seed(member.seed)
    return torch.randperm(width, generator=generator)[max(1, round(member.variant.feature_share * width)) :]
