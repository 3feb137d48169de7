"""A real collector for tests: started, loaded, killed and started again."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
from waiting import eventually

from understudy.lake import Lake
from understudy.snapshot import Snapshot

__all__ = ["HEADERS", "ROOT", "TOKEN", "Client", "Server", "action", "seen", "served"]

ROOT = Path(__file__).resolve().parent.parent.parent
TOKEN = "a-token-for-tests-only"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


class Server:
    """`understudy collect` in a folder; can be killed and started again on the same state."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder, self.more = folder, more
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "understudy.cli", "collect", "--config", "examples/collector.yaml"]
        command += ["--lake", str(self.folder / "lake"), "--state", str(self.folder / "state.db"), "--port", "0"]
        environment = {**os.environ, "UNDERSTUDY_COLLECT_TOKEN": TOKEN}
        self.process = subprocess.Popen(
            [*command, *self.more], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        self.url = found[0]
        self.client = httpx.Client(base_url=self.url, headers=HEADERS, timeout=30)
        eventually(self._answers, process=self.process)

    def _answers(self) -> bool:
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def send(self, name: str, events: list[dict[str, Any]], now: int | None = None) -> httpx.Response:
        now = now or time.time_ns() // 1_000
        events = [{"at": now, **event} for event in events]
        return self.client.post("/v1/events", json={"batch_id": name, "sent_at": now, "events": events})

    def stop(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(60)
        self.client.close()

    def rows(self, table: str) -> Any:
        lake = Lake.open(str(self.folder / "lake"))
        return Snapshot.current(lake).dataset(lake, table).to_table().to_pandas()


def served(request: str, items: int = 3, **more: Any) -> dict[str, Any]:
    listed = [{"item_id": f"i{i}", "position": i, "p": {"click": 0.1 * i}} for i in range(items)]
    whole = {"kind": "served", "request_id": request, "user_id": "u1", "items": listed, "candidate_count": 50}
    return {**whole, "release": "abc", "surface": "home", **more}


def action(request: str, item: str = "i1", name: str = "click", **more: Any) -> dict[str, Any]:
    return {"kind": "action", "request_id": request, "item_id": item, "action": name, **more}


def seen(request: str, item: str = "i1") -> dict[str, Any]:
    return {"kind": "seen", "request_id": request, "item_id": item}


class Client(threading.Thread):
    """Sends batches until it is told to stop, as clients do: what was not acknowledged is sent again.

    Args:
        server: whose address may change while the client lives.
    """

    def __init__(self, server: Server, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.server = server
        self.acknowledged: list[str] = []  # requests, each with two actions and a seen item without one
        self.sent = self.again = 0
        self.http = httpx.Client(headers=HEADERS, timeout=10)
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set():
            request = f"{self.name}-{self.sent}"
            self.sent += 1
            events = [served(request, items=5), seen(request, "i3"), action(request), action(request, "i2", "save")]
            now = time.time_ns() // 1_000
            body = {"batch_id": request, "sent_at": now, "events": [{"at": now, **event} for event in events]}
            while not self.enough.is_set() and not self._send(body):
                self.again += 1
                time.sleep(0.02)

    def _send(self, body: dict[str, Any]) -> bool:
        try:
            answer = self.http.post(f"{self.server.url}/v1/events", json=body)
        except httpx.TransportError:
            return False
        if answer.status_code == 200:
            assert answer.json() == {"accepted": 4, "refused": []}
            self.acknowledged.append(body["batch_id"])
        return answer.status_code == 200
