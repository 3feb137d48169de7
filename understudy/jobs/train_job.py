"""The step ``train_ranker`` as a TrainJob of Kubeflow Trainer (2.2 or newer): several pods that train one network."""

from understudy.jobs.pods import Json, env_of, mounts_of, places_of, pod_security, security, volumes_of
from understudy.kubeflow.config import Pipeline
from understudy.kubeflow.step import StepSettings
from understudy.training.config import Training

__all__ = ["train_job"]

_MANAGER = "understudy.dev/launch-step"  # Trainer's webhook wants a domain and a path
_NODE = "node"  # of the runtime: its replicated job, and the container in it


def train_job(training: Training, pipeline: Pipeline, step: str, image: str) -> Json:
    """The step as an object for Kubeflow Trainer, without the name and the arguments that a run gives it.

    Each node is a pod with the settings of the step's; each accelerator has a process of its own.
    """
    settings = pipeline.pod(step, "train")
    spec: Json = {
        "runtimeRef": {"name": training.runtime},
        "trainer": {
            "image": image,
            "command": ["python", "-m", "torch.distributed.run", "-m", "understudy.training.workers"],
            "numNodes": training.nodes,
            "numProcPerNode": settings.gpu.count if settings.gpu else 1,
            "env": env_of(settings),
            "resourcesPerNode": _resources(settings),
        },
        "runtimePatches": [
            {
                "manager": _MANAGER,
                "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [_patch(settings, pipeline)]}}},
            }
        ],
    }
    labels = {"app.kubernetes.io/part-of": "understudy", "app.kubernetes.io/component": step.replace("_", "-")}
    kind = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob"}
    return {**kind, "metadata": {"labels": labels}, "spec": spec}


def _patch(settings: StepSettings, pipeline: Pipeline) -> Json:
    pod: Json = {
        **({"serviceAccountName": pipeline.service_account} if pipeline.service_account else {}),
        **places_of(settings),
        "securityContext": pod_security(settings),
        "volumes": volumes_of(settings),
        "containers": [{"name": _NODE, "volumeMounts": mounts_of(settings), "securityContext": security()}],
    }
    template: Json = {"spec": pod}
    if marks := {key: value for key in ("labels", "annotations") if (value := getattr(settings, key))}:
        template["metadata"] = marks
    return {"name": _NODE, "template": {"spec": {"template": template}}}


def _resources(settings: StepSettings) -> Json:
    requests = {"cpu": settings.cpu, "memory": settings.memory}
    limits = {"cpu": settings.cpu_limit, "memory": settings.memory}
    if settings.gpu:
        requests[settings.gpu.type] = limits[settings.gpu.type] = str(settings.gpu.count)
    found = {"requests": requests, "limits": limits}
    return {what: {name: size for name, size in sizes.items() if size} for what, sizes in found.items()}
