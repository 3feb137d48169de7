"""Drivers by place: processes of this machine, or a namespace of a cluster."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.config import Config
from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.rollout.aftermath import ARMS, Aftermath
from understudy.rollout.driver import Driver
from understudy.rollout.engagement import logged
from understudy.rollout.local import ROUTE, LocalServers, LocalSource
from understudy.rollout.record import Rollouts
from understudy.rollout.router import routing
from understudy.section import duration_s

if TYPE_CHECKING:
    from understudy.rollout.cluster.record import ClusterRollouts

__all__ = ["aftermath", "cluster_driver", "judged_metrics", "local_driver", "need_folder"]

_PROMETHEUS_TOKEN = "UNDERSTUDY_PROMETHEUS_TOKEN"


def judged_metrics(config: Config) -> tuple[str, ...]:
    """Metrics that must not be worse."""
    return config.rollout.judged or config.primary_heads


def need_folder(lake: Lake) -> None:
    """Refuse a rollout on this machine for a lake in an object store: the router follows a file.

    Raises:
        BadInput: it is in one.
    """
    if not lake.is_local:
        raise BadInput(
            f"lake {lake.root}: expected a folder for a rollout on this machine, found an object store; "
            "put the release on stage on a cluster (rollout.namespace, or --cluster), or use rollout.mode: direct"
        )


@contextlib.contextmanager
def local_driver(
    lake: Lake, config: Config, port: int, say: Callable[[str], None], more: tuple[str, ...] = ()
) -> Iterator[tuple[Driver, str]]:
    """A driver of server processes behind a router, which end with it; and the router's URL.

    Args:
        port: of the router. more: arguments of every server.
    """
    need_folder(lake)
    judged = judged_metrics(config)
    servers = LocalServers(lake, more)
    source = LocalSource(servers, logged(lake, config, (*judged, *config.rollout.harmful)))
    with contextlib.closing(servers), routing(Path(lake.path(ROUTE)), port) as url:
        say(f"router: {url}")
        yield Driver(lake, Rollouts(lake), config.rollout, judged, servers, source, say), url


def aftermath(lake: Lake, config: Config) -> Aftermath:
    """A watch over what is promoted, from the lake's log."""
    judged = judged_metrics(config)
    return Aftermath(config.rollout, judged, logged(lake, config, (*judged, *config.rollout.harmful), ARMS))


def cluster_driver(
    lake: Lake, record: "ClusterRollouts", config: Config, say: Callable[[str], None], beat: Callable[[], None]
) -> Driver:
    """A driver of Deployments and a route.

    Args:
        beat: is called as its loop turns.
    """
    from understudy.rollout.cluster.servers import ClusterServers
    from understudy.rollout.cluster.source import ClusterSource
    from understudy.rollout.prometheus import Prometheus

    rollout, judged, api = config.rollout, judged_metrics(config), record.api
    prometheus = None
    if rollout.prometheus:
        token = os.environ.get(_PROMETHEUS_TOKEN)
        prometheus = Prometheus(rollout.prometheus, api.namespace, token, duration_s(rollout.tick))
    source = ClusterSource(api, logged(lake, config, (*judged, *rollout.harmful)), prometheus)
    return Driver(lake, record, rollout, judged, ClusterServers(api), source, say, beat=beat)
