"""The step ``publish_release``."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("tools"), install_kfp_package=False)
def publish_release(lake: str, run_id: str, section: str) -> None:
    """Bind everything into one release, named by its digest; alias candidate.

    Args:
        lake: URI of the lake.
        run_id: the run, as plan_window named it.
        section: this step's configuration as canonical JSON.
    """
    from understudy.releases.publish import run

    run(lake, run_id, section)
