"""The step ``build_features``."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("spark"), install_kfp_package=False)
def build_features(lake: str, run_id: str, section: str) -> None:
    """Feature tables of users, items, creators and topics, each row as of a moment; the online store.

    Args:
        lake: URI of the lake.
        run_id: the run, as plan_window named it.
        section: this step's configuration as canonical JSON.
    """
    from understudy.features.building import run

    run(lake, run_id, section)
