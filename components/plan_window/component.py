"""The step ``plan_window``."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("tools"), install_kfp_package=False)
def plan_window(
    lake: str, config: str, window_end: str, again: bool, job: str, purpose: str = "train", last: str = "promote"
) -> str:
    """Decide once what the run works on: window, teacher, production, inputs.

    Args:
        lake: URI of the lake.
        config: the configuration as canonical JSON.
        window_end: last day of the window (YYYY-MM-DD); empty: the newest complete day.
        again: plan a fresh run even where this one exists.
        job: the orchestrator's own id of this job.
        purpose: ``train``, or ``refresh``: what serving reads, from all days.
        last: the step whose commit means that the run has done what it is for.

    Returns:
        The run's id.
    """
    from understudy.runs.planning import plan_window as plan

    return plan(lake, config, window_end, purpose=purpose, again=again, job=job, last=last).run_id
