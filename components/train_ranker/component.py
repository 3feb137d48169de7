"""The step ``train_ranker``."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def train_ranker(lake: str, run_id: str, section: str) -> None:
    """Train the student, from labels and from the teacher.

    Args:
        lake: URI of the lake.
        run_id: the run, as plan_window named it.
        section: this step's configuration as canonical JSON.
    """
    from understudy.training.step import run

    run(lake, run_id, section)
