"""Planted faults: do the tests of a room notice what is spoiled in it?

Each fault is one change of the kind that a slip of the hand makes: a comparison turned, a bound moved, a weight
dropped, an error swallowed, the order of a commit swapped. It is planted alone, in a copy of a revision, and the tests
of its room are run; the first that fails has caught it. Run it before and after tests are moved or made cheaper:

    python benchmarks/faults.py --revision v0.1.0
    python benchmarks/faults.py --room rollout --json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from worktrees import copy_of

_LIMIT_S = 900

# Room → its tests, the cheapest first.
TESTS = {
    "calibration": ["calibration"],
    "cli": ["releases", "runs", "cluster", "roles"],
    "comparison": ["comparison"],
    "drift": ["drift"],
    "evaluation": ["evaluation"],
    "experiments": ["experiments", "judge"],
    "features": ["inputs", "features", "retrieval"],
    "jobs": ["jobs", "compile"],
    "kubeflow": ["cron", "schedule", "schedule_plan"],
    "logs": ["journal", "ingest", "compaction"],
    "ranker": ["vocabulary", "training", "export"],
    "releases": ["releases", "approvals"],
    "report": ["telling", "alerts", "closed_loop"],
    "rollout": ["judge", "aftermath", "cluster", "rollout_sources"],
    "runs": ["runs", "local_run", "ingest"],
    "sampling": ["compaction", "loader"],
    "serving": ["serving", "rank_server"],
    "simulator": ["simulator", "closed_loop"],
    "training": ["teaching", "training"],
    "pipelines": ["docker_runner", "local_run", "compile", "jobs"],
    "all rooms": ["hashing", "http_guard", "runs", "releases"],
}


class Fault(NamedTuple):
    """What is planted: ``old`` stands once in the file."""

    room: str
    kind: str
    path: str
    old: str
    new: str


_U = "understudy"
FAULTS = [
    Fault(
        "calibration", "comparison", f"{_U}/calibration/fit.py", "if not parameters[0] > 0:", "if parameters[0] > 0:"
    ),
    Fault(
        "calibration",
        "weight",
        f"{_U}/calibration/fit.py",
        "gradient = design.T @ (weights * (p - labels))",
        "gradient = design.T @ (p - labels)",
    ),
    Fault("cli", "bound", f"{_U}/cli/output.py", "digest[:12]", "digest[:11]"),
    Fault("cli", "comparison", f"{_U}/cli/place.py", "or last.ended or (rollout_id", "or (rollout_id"),
    Fault(
        "comparison",
        "comparison",
        f"{_U}/comparison/figures.py",
        "mean[name] - means[0][name]",
        "means[0][name] - mean[name]",
    ),
    Fault("comparison", "bound", f"{_U}/comparison/figures.py", "(2.5, 97.5)", "(25, 97.5)"),
    Fault(
        "drift",
        "bound",
        f"{_U}/drift/gates.py",
        "max(config.psi_floor, config.psi_factor * reference.variation)",
        "config.psi_floor",
    ),
    Fault(
        "drift",
        "weight",
        f"{_U}/drift/sketches.py",
        "np.bincount(bins, weights=weights[known], minlength=len(place) + 1)",
        "np.bincount(bins, minlength=len(place) + 1)",
    ),
    Fault(
        "evaluation",
        "comparison",
        f"{_U}/evaluation/gates.py",
        'outcome = "pass" if low > -margin',
        'outcome = "pass" if high > -margin',
    ),
    Fault(
        "evaluation", "bound", f"{_U}/evaluation/gates.py", "if p > _LEVEL / (len(tested) - place):", "if p > _LEVEL:"
    ),
    Fault("experiments", "weight", f"{_U}/experiments/outcomes.py", "math.sqrt(ours + theirs)", "math.sqrt(ours)"),
    Fault(
        "experiments",
        "bound",
        f"{_U}/experiments/arms.py",
        "free[len(free) - baseline :]",
        "free[canary : canary + baseline]",
    ),
    Fault(
        "features",
        "comparison",
        f"{_U}/features/asof.py",
        '">" if view.created else ">="',
        '">=" if view.created else ">="',
    ),
    Fault("features", "bound", f"{_U}/features/aggregates.py", "window_s * 1_000_000 + 1)", "window_s * 1_000_000)"),
    Fault("jobs", "bound", f"{_U}/jobs/pods.py", '"readOnlyRootFilesystem": True', '"readOnlyRootFilesystem": False'),
    Fault(
        "jobs",
        "error swallowed",
        f"{_U}/jobs/launching.py",
        "                    run.record_error(step, error)\n                raise\n",
        "                    run.record_error(step, error)\n",
    ),
    Fault("kubeflow", "comparison", f"{_U}/kubeflow/cron.py", "if utc > after", "if utc >= after"),
    Fault(
        "kubeflow",
        "comparison",
        f"{_U}/kubeflow/schedules.py",
        "if not _differences(wanted, one)), key=lambda one: (not one.enabled, one.id)",
        "if not _differences(wanted, one)), key=lambda one: (one.enabled, one.id)",
    ),
    Fault(
        "logs",
        "comparison",
        f"{_U}/logs/compaction.py",
        "(delay_us <= window_s * 1_000_000)",
        "(delay_us < window_s * 1_000_000)",
    ),
    Fault(
        "logs",
        "error swallowed",
        f"{_U}/logs/journal.py",
        '                self.db.execute("ROLLBACK")\n            raise\n        return [_answer',
        '                self.db.execute("ROLLBACK")\n        return [_answer',
    ),
    Fault(
        "logs",
        "weight",
        f"{_U}/logs/keep.py",
        "kept: npt.NDArray[np.bool_] = positive | (lot(row_keys) < rate)",
        "kept: npt.NDArray[np.bool_] = lot(row_keys) < rate",
    ),
    Fault("ranker", "comparison", f"{_U}/ranker/vocabulary.py", "counts >= least", "counts > least"),
    Fault(
        "ranker",
        "bound",
        f"{_U}/ranker/export.py",
        "return self.calibration(logits).unflatten(0, shape), logits",
        "return torch.sigmoid(logits).unflatten(0, shape), logits",
    ),
    Fault(
        "releases",
        "error swallowed",
        f"{_U}/releases/aliases.py",
        "raise _moved(lake, name, known.get(name), found.get(name))",
        "pass",
    ),
    Fault(
        "releases",
        "order",
        f"{_U}/releases/lifecycle.py",
        '"previous": production}, reason',
        '"previous": digest}, reason',
    ),
    Fault("report", "comparison", f"{_U}/report/telling.py", "if len(failed) > 1 else", "if len(failed) > 2 else"),
    Fault(
        "report",
        "error swallowed",
        f"{_U}/report/telling.py",
        "    if error is not None:\n        word",
        "    if False:\n        word",
    ),
    Fault(
        "rollout", "bound", f"{_U}/rollout/judge.py", "tail = config.alpha / _most_looks(config)", "tail = config.alpha"
    ),
    Fault(
        "rollout",
        "comparison",
        f"{_U}/rollout/guardrails.py",
        "if min(canary.scored, baseline.scored) >= config.min_scored:",
        "if max(canary.scored, baseline.scored) >= config.min_scored:",
    ),
    Fault(
        "rollout",
        "weight",
        f"{_U}/rollout/judge.py",
        'state.phase == "paused" or waits or unheard or any(state.strikes.values())',
        'state.phase == "paused" or waits or unheard',
    ),
    Fault(
        "runs",
        "comparison",
        f"{_U}/runs/planning.py",
        "if day < str(known.astimezone(zone).date())",
        "if day <= str(known.astimezone(zone).date())",
    ),
    Fault(
        "runs",
        "error swallowed",
        f"{_U}/runs/step.py",
        '    failed = [v for v in manifest["verdicts"] if v["outcome"] in ("fail", "insufficient data")]',
        '    failed = [v for v in manifest["verdicts"] if v["outcome"] in ("fail",)]',
    ),
    Fault("sampling", "weight", f"{_U}/sampling/decide.py", ".cast(pa.float64())) * rate)", ".cast(pa.float64())))"),
    Fault("sampling", "order", f"{_U}/sampling/decide.py", "        undecided &= ~mine\n", ""),
    Fault(
        "serving", "bound", f"{_U}/serving/desk.py", "if self.waiting >= self.queue:", "if self.waiting > self.queue:"
    ),
    Fault(
        "serving",
        "comparison",
        f"{_U}/serving/desk.py",
        "if self.service.mean_s > self.budget_s:",
        "if self.service.mean_s > 1000 * self.budget_s:",
    ),
    Fault(
        "simulator",
        "weight",
        f"{_U}/simulator/feed.py",
        "weights=1 / np.where(positive[kept], 1.0, frame.rate[kept])",
        "weights=1 / frame.rate[kept]",
    ),
    Fault("simulator", "bound", f"{_U}/simulator/traffic.py", "LOOKS = 0.92", "LOOKS = 0.5"),
    Fault(
        "training",
        "weight",
        f"{_U}/training/loss.py",
        "hard_B * weights_B + soft_B * traffic_B",
        "hard_B * weights_B + soft_B * weights_B",
    ),
    Fault(
        "training",
        "order",
        f"{_U}/training/checkpoint.py",
        "for name in reversed(self.lake.names(self.folder)):",
        "for name in self.lake.names(self.folder):",
    ),
    Fault(
        "training", "weight", f"{_U}/training/checkpoint.py", '        torch.set_rng_state(tensors["random.cpu"])\n', ""
    ),
    Fault(
        "pipelines",
        "error swallowed",
        "pipelines/local.py",
        '    if run.manifest("promote") is None:\n        raise',
        "    if False:\n        raise",
    ),
    Fault("pipelines", "bound", "pipelines/placing.py", "driver_heap(pod.memory)", "pod.memory"),
    Fault(
        "all rooms",
        "comparison",
        f"{_U}/hashing.py",
        "return np.where(valid, hashed, seeds)",
        "return np.where(valid, hashed, hashed)",
    ),
    Fault(
        "all rooms",
        "bound",
        f"{_U}/http_guard.py",
        "if self.in_head and self.size > head_bytes:",
        "if self.in_head and self.size > 100 * head_bytes:",
    ),
    Fault(
        "all rooms",
        "order",
        f"{_U}/lake.py",
        "            return self._link(temporary, target)\n\n    def create_json",
        "            os.replace(temporary, target)\n            return True\n\n    def create_json",
    ),
]


def tests_of(folder: Path, room: str) -> list[str]:
    """Files of a room's tests, as far as the revision has them."""
    found = [path for name in TESTS[room] for path in sorted(folder.glob(f"tests/*/test_{name}.py"))]
    return [str(path.relative_to(folder)) for path in found]


def first_failure(folder: Path, room: str) -> str | None:
    """The test that failed first, or None."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        "--tb=line",
        "--timeout=300",
    ]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, *tests_of(folder, room)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return f"hung for {_LIMIT_S} s"
    if done.returncode == 0:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return lines[0].split(" - ")[0] if lines else done.stdout[-400:] + done.stderr[-400:]


def planted(folder: Path, fault: Fault) -> str | None:
    """What caught a fault: a test, or None; the file is as before afterwards.

    Raises:
        ValueError: the revision has no such place, or several.
    """
    path = folder / fault.path
    whole = path.read_text()
    if whole.count(fault.old) != 1:
        raise ValueError(f"{fault.path}: expected {fault.old!r} once, found it {whole.count(fault.old)} times")
    path.write_text(whole.replace(fault.old, fault.new))
    try:
        return first_failure(folder, fault.room)
    finally:
        path.write_text(whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--revision", default="HEAD", help="default: HEAD")
    parser.add_argument("--room", choices=TESTS, action="append", help="only this room; may be repeated")
    parser.add_argument("--json", action="store_true", help="one JSON object per fault")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="understudy-faults-") as name,
        copy_of(asked.revision, Path(name) / "copy") as folder,
    ):
        for fault in FAULTS:
            if asked.room and fault.room not in asked.room:
                continue
            started = time.monotonic()
            try:
                caught = planted(folder, fault) or "missed"
            except ValueError as error:
                caught = f"not planted: {error}"
            whole = {**fault._asdict(), "caught": caught, "seconds": round(time.monotonic() - started)}
            line = f"{fault.room}: {fault.path}: {fault.kind}: {caught} ({whole['seconds']} s)"
            print(json.dumps(whole) if asked.json else line, flush=True)


if __name__ == "__main__":
    main()
