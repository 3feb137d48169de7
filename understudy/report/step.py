"""The step ``write_report``: a run as one page that opens without a network."""

import json
from pathlib import Path
from typing import Any

import jinja2

from understudy.lake import Lake
from understudy.report import pictures
from understudy.runs import Run

__all__ = ["write"]

_ORDER = (
    "compact_logs", "build_features", "sample_examples", "retrieve_features", "check_drift",
    "train_ranker", "calibrate", "evaluate", "publish_release", "promote",
)  # fmt: skip
# last step of a run → what it is for
_TITLES = {
    "promote": "Retraining",
    "check_drift": "Drift",
    "build_features": "Features",
    "retrieve_features": "Rows",
}


def write(lake_uri: str, run_id: str) -> str:
    """Write ``runs/<id>/report.html`` from the record alone; returns its path in the lake.

    Works for a run that was stopped: what is not known is left out.
    """
    lake = Lake.open(lake_uri)
    run = Run(lake, run_id)
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = lambda value, digits=4: "–" if value is None else f"{value:.{digits}f}"
    environment.filters["short"] = lambda digest: digest[:12] if digest else "–"
    template = environment.from_string(Path(__file__).with_name("page.html").read_text())
    path = f"{run.folder}/report.html"
    lake.replace(path, template.render(_content(lake, run)).encode())
    return path


def _content(lake: Lake, run: Run) -> dict[str, Any]:
    steps = {name: manifest for name in _ORDER if (manifest := run.manifest(name)) is not None}
    figures = {name: manifest["figures"] for name, manifest in steps.items()}
    evaluation, training = figures.get("evaluate"), figures.get("train_ranker")
    seconds = {name: manifest["seconds"] for name, manifest in steps.items()}
    return {
        "run": run.id,
        "title": _TITLES.get(run.last_step(), "Run"),
        "plan": run.plan(),
        "headline": _headline(run, figures),
        "status": run.status(),
        "verdicts": [{"step": name, **v} for name, m in steps.items() for v in m["verdicts"]],
        "evaluation": evaluation,
        "sampling": figures.get("sample_examples"),
        "compaction": figures.get("compact_logs"),
        "drift": figures.get("check_drift"),
        "training": training,
        "release": figures.get("publish_release", {}).get("digest"),
        "seconds": seconds,
        "latency": _evidence(lake, run),
        "pictures": {
            "reliability": pictures.reliability(evaluation["reliability"]) if evaluation else "",
            "roc": pictures.roc(evaluation["roc"]) if evaluation else "",
            "curve": pictures.curve(training["curve"], training["best"]) if training else "",
            "drift": pictures.drift(figures["check_drift"]["columns"]) if "check_drift" in figures else "",
            "seconds": pictures.seconds(seconds) if seconds else "",
            "days": pictures.days(evaluation["out_of_time"]) if evaluation and evaluation["out_of_time"] else "",
        },
    }


def _headline(run: Run, figures: dict[str, Any]) -> str:
    failed, error = run.failed_verdicts(), run.last_error()
    if failed:
        return f"Stopped: gate {failed[0]['gate']} said no. {failed[0]['reason']}. Production is as it was."
    if "promote" in figures:
        promoted = figures["promote"]
        name = promoted["digest"][:12]
        return f"Release {name} is production." if promoted["promoted"] else f"Release {name} waits as candidate."
    if run.is_done():
        return f"Done: {run.last_step()} was its last step."
    if error:
        return f"Stopped in {error['step']}: {error['error']}"
    return "Not finished."


def _evidence(lake: Lake, run: Run) -> dict[str, Any] | None:
    if not lake.exists(run.folder, "evidence", "latency.json"):
        return None
    value: dict[str, Any] = json.loads(lake.read_bytes(run.folder, "evidence", "latency.json"))
    return value
