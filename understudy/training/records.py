"""The tables and files that ``train_ranker`` writes beside the student."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from understudy import schema
from understudy.runs import Step
from understudy.training.ensemble import Member, Spoken
from understudy.training.teacher import Taught

__all__ = ["write_member_scores", "write_model", "write_teacher_scores"]

Floats = npt.NDArray[np.float32]


def write_model(step: Step, folder: str, files: dict[str, bytes]) -> list[str]:
    """Write a model's files below a folder of the attempt; returns their names."""
    for name, data in files.items():
        step.lake.create(f"{step.attempt}/{folder}{name}", data)
    return sorted(f"{folder}{name}" for name in files)


def write_teacher_scores(step: Step, taught: Taught, keys: pa.Array) -> str:
    """The teacher's logits on every row, the last day's included, which evaluation compares with.

    Args:
        keys: of the training rows, then of the last day's.
    """
    columns = [keys, *(pa.repeat(pa.scalar(text), len(keys)) for text in (taught.digest, taught.sampling))]
    columns.append(pa.array(np.concatenate([taught.train_age_B, taught.last_age_B])))
    return _write(step, "teacher_scores", columns, np.concatenate([taught.train_BH, taught.last_BH]))


def write_member_scores(
    step: Step, members: list[Member], spoken: list[Spoken], fold_B: npt.NDArray[np.int64], keys: pa.Array
) -> str:
    """Each member's logits on every row, and whether it was trained on it.

    Args:
        fold_B: of the training rows; the rows of the last day train nobody.
    """
    others = np.ones(len(keys) - len(fold_B), bool)
    out_of_fold = np.concatenate([np.concatenate([fold_B == member.fold, others]) for member in members])
    number = np.repeat(np.arange(len(members), dtype=np.int32), len(keys))
    columns = [pa.concat_arrays([keys] * len(members)), pa.array(number), pa.array(out_of_fold)]
    said = np.concatenate([np.concatenate([one.train.numpy(), one.last.numpy()]) for one in spoken])
    return _write(step, "member_scores", columns, said)


def _write(step: Step, table: str, columns: list[pa.Array], logits_BH: Floats) -> str:
    heads = step.plan.heads
    fields = schema.arrow_schema(table, heads)
    columns = columns + [pa.array(logits_BH[:, h], pa.float32(), from_pandas=True) for h in range(len(heads))]
    step.lake.write_table(f"{step.table(table)}/rows.parquet", pa.table(columns, schema=fields), fields)
    return table
