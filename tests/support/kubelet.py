"""What starts pods in an emulated cluster: each is a process of this machine that ends as its pod."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from cluster import Cluster

__all__ = ["Kubelet"]

Json = dict[str, Any]
_IP = "127.0.0.1"


class Kubelet:
    """Runs the pods that Spark makes, with their own command, variables and mounted configuration.

    Args:
        environ: more variables, as a Secret or a node would give them.
    """

    def __init__(self, cluster: Cluster, folder: Path, environ: dict[str, str]) -> None:
        self.cluster, self.folder, self.environ = cluster, folder, environ
        self.ran: dict[str, tuple[Json, subprocess.Popen[bytes]]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Kubelet":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        for _, process in self.ran.values():
            process.kill()
            process.wait(20)

    def log(self, pod: str) -> str:
        return (self.folder / f"{pod}.log").read_text(errors="replace")

    def pods(self, role: str) -> list[Json]:
        """The pods of a role of Spark that were run."""
        return [pod for pod, _ in self.ran.values() if pod["metadata"]["labels"].get("spark-role") == role]

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            for name in self.cluster.names("pods"):
                pod = self.cluster.find("pods", name)
                if pod is None or "spark-role" not in pod["metadata"].get("labels", {}):
                    continue
                if name not in self.ran:
                    if not self._has_volumes(pod):
                        continue
                    self.ran[name] = (pod, self._start(pod))
                    self._tell(pod, "Running", {"running": {}})
                code = self.ran[name][1].poll()
                if code is not None and pod["status"]["phase"] == "Running":
                    ended = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
                    self._tell(pod, "Failed" if code else "Succeeded", ended)
            for name, (_, process) in self.ran.items():
                if name not in self.cluster.names("pods"):
                    process.kill()

    def _has_volumes(self, pod: Json) -> bool:
        """A pod waits for what it mounts: its driver's ConfigMap is made after it."""
        maps = [one["configMap"]["name"] for one in pod["spec"].get("volumes", []) if "configMap" in one]
        return all(self.cluster.find("configmaps", name) for name in maps)

    def _tell(self, pod: Json, phase: str, state: Json) -> None:
        containers = [
            {
                "name": one["name"],
                "ready": phase == "Running",
                "restartCount": 0,
                "image": "",
                "imageID": "",
                "state": state,
            }
            for one in pod["spec"]["containers"]
        ]
        pod["status"] = {"phase": phase, "podIP": _IP, "containerStatuses": containers}
        pod["status"]["conditions"] = [{"type": "Ready", "status": str(phase == "Running")}]
        self.cluster.put("pods", pod)

    def _start(self, pod: Json) -> subprocess.Popen[bytes]:
        name, (container,) = pod["metadata"]["name"], pod["spec"]["containers"]
        fields = {"status.podIP": _IP, "metadata.name": name}
        environ = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/tmp"), **self.environ}
        for one in container["env"]:
            if "value" in one:
                environ[one["name"]] = one["value"]
            elif "fieldRef" in one.get("valueFrom", {}):
                environ[one["name"]] = fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
        command = [*container["command"], *container["args"]]
        for place, folder in self._mounted(pod, container).items():
            command = [word.replace(place, folder) for word in command]
            environ = {key: value.replace(place, folder) for key, value in environ.items()}
        command[0] = sys.executable if command[0] == "python" else command[0]
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT)

    def _mounted(self, pod: Json, container: Json) -> dict[str, str]:
        """Path in the container → folder here, of mounted ConfigMaps; what they hold names these folders, too."""
        maps = {one["name"]: one["configMap"] for one in pod["spec"].get("volumes", []) if "configMap" in one}
        found: dict[str, str] = {}
        for mount in container.get("volumeMounts", []):
            if mount["name"] in maps:
                found[mount["mountPath"]] = str(self.folder / pod["metadata"]["name"] / mount["name"])
        for mount in container.get("volumeMounts", []):
            if mount["name"] in maps:
                folder = Path(found[mount["mountPath"]])
                folder.mkdir(parents=True, exist_ok=True)
                content = maps[mount["name"]]
                names = {one["key"]: one["path"] for one in content.get("items") or []}
                for key, text in (self.cluster.find("configmaps", content["name"]) or {})["data"].items():
                    text = re.sub(r"[\w-]+-driver-svc\.\w+\.svc", _IP, text)  # no DNS here
                    for place, here in found.items():
                        text = text.replace(place, here)
                    (folder / names.get(key, key)).write_text(text)
        return found
