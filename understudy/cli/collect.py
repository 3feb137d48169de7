"""``understudy collect``."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from understudy.cli.listening import end_well, listen, token_of
from understudy.cli.output import config_option, lake_option

__all__ = ["TOKEN", "collect"]

TOKEN = "UNDERSTUDY_COLLECT_TOKEN"


@click.command()
@config_option
@lake_option
@click.option("--port", default=8900, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--state", metavar="FILE", help="The journal; default: collector.db in the current folder.")
@click.option("--token-file", metavar="FILE", help=f"Holds the clients' token; default: the variable {TOKEN}.")
@click.option("--redis", metavar="URL", help="Keep served context in Redis, which several collectors can share.")
@click.option("--flush-s", default=60.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Between segments.")
def collect(
    config: str,
    lake: str,
    port: int,
    host: str,
    state: str | None,
    token_file: str | None,
    redis: str | None,
    flush_s: float,
) -> None:
    """Take what a feed served, and what people saw and did, over HTTP.

    An answer means that the batch is on disk. Every positive is kept, few of the other impressions,
    and the random slice in full.

    \b
    export UNDERSTUDY_COLLECT_TOKEN=$(openssl rand -hex 16)
    understudy collect --config examples/collector.yaml --lake lake --port 8900
    curl -s localhost:8900/v1/events -H "Authorization: Bearer $UNDERSTUDY_COLLECT_TOKEN" -d '
      {"batch_id": "b1", "sent_at": 1767600000000000, "events": [
        {"kind": "served", "request_id": "r1", "user_id": "u1", "at": 1767600000000000,
         "candidate_count": 200, "items": [{"item_id": "i1", "position": 0}]},
        {"kind": "seen", "request_id": "r1", "item_id": "i1", "at": 1767600000000000},
        {"kind": "action", "request_id": "r1", "item_id": "i1", "action": "click", "at": 1767600000000000}]}'
    """
    from understudy.config import load
    from understudy.errors import BadInput
    from understudy.logs.collector import collector
    from understudy.logs.flush import flush
    from understudy.logs.intake import Limits
    from understudy.logs.journal import Journal
    from understudy.section import duration_s

    loaded = load(config)
    logging = loaded.logging
    if logging is None:
        raise BadInput(f"configuration {config}: expected the key logging, found none; see examples/collector.yaml")
    token = token_of(token_file, TOKEN)
    opened = _lake(lake)
    path = Path(state or "collector.db")
    keep_s = duration_s(loaded.labels.attribution_window) + duration_s(logging.lateness)

    def open_journal() -> Journal:
        return Journal(path, logging, keep_s=keep_s, redis_url=redis)

    _check_stores(open_journal, path, redis)
    limits = Limits()
    app = collector(open_journal, lambda journal: flush(journal, opened, loaded), token, flush_s=flush_s, limits=limits)
    _serve(app, listen(host, port), limits)


def _serve(app: Any, listening: socket.socket, limits: Any) -> None:
    import gc

    import uvicorn

    from understudy.http_guard import guarded

    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # events make no cycles; looking for some costs a third of the time

    host, port = listening.getsockname()[:2]
    print(f"collect: listening on http://{host}:{port}", file=sys.stderr, flush=True)
    settings = uvicorn.Config(
        app,
        http=guarded(limits.head_bytes, limits.head_s),
        ws="none",
        log_level="error",
        access_log=False,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=10,
    )
    end_well()
    uvicorn.Server(settings).run(sockets=[listening])


def _lake(uri: str) -> Any:
    from understudy.errors import BadInput
    from understudy.lake import Lake

    try:
        return Lake.open_or_create(uri)
    except OSError as error:
        raise BadInput(f"--lake {uri}: expected a folder to write to, found: {error.strerror or error}") from error


def _check_stores(open_journal: Callable[[], Any], path: Path, redis: str | None) -> None:
    """Stores open, and the journal is this process's own until it ends."""
    from understudy.errors import BadInput
    from understudy.logs.journal import hold

    where = f"--state {path}" + (f", --redis {redis}" if redis else "")
    try:
        hold(path)
        open_journal().close()
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{where}: expected stores that open, found: {' '.join(str(error).split())}") from error
