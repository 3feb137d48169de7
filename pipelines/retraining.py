"""The retraining pipeline. Steps talk through the lake; the graph only says who waits for whom."""

from typing import Any

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.build_features.component import build_features
from components.calibrate.component import calibrate
from components.check_drift.component import check_drift
from components.compact_logs.component import compact_logs
from components.evaluate.component import evaluate
from components.plan_window.component import plan_window
from components.promote.component import promote
from components.publish_release.component import publish_release
from components.retrieve_features.component import retrieve_features
from components.sample_examples.component import sample_examples
from components.train_ranker.component import train_ranker
from components.write_report.component import write_report
from understudy.config import Config
from understudy.section import canonical_json

__all__ = ["NAME", "STEPS", "retraining"]

NAME = "understudy-retraining"

# step → component, parts of the configuration, steps that it waits for
STEPS: dict[str, tuple[Any, tuple[str, ...], tuple[str, ...]]] = {
    "compact_logs": (compact_logs, ("labels",), ()),
    "build_features": (build_features, ("features", "labels"), ("compact_logs",)),
    "sample_examples": (sample_examples, ("sampling",), ("compact_logs",)),
    "retrieve_features": (retrieve_features, ("features",), ("build_features", "sample_examples")),
    "check_drift": (check_drift, ("drift",), ("retrieve_features",)),
    "train_ranker": (train_ranker, ("training", "sampling"), ("retrieve_features", "check_drift")),
    "calibrate": (calibrate, ("calibration", "training"), ("train_ranker",)),
    "evaluate": (evaluate, ("evaluation",), ("calibrate",)),
    "publish_release": (publish_release, (), ("evaluate",)),
    "promote": (promote, ("rollout",), ("publish_release",)),
}


def retraining(config: Config) -> BaseComponent:
    """The pipeline for a configuration, which it carries inside."""
    whole = canonical_json(config)

    @dsl.pipeline(name=NAME, description="Retrains, gates and releases the ranker for one window.")
    def pipeline(lake: str, window_end: str = "", again: bool = False) -> None:
        job = f"{dsl.PIPELINE_JOB_NAME_PLACEHOLDER} {dsl.PIPELINE_JOB_ID_PLACEHOLDER}"
        report = write_report(lake=lake, job=job).set_caching_options(False)
        with dsl.ExitHandler(report, name="retrain"):
            plan = plan_window(lake=lake, config=whole, window_end=window_end, again=again, job=job)
            plan.set_caching_options(False)
            tasks: dict[str, Any] = {}
            for step, (component, parts, waits) in STEPS.items():
                task = component(lake=lake, run_id=plan.output, section=config.section(*parts))
                tasks[step] = task.set_caching_options(False).after(*(tasks[name] for name in waits))

    return pipeline
