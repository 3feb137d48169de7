"""The step ``evaluate``: what the candidate is worth, and whether the gates let it pass."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from understudy.calibration.fit import Calibrator
from understudy.evaluation import gates, selftest
from understudy.evaluation.baselines import baselines
from understudy.evaluation.config import Evaluation
from understudy.evaluation.figures import by_value, curves, heads_summary, ndcg_by_head, segment_rows
from understudy.evaluation.latency import measure
from understudy.evaluation.scored import Scored, churned, difference, summary
from understudy.evaluation.worth import worth, worth_verdicts
from understudy.inputs import Inputs
from understudy.ranker.served import Served
from understudy.runs import Outcome, Step, Verdict, execute
from understudy.section import canonical_json, part

__all__ = ["run"]

NAME = "evaluate"
Floats = npt.NDArray[np.float64]


def run(lake: str, run_id: str, section: str) -> dict[str, Any]:
    """Score the gate rows with the candidate, production and the baselines, and judge.

    Args:
        section: canonical JSON with ``evaluation``.
    """
    config = part(Evaluation, section, "evaluation")
    return execute(lake, run_id, NAME, section, lambda step: _body(step, config), needs=["check_drift", "calibrate"])


@dataclass(frozen=True)
class Candidate:
    """The candidate before the gates.

    Args:
        rows: the gate rows with all columns.
        model: bytes of ``served.onnx``.
        scored, before: its probabilities as served, and as they were before calibration.
    """

    rows: pa.Table
    inputs: Inputs
    model: bytes
    served: Served
    expected: Floats
    scored: Scored
    before: Scored


def _body(step: Step, config: Evaluation) -> Outcome:
    heads = step.plan.heads
    primary = config.primary_heads or heads[:1]
    candidate = _candidate(step)
    step.say(f"{candidate.rows.num_rows} rows for gates")
    trivial = _baselines(step, candidate)
    production, out_of_time = _production(step, candidate)
    reference, against = (production, "production") if production else _best(trivial, primary[0])
    resampled = {"resamples": config.bootstrap, "seed": config.seed}
    diffs = {head: difference(candidate.scored, reference, head, **resampled) for head in heads}
    found = heads_summary(candidate.scored, **resampled)
    segments = segment_rows(candidate.rows, config.segments, config.min_segment_rows)
    step.say("proving that the gates can fail")
    trials = selftest.self_test(candidate.scored, segments, config, primary, _parity(candidate))
    verdicts = [
        *_judge(config, primary, found, diffs, against),
        *_segments(config, primary, candidate, reference, against, segments),
    ]
    kept = {head: churned(candidate.scored, production, head, config.top) for head in heads} if production else {}
    verdicts += [gates.churn(head, kept[head], config.min_rank_correlation) for head in primary if head in kept]
    verdicts += [gates.export_parity(_parity(candidate)(False), config.export_tolerance)]
    verdicts += [gates.size(len(candidate.model) / 1e6, config.max_size_mb), _latency(step, candidate, config)]
    verdicts.append(selftest.verdict(trials))
    taught = worth(step, candidate.rows, candidate.scored, resampled)
    verdicts += worth_verdicts(taught, primary)
    figures = {
        "rows": candidate.rows.num_rows,
        "primary_heads": list(primary),
        "heads": found,
        "before_calibration": heads_summary(candidate.before),
        "by": {
            name: by_value(candidate.scored, candidate.rows[name])
            for name in dict.fromkeys(("day", "slice", *config.segments))
            if name in candidate.rows.column_names
        },
        "ndcg": ndcg_by_head(candidate.scored),
        "churn": kept,
        **curves(candidate.scored, candidate.before),
        "baselines": {name: heads_summary(scored) for name, scored in trivial.items()},
        "against": against,
        "difference": diffs,
        "production": None if production is None else _compared(step, production, diffs),
        "out_of_time": out_of_time,
        "teaching": taught,
        "self_test": [trial.to_json() for trial in trials],
    }
    for verdict in verdicts:
        step.say(f"{verdict.outcome}: {verdict.reason}")
    return Outcome(figures=figures, verdicts=verdicts)


def _candidate(step: Step) -> Candidate:
    dataset = step.dataset("retrieve_features", "training_set")
    rows = dataset.to_table(filter=pc.field("split") == "gate").combine_chunks()
    heads = step.plan.heads
    scores = step.dataset("calibrate", "scores").to_table()
    place = pc.index_in(rows["row_key"], scores["row_key"])
    logits = np.stack([np.asarray(scores[f"logit_{h}"].take(place), np.float64) for h in heads], axis=1)
    known = json.loads(step.lake.read_bytes(step.file("calibrate", "calibrators.json")))
    calibrators = [Calibrator.from_json(known[head]) for head in heads]
    expected = np.stack([c.probabilities(logits[:, h]) for h, c in enumerate(calibrators)], axis=1)
    inputs = Inputs.from_json(step.lake.read_bytes(step.file("train_ranker", "inputs.json")).decode())
    model = step.lake.read_bytes(step.file("calibrate", "served.onnx"))
    served = Served(model, inputs)
    probabilities, _ = served.score(rows)
    scored = Scored.of(rows, heads, probabilities)
    before = scored.with_probabilities(1 / (1 + np.exp(-logits)))
    return Candidate(rows, inputs, model, served, expected, scored, before)


def _parity(candidate: Candidate) -> Callable[[bool], float]:
    """Largest difference of the file's probabilities from the network's, as calibrated."""

    def largest(shuffled: bool) -> float:
        if not shuffled:
            return round(float(np.abs(candidate.scored.probabilities - candidate.expected).max()), 7)
        head = candidate.rows.slice(0, 4096)
        feeds = candidate.inputs.encode(head)
        order = np.random.default_rng(0).permutation(head.num_rows)
        feeds["counters"] = feeds["counters"][order]
        feeds["event_outcomes"] = feeds["event_outcomes"][order]
        probabilities, _ = candidate.served.score_feeds(feeds)
        return float(np.abs(probabilities - candidate.expected[: head.num_rows]).max())

    return largest


def _baselines(step: Step, candidate: Candidate) -> dict[str, Scored]:
    labels = [f"label_{head}" for head in step.plan.heads]
    columns = ["user_id", "item_id", "sample_weight", *labels]
    dataset = step.dataset("retrieve_features", "training_set")
    train = dataset.to_table(columns=columns, filter=pc.field("split") == "train")
    found = baselines(train, candidate.rows, step.plan.heads)
    return {name: candidate.scored.with_probabilities(values) for name, values in found.items()}


def _best(trivial: dict[str, Scored], head: str) -> tuple[Scored, str]:
    """The baseline with the higher AUC."""
    name = max(trivial, key=lambda one: summary(trivial[one], head)["auc"] or 0.0)
    return trivial[name], f"baseline {name}"


def _production(step: Step, candidate: Candidate) -> tuple[Scored | None, dict[str, Any] | None]:
    """Production (or its healthy ancestor) on the gate rows, and on every row newer than its own window."""
    if step.plan.reference is None:
        return None, None
    from understudy import releases

    release = releases.load(step.lake, step.plan.reference)
    inputs = Inputs.from_json(release.files["inputs.json"].decode())
    served = Served(release.files["served.onnx"], inputs)
    heads = step.plan.heads
    gate = candidate.scored.with_probabilities(_aligned(served.score(candidate.rows)[0], inputs.heads, heads))
    end = release.manifest["window"]["end"]
    dataset = step.dataset("retrieve_features", "training_set")
    new = dataset.to_table(filter=pc.field("day") > end)
    if not new.num_rows:
        return gate, None
    scored = Scored.of(new, heads, _aligned(served.score(new)[0], inputs.heads, heads))
    figures = {"digest": release.digest, "after": end, "rows": new.num_rows, "heads": heads_summary(scored)}
    return gate, figures | {"by_day": by_value(scored, new["day"])}


def _aligned(probabilities: npt.NDArray[Any], theirs: tuple[str, ...], ours: tuple[str, ...]) -> Floats:
    """Columns in the order of our heads; NaN for one that the release lacks."""
    result = np.full((len(probabilities), len(ours)), np.nan)
    for h, head in enumerate(ours):
        if head in theirs:
            result[:, h] = probabilities[:, theirs.index(head)]
    return result


def _judge(
    config: Evaluation, primary: tuple[str, ...], found: dict[str, Any], diffs: dict[str, Any], against: str
) -> list[Verdict]:
    verdicts = []
    for head, figures in found.items():
        is_primary = head in primary
        verdicts.append(gates.non_inferiority(head, against, diffs[head], config.auc_margin, primary=is_primary))
        interval = figures.get("calibration_ratio_interval", [None, None])
        ratio = figures["calibration_ratio"]
        verdicts.append(gates.calibration(head, ratio, interval, config.max_calibration_error, primary=is_primary))
        if is_primary:
            verdicts.append(gates.discrimination(head, figures["auc"], config.min_auc))
            verdicts.append(gates.ece(head, figures["ece"], figures.get("ece_noise"), config.max_ece))
    return verdicts


def _segments(
    config: Evaluation,
    primary: tuple[str, ...],
    candidate: Candidate,
    reference: Scored,
    against: str,
    segments: dict[str, npt.NDArray[np.bool_]],
) -> list[Verdict]:
    verdicts = []
    for head in primary:
        found = {
            name: difference(
                candidate.scored.rows(rows), reference.rows(rows), head, resamples=config.bootstrap, seed=config.seed
            )
            for name, rows in segments.items()
        }
        verdicts.append(gates.segments(head, against, found, config.auc_margin))
    return verdicts


def _latency(step: Step, candidate: Candidate, config: Evaluation) -> Verdict:
    """The figures depend on the machine: they go to the evidence, the verdict says pass or fail."""
    size, bound_ms = config.slate_size, config.max_p99_ms
    found = measure(candidate.model, candidate.inputs, size, bound_ms, config.slate_sizes)
    evidence = {"slate_size": size, "bound_ms": bound_ms, **found}
    step.lake.replace(f"{step.run.folder}/evidence/latency.json", (canonical_json(evidence) + "\n").encode())
    p99 = found["slates"][str(size)]["p99_ms"]
    good = p99 <= bound_ms
    bound = f"p99 of {bound_ms:g} ms for {size} candidates on one core"
    reason = f"scoring keeps its {bound}" if good else f"scoring takes {p99:.1f} ms, above its {bound}"
    return Verdict("latency", "pass" if good else "fail", "p99 in ms", None, reason, high=bound_ms)


def _compared(step: Step, production: Scored, diffs: dict[str, Any]) -> dict[str, Any]:
    return {"digest": step.plan.reference, "heads": heads_summary(production), "difference": diffs}
