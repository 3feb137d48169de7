"""A rollout on a laptop: a server process per arm on loopback, a router before them, and a look at what they count."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from understudy.errors import UnderstudyError
from understudy.experiments import Arms
from understudy.experiments.arms import HOLDOUTS
from understudy.lake import Lake
from understudy.rollout.engagement import Look
from understudy.rollout.metrics import Tally, read
from understudy.rollout.state import Seen, State

__all__ = ["LocalServers", "LocalSource"]

ROUTE = "rollouts/route.json"
_START_S = 60.0
_END_S = 30.0  # of grace, for requests that are under way


@dataclass
class _Server:
    """A running `understudy serve`."""

    release: str
    process: "subprocess.Popen[str]"
    url: str
    restarts: int = 0


@dataclass
class LocalServers:
    """Server processes of the arms, and the route's file. A server that died is started again.

    Args:
        more: arguments of every server.
    """

    lake: Lake
    more: tuple[str, ...] = ()
    servers: dict[str, _Server] = field(default_factory=dict)

    def apply(self, arms: Arms, releases: dict[str, str]) -> bool:
        """New servers first, then the route, then the end of those that it left; returns when all is so."""
        wanted, shared = _wanted(arms, releases)
        left = [one for arm, release in wanted.items() if (one := self._ensure(arm, release))]
        urls = {arm: self.servers[shared.get(arm, arm)].url for arm in (*wanted, *shared)}
        routed = {arm: list(buckets) for arm, buckets in arms.buckets.items() if arm in urls}
        text = json.dumps({"urls": urls, "arms": routed}, sort_keys=True) + "\n"
        path = Path(self.lake.path(ROUTE))
        if not path.exists() or path.read_text() != text:
            self.lake.replace(ROUTE, text.encode())
        left += [self.servers.pop(arm) for arm in list(self.servers) if arm not in wanted]
        _stop(left)
        return True

    def _ensure(self, arm: str, release: str) -> _Server | None:
        """A server of the release; the one whose place it took."""
        one = self.servers.get(arm)
        if one is not None and one.release == release and one.process.poll() is None:
            return None
        self.servers[arm] = started = _start(self.lake, arm, release, self.more)
        if one is not None and one.release == release:
            started.restarts = one.restarts + 1
        return one

    def close(self) -> None:
        _stop(list(self.servers.values()))
        self.servers.clear()


def _wanted(arms: Arms, releases: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Arm → the release of its own server; holdout → the arm whose server it shares."""
    wanted = {arm: releases[arm] for arm in ("stable", "canary", "baseline") if arms.size(arm) or arm == "stable"}
    shared = {}
    for holdout in (name for name in HOLDOUTS if arms.size(name)):
        same = [arm for arm in ("stable", *HOLDOUTS) if wanted.get(arm) == releases[holdout]]
        if same:
            shared[holdout] = same[0]
        else:
            wanted[holdout] = releases[holdout]
    return wanted, shared


def _start(lake: Lake, arm: str, release: str, more: tuple[str, ...]) -> _Server:
    command = [sys.executable, "-m", "understudy.cli", "serve", "--lake", lake.root, "--release", release]
    command += ["--workers", "1", "--port", "0", "--arm", arm, "--no-log-requests", *more]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    timer = threading.Timer(_START_S, process.kill)
    timer.daemon = True
    try:
        timer.start()
        return _Server(release, process, _url_of(process, f"arm {arm}: expected a server of {release[:12]}"))
    except BaseException:  # also who is asked to end while it begins leaves no server behind
        process.kill()
        process.wait()
        raise
    finally:
        timer.cancel()


def _url_of(process: "subprocess.Popen[str]", expected: str) -> str:
    """Where a server listens, as soon as it has its release on stage."""
    assert process.stderr is not None, "it is piped"
    lines = []
    url = ""
    for line in process.stderr:
        lines.append(line)
        found = re.search(r"http://\S+", line)
        url = found[0] if found and not url else url
        if '"event":"on_stage"' in line:
            threading.Thread(target=_drain, args=[process.stderr], daemon=True).start()
            return url
    raise UnderstudyError(f"{expected}, found: {''.join(lines[-3:]).strip()}")


def _drain(lines: Iterator[str]) -> None:
    for line in lines:
        if '"event":"on_stage"' not in line:
            print(line, end="", file=sys.stderr, flush=True)


def _stop(servers: list[_Server]) -> None:
    """End servers, all at the same time; one that does not end within its grace is killed."""
    for one in servers:
        one.process.terminate()
    until_s = time.monotonic() + _END_S
    for one in servers:
        try:
            one.process.wait(max(0.0, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()


@dataclass
class LocalSource:
    """Metrics of the arms' own servers, and what people did, by ``engagement``.

    Args:
        engagement: arm → the arm with users, outcomes and calibration filled in.
    """

    servers: LocalServers
    engagement: Look
    tally: Tally = field(default_factory=Tally)

    def see(self, state: State, now_s: float) -> Seen:
        """Since the last look; a server that can't be reached says nothing."""
        servers = {arm: self.servers.servers.get(arm) for arm in ("canary", "baseline")}
        counted = {arm: {one.url: read(one.url)} if one is not None else {} for arm, one in servers.items()}
        arms = self.tally.arms(state, counted)
        for arm, one in servers.items():
            if one is not None:
                arms[arm] = replace(arms[arm], restarts=one.restarts)
        found = self.engagement(state, now_s, arms)
        return Seen(now_s, found["canary"], found["baseline"])
