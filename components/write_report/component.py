"""The step ``write_report``: runs at the end, whatever happened before."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("tools"), install_kfp_package=False)
def write_report(lake: str, job: str, page: dsl.Output[dsl.HTML], last: str = "promote") -> None:
    """Write the run's page, also of a run that was stopped, and tell people how it ended.

    Args:
        lake: URI of the lake.
        job: the orchestrator's own id of this job.
        page: the same page in the orchestrator's view.
        last: the step whose commit means that the run has done what it is for.
    """
    from understudy.lake import Lake
    from understudy.report.kubeflow import copy_html
    from understudy.report.step import write
    from understudy.report.telling import tell_end
    from understudy.runs.planning import run_of_job

    run_id = None
    try:
        run_id = run_of_job(Lake.open(lake), job)
        if run_id is not None:
            copy_html(lake, write(lake, run_id), page.path)
    finally:
        tell_end(lake, run_id, job, last)
