"""The pipelines. Steps talk through the lake; a graph only says who waits for whom.

Three graphs share the same steps: a whole run; its beginning, up to the comparison with production; and what serving
reads. A run that was begun by the second is taken up by the first.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.build_features.component import build_features
from components.calibrate.component import calibrate
from components.check_drift.component import check_drift
from components.compact_logs.component import compact_logs
from components.evaluate.component import evaluate
from components.launch_step.component import launch_step
from components.plan_window.component import plan_window
from components.promote.component import promote
from components.publish_release.component import publish_release
from components.retrieve_features.component import retrieve_features
from components.sample_examples.component import sample_examples
from components.train_ranker.component import train_ranker
from components.write_report.component import write_report
from understudy.config import Config

__all__ = ["GRAPHS", "ROLES", "STEPS", "Place", "name_of", "retraining"]

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

# step → whose image it runs in; a test compares it with what the components say
ROLES = dict.fromkeys(("plan_window", *STEPS, "write_report"), "tools")
ROLES |= dict.fromkeys(("compact_logs", "build_features", "sample_examples"), "spark")
ROLES |= dict.fromkeys(("train_ranker", "calibrate"), "train")


class Graph(NamedTuple):
    """A pipeline.

    Args:
        purpose: of its runs' plans.
        last: the step whose commit means that the run has done what it is for; no step comes after it.
        says: for people.
    """

    purpose: str
    last: str
    says: str


GRAPHS = {
    "retrain": Graph("train", "promote", "Retrains, gates and releases the ranker for one window."),
    "drift": Graph("train", "check_drift", "Compares the newest days with those that production has learned from."),
    "refresh": Graph("refresh", "build_features", "Builds what serving reads from all logs."),
}

Place = Callable[[str, Any], None]


def name_of(config: Config, kind: str) -> str:
    """The pipeline's name."""
    return f"{config.pipeline.name}-{kind}"


def retraining(
    config: Config,
    kind: str = "retrain",
    place: Place | None = None,
    limits: Any = None,
    jobs: Mapping[str, str] | None = None,
) -> BaseComponent:
    """The pipeline for a configuration, which it carries inside.

    Args:
        kind: which graph.
        place: is given each step's name and task, to say where it runs; None: it runs on this machine.
        limits: of the whole, a ``dsl.PipelineConfig``.
        jobs: step → the job that does it, see ``components.launch_step``.
    """
    graph = GRAPHS[kind]
    body = _pipeline(config, graph, place, jobs or {})
    functions = {"retrain": _retrain, "drift": _drift, "refresh": _refresh}
    decorate = dsl.pipeline(name=name_of(config, kind), description=graph.says, pipeline_config=limits)
    return decorate(functions[kind](body))


def _retrain(body: Callable[..., None]) -> Callable[..., None]:
    def pipeline(lake: str, window_end: str = "", again: bool = False) -> None:
        body(lake, window_end, again)

    return pipeline


def _drift(body: Callable[..., None]) -> Callable[..., None]:
    def pipeline(lake: str, window_end: str = "") -> None:
        body(lake, window_end, False)

    return pipeline


def _refresh(body: Callable[..., None]) -> Callable[..., None]:
    def pipeline(lake: str) -> None:
        body(lake, "", False)

    return pipeline


def _pipeline(config: Config, graph: Graph, place: Place | None, jobs: Mapping[str, str]) -> Callable[..., None]:
    whole = config.work()

    def body(lake: Any, window_end: Any, again: Any) -> None:
        def settle(step: str, task: Any) -> Any:
            task.set_caching_options(False)
            if place is not None:
                place(step, task)
            return task

        job = _job(place is None)
        report = settle("write_report", write_report(lake=lake, job=job, last=graph.last))
        with dsl.ExitHandler(report, name="steps"):
            wanted = {"window_end": window_end, "again": again, "purpose": graph.purpose, "last": graph.last}
            plan = settle("plan_window", plan_window(lake=lake, config=whole, job=job, **wanted))
            tasks: dict[str, Any] = {}
            for step in _until(graph.last):
                component, parts, waits = STEPS[step]
                given = {"lake": lake, "run_id": plan.output, "section": config.section(*parts)}
                if step in jobs:
                    task = launch_step(step=step, job=jobs[step], **given).set_display_name(step.replace("_", "-"))
                else:
                    task = component(**given)
                tasks[step] = settle(step, task).after(*(tasks[name] for name in waits))

    return body


def _job(here: bool) -> str:
    """What names this run of the graph.

    A cluster fills in a placeholder only where it is the whole value. Here ids have eight digits, and the name a time.
    """
    job: str = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    return f"{dsl.PIPELINE_JOB_NAME_PLACEHOLDER} {job}" if here else job


def _until(last: str) -> list[str]:
    """A step and all that it waits for, in order."""
    needed = {last}
    for step in reversed(STEPS):
        if step in needed:
            needed.update(STEPS[step][2])
    return [step for step in STEPS if step in needed]
