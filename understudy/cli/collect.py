"""``understudy collect``."""

import os
import socket
import sys
from pathlib import Path

import click

from understudy.cli.output import config_option, lake_option

__all__ = ["collect"]

_TOKEN = "UNDERSTUDY_COLLECT_TOKEN"
_LEAST_TOKEN = 16


@click.command()
@config_option
@lake_option
@click.option("--port", default=8900, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--state", metavar="FILE", help="The journal; default: collector.db in the current folder.")
@click.option("--token-file", metavar="FILE", help=f"Holds the clients' token; default: the variable {_TOKEN}.")
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
    import uvicorn

    from understudy.config import load
    from understudy.errors import BadInput
    from understudy.lake import Lake
    from understudy.logs.collector import Limits, collector
    from understudy.logs.flush import flush
    from understudy.logs.journal import Journal
    from understudy.section import duration_s

    loaded = load(config)
    logging = loaded.logging
    if logging is None:
        raise BadInput(f"configuration {config}: expected the key logging, found none; see examples/collector.yaml")
    token = _token(token_file)
    opened = Lake.open_or_create(lake)
    path = Path(state or "collector.db")
    keep_s = duration_s(loaded.labels.attribution_window) + duration_s(logging.lateness)

    def open_journal() -> Journal:
        return Journal(path, logging, keep_s=keep_s, redis_url=redis)

    try:
        open_journal().close()
    except Exception as error:
        raise BadInput(f"--state {path}, --redis {redis}: expected stores that open, found: {error}") from error
    app = collector(
        open_journal, lambda journal: flush(journal, opened, loaded), token, flush_s=flush_s, limits=Limits()
    )
    listening = _listen(host, port)
    print(f"collect: listening on http://{host}:{listening.getsockname()[1]}", file=sys.stderr, flush=True)
    settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=10)
    uvicorn.Server(settings).run(sockets=[listening])


def _token(path: str | None) -> str:
    from understudy.errors import BadInput

    where = f"--token-file {path}" if path else _TOKEN
    try:
        token = Path(path).read_text().strip() if path else os.environ.get(_TOKEN, "")
    except OSError as error:
        raise BadInput(f"{where}: expected a file that can be read, found: {error.strerror}") from error
    if len(token) < _LEAST_TOKEN:
        raise BadInput(f"{where}: expected a token of {_LEAST_TOKEN} characters or more, found {len(token)}; make one")
    return token


def _listen(host: str, port: int) -> socket.socket:
    from understudy.errors import BadInput

    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        raise BadInput(f"--host {host} --port {port}: expected a free address, found: {error.strerror}") from error
    return listening
