"""The step ``check_drift``: are the new days like those that production has learned from?

A production in quarantine is no reference: its nearest healthy ancestor is, as the plan says.
"""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from understudy.drift.config import Drift
from understudy.drift.gates import Finding, Rate, column_finding, label_finding, self_test, verdicts
from understudy.drift.sketches import Sketch, shares, sketch
from understudy.features.views import PROFILES, VIEWS
from understudy.runs import Outcome, Step, Verdict, execute
from understudy.section import canonical_json, part

__all__ = ["run"]

NAME = "check_drift"
_HISTORIES = tuple(name for name in VIEWS if name not in PROFILES)
_PAGE_COLUMNS = 20
_MOSTLY_OTHER = 0.5  # a text column whose frequent values cover less than this is an id

Floats = npt.NDArray[np.float64]


def run(lake: str, run_id: str, section: str) -> dict[str, Any]:
    """Compare per column and label on all rows; write the sketches that the next run compares with.

    Args:
        section: canonical JSON with ``drift``.
    """
    config = part(Drift, section, "drift")
    return execute(lake, run_id, NAME, section, lambda step: _body(step, config), needs=["retrieve_features"])


def _body(step: Step, config: Drift) -> Outcome:
    dataset = step.dataset("retrieve_features", "training_set")
    heads = step.plan.heads
    base = dataset.to_table(columns=["day", "sample_weight", *(f"label_{h}" for h in heads)])
    days = base["day"].to_numpy().astype(str)
    weights = np.asarray(base["sample_weight"], np.float64)
    reference, source, new = _reference(step, days)
    old = days < min(days[new])
    findings, kept, tested, actions = [], {}, {}, {}
    for column in _columns(dataset.schema, heads):
        values = _values(dataset, column)
        kept[column] = sketch(values, weights, days, config.min_rows)
        before = (
            reference["columns"].get(column)
            if reference
            else sketch(values[old], weights[old], days[old], config.min_rows)
        )
        if before is None:
            continue
        tested[column] = before
        action = actions[column] = config.actions.get(column, _default_action(column, before))
        findings.append(column_finding(column, action, before, shares(before, values[new], weights[new]), config))
    rates = {head: _rate(base, head, weights) for head in heads}
    before_rates = reference["rates"] if reference else {head: _rate(base, head, weights, old) for head in heads}
    for head in heads:
        if head in before_rates:
            action = config.actions.get(f"label_{head}", "stop")
            now = _rate(base, head, weights, new)
            findings.append(label_finding(head, action, before_rates[head], now, config))
    trials = self_test(tested, before_rates, config, actions)
    rows, reference_rows = int(new.sum()), reference["rows"] if reference else int(old.sum())
    found = [*verdicts(findings, rows, reference_rows, config), _blindness(trials)]
    content = {
        "rows": len(days),
        "rates": {head: asdict(rate) for head, rate in rates.items()},
        "columns": {name: s.to_json() for name, s in kept.items()},
    }
    step.lake.create(f"{step.attempt}/sketches.json", canonical_json(content).encode())
    # A window of new days alone has no rows of the reference's: its last day stands beside the earlier ones.
    _evidently(step, dataset, days == step.plan.window_end if new.all() else new, config, findings)
    for verdict in found:
        step.say(f"{verdict.outcome}: {verdict.reason}")
    figures = {
        "reference": source,
        "rows": rows,
        "reference_rows": reference_rows,
        "columns": [f.to_json() for f in findings],
        "self_test": {"trials": len(trials), "good": sum(t["good"] for t in trials)},
    }
    return Outcome(files=["sketches.json"], figures=figures, verdicts=found)


def _reference(step: Step, days: npt.NDArray[Any]) -> tuple[dict[str, Any] | None, str, npt.NDArray[np.bool_]]:
    """The reference release's sketches and the days outside its window; without one: the last day."""
    last: npt.NDArray[np.bool_] = days == step.plan.window_end
    if step.plan.reference is None:
        return None, "earlier days of this window", last
    from understudy import releases

    release = releases.load(step.lake, step.plan.reference)
    value = json.loads(release.files["sketches.json"])
    value["rates"] = {head: Rate(**one) for head, one in value["rates"].items()}
    value["columns"] = {name: Sketch.from_json(one) for name, one in value["columns"].items()}
    outside: npt.NDArray[np.bool_] = days > release.manifest["window"]["end"]
    return value, f"release {release.digest[:12]}", outside if outside.any() else last


def _columns(schema: pa.Schema, heads: tuple[str, ...]) -> list[str]:
    """What is compared: surface, hour, attributes, and the rates of counters (counts themselves only grow)."""
    profiles = [f.name for f in schema if f.name.startswith(("user_profile__", "item_profile__"))]
    rates = [
        f"{view}__{name.removeprefix(f'{view}__')}"
        for view in _HISTORIES
        for name in schema.names
        for head in heads
        if name.startswith(f"{view}__{head}_")
    ]
    return ["surface", "hour", *sorted(profiles), *sorted(set(rates))]


def _values(dataset: Any, column: str) -> npt.NDArray[Any]:
    """A column as floats with NaN, or as texts with None. A counter is read as its rate, a time as its age."""
    if column == "hour":
        return np.asarray(pc.hour(dataset.to_table(columns=["ts"])["ts"]), np.float64)
    if pa.types.is_integer(dataset.schema.field(column).type):
        table = dataset.to_table(columns=["ts", column])
        age_us = pc.subtract(table["ts"].cast(pa.int64()), table[column])
        return np.asarray(age_us.cast(pa.float64()).fill_null(float("nan"))) / 1e6
    view, _, name = column.partition("__")
    if view in _HISTORIES:
        seen = f"{view}__impressions_{name.rsplit('_', 1)[1]}"
        table = dataset.to_table(columns=[column, seen])
        done, shown = (np.asarray(table[c].cast(pa.float64()).fill_null(float("nan"))) for c in (column, seen))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(shown > 0, done / shown, np.nan)
    values = dataset.to_table(columns=[column])[column]
    if pa.types.is_floating(values.type):
        return np.asarray(values.cast(pa.float64()).fill_null(float("nan")))
    return np.array(values.to_pylist(), dtype=object)


def _default_action(column: str, reference: Sketch) -> str:
    """Ids can only be reported; attributes and rates warn; where and when stop.

    Rates start from nothing in a first window, so they move as histories fill.
    """
    if reference.values and sum(reference.shares[: len(reference.values)]) < _MOSTLY_OTHER:
        return "report"
    return "stop" if column in ("surface", "hour") else "warn"


def _rate(base: pa.Table, head: str, weights: Floats, rows: npt.NDArray[np.bool_] | None = None) -> Rate:
    labels = np.asarray(base[f"label_{head}"].cast(pa.float64()).fill_null(float("nan")))
    known = ~np.isnan(labels) if rows is None else ~np.isnan(labels) & rows
    positives, weight = float((labels[known] * weights[known]).sum()), float(weights[known].sum())
    return Rate(round(positives, 6), round(weight, 6))


def _blindness(trials: list[dict[str, Any]]) -> Verdict:
    blind = [trial for trial in trials if not trial["good"]]
    figure = "drift gates that can fail"
    if not blind:
        return Verdict(
            "self-test", "pass", figure, None, f"{len(trials)} spoiled and unspoiled columns were told apart"
        )
    one = blind[0]
    reason = f"the drift gates are blind: {one['spoiled']}, and {one['gate']} said {one['outcome']}"
    return Verdict("self-test", "fail", figure, None, reason)


def _evidently(step: Step, dataset: Any, new: npt.NDArray[np.bool_], config: Drift, findings: list[Finding]) -> None:
    """Evidently's page on a sample, for people: what moved most. The verdicts come from all rows and columns."""
    from understudy.drift.report import write_page

    moved = sorted((f for f in findings if not f.column.startswith("label_")), key=lambda f: f.psi, reverse=True)
    columns = [f.column for f in moved[:_PAGE_COLUMNS]]
    page = write_page({column: _values(dataset, column) for column in columns}, new, config.report_rows)
    step.lake.replace(f"{step.run.folder}/evidence/drift.html", page)
