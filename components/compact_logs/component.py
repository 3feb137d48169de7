"""The step ``compact_logs``."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("spark"), install_kfp_package=False)
def compact_logs(lake: str, run_id: str, section: str) -> None:
    """Deduplicate, join actions, label after the attribution window: examples by day.

    Args:
        lake: URI of the lake.
        run_id: the run, as plan_window named it.
        section: this step's configuration as canonical JSON.
    """
    from understudy.logs.compaction import run

    run(lake, run_id, section)
