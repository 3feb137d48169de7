"""What the new days are compared with."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from understudy.config import Config
from understudy.drift import step as drift
from understudy.drift.gates import column_finding
from understudy.drift.sketches import Sketch, sketch
from understudy.lake import Lake
from understudy.logs.ingest import ingest
from understudy.releases.unit import FORMAT, build
from understudy.runs import Run, Step
from understudy.runs.planning import plan_window
from understudy.section import canonical_json

DAYS = np.array(["2022-04-28", "2022-04-29", "2022-04-30"])


def release(lake: Lake, end: str) -> str:
    """A release whose window ended on a day."""
    hours = sketch(np.arange(24.0), np.ones(24), np.full(24, end))
    sketches = {"rows": 24, "rates": {}, "columns": {"hour": hours.to_json()}}
    parents = {"teacher": None, "data": end, "ranked_by": []}
    content = {"format": FORMAT, "window": {"start": end, "end": end}, "teacher": None, "parents": parents}
    return build(lake, content, {"sketches.json": canonical_json(sketches).encode()})


@pytest.mark.parametrize(("reference", "new"), [("2022-04-28", [False, True, True]), (None, [False, False, True])])
def test_the_reference_is_the_one_that_the_plan_names_and_not_production(
    tmp_path: Path, logs: Path, config: Config, reference: str | None, new: list[bool]
) -> None:
    ingest(config, logs, str(tmp_path))
    lake = Lake.open(str(tmp_path))
    sick = release(lake, "2022-04-29")
    healthy = release(lake, reference) if reference else None
    plan = dataclasses.replace(plan_window(str(tmp_path), config, "2022-04-30"), production=sick, reference=healthy)
    step = Step(lake, Run(lake, plan.run_id), plan, drift.NAME, "attempt")
    found: tuple[Any, str, Any] = drift._reference(step, DAYS)
    assert found[1] == (f"release {healthy[:12]}" if healthy else "earlier days of this window")
    assert found[2].tolist() == new


@pytest.mark.parametrize(
    ("variation", "share", "outcome"),
    [(0.2, 0.8, "pass"), (0.2, 0.9, "fail"), (0.05, 0.8, "fail"), (0.05, 0.6, "pass")],
)
def test_a_column_may_drift_as_its_days_did(variation: float, share: float, outcome: str, config: Config) -> None:
    """PSI .42 at a share of .8 and .88 at .9, where the reference has halves."""
    reference = Sketch((), ("a", "b"), (0.5, 0.5, 0.0, 0.0), variation, 1000)
    found = column_finding("c", "stop", reference, np.array([share, 1 - share, 0.0, 0.0]), config.drift)
    assert found.outcome == outcome
    assert found.bound == pytest.approx(max(0.25, 3 * variation))


@pytest.mark.parametrize("values", [["a", "a", "b"], [1.0, 1.0, 2.0]], ids=["texts", "numbers"])
def test_a_row_counts_by_its_weight(values: list[Any]) -> None:
    column = np.array(values, float if isinstance(values[0], float) else object)
    found = sketch(column, np.array([1.0, 1.0, 8.0]), np.array(["2022-04-28"] * 3))
    assert [share for share in found.shares if share] == pytest.approx([0.2, 0.8])
