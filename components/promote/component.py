"""The step ``promote``."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("tools"), install_kfp_package=False)
def promote(lake: str, run_id: str, section: str) -> None:
    """Bring the candidate into production when every verdict is a pass.

    Args:
        lake: URI of the lake.
        run_id: the run, as plan_window named it.
        section: this step's configuration as canonical JSON.
    """
    from understudy.releases.promote import run

    run(lake, run_id, section)
