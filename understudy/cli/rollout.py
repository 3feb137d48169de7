"""``understudy rollout``: put a candidate in front of more and more people, judge it, and take it back."""

import contextlib
import getpass
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from understudy.cli.ending import end_at_once
from understudy.cli.listening import token_of
from understudy.cli.output import config_option, json_option, lake_option, print_json
from understudy.cli.place import Place, place_options
from understudy.cli.serve import TOKEN
from understudy.lake import Lake

__all__ = ["rollout"]

_id = click.argument("rollout_id", metavar="[ROLLOUT]", required=False)
_port = click.option("--port", default=8800, show_default=True, type=click.IntRange(0, 65535), help="Of the router.")
_collector = click.option("--collector", metavar="URL", help="Servers tell this log collector what they served.")


@click.group()
def rollout() -> None:
    """Put a candidate in front of more and more people, judge it, and take it back.

    On this machine: server processes behind a small router, driven by the command that began it.

    \b
    export UNDERSTUDY_SERVE_TOKEN=$(openssl rand -hex 16)
    understudy rollout start --config my.yaml --lake lake
    understudy rollout status | watch | history | pause | resume | promote | abort

    On Kubernetes, with --cluster or --namespace, or as `kubectl understudy`: the driver there does it.

    \b
    kubectl understudy start && kubectl understudy watch
    kubectl annotate configmap understudy-rollout understudy.dev/word=abort      # the same without this program
    """


@rollout.command()
@click.option(
    "--config", metavar="FILE", help="Configuration in YAML; not needed with a cluster, whose driver has one."
)
@place_options
@click.option("--release", default="candidate", show_default=True, help="What goes on stage.")
@_port
@click.option("--drive/--no-drive", default=True, show_default=True, help="Drive it here, to its end.")
@_collector
def start(config: str | None, place: Place, release: str, port: int, drive: bool, collector: str | None) -> None:
    """Begin a rollout; on this machine, drive it too."""
    from understudy.config import load
    from understudy.rollout.beginning import begin
    from understudy.rollout.places import need_folder

    if place.is_cluster:
        place.ask_to_start(release)
        return
    if config is None:
        raise click.UsageError("expected --config for a rollout on this machine, or --cluster for one on Kubernetes")
    loaded = load(config)  # what is wrong is said before anything begins
    if drive:
        token_of(None, TOKEN)
    lake = Lake.open(place.lake)
    need_folder(lake)
    state = begin(lake, place.record(), loaded.rollout, release, time.time())
    click.echo(f"rollout {state.id}")
    if drive:
        _drive(config, lake, state.id, port, collector)


@rollout.command("drive")
@_id
@config_option
@lake_option
@_port
@_collector
def drive_on(rollout_id: str | None, config: str, lake: str, port: int, collector: str | None) -> None:
    """Go on with a rollout of this machine whose driver has ended."""
    _drive(config, Lake.open(lake), rollout_id or Place(lake).newest(), port, collector)


@rollout.command()
@config_option
@place_options
@click.option(
    "--heartbeat",
    metavar="FILE",
    help="Touch it as the loop turns: a liveness probe finds a loop that hangs by the file's age.",
)
def operate(config: str, place: Place, heartbeat: str | None) -> None:
    """Be the driver of a cluster: begin, drive and end rollouts there until this process ends.

    A Deployment runs it (manifests/base/rollout). Between rollouts `stable` serves what the lake calls production, so
    `understudy releases rollback` moves the servers too; and what was promoted is watched beside the holdout that keeps
    the release before it: where it is shown to be worse, an alert says so.

    SIGTERM ends it at once, also in the middle of a look: the next driver goes on from what is written.
    """
    from understudy.config import load
    from understudy.rollout.cluster.operator import Operator
    from understudy.rollout.cluster.record import ClusterRollouts
    from understudy.rollout.places import aftermath, cluster_driver, judged_metrics

    end_at_once("driver")
    beat = _heart(heartbeat)
    loaded, lake, api = load(config), Lake.open_or_create(place.lake), place.api()
    record = ClusterRollouts(api, lake)
    click.echo(f"driver: namespace {api.namespace}, judges {', '.join(judged_metrics(loaded))}", err=True)
    Operator(cluster_driver(lake, record, loaded, _say, beat), record, aftermath(lake, loaded)).run()


def _heart(path: str | None) -> Callable[[], None]:
    """What renews the heartbeat, which has then beaten once; of a process without one, nothing."""
    from understudy.errors import BadInput

    if path is None:
        return lambda: None
    file = Path(path)
    try:
        file.touch()
    except OSError as error:
        raise BadInput(f"--heartbeat {path}: expected a file to write, found: {error.strerror}; correct it") from error
    return file.touch


def _drive(config: str, lake: Lake, rollout_id: str, port: int, collector: str | None) -> None:
    token_of(None, TOKEN)
    from understudy.config import load
    from understudy.rollout.places import local_driver

    more = ("--collector", collector) if collector else ()
    with local_driver(lake, load(config), port, _say, more) as (driver, _):
        driver.drive(rollout_id)


def _say(text: str) -> None:
    click.echo(text, err=True)


@rollout.command()
@_id
@place_options
@json_option
def status(rollout_id: str | None, place: Place, as_json: bool) -> None:
    """Where a rollout stands: arms, figures, verdict; the newest without a name."""
    from understudy.cli.rollout_tables import print_status
    from understudy.rollout.status import status_of

    record = place.record()
    found = status_of(record, rollout_id or place.newest())
    if as_json:
        print_json(found)
        return
    print_status(found)


@rollout.command()
@_id
@place_options
@click.option("--every", default=2.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Seconds.")
def watch(rollout_id: str | None, place: Place, every: float) -> None:
    """Say what is decided as it is decided, until the rollout has ended."""
    record = place.record()
    chosen, said = rollout_id or place.newest(), 0
    while True:
        _, state = record.load(chosen)
        history = record.history(chosen)
        for one in history[said:]:
            click.echo(f"{one['at']}  step {one['step'] + 1}  {one['said']}")
        said = len(history)
        if state.ended:
            return
        time.sleep(every)


@rollout.command()
@_id
@place_options
@json_option
def history(rollout_id: str | None, place: Place, as_json: bool) -> None:
    """What was decided, when, and why."""
    from understudy.cli.rollout_tables import print_history

    found = place.record().history(rollout_id or place.newest())
    if as_json:
        print_json(found)
        return
    print_history(found)


def _word(name: str, text: str) -> None:
    """A command by which a person decides."""

    @rollout.command(name, help=text)
    @_id
    @place_options
    def command(rollout_id: str | None, place: Place) -> None:
        from understudy.rollout.ending import end

        if place.is_cluster:
            place.ask(name, rollout_id)
            return
        state, sentences = _decided(place.record(), rollout_id or place.newest(), name)
        if not sentences:
            click.echo(f"rollout {state.id} has ended: {state.phase}")
        for sentence in sentences:
            click.echo(sentence)
        if state.ended and sentences:
            end(Lake.open(place.lake), place.record(), state)

    del command


def _decided(record: Any, rollout_id: str, word: str) -> tuple[Any, tuple[str, ...]]:
    from understudy.rollout.driver import WORDS
    from understudy.rollout.record import Moved

    while True:
        number, before = record.load(rollout_id)
        decision = WORDS[word](before, getpass.getuser())
        with contextlib.suppress(Moved):
            record.advance(number, before, decision)
            return decision.state, decision.sentences


_word("pause", "Hold the step; guardrails and harm still end the rollout.")
_word("resume", "Go on.")
_word("promote", "Everybody gets the candidate, whatever the figures say.")
_word("abort", "Everybody gets the stable release; the candidate is rejected.")
