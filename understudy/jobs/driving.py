"""A step's own pod as the driver of executors that are pods: Spark on Kubernetes, in client mode."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from understudy.errors import BadInput

__all__ = ["driver_settings"]

_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def driver_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Spark's settings, from ``UNDERSTUDY_SPARK`` and from what the pod knows of itself.

    Executors belong to the pod POD_NAME, and end with it; they call it at POD_IP.

    Raises:
        BadInput: the pod does not know its name and address.
    """
    told = json.loads(environ["UNDERSTUDY_SPARK"])
    missing = [name for name in ("POD_NAME", "POD_IP") if not environ.get(name)]
    if missing:
        raise BadInput(
            f"spark.mode kubernetes: expected the variables POD_NAME and POD_IP, found no {' and no '.join(missing)}; "
            "compile and upload the pipeline anew, which sets them"
        )
    return {
        "spark.master": environ.get("SPARK_MASTER", "k8s://https://kubernetes.default.svc"),
        "spark.kubernetes.namespace": _namespace(environ),
        "spark.kubernetes.driver.pod.name": environ["POD_NAME"],
        "spark.driver.host": environ["POD_IP"],
        "spark.driver.bindAddress": environ["POD_IP"],  # executors are told to call this one
        "spark.kubernetes.executor.podTemplateFile": _template(told["executor"]),
        **told["conf"],
    }


def _namespace(environ: Mapping[str, str]) -> str:
    return environ.get("POD_NAMESPACE") or _NAMESPACE.read_text().strip()


def _template(template: object) -> str:
    with tempfile.NamedTemporaryFile("w", prefix="understudy-executor-", suffix=".json", delete=False) as file:
        json.dump({"apiVersion": "v1", "kind": "Pod", **dict(template)}, file)  # type: ignore[call-overload]
    return file.name
