"""``understudy rollout``: put a candidate in front of more and more people, judge it, and take it back."""

import contextlib
import datetime
import getpass
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from understudy.cli.listening import listen, token_of
from understudy.cli.output import config_option, json_option, lake_option, print_json, print_table, short
from understudy.cli.serve import TOKEN
from understudy.lake import Lake

__all__ = ["rollout"]

_id = click.argument("rollout_id", metavar="[ROLLOUT]", required=False)


@click.group()
def rollout() -> None:
    """Put a candidate in front of more and more people, judge it, and take it back.

    \b
    export UNDERSTUDY_SERVE_TOKEN=$(openssl rand -hex 16)
    understudy rollout start --config my.yaml --lake lake     # the candidate, on local servers behind a router
    understudy rollout status | history | pause | resume | promote | abort
    """


@rollout.command()
@config_option
@lake_option
@click.option("--release", default="candidate", show_default=True, help="What goes on stage.")
@click.option("--port", default=8800, show_default=True, type=click.IntRange(0, 65535), help="Of the router.")
@click.option("--drive/--no-drive", default=True, show_default=True, help="Drive it here, to its end.")
@click.option("--collector", metavar="URL", help="Servers tell this log collector what they served.")
def start(config: str, lake: str, release: str, port: int, drive: bool, collector: str | None) -> None:
    """Begin a rollout, and drive it on servers of this machine."""
    from understudy import releases
    from understudy.config import load
    from understudy.errors import BadInput
    from understudy.rollout.record import Rollouts
    from understudy.rollout.state import State

    load(config)  # what is wrong is said before anything begins
    if drive:
        token_of(None, TOKEN)
    opened = Lake.open(lake)
    candidate, stable = releases.load(opened, release).digest, releases.resolve(opened, "production")
    if candidate == stable:
        raise BadInput(f"release {candidate[:12]}: expected another release than production, found production itself")
    if candidate in releases.quarantined(opened):
        raise BadInput(f"release {candidate[:12]}: expected a healthy release, found one in quarantine")
    now = datetime.datetime.now(datetime.UTC)
    state = State.begin(f"{now:%Y%m%d-%H%M%S}-{candidate[:6]}", candidate, stable, now.timestamp())
    Rollouts(opened).begin(state, f"begun: {candidate[:12]} against {stable[:12]}")
    click.echo(f"rollout {state.id}")
    if drive:
        _drive(config, opened, state.id, port, collector)


@rollout.command("drive")
@_id
@config_option
@lake_option
@click.option("--port", default=8800, show_default=True, type=click.IntRange(0, 65535), help="Of the router.")
@click.option("--collector", metavar="URL", help="Servers tell this log collector what they served.")
def drive_on(rollout_id: str | None, config: str, lake: str, port: int, collector: str | None) -> None:
    """Go on with a rollout whose driver has ended."""
    from understudy.rollout.record import Rollouts

    opened = Lake.open(lake)
    _drive(config, opened, rollout_id or Rollouts(opened).newest(), port, collector)


def _drive(config: str, lake: Lake, rollout_id: str, port: int, collector: str | None) -> None:
    token_of(None, TOKEN)
    from understudy.config import load
    from understudy.rollout.driver import drive
    from understudy.rollout.engagement import logged
    from understudy.rollout.local import ROUTE, LocalServers, LocalSource

    loaded = load(config)
    judged = loaded.rollout.judged or loaded.evaluation.primary_heads or loaded.heads[:1]
    servers = LocalServers(lake, ("--collector", collector) if collector else ())
    source = LocalSource(servers, logged(lake, loaded, (*judged, *loaded.rollout.harmful)))
    with contextlib.closing(servers), _routing(Path(lake.path(ROUTE)), port) as url:
        click.echo(f"router: {url}", err=True)
        drive(lake, rollout_id, loaded.rollout, judged, servers, source, lambda text: click.echo(text, err=True))


@contextlib.contextmanager
def _routing(path: Path, port: int) -> Iterator[str]:
    """The router, in a thread of this process."""
    import uvicorn

    from understudy.rollout.router import router

    listening = listen("127.0.0.1", port)
    server = uvicorn.Server(uvicorn.Config(router(path), log_level="error", ws="none", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, args=[[listening]], daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


@rollout.command()
@_id
@lake_option
@json_option
def status(rollout_id: str | None, lake: str, as_json: bool) -> None:
    """Where a rollout stands; the newest without a name."""
    from understudy.rollout.record import Rollouts

    rollouts = Rollouts(Lake.open(lake))
    number, state = rollouts.load(rollout_id or rollouts.newest())
    said = rollouts.history(state.id)
    if as_json:
        print_json({"number": number, **state.to_json(), "said": said[-1]["said"] if said else None})
        return
    rows = [
        ("candidate, stable", f"{short(state.candidate)}, {short(state.stable)}"),
        ("phase, step", f"{state.phase}, {state.step + 1}"),
        ("looks", state.looks),
        ("strikes", ", ".join(f"{name}: {count}" for name, count in state.strikes.items() if count) or "none"),
        ("said last", said[-1]["said"] if said else ""),
    ]
    print_table(f"rollout {state.id}", ("what", "value"), rows)


@rollout.command()
@_id
@lake_option
@json_option
def history(rollout_id: str | None, lake: str, as_json: bool) -> None:
    """What was decided, when, and why."""
    from understudy.rollout.record import Rollouts

    rollouts = Rollouts(Lake.open(lake))
    found = rollouts.history(rollout_id or rollouts.newest())
    if as_json:
        print_json(found)
        return
    rows = [(one["at"], one["step"] + 1, one["phase"], one["said"]) for one in found]
    print_table("history", ("at", "step", "phase", "why"), rows)


def _word(name: str, text: str) -> None:
    """A command by which a person decides."""

    @rollout.command(name, help=text)
    @_id
    @lake_option
    def command(rollout_id: str | None, lake: str) -> None:
        from understudy.rollout import judge
        from understudy.rollout.ending import end
        from understudy.rollout.record import Rollouts

        opened = Lake.open(lake)
        rollouts = Rollouts(opened)
        chosen = rollout_id or rollouts.newest()
        state, sentences = _decided(rollouts, chosen, getattr(judge, name))
        for sentence in sentences:
            click.echo(sentence)
        if state.ended and sentences:
            end(opened, state, sentences[-1])

    del command


def _decided(rollouts: Any, rollout_id: str, word: Callable[..., Any]) -> tuple[Any, tuple[str, ...]]:
    from understudy.rollout.record import Moved

    while True:
        number, before = rollouts.load(rollout_id)
        decision = word(before, getpass.getuser())
        with contextlib.suppress(Moved):
            rollouts.advance(number, before, decision)
            return decision.state, decision.sentences


_word("pause", "Hold the step; guardrails and harm still end the rollout.")
_word("resume", "Go on.")
_word("promote", "Everybody gets the candidate, whatever the figures say.")
_word("abort", "Everybody gets the stable release; the candidate is rejected.")
