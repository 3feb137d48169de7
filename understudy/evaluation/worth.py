"""What the teacher was worth: student, control and teacher on the same rows, with paired intervals."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from understudy.evaluation.scored import Scored, difference, summary
from understudy.runs import Step, Verdict

__all__ = ["worth", "worth_verdicts"]

Floats = npt.NDArray[np.float64]


def worth(step: Step, rows: pa.Table, student: Scored, resampled: dict[str, int]) -> dict[str, Any] | None:
    """``teacher``, ``control``, ``retained`` and ``ensemble``, per head; None where nobody taught.

    Retained is (student − control) / (teacher − control) in AUC: which share of the teacher's edge its student keeps.
    It is told only where the edge's own interval lies above zero.

    Args:
        rows: the gate rows; ``student`` scores the same.
        resampled: ``resamples`` and ``seed`` of the user bootstrap.
    """
    if not step.figures("train_ranker")["teacher"]:
        return None
    heads = step.plan.heads
    teacher = student.with_probabilities(_probabilities(_table(step, "train_ranker", "teacher_scores"), rows, heads))
    found: dict[str, Any] = {
        "teacher": {head: _against(student, teacher, head, resampled) for head in heads},
        "control": None,
        "retained": {},
        "ensemble": _members(step, rows, teacher),
    }
    if step.plan.control:
        control = student.with_probabilities(_probabilities(_table(step, "calibrate", "control_scores"), rows, heads))
        found["control"] = {head: difference(student, control, head, **resampled) for head in heads}
        edges = {head: difference(teacher, control, head, **resampled) for head in heads}
        found["edge"] = edges
        found["retained"] = {head: _retained(found["control"][head], edge) for head, edge in edges.items()}
    return found


def worth_verdicts(found: dict[str, Any] | None, primary: tuple[str, ...]) -> list[Verdict]:
    """One sentence per primary head where a control was trained; it stops nothing."""
    verdicts = []
    for head in primary:
        diff = ((found or {}).get("control") or {}).get(head)
        if diff is None or found is None:
            continue
        low, high = diff["auc_interval"]
        kept = found["retained"][head]
        share = "its teacher's edge is within chance" if kept is None else f"{kept:.0%} of its teacher's edge"
        gain = f"AUC {head}, student − control, is {diff['auc']:+.4f}, 95% interval [{low:+.4f}, {high:+.4f}]"
        gate = f"distillation: {head}"
        verdicts.append(Verdict(gate, "report", "student − control", diff["auc"], f"{gain}; {share}"))
    return verdicts


def _against(student: Scored, teacher: Scored, head: str, resampled: dict[str, int]) -> dict[str, Any]:
    diff = difference(student, teacher, head, **resampled)
    gained = {} if diff is None else {"auc": diff["auc"], "auc_interval": diff["auc_interval"]}
    return {"teacher_auc": summary(teacher, head)["auc"], "student_auc": summary(student, head)["auc"], **gained}


def _retained(student: dict[str, Any] | None, edge: dict[str, Any] | None) -> float | None:
    if student is None or edge is None or not (edge["auc_interval"][0] or 0) > 0:
        return None
    return round(float(student["auc"]) / float(edge["auc"]), 6)


def _members(step: Step, rows: pa.Table, ensemble: Scored) -> dict[str, Any] | None:
    """Per head: AUC of the ensemble, of its best member and of its mean one. The best is known after the fact."""
    if "member_scores" not in (step.run.manifest("train_ranker") or {"tables": {}})["tables"]:
        return None
    heads, scores = step.plan.heads, _table(step, "train_ranker", "member_scores")
    found: dict[str, list[float]] = {head: [] for head in heads}
    for member in np.unique(np.asarray(scores["member"])):
        own = scores.filter(pc.equal(scores["member"], int(member)))
        scored = ensemble.with_probabilities(_probabilities(own, rows, heads))
        for head in heads:
            auc = summary(scored, head)["auc"]
            found[head] += [auc] if auc is not None else []
    return {
        head: {"ensemble": summary(ensemble, head)["auc"], "best": max(aucs), "mean": round(float(np.mean(aucs)), 9)}
        for head, aucs in found.items()
        if aucs
    }


def _table(step: Step, name: str, table: str) -> pa.Table:
    return step.dataset(name, table).to_table()


def _probabilities(scores: pa.Table, rows: pa.Table, heads: tuple[str, ...]) -> Floats:
    """Probabilities (n, H) of the rows, NaN where a head is unknown."""
    place = pc.index_in(rows["row_key"], scores["row_key"])
    columns = [scores[f"logit_{h}"].take(place).cast(pa.float64()).fill_null(float("nan")) for h in heads]
    probabilities: Floats = 1 / (1 + np.exp(-np.stack([np.asarray(c) for c in columns], axis=1)))
    return probabilities
