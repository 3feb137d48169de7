"""What the commands for Kubeflow Pipelines share."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pipelines.connection import Connection
    from understudy.kubeflow.config import Pipeline

__all__ = ["connected", "kind_option", "place_options"]

F = TypeVar("F", bound=Callable[..., Any])

kind_option = click.option(
    "--kind",
    type=click.Choice(("retrain", "drift", "refresh")),
    default="retrain",
    show_default=True,
    help="A whole run; its beginning, up to the comparison with production; or what serving reads.",
)


def place_options(command: F) -> F:
    """``--host`` and ``--namespace``."""
    namespace = click.option("--namespace", metavar="NAME", help="Of the user; wins over pipeline.namespace.")
    host = click.option("--host", metavar="URL", help="Of Kubeflow Pipelines; wins over pipeline.host.")
    return host(namespace(command))


def connected(pipeline: "Pipeline", host: str | None, namespace: str | None) -> "Connection":
    """The installation that the options, the configuration or the environment name."""
    from pipelines.connection import connect

    return connect(pipeline, host, namespace)
