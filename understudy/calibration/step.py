"""The step ``calibrate``: logits become probabilities, and the network becomes the served file."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from understudy import schema
from understudy.calibration.config import Calibration as Config
from understudy.calibration.fit import Calibrator, fit_calibrator
from understudy.calibration.module import Calibration
from understudy.inputs import encode
from understudy.ranker.export import export
from understudy.ranker.files import from_files
from understudy.ranker.fitting import as_tensors
from understudy.ranker.network import RankerModel
from understudy.runs import Outcome, Step, execute
from understudy.section import canonical_json, part
from understudy.training.config import Training

__all__ = ["run"]

NAME = "calibrate"
_FILES = ("model.safetensors", "model.json", "inputs.json")
_COMPARED_ROWS = 2048
_BATCH = 8192


def run(lake: str, run_id: str, section: str) -> dict[str, Any]:
    """Write the calibrators, ``served.onnx`` and the logits of the window's last day, the control's too.

    Args:
        section: canonical JSON with ``calibration`` and ``training``.
    """
    config, training = part(Config, section, "calibration"), part(Training, section, "training")
    return execute(lake, run_id, NAME, section, lambda step: _body(step, config, training), needs=["train_ranker"])


def _body(step: Step, config: Config, training: Training) -> Outcome:
    torch.set_num_threads(training.threads)
    model = _trained(step, "")
    last = step.dataset("retrieve_features", "training_set").to_table(filter=pc.field("split") != "train")
    logits = _logits(model, last)
    calibrators = _fit(config, last, logits, step.plan.heads)
    step.say(", ".join(f"{h} {c.scale:.3f}·z{c.shift:+.3f}" for h, c in zip(step.plan.heads, calibrators, strict=True)))
    layer = Calibration(calibrators)
    data = export(model, layer)
    difference = _difference(model, layer, data, last.slice(0, _COMPARED_ROWS), training.threads)
    kept = {head: c.to_json() for head, c in zip(step.plan.heads, calibrators, strict=True)}
    step.lake.create(f"{step.attempt}/calibrators.json", canonical_json(kept).encode())
    step.lake.create(f"{step.attempt}/served.onnx", data)
    fields = schema.arrow_schema("scores", step.plan.heads)
    columns = [last["row_key"], *(pa.array(logits[:, h]) for h in range(logits.shape[1]))]
    step.lake.write_table(f"{step.table('scores')}/rows.parquet", pa.table(columns, schema=fields), fields)
    figures = {
        "calibrators": json.loads(canonical_json(kept)),
        "rows": int(pc.sum(pc.equal(last["split"], "calibrate")).as_py() or 0),
        "export_difference": round(difference, 7),
        "size_bytes": len(data),
    }
    tables = ["scores", *_control(step, config, last)]
    return Outcome(tables=tables, files=["calibrators.json", "served.onnx"], figures=figures)


def _trained(step: Step, folder: str) -> RankerModel:
    return from_files({name: step.lake.read_bytes(step.file("train_ranker", f"{folder}{name}")) for name in _FILES})


def _control(step: Step, config: Config, last: pa.Table) -> list[str]:
    """The control's logits on the last day, calibrated as the student's are."""
    if "control/model.json" not in (step.run.manifest("train_ranker") or {"files": {}})["files"]:
        return []
    heads = step.plan.heads
    logits = _logits(_trained(step, "control/"), last)
    calibrators = _fit(config, last, logits, heads)
    fields = schema.arrow_schema("control_scores", heads)
    columns = [pa.array(c.logits(logits[:, h]), pa.float32()) for h, c in enumerate(calibrators)]
    table = pa.table([last["row_key"], *columns], schema=fields)
    step.lake.write_table(f"{step.table('control_scores')}/rows.parquet", table, fields)
    return ["control_scores"]


def _logits(model: RankerModel, table: pa.Table) -> np.ndarray:
    parts = []
    with torch.no_grad():
        for start in range(0, table.num_rows, _BATCH):
            parts.append(model(as_tensors(encode(table.slice(start, _BATCH), model.inputs))).numpy())
    return np.concatenate(parts)


def _fit(config: Config, last: pa.Table, logits: np.ndarray, heads: tuple[str, ...]) -> list[Calibrator]:
    """Each head's calibrator, on the rows that nothing else was fitted on."""
    mine = pc.equal(last["split"], "calibrate").to_numpy().astype(bool)
    weights = np.asarray(last["sample_weight"])
    calibrators = []
    for h, head in enumerate(heads):
        labels = np.asarray(last[f"label_{head}"].cast(pa.float64()).fill_null(float("nan")))
        rows = mine & ~np.isnan(labels)
        z = logits[rows, h].astype(np.float64)
        calibrators.append(fit_calibrator(config.method, z, labels[rows], weights[rows], config.prior_positives))
    return calibrators


def _difference(model: RankerModel, layer: Calibration, data: bytes, table: pa.Table, threads: int) -> float:
    """Largest difference of a probability between the network and the exported file."""
    from understudy.ranker.served import Served

    feeds = encode(table, model.inputs)
    exported, _ = Served(data, model.inputs, threads=threads).score_feeds(feeds)
    with torch.no_grad():
        probabilities = layer(model(as_tensors(feeds)))
    return float(np.abs(probabilities.numpy() - exported).max())
