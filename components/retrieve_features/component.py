"""The step ``retrieve_features``."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("tools"), install_kfp_package=False)
def retrieve_features(lake: str, run_id: str, section: str) -> None:
    """Join samples with features as a server could have read them then, through Feast.

    Args:
        lake: URI of the lake.
        run_id: the run, as plan_window named it.
        section: this step's configuration as canonical JSON.
    """
    from understudy.features.retrieval import run

    run(lake, run_id, section)
