"""The step ``calibrate``."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def calibrate(lake: str, run_id: str, section: str) -> None:
    """Turn logits into probabilities and export the served file.

    Args:
        lake: URI of the lake.
        run_id: the run, as plan_window named it.
        section: this step's configuration as canonical JSON.
    """
    from understudy.calibration.step import run

    run(lake, run_id, section)
