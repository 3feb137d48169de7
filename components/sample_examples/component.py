"""The step ``sample_examples``."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("spark"), install_kfp_package=False)
def sample_examples(lake: str, run_id: str, section: str) -> None:
    """All positives, negatives by rule and hash; the weights that keep estimates honest.

    Args:
        lake: URI of the lake.
        run_id: the run, as plan_window named it.
        section: this step's configuration as canonical JSON.
    """
    from understudy.sampling.step import run

    run(lake, run_id, section)
