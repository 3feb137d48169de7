"""The step ``publish_release``: bind what the run made into one release; alias ``candidate``."""

import io
import json
from typing import Any

import pyarrow.parquet as pq

from understudy.releases.aliases import move, resolve_alias
from understudy.releases.unit import build
from understudy.runs import Outcome, Step, execute
from understudy.section import canonical_json

__all__ = ["run"]

NAME = "publish_release"
_FILES = {
    "retrieve_features": ("feature_service.json",),
    "check_drift": ("sketches.json",),
    "train_ranker": ("model.safetensors", "model.json", "inputs.json"),
    "calibrate": ("calibrators.json", "served.onnx"),
}


def run(lake: str, run_id: str, section: str) -> dict[str, Any]:
    """Write the release.

    Args:
        section: canonical JSON of no parts.
    """
    return execute(lake, run_id, NAME, section, _body, needs=["check_drift", "evaluate"])


def _body(step: Step) -> Outcome:
    plan = step.plan
    files = {
        name: step.lake.read_bytes(step.file(producer, name)) for producer, names in _FILES.items() for name in names
    }
    files["items.parquet"] = _items(step)
    files["sampling.json"] = canonical_json(plan.config["sampling"]).encode()
    files["metrics.json"] = canonical_json(step.figures("evaluate")).encode()
    content = {
        "version": plan.version,
        "window": {"start": plan.window_start, "end": plan.window_end},
        "time_zone": plan.time_zone,
        "heads": list(plan.heads),
        "teacher": plan.teacher,
        "control": _control(step),
        "parents": {
            "teacher": plan.teacher,
            "production": plan.production,
            "data": plan.input_fingerprint,
            "ranked_by": step.figures("sample_examples")["ranked_by"],
        },
        "config": plan.config,
        "gates": _gates(step),
    }
    digest = build(step.lake, content, files)
    _keep_evidence(step, digest)
    move(step.lake, {"candidate": digest}, f"published by run {plan.run_id}", expected=_as_it_stands(step))
    step.say(f"release {digest[:12]}")
    return Outcome(figures={"digest": digest})


def _keep_evidence(step: Step, digest: str) -> None:
    """What depends on the machine lies beside the releases and names the one that it is of."""
    measured = json.loads(step.lake.read_bytes(step.run.folder, "evidence", "latency.json"))
    text = canonical_json({"release": digest, "run": step.run.id, **measured}) + "\n"
    step.lake.replace(f"releases/evidence/{digest}.json", text.encode())


def _control(step: Step) -> dict[str, float] | None:
    """Primary head → AUC of student − control, where a control was trained: what the next plans decide by."""
    figures = step.figures("evaluate")
    found = (figures["teaching"] or {}).get("control")
    if not found:
        return None
    return {head: found[head]["auc"] for head in figures["primary_heads"] if found[head] is not None} or None


def _as_it_stands(step: Step) -> dict[str, str | None]:
    return {"candidate": resolve_alias(step.lake, "candidate")}


def _items(step: Step) -> bytes:
    """The items as serving starts with them: one row each, ordered by id."""
    table = step.dataset("build_features", "item_profile").to_table().sort_by("item_id")
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", store_schema=False)
    return buffer.getvalue()


def _gates(step: Step) -> list[dict[str, str]]:
    """Every verdict of the run: gate, outcome, reason."""
    return [
        {"step": name, "gate": verdict["gate"], "outcome": verdict["outcome"], "reason": verdict["reason"]}
        for name in ("check_drift", "evaluate")
        for verdict in (step.run.manifest(name) or {"verdicts": []})["verdicts"]
    ]
