"""The step ``check_drift``."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("tools"), install_kfp_package=False)
def check_drift(lake: str, run_id: str, section: str, drift: dsl.Output[dsl.HTML]) -> None:
    """Compare the new days with the reference, per column and label on all rows; Evidently on a sample.

    Args:
        lake: URI of the lake.
        run_id: the run, as plan_window named it.
        section: this step's configuration as canonical JSON.
        drift: Evidently's report, for people.
    """
    from understudy.drift.step import run
    from understudy.report.kubeflow import copy_html

    try:
        run(lake, run_id, section)
    finally:
        copy_html(lake, f"runs/{run_id}/evidence/drift.html", drift.path)
