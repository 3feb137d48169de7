"""Debian's prometheus for tests."""

import json
import re
import socket
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

import httpx
from waiting import eventually

__all__ = ["PrometheusServer"]

_ARM = "understudy.dev/arm"


def _sanitised(label: str) -> str:
    """As prometheus-operator and Prometheus' discovery of pods make a label's name of it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


def _servers(arms: dict[str, str], namespace: str) -> dict[str, Any]:
    pod_label = f"__meta_kubernetes_pod_label_{_sanitised(_ARM)}"
    kept = {
        "__meta_kubernetes_namespace": "namespace",
        "__meta_kubernetes_pod_name": "pod",
        pod_label: _sanitised(_ARM),
    }
    targets = [
        {
            "targets": [urllib.parse.urlsplit(url).netloc],
            "labels": dict(zip(kept, (namespace, f"{arm}-0", arm), strict=True)),
        }
        for arm, url in arms.items()
    ]
    relabel = [{"source_labels": [source], "target_label": label} for source, label in kept.items()]
    return {"job_name": "serve", "static_configs": targets, "relabel_configs": relabel}


def _states(pods: tuple[str, ...]) -> dict[str, Any]:
    return {"job_name": "pods", "honor_labels": True, "static_configs": [{"targets": list(pods)}]}


class PrometheusServer:
    """A prometheus on loopback that scrapes rank servers as a PodMonitor would have it scrape pods.

    Args:
        arms: arm → URL of its server.
        pods: addresses of what exports the state of pods, as kube-state-metrics does.
    """

    def __init__(self, folder: Path, arms: dict[str, str], namespace: str, pods: tuple[str, ...] = ()) -> None:
        jobs = [_servers(arms, namespace), _states(pods)]
        every = {"scrape_interval": "250ms", "scrape_timeout": "250ms"}
        (folder / "prometheus.yml").write_text(json.dumps({"global": every, "scrape_configs": jobs}))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.client = httpx.Client(base_url=self.url)
        self.wait(self._is_ready)

    def _is_ready(self) -> bool:
        try:
            return self.client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def wait(self, until: Any, limit_s: float = 60) -> None:
        eventually(until, limit_s, self.process)

    def value(self, query: str) -> float | None:
        """Of a query that has one value now."""
        found = self.client.get("/api/v1/query", params={"query": query}).json()["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(30)
