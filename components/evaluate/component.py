"""The step ``evaluate``."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("tools"), install_kfp_package=False)
def evaluate(
    lake: str,
    run_id: str,
    section: str,
    metrics: dsl.Output[dsl.Metrics],
    roc: dsl.Output[dsl.ClassificationMetrics],
) -> None:
    """Score the candidate, production and trivial baselines; the gates, proven able to fail.

    Args:
        lake: URI of the lake.
        run_id: the run, as plan_window named it.
        section: this step's configuration as canonical JSON.
        metrics: per head, for people.
        roc: of the first primary head, for people.
    """
    from understudy.evaluation.step import run
    from understudy.report.kubeflow import roc_points, scalars

    try:
        run(lake, run_id, section)
    finally:
        for name, value in scalars(lake, run_id).items():
            metrics.log_metric(name, value)
        points = roc_points(lake, run_id)
        if points:
            roc.log_roc_curve(*points)
