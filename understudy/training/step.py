"""The step ``train_ranker``: a student from labels, and from the teacher where there is one."""

import contextlib
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from understudy import __version__, schema
from understudy.inputs import Inputs, encode
from understudy.lake import Lake
from understudy.ranker.files import to_files
from understudy.ranker.fitting import new_model
from understudy.runs import Outcome, Run, Step, execute
from understudy.section import part
from understudy.training.batches import Rows
from understudy.training.checkpoint import Checkpoints, checkpoint_key
from understudy.training.config import Training
from understudy.training.loop import State, fit
from understudy.training.teacher import Teacher, teacher_targets

__all__ = ["choose_device", "run"]

NAME = "train_ranker"

Floats = npt.NDArray[np.float32]


def run(lake: str, run_id: str, section: str) -> dict[str, Any]:
    """Write the uncalibrated model and the teacher's logits.

    Args:
        section: canonical JSON with ``training``.
    """
    training = part(Training, section, "training")
    body = lambda step: _body(step, training, section)  # noqa: E731
    manifest = execute(lake, run_id, NAME, section, body, needs=["retrieve_features", "check_drift"])
    opened = Lake.open(lake)
    with contextlib.suppress(OSError):  # a late trainer may still write there, and clears it when it has lost
        opened.remove(_checkpoints(Run(opened, run_id)))
    return manifest


def _checkpoints(run: Run) -> str:
    return f"{run.folder}/steps/{NAME}/checkpoints"


def choose_device(wanted: str) -> str:
    """``cuda`` where there is one and ``auto`` or ``cuda`` asks for it, else ``cpu``."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def _body(step: Step, config: Training, section: str) -> Outcome:
    torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    heads = step.plan.heads
    dataset = step.dataset("retrieve_features", "training_set")
    inputs = _inputs(step, dataset.schema)
    teacher = _teacher(step)
    columns = [*{"row_key", "day", "sample_weight", "importance", *(f"label_{h}" for h in heads)}, *inputs.columns()]
    if teacher is not None:
        columns += Inputs.from_json(teacher.files["inputs.json"].decode()).columns()
    columns = sorted(set(columns) & set(dataset.schema.names))
    train = dataset.to_table(columns=columns, filter=pc.field("split") == "train")
    stop = dataset.to_table(columns=columns, filter=pc.field("split") == "stop")
    step.say(f"{train.num_rows} rows train, {stop.num_rows} stop, on {device}")

    logits, targets, taught = _teach(step, teacher, train, config)
    feeds = encode(train, inputs)
    labels, weights = _labels(train, heads), _column(train, "sample_weight")
    model = new_model(config.ranker, inputs, feeds, labels, weights, config.seed).to(device)
    loss_weights = torch.from_numpy(weights * _column(train, "importance"))
    aim = None if targets is None else torch.from_numpy(targets)
    train_rows = Rows.prepare(model, feeds, torch.from_numpy(labels), loss_weights, aim, device)
    del feeds
    stop_weights = torch.from_numpy(_column(stop, "sample_weight"))
    stop_rows = Rows.prepare(
        model, encode(stop, inputs), torch.from_numpy(_labels(stop, heads)), stop_weights, None, device
    )
    parts = {"section": section, "plan": str(step.plan.to_json()), "version": __version__, "device": device}
    parts |= {"torch": torch.__version__, "inputs": inputs.to_json()}
    checkpoints = Checkpoints(step.lake, _checkpoints(step.run), checkpoint_key(parts))
    state = fit(
        model,
        train_rows,
        stop_rows,
        config,
        resume=checkpoints.resume,
        save=checkpoints.save,
        progress=_progress(step, config),
    )
    files = to_files(model.cpu(), config.ranker)
    for name, data in files.items():
        step.lake.create(f"{step.attempt}/{name}", data)
    tables = _write_teacher_scores(step, dataset, teacher, logits, train)
    figures = {
        "rows": train.num_rows,
        "parameters": sum(p.numel() for p in model.parameters()),
        "curve": [{key: round(value, 9) for key, value in point.items()} for point in state.curve],
        "best": state.best,
        "teacher": taught,
        "device": device,
        "threads": config.threads,
    }
    return Outcome(tables=tables, files=sorted(files), figures=figures)


def _inputs(step: Step, columns: pa.Schema) -> Inputs:
    features = step.plan.config["features"]
    return Inputs.derive(
        columns,
        heads=step.plan.heads,
        time_zone=step.plan.time_zone,
        half_lives=tuple(features["half_lives"]),
        recent_events=features["recent_events"],
        surfaces=features["max_surfaces"],
    )


def _teacher(step: Step) -> Teacher | None:
    if step.plan.teacher is None:
        return None
    from understudy import releases

    release = releases.load(step.lake, step.plan.teacher)
    return Teacher(release.digest, release.files, release.manifest["window"]["end"])


def _teach(
    step: Step, teacher: Teacher | None, train: pa.Table, config: Training
) -> tuple[Floats | None, Floats | None, dict[str, Any] | None]:
    """The teacher's logits on the training rows, its targets, and what to record of it."""
    if teacher is None:
        step.say(f"no teacher: {step.plan.teacher_note}")
        return None, None, None
    logits = teacher.logits(train, step.plan.heads)
    new = pc.greater(train["day"], teacher.window_end).to_numpy().astype(bool)
    labels, weights = _labels(train, step.plan.heads), _column(train, "sample_weight")
    targets, fits = teacher_targets(logits, labels, weights, new, config.distillation, step.plan.heads)
    rows = int((~np.isnan(targets)).any(axis=1).sum())
    step.say(f"taught by {teacher.digest[:12]} on {rows} rows")
    return logits, targets, {"digest": teacher.digest, "rows": rows, "fit": fits}


def _write_teacher_scores(
    step: Step, dataset: Any, teacher: Teacher | None, logits: Floats | None, train: pa.Table
) -> list[str]:
    """Every row's teacher logits, the last day's included, which evaluation compares with."""
    if teacher is None or logits is None:
        return []
    last = dataset.to_table(filter=pc.field("split") != "train")
    heads = step.plan.heads
    both = np.concatenate([logits, teacher.logits(last, heads)])
    keys = pa.concat_arrays([*train["row_key"].chunks, *last["row_key"].chunks])
    fields = schema.arrow_schema("teacher_scores", heads)
    columns = [keys, pa.repeat(pa.scalar(teacher.digest), len(keys))]
    columns += [pa.array(both[:, h], pa.float32(), from_pandas=True) for h in range(len(heads))]
    step.lake.write_table(f"{step.table('teacher_scores')}/rows.parquet", pa.table(columns, schema=fields), fields)
    return ["teacher_scores"]


def _labels(table: pa.Table, heads: tuple[str, ...]) -> Floats:
    columns = [np.asarray(table[f"label_{h}"].cast(pa.float32()).fill_null(float("nan"))) for h in heads]
    return np.stack(columns, axis=1)


def _column(table: pa.Table, name: str) -> Floats:
    return np.array(table[name].cast(pa.float32()))


def _progress(step: Step, config: Training) -> Any:
    started = time.monotonic()

    def tell(state: State) -> None:
        point = state.curve[-1]
        best = " (best)" if state.best == state.evaluation - 1 else ""
        seconds = time.monotonic() - started
        step.say(
            f"epoch {point['epoch']:.1f} of at most {config.epochs}: train loss {point['train_loss']:.4f}, "
            f"stop loss {point['stop_loss']:.4f}{best}, {seconds:.0f} s"
        )

    return tell
