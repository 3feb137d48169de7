"""Where a rollout takes place, for commands: a lake and this machine, or a namespace of a cluster."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from understudy.cli.output import lake_option

__all__ = ["Place", "place_options"]

_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Place:
    """Args: cluster: of the current kubeconfig context, or of this pod."""

    lake: str
    cluster: bool = False
    namespace: str | None = None
    context: str | None = None

    @property
    def is_cluster(self) -> bool:
        return self.cluster or self.namespace is not None or self.context is not None

    def api(self) -> Any:
        """The cluster's namespace."""
        from understudy.kubernetes_api import connect

        return connect(self.namespace, self.context)

    def record(self) -> Any:
        """A ``Record``; on a cluster with the lake beside it where it is here."""
        from understudy.lake import Lake
        from understudy.rollout.record import Rollouts

        if not self.is_cluster:
            return Rollouts(Lake.open(self.lake))
        from understudy.rollout.cluster.record import ClusterRollouts

        lake = Lake(self.lake)
        return ClusterRollouts(self.api(), lake if lake.exists("lake.json") else None)

    def newest(self) -> str:
        """The last rollout's id.

        Raises:
            BadInput: there is none.
        """
        from understudy.errors import BadInput

        last = self.record().last()
        if last is None:
            where = "the cluster" if self.is_cluster else f"lake {self.lake}"
            raise BadInput(f"{where}: expected a rollout, found none; `understudy rollout start` begins one")
        return str(last.id)

    def ask(self, word: str, rollout_id: str | None) -> None:
        """Ask the cluster's driver, and say what came of it.

        Raises:
            BadInput: no rollout is on, or another one.
        """
        from understudy.errors import BadInput
        from understudy.rollout.cluster.record import WORD

        record = self.record()
        last = record.last()
        if last is None or last.ended or (rollout_id and rollout_id != last.id):
            found = "none" if last is None else f"{last.id}, {last.phase}"
            raise BadInput(f"{word}: expected {rollout_id or 'a rollout'} to be on, found {found}")
        before = len(record.history(last.id))
        record.ask(WORD, word)
        self._await(lambda: record.word() is None)
        for one in record.history(last.id)[before:]:
            click.echo(one["said"])

    def ask_to_start(self, release: str) -> None:
        """Ask the cluster's driver to begin a rollout.

        Raises:
            BadInput: one is on, or the driver refused.
        """
        from understudy.errors import BadInput
        from understudy.rollout.cluster.record import START
        from understudy.rollout.record import refuse_if_on

        record = self.record()
        last = record.last()
        refuse_if_on(last)
        record.ask(START, release)
        self._await(lambda: record.asked_to_start() is None)
        state = record.last()
        if state is None or (last is not None and state.id == last.id):
            raise BadInput(f"release {release}: expected a rollout of it, found: {record.said()}")
        click.echo(f"rollout {state.id}: {state.candidate[:12]} against {state.stable[:12]}")

    def _await(self, done: Callable[[], bool]) -> None:
        from understudy.errors import UnderstudyError

        end = time.monotonic() + _PATIENCE_S
        while not done():
            if time.monotonic() > end:
                raise UnderstudyError(
                    "cluster: expected the driver to answer within 30 s, found the annotation still there; "
                    "`kubectl logs deployment/understudy-rollout-driver` says why, and it will be seen later"
                )
            time.sleep(0.5)


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that make a ``Place``, which the command gets as ``place``."""

    @lake_option
    @click.option("--cluster", is_flag=True, help="On Kubernetes: the kubeconfig's current context, or this pod's.")
    @click.option("--namespace", "-n", metavar="NAME", help="Of the cluster; default: the context's.")
    @click.option("--context", metavar="NAME", help="Of the kubeconfig.")
    @functools.wraps(command)
    def wrapped(*args: Any, lake: str, cluster: bool, namespace: str | None, context: str | None, **more: Any) -> Any:
        return command(*args, place=Place(lake, cluster, namespace, context), **more)

    return wrapped
