"""The pipeline's steps, one after the other in this process."""

import dataclasses
from typing import Any

from understudy.calibration import step as calibration
from understudy.config import Config
from understudy.drift import step as drift
from understudy.evaluation import step as evaluation
from understudy.features import building, retrieval
from understudy.lake import Lake
from understudy.logs import compaction
from understudy.ranker.config import Ranker
from understudy.releases import promote, publish
from understudy.runs import Run
from understudy.runs.planning import plan_window
from understudy.runs.record import MANIFEST
from understudy.sampling import step as sampling
from understudy.training import step as training

RUN = {
    "compact_logs": (compaction.run, ("labels",)),
    "build_features": (building.run, ("features", "labels")),
    "sample_examples": (sampling.run, ("sampling",)),
    "retrieve_features": (retrieval.run, ("features",)),
    "check_drift": (drift.run, ("drift",)),
    "train_ranker": (training.run, ("training", "sampling")),
    "calibrate": (calibration.run, ("calibration", "training")),
    "evaluate": (evaluation.run, ("evaluation",)),
    "publish_release": (publish.run, ()),
    "promote": (promote.run, ("rollout",)),
}


FIRST, SECOND = "2022-04-30", "2022-05-02"  # last days of the windows of the first two releases


def small(config: Config, **training: Any) -> Config:
    """A configuration that trains for seconds, and whose gates let that pass."""
    network = Ranker(hidden=(16,), cross_layers=1, cross_rank=4)
    evaluation = dataclasses.replace(config.evaluation, auc_margin=0.2, bootstrap=50, max_ece=0.3)
    evaluation = dataclasses.replace(evaluation, max_calibration_error=0.5, segments=())
    changed = dataclasses.replace(config.training, **{"epochs": 2, "threads": 1, **training}, ranker=network)
    features = dataclasses.replace(config.features, recent_events=8, crosses=("creator", "topic"))
    return dataclasses.replace(config, training=changed, evaluation=evaluation, features=features)


def through(
    lake_uri: str, config: Config, window_end: str, last: str, *, like: Run | None = None, own: str = ""
) -> Run:
    """Plan a window and run the steps up to and including ``last``.

    Args:
        like: another run of this window, in the same lake, whose steps before ``own`` count as this one's: what they
            depend on is the same in both configurations.
    """
    run = Run(Lake.open(lake_uri), plan_window(lake_uri, config, window_end).run_id)
    for name, (step, parts) in RUN.items():
        if name == own:
            like = None
        if like is None:
            step(lake_uri, run.id, config.section(*parts))
        else:
            run.lake.create_json(f"{run.folder}/steps/{name}/manifest.json", like.manifest(name) | MANIFEST.mark())
        if name == last:
            break
    return run


def run_of(lake_uri: str, window_end: str) -> Run:
    """The one run of a window."""
    (found,) = [run for run in Run.all(Lake.open(lake_uri)) if run.plan().window_end == window_end]
    return found


def undo(run: Run, first: str) -> None:
    """As if the steps from ``first`` on had not been done; what they released stays."""
    for name in [*RUN][[*RUN].index(first) :]:
        run.lake.remove(run.folder, "steps", name)
