"""The teacher: a release's uncalibrated model, its logits moved onto the new rows' level.

By default it acts only on rows newer than its own window, because on rows that it was trained on
it is overconfident. An affine fit on those rows' labels takes out what has drifted since.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from understudy.calibration.fit import affine_fit
from understudy.inputs import Inputs, encode
from understudy.ranker.files import from_files
from understudy.ranker.fitting import as_tensors
from understudy.training.config import Distillation

__all__ = ["Taught", "Teacher", "teacher_targets"]

Floats = npt.NDArray[np.float32]

_BATCH = 8192
_MIN_ROWS = 100


@dataclass(frozen=True)
class Taught:
    """What a teacher, of whatever kind, says of all rows.

    Args:
        digest: of the release or of the ensemble.
        sampling: digest of the sampling that it was trained by.
        train_BH, last_BH: its uncalibrated logits on the training rows, and on those of the last day.
        new_B: training rows on which it is not overconfident.
        train_age_B, last_age_B: days from the last that it had seen to the row's.
    """

    digest: str
    sampling: str
    train_BH: Floats
    last_BH: Floats
    new_B: npt.NDArray[np.bool_]
    train_age_B: npt.NDArray[np.int32]
    last_age_B: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Teacher:
    """A release that teaches.

    Args:
        digest: of the release.
        files: ``model.safetensors``, ``model.json``, ``inputs.json``.
        window_end: last day that it was trained on.
        sampling: digest of the sampling that it was trained by.
    """

    digest: str
    files: dict[str, bytes]
    window_end: str
    sampling: str

    def columns(self) -> list[str]:
        """Columns of a training set that it reads."""
        return Inputs.from_json(self.files["inputs.json"].decode()).columns()

    def speak(self, train: Iterable[pa.Table], index: pa.Table, last: pa.Table, heads: tuple[str, ...]) -> Taught:
        """Score every row once.

        Args:
            train: the training rows in parts, in the order of ``index``, which holds their days.
            last: the rows of the last day.
        """
        ages = [_days_after(table["day"], self.window_end) for table in (index, last)]
        said = [np.concatenate([self.logits(part, heads) for part in train]), self.logits(last, heads)]
        return Taught(self.digest, self.sampling, said[0], said[1], ages[0] > 0, ages[0], ages[1])

    def logits(self, table: pa.Table, heads: tuple[str, ...]) -> Floats:
        """Uncalibrated logits (B, H) in the order of ``heads``; NaN for a head that it lacks."""
        model = from_files(self.files)
        result = np.full((table.num_rows, len(heads)), np.nan, np.float32)
        known = [(at, model.inputs.heads.index(head)) for at, head in enumerate(heads) if head in model.inputs.heads]
        with torch.no_grad():
            for start in range(0, table.num_rows, _BATCH):
                feeds = encode(table.slice(start, _BATCH), model.inputs)
                logits = model(as_tensors(feeds)).numpy()
                for ours, theirs in known:
                    result[start : start + _BATCH, ours] = logits[:, theirs]
        return result


def _days_after(days: pa.ChunkedArray, end: str) -> npt.NDArray[np.int32]:
    dates = days.cast(pa.string()).cast(pa.date32()).cast(pa.int32())
    first = pa.scalar(end).cast(pa.date32()).cast(pa.int32())
    return np.asarray(pc.subtract(dates, first), np.int32)


def teacher_targets(
    logits_BH: Floats,
    labels_BH: Floats,
    weights_B: npt.NDArray[Any],
    new_B: npt.NDArray[np.bool_],
    config: Distillation,
    heads: tuple[str, ...],
) -> tuple[Floats, dict[str, dict[str, float]]]:
    """Targets (B, H), NaN where the teacher does not act, and the affine fit per head.

    Args:
        logits_BH: the teacher's on the training rows.
        new_B: rows newer than the teacher's window.
    """
    acts = new_B if config.only_newer else np.ones_like(new_B)
    targets = np.full_like(logits_BH, np.nan)
    fits: dict[str, dict[str, float]] = {}
    for h, head in enumerate(heads):
        fitted = new_B & ~np.isnan(labels_BH[:, h]) & ~np.isnan(logits_BH[:, h])
        label, weight = labels_BH[fitted, h], weights_B[fitted]
        if fitted.sum() < _MIN_ROWS or not 0 < float((label * weight).sum()) < float(weight.sum()):
            continue
        fit = affine_fit(logits_BH[fitted, h].astype(np.float64), label.astype(np.float64), weight.astype(np.float64))
        targets[acts, h] = (fit.scale * logits_BH[acts, h] + fit.shift).astype(np.float32)
        fits[head] = {"scale": round(fit.scale, 9), "shift": round(fit.shift, 9)}
    return targets, fits
