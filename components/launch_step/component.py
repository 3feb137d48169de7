"""A step that is done by a job of its own."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("tools"), install_kfp_package=False)
def launch_step(step: str, lake: str, run_id: str, section: str, job: str) -> None:
    """Have a step done by a SparkApplication or a TrainJob: make it, follow it to its end, tidy up.

    Args:
        step: the step.
        lake: URI of the lake.
        run_id: the run, as plan_window named it.
        section: the step's configuration as canonical JSON.
        job: the job's object as canonical JSON, but for its name and arguments.
    """
    from understudy.jobs.launching import launch

    launch(step, lake, run_id, section, job)
