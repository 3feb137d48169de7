"""The same figures for Kubeflow's own view: metrics, ROC, pages."""

import posixpath
from pathlib import Path

from understudy.lake import Lake
from understudy.runs import Run

__all__ = ["copy_html", "roc_points", "scalars"]


def copy_html(lake_uri: str, path: str, target: str) -> None:
    """Copy a page of the lake to where the orchestrator collects it; nothing where there is none."""
    lake = Lake.open(lake_uri)
    relative = posixpath.relpath(path, lake.root) if path.startswith(lake.root) else path
    if lake.exists(relative):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_bytes(lake.read_bytes(relative))


def scalars(lake_uri: str, run_id: str) -> dict[str, float]:
    """``<head>_<metric>`` → value, of a run's evaluation; empty where it did not commit."""
    manifest = Run(Lake.open(lake_uri), run_id).manifest("evaluate")
    heads = manifest["figures"]["heads"] if manifest else {}
    return {
        f"{head}_{name}": float(value)
        for head, values in heads.items()
        for name, value in values.items()
        if isinstance(value, int | float)
    }


def roc_points(lake_uri: str, run_id: str) -> tuple[list[float], list[float], list[float]] | None:
    """False-positive rates, true-positive rates and thresholds of the first primary head's curve.

    None where the step did not commit, and where a version has recorded it that kept no thresholds.
    """
    run = Run(Lake.open(lake_uri), run_id)
    manifest = run.manifest("evaluate")
    if manifest is None:
        return None
    plan = run.plan()
    head = (plan.config["evaluation"]["primary_heads"] or list(plan.heads))[0]
    points = manifest["figures"].get("roc", {}).get(head)
    if not points or any(len(point) < 3 for point in points):
        return None
    fpr, tpr, thresholds = ([float(point[part]) for point in points] for part in range(3))
    return fpr, tpr, thresholds
