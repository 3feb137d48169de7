"""What teachers are worth in a feed whose truth is known: week after week, and against an ensemble.

Popularity ranks nine weeks of a simulated feed. Each week a student learns that week alone, taught by the student of
the week before or by nobody, and is scored on the week after. In the last week an ensemble of twelve learns too, cross-
fitted, and teaches a student of its own. AUC is that of the true probabilities of a click, so that no coin is tossed.
Students of one seed and week differ in nothing but the loss. Intervals are Student's t, over weeks of the means over
seeds, or over seeds.
"""

import argparse
import dataclasses
import itertools
import sys
import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from distillation import Class, Days, days, logits
from seeds import interval
from sklearn.metrics import roc_auc_score

from understudy import config as configuration
from understudy.cli.output import print_table
from understudy.config import Config
from understudy.features import building, retrieval
from understudy.inputs import Inputs
from understudy.lake import Lake
from understudy.logs import compaction
from understudy.ranker.network import RankerModel
from understudy.runs import Run
from understudy.runs.planning import plan_window
from understudy.sampling import step as sampling
from understudy.simulator import feed
from understudy.simulator.simulate import simulate
from understudy.spark_server import serving
from understudy.training.config import Distillation

HEAD = "click"
CHAINS = {
    "nobody": None,
    "the week before, alpha .5": Distillation(alpha=0.5, only_newer=False),
    "the week before, alpha .8": Distillation(alpha=0.8, only_newer=False),
}
STUDENTS = {  # name → alpha, and whether it learns for longer
    "nobody, for longer": (None, True),
    "the ensemble, alpha .5": (0.5, False),
    "the ensemble, alpha .9": (0.9, False),
    "the ensemble, alpha .5, for longer": (0.5, True),
    "the ensemble, alpha .7, for longer": (0.7, True),
    "the ensemble, alpha .9, for longer": (0.9, True),
    "the ensemble, alpha 1, for longer": (1.0, True),
}
LONGER = {"epochs": 16, "patience": 8}
Floats = npt.NDArray[np.float32]


def logged(config: Config, weeks: int, folder: str) -> tuple[pa.Table, pa.Table]:
    """All logged rows with features as of their time, and the true probabilities of each."""
    assert config.world is not None, "the configuration has a world"
    simulate(config, folder, 7 * weeks, "popularity", lambda text: print(text, file=sys.stderr, flush=True))
    first, last = (feed.day_of(config.world, day) for day in (0, 7 * weeks - 1))
    plan = plan_window(folder, config, last, purpose="evaluate", window_start=first)
    compaction.run(folder, plan.run_id, config.section("labels"))
    building.run(folder, plan.run_id, config.section("features", "labels"))
    sampling.run(folder, plan.run_id, config.section("sampling"))
    retrieval.run(folder, plan.run_id, config.section("features"))
    lake = Lake.open(folder)
    rows = lake.dataset(Run(lake, plan.run_id).table_path("retrieve_features", "training_set")).to_table()
    return rows, lake.dataset(feed.TRUTH).to_table()


def auc(said: Floats, part: Days, truth: pa.Table, h: int) -> float:
    """AUC of logits (n,) under the true probabilities: each row is a positive and a negative, in these shares."""
    column = next(name for name in truth.column_names if name.endswith(HEAD))
    chance = np.asarray(truth[column].take(pc.index_in(part.table["row_key"], truth["row_key"])), np.float64)
    labels = np.repeat([1, 0], len(chance))
    weights = np.concatenate([chance, 1 - chance]) * np.tile(part.weights, 2)
    return float(roc_auc_score(labels, np.tile(said[:, h], 2), sample_weight=weights))


def one_seed(config: Config, seed: int, weeks: list[Days], truth: pa.Table, inputs: Inputs) -> dict[str, Any]:
    """Chain → AUC per week; and the ensemble's figures."""
    training, h = dataclasses.replace(config.training, seed=seed), config.heads.index(HEAD)
    found: dict[str, Any] = {name: [] for name in CHAINS}
    before: dict[str, RankerModel] = {}
    for week, (part, later) in enumerate(itertools.pairwise(weeks)):
        lesson = Class(part, inputs, training)
        for name, distillation in CHAINS.items():
            targets = None
            if distillation is not None and name in before:
                targets = lesson.targets(logits(before[name], lesson.learn, inputs), distillation)
            before[name] = lesson.student(distillation or Distillation(), targets)
            found[name].append(auc(logits(before[name], later, inputs), later, truth, h))
        print(f"seed {seed}, week {week + 1}", file=sys.stderr, flush=True)
    lesson, later = Class(weeks[-2], inputs, training), weeks[-1]
    out_of_fold, members = lesson.ensemble((later,))
    each = [auc(one[0], later, truth, h) for one in members]
    found["members"] = {"best": max(each), "mean": float(np.mean(each))}
    found["ensemble"] = auc(np.mean([one[0] for one in members], axis=0), later, truth, h)
    long = Class(weeks[-2], inputs, dataclasses.replace(training, **LONGER))
    for name, (alpha, for_longer) in STUDENTS.items():
        distillation = Distillation() if alpha is None else Distillation(alpha=alpha)
        targets = None if alpha is None else lesson.targets(out_of_fold, distillation)
        student = (long if for_longer else lesson).student(distillation, targets)
        found[name] = auc(logits(student, later, inputs), later, truth, h)
    return found


def main() -> None:
    """Run the seeds and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="examples/simulated.yaml")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weeks", type=int, default=8, help="windows; one more week is simulated to score them")
    options = parser.parse_args()
    config = configuration.load(options.config)
    torch.set_num_threads(config.training.threads)
    assert config.world is not None, "the configuration has a world"
    with tempfile.TemporaryDirectory(prefix="understudy-weekly-") as folder, serving():
        table, truth = logged(config, options.weeks + 1, folder)
    f = config.features
    inputs = Inputs.derive(
        table.schema,
        heads=config.heads,
        time_zone=config.time_zone,
        half_lives=f.half_lives,
        recent_events=f.recent_events,
        surfaces=f.max_surfaces,
    )
    spans = [(feed.day_of(config.world, 7 * w), feed.day_of(config.world, 7 * w + 6)) for w in range(options.weeks + 1)]
    weeks = [days(table, config.heads, span) for span in spans]
    del table
    found = [one_seed(config, seed, weeks, truth, inputs) for seed in range(options.seeds)]
    mean = {name: np.mean([one[name] for one in found], axis=0) for name in CHAINS}
    rows = [
        (name, *(f"{value:.4f}" for value in mean[name]), interval(list((mean[name] - mean["nobody"])[1:]), 4))
        for name in CHAINS
    ]
    columns = ("taught by", *(f"week {week + 1}" for week in range(options.weeks)), "− nobody, from week 2")
    print_table(f"AUC of the truth on the week after, {options.seeds} seeds", columns, rows)
    alone = [one["nobody"][-1] for one in found]
    edge = [one["ensemble"] - a for one, a in zip(found, alone, strict=True)]
    last = [("taught by nobody", f"{np.mean(alone):.4f}", "", "")]
    last += [
        (f"an ensemble's {n} member", f"{np.mean([o['members'][n] for o in found]):.4f}", "", "")
        for n in ("mean", "best")
    ]
    last.append(("the ensemble", f"{np.mean([one['ensemble'] for one in found]):.4f}", interval(edge, 4), ""))
    for name in STUDENTS:
        values = [one[name] for one in found]
        gain = [value - a for value, a in zip(values, alone, strict=True)]
        kept = f"{np.mean(gain) / np.mean(edge):.0%}"
        last.append((f"taught by {name}", f"{np.mean(values):.4f}", interval(gain, 4), kept))
    columns = ("ranker", "AUC", "− nobody", "of the ensemble's edge")
    print_table(f"the last week and an ensemble, {options.seeds} seeds", columns, last)


if __name__ == "__main__":
    main()
