"""A real rank server for tests, and what it is asked."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
from waiting import eventually

from understudy import releases
from understudy.lake import Lake
from understudy.releases.unit import build
from understudy.simulator.spoiling import spoiled

__all__ = [
    "HEADERS",
    "PATIENT",
    "ROOT",
    "TOKEN",
    "RankServer",
    "another_release",
    "items_of",
    "releases_of",
    "spoiled_release",
    "users_of",
]

ROOT = Path(__file__).resolve().parent.parent.parent
TOKEN = "a-token-for-tests-only"
PATIENT = {"budget_ms": 10_000.0}  # where it must not matter how busy the machine is
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


class RankServer:
    """`understudy serve` on a lake, with its log."""

    def __init__(self, lake: Path | str, *more: str, **environment: str) -> None:
        command = [sys.executable, "-m", "understudy.cli", "serve", "--lake", str(lake), "--port", "0", *more]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "UNDERSTUDY_SERVE_TOKEN": TOKEN, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.wait(lambda: any("http://" in line for line in self.lines))
        found = re.search(r"http://\S+", "".join(self.lines))
        assert found
        self.url = found[0]
        self.client = httpx.Client(base_url=self.url, headers=HEADERS, timeout=30)
        self.wait(self.is_ready)

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)

    def wait(self, until: Any, limit_s: float = 60) -> None:
        eventually(until, limit_s, self.process, lambda: "".join(self.lines))

    def is_ready(self) -> bool:
        try:
            return self.client.get("/v2/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def rank(self, user: str, candidates: list[str], **more: Any) -> httpx.Response:
        return self.client.post("/v1/rank", json={"user_id": user, "candidates": candidates, **more})

    def metric(self, name: str) -> float:
        """A metric's value, such as ``shed_total{cause="queue"}``; 0 where it was never counted."""
        lines = self.client.get("/metrics").text.splitlines()
        found = [line.rpartition(" ")[2] for line in lines if line.startswith(f"understudy_serving_{name} ")]
        return float(found[0]) if found else 0.0

    def stop(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        code = self.process.wait(60)
        self.client.close()
        return code


def spoiled_release(lake: Path) -> str:
    """A release like production that predicts e times the odds; returns its digest."""
    return spoiled(Lake.open(str(lake)), "production", serving=PATIENT)


def releases_of(lake: Path) -> str:
    """The one release of a lake."""
    (path,) = [path for path in (lake / "releases").iterdir() if len(path.name) == 64]
    return path.name


def items_of(lake: Path) -> list[str]:
    return sorted(set(_examples(lake)["item_id"].to_pylist()))


def users_of(lake: Path) -> list[str]:
    return sorted(set(_examples(lake)["user_id"].to_pylist()))


def _examples(lake: Path) -> Any:
    (folder,) = lake.glob("runs/*/steps/compact_logs/*/examples")
    return Lake.open(str(lake)).dataset(str(folder.relative_to(lake))).to_table(columns=["user_id", "item_id"])


def another_release(lake: Path, **sections: dict[str, Any]) -> str:
    """A release like production with some sections of its configuration changed; returns its digest."""
    opened = Lake.open(str(lake))
    release = releases.load(opened, "production")
    content = {key: value for key, value in release.manifest.items() if key not in ("files", "format")}
    content["config"] = {**content["config"], **sections}
    return build(opened, content, release.files)
