"""The pipeline's steps, one after the other in this process."""

from understudy.calibration import step as calibration
from understudy.config import Config
from understudy.drift import step as drift
from understudy.evaluation import step as evaluation
from understudy.features import building, retrieval
from understudy.lake import Lake
from understudy.logs import compaction
from understudy.releases import promote, publish
from understudy.runs import Run
from understudy.runs.planning import plan_window
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


def through(lake_uri: str, config: Config, window_end: str, last: str) -> Run:
    """Plan a window and run the steps up to and including ``last``."""
    run = Run(Lake.open(lake_uri), plan_window(lake_uri, config, window_end).run_id)
    for name, (step, parts) in RUN.items():
        step(lake_uri, run.id, config.section(*parts))
        if name == last:
            break
    return run
