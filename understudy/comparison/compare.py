"""Train several configurations on one window with the same seeds, and say what sets them apart.

Configurations that agree on features and labels share one table: each decides in the loader which of its rows train.
What is trained stays beside the run, so a comparison that was stopped goes on, and one more configuration costs only
its own training.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import safetensors.numpy
import torch

from understudy import __version__
from understudy.calibration.fit import fit_calibrator
from understudy.comparison.figures import compared
from understudy.config import Config
from understudy.drift.config import Drift
from understudy.errors import BadInput
from understudy.evaluation.config import Evaluation
from understudy.evaluation.scored import Scored
from understudy.lake import Lake
from understudy.ranker.files import to_files
from understudy.releases import ancestors, nearest_healthy, resolve_alias
from understudy.rollout.config import Rollout
from understudy.runs import Run, Step
from understudy.runs.planning import plan_window
from understudy.sampling.config import Sampling
from understudy.section import canonical_json
from understudy.snapshot import Snapshot
from understudy.training.config import Training
from understudy.training.lessons import Lessons
from understudy.training.loop import scores
from understudy.training.said import release_that_teaches, teach

__all__ = ["compare"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Trained:
    """One configuration with one seed.

    Args:
        scored: its calibrated probabilities on the gate rows.
        figures: rows, parameters, bytes, evaluations, teacher, seconds.
    """

    scored: Scored
    figures: dict[str, Any]


def compare(lake_uri: str, configs: dict[str, Config], window_end: str | None, seeds: int, say: Say) -> dict[str, Any]:
    """Figures of each configuration, and paired differences from the first.

    Args:
        configs: name → configuration; heads may be fewer than the lake's in all but one.
        window_end: last day, whose users are split for stopping, calibration and comparison.
        say: tells of progress.

    Returns:
        ``run``, ``window``, ``rows``, ``seeds``, ``heads`` (head → configuration → figures), ``costs``
        (configuration → figures).

    Raises:
        BadInput: the configurations cannot be compared on one window.
    """
    lake = Lake.open(lake_uri)
    whole = _with_all_heads(lake, configs)
    runs = {key: _base_run(lake, config, window_end, say) for key, config in _bases(configs, whole).items()}
    ends = {run.plan().window_end for run in runs.values()}
    starts = {run.plan().window_start for run in runs.values()}
    found: dict[str, list[_Trained]] = {}
    for name, config in configs.items():
        run = runs[_table_of(config)]
        found[name] = [_trained(run, name, config, seed, say) for seed in range(seeds)]
    names = list(configs)
    common = [h for h in configs[names[0]].primary_heads if all(h in config.heads for config in configs.values())]
    if not common:
        raise BadInput("compare: expected a primary head of the first configuration that all others know, found none")
    evaluation = configs[names[0]].evaluation
    heads = {
        head: dict(
            zip(
                names,
                compared(
                    [[one.scored for one in found[name]] for name in names],
                    head,
                    resamples=evaluation.bootstrap,
                    seed=evaluation.seed,
                ),
                strict=True,
            )
        )
        for head in common
    }
    first = next(iter(runs.values()))
    return {
        "run": first.id,
        "window": {"start": min(starts), "end": max(ends)},
        "rows": len(found[names[0]][0].scored.users),
        "seeds": seeds,
        "heads": heads,
        "costs": {name: _costs([one.figures for one in of_seeds]) for name, of_seeds in found.items()},
    }


def _with_all_heads(lake: Lake, configs: dict[str, Config]) -> Config:
    heads = Snapshot.current(lake).heads
    for name, config in configs.items():
        if unknown := sorted(set(config.heads) - set(heads)):
            raise BadInput(f"{name}: expected heads of lake {lake.root} ({', '.join(heads)}), found {unknown[0]!r}")
    whole = [config for config in configs.values() if config.heads == heads]
    if not whole:
        raise BadInput(f"compare: expected a configuration with all heads of lake {lake.root}: {', '.join(heads)}")
    if len({(c.time_zone, canonical_json(c.labels), c.window.days) for c in configs.values()}) > 1:
        raise BadInput(
            "compare: expected one time_zone, labels and window in all configurations, found several; "
            "rows with other labels can't be paired"
        )
    return whole[0]


def _table_of(config: Config) -> str:
    """What two configurations must agree on to share a table."""
    return canonical_json(config.features)


def _bases(configs: dict[str, Config], whole: Config) -> dict[str, Config]:
    """Per table the configuration that makes it: of all that a run says, only what the table depends on."""
    plain = dataclasses.replace(
        whole,
        sampling=Sampling(mode="loader"),
        drift=Drift(),
        training=Training(),
        evaluation=Evaluation(),
        rollout=Rollout(),
    )
    return {_table_of(one): dataclasses.replace(plain, features=one.features) for one in configs.values()}


def _base_run(lake: Lake, config: Config, window_end: str | None, say: Say) -> Run:
    from understudy.features import building, retrieval
    from understudy.logs import compaction
    from understudy.sampling import step as sampling

    uri = lake.uri()
    run = Run(lake, plan_window(uri, config, window_end, purpose="compare").run_id)
    say(f"{run.id}: rows and features")
    compaction.run(uri, run.id, config.section("labels"))
    building.run(uri, run.id, config.section("features", "labels"))
    sampling.run(uri, run.id, config.section("sampling"))
    retrieval.run(uri, run.id, config.section("features"))
    return run


def _trained(run: Run, name: str, config: Config, seed: int, say: Say) -> _Trained:
    """Train, or read what was trained before."""
    step = _step(run, config)
    training = dataclasses.replace(config.training, seed=seed)
    parts: list[Any] = [__version__, step.plan.teacher, seed, canonical_json(training), canonical_json(config.sampling)]
    parts += [canonical_json(config.calibration), list(config.heads)]
    key = hashlib.sha256(canonical_json(parts).encode()).hexdigest()
    path = f"{run.folder}/compare/{key[:16]}.safetensors"
    if not run.lake.exists(path):
        say(f"{name}, seed {seed}")
        section = canonical_json({"compare": key})
        run.lake.create(path, _learn(step, dataclasses.replace(config, training=training), section))
        run.lake.remove(f"{run.folder}/steps/train_ranker/checkpoints")
    data = run.lake.read_bytes(path)
    tensors = safetensors.numpy.load(data)
    figures = json.loads(tensors["figures"].tobytes())
    gate = step.dataset("retrieve_features", "training_set").to_table(
        columns=["row_key", "user_id", "request_id", "sample_weight", *(f"label_{h}" for h in config.heads)],
        filter=pc.field("split") == "gate",
    )
    place = np.asarray(pc.index_in(gate["row_key"], pa.array(tensors["row_key"])))
    return _Trained(Scored.of(gate, config.heads, tensors["probabilities"][place]), figures)


def _step(run: Run, config: Config) -> Step:
    """The base run, as the configuration's own plan would have it."""
    plan = run.plan()
    own: dict[str, Any] = json.loads(config.work())
    teacher = _teacher(run, config)
    note = "production, or its newest ancestor that had not seen the window's end" if teacher else "nobody teaches"
    changed = dataclasses.replace(plan, heads=config.heads, config=own, teacher=teacher, teacher_note=note)
    return Step(run.lake, run, changed, "compare", f"{run.folder}/compare")


def _teacher(run: Run, config: Config) -> str | None:
    """The newest release in good health whose window ended before this one."""
    production = resolve_alias(run.lake, "production")
    if config.training.distillation.teacher != "production" or production is None:
        return None
    healthy = nearest_healthy(run.lake, production)
    before = ancestors(run.lake, healthy) if healthy else []
    end = run.plan().window_end
    return next((str(one["digest"]) for one in before if one["window"]["end"] < end), None)


def _learn(step: Step, config: Config, section: str) -> bytes:
    started = time.monotonic()
    torch.set_num_threads(config.training.threads)
    sampling = dataclasses.replace(config.sampling, mode="loader")
    release = release_that_teaches(step)
    lessons = Lessons(step, config.training, sampling, section, release.columns() if release else (), whole=True)
    said = teach(lessons, release)
    model, state = lessons.fitted("student", None if said is None else said.targets_BH)
    logits = scores(model, lessons.scored_only(lessons.last)).numpy()
    seconds = time.monotonic() - started
    mine = np.asarray(lessons.last["split"]) == "calibrate"
    weights = np.asarray(lessons.last["sample_weight"])
    probabilities = np.empty(logits.shape, np.float64)
    for h, head in enumerate(config.heads):
        labels = np.asarray(lessons.last[f"label_{head}"].cast(pa.float64()).fill_null(float("nan")))
        rows, z = mine & ~np.isnan(labels), logits[:, h].astype(np.float64)
        how = config.calibration
        calibrator = fit_calibrator(how.method, z[rows], labels[rows], weights[rows], how.prior_positives)
        probabilities[:, h] = calibrator.probabilities(z)
    figures = {
        "rows": len(lessons.index),
        "parameters": sum(p.numel() for name, p in model.named_parameters() if "auxiliary" not in name),
        "bytes": len(to_files(model)["model.safetensors"]),
        "evaluations": len(state.curve),
        "taught_rows": 0 if said is None else said.rows,
        "seconds": round(seconds, 3),
    }
    tensors = {"row_key": np.asarray(lessons.last["row_key"]), "probabilities": probabilities}
    tensors["figures"] = np.frombuffer(canonical_json(figures).encode(), np.uint8)
    kept: bytes = safetensors.numpy.save(tensors)
    return kept


def _costs(per_seed: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds."""
    return {name: round(float(np.mean([one[name] for one in per_seed])), 3) for name in per_seed[0]}
