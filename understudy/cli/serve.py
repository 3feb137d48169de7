"""``understudy serve``."""

import os
import sys
import tempfile
import urllib.parse

import click

from understudy.cli.collect import TOKEN as COLLECT_TOKEN
from understudy.cli.listening import end_well, listen, token_of
from understudy.cli.output import lake_option

__all__ = ["serve"]

TOKEN = "UNDERSTUDY_SERVE_TOKEN"


@click.command()
@lake_option
@click.option("--release", default="production", show_default=True, help="An alias, which is followed, or a digest.")
@click.option(
    "--fetched",
    metavar="DIR",
    help="Folder into which `understudy releases fetch` brought the release; features still come from --lake.",
)
@click.option("--port", default=8800, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Processes; one fills a core. Default: as many as the container's CPU limit holds, 1 where none is set.",
)
@click.option(
    "--threads",
    default=1,
    show_default=True,
    type=click.IntRange(1, 256),
    help="Of one request; its steps are small, so that more workers serve better than more threads.",
)
@click.option("--token-file", metavar="FILE", help=f"Holds the clients' token; default: the variable {TOKEN}.")
@click.option(
    "--collector", metavar="URL", help=f"Tell this log collector what was served; its token: {COLLECT_TOKEN}."
)
@click.option("--arm", metavar="NAME", help="Of a rollout; the collector is told.")
@click.option(
    "--drain-s",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 600),
    help="Not ready, but serving, at the end.",
)
@click.option(
    "--replay", is_flag=True, help="Requests say their time, in the header x-understudy-now; not for a live feed."
)
@click.option("--log-requests/--no-log-requests", default=True, show_default=True, help="A line for every request.")
def serve(
    lake: str,
    release: str,
    fetched: str | None,
    port: int,
    host: str,
    workers: int | None,
    threads: int,
    token_file: str | None,
    collector: str | None,
    arm: str | None,
    drain_s: float,
    replay: bool,
    log_requests: bool,
) -> None:
    """Rank slates over HTTP with a release.

    Users' features come from the lake's online store, or from Redis where UNDERSTUDY_REDIS_URL names one, as it must
    where the lake is in an object store; items' from the snapshot that `understudy features refresh` writes. A newer
    snapshot, and another release under the same alias, are taken up while requests are answered.

    \b
    export UNDERSTUDY_SERVE_TOKEN=$(openssl rand -hex 16)
    understudy serve --release production --lake lake --port 8800
    curl -s localhost:8800/v1/rank -H "Authorization: Bearer $UNDERSTUDY_SERVE_TOKEN" -d '
      {"user_id": "u1", "candidates": ["i1", "i2", "i3"], "context": {"surface": "home"}, "limit": 2}'

    /openapi.json describes it; /v2/models/ranker/infer is the Open Inference Protocol; /metrics is for Prometheus.
    """
    from understudy.features.pointer import REDIS_URL
    from understudy.serving import worker
    from understudy.serving.cores import cpu_limit
    from understudy.serving.following import Following

    workers = workers or max(1, (cpu_limit() or 1) // threads)
    os.environ[TOKEN] = token_of(token_file, TOKEN)
    if collector is not None:
        _check_url(collector)
        os.environ[COLLECT_TOKEN] = token_of(None, COLLECT_TOKEN)
    with tempfile.TemporaryDirectory(prefix="understudy-items-") as copies:
        if workers > 1:
            # What is wrong is said once, not by each worker.
            Following(lake, release, os.environ.get(REDIS_URL), threads, fetched, copies)
        listening = listen(host, port)
        settings = worker.Settings(
            lake=lake,
            release=release,
            fetched=fetched,
            copies=copies,
            token=TOKEN,
            collector=collector,
            collector_token=COLLECT_TOKEN,
            redis=REDIS_URL,
            threads=threads,
            arm=arm,
            drain_s=drain_s,
            log_requests=log_requests,
            replay=replay,
        )
        where, at = listening.getsockname()[:2]

        def begin() -> None:
            end_well()
            print(f"serve: listening on http://{where}:{at}", file=sys.stderr, flush=True)

        worker.serve(settings, listening, workers, begin)


def _check_url(url: str) -> None:
    from understudy.errors import BadInput

    try:
        parts = urllib.parse.urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port beyond 65535
        is_address = None
    if not is_address or parts.path.strip("/") or parts.query:
        raise BadInput(f"--collector {url}: expected http://host:port, found something else")
