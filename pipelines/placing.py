"""Where the steps run on a cluster: a pod's settings, given to kfp."""

import os
from typing import Any

from kfp import dsl, kubernetes

from pipelines.retraining import ROLES, Place
from understudy.config import Config
from understudy.kubeflow.config import Pipeline
from understudy.kubeflow.step import StepSettings
from understudy.section import duration_s

__all__ = ["image_of", "limits", "placing"]


def placing(config: Config) -> Place:
    """What gives each step's task the settings of its pod."""

    def place(step: str, task: Any) -> None:
        role = ROLES[step]
        image = image_of(config.pipeline, role)
        if image:
            task.set_container_image(image)
        pod = config.pipeline.pod(step, role)
        _resources(task, pod)
        _nodes(task, pod)
        _surroundings(task, pod)
        _patience(task, pod)

    return place


def image_of(pipeline: Pipeline, role: str) -> str:
    """The image of a role: the environment's, or the configuration's; empty: the component's own name for it."""
    return os.environ.get(f"UNDERSTUDY_IMAGE_{role.upper()}") or pipeline.images.get(role, "")


def limits(pipeline: Pipeline) -> dsl.PipelineConfig:
    """Limits of a whole run."""
    deadline, ttl = (duration_s(text) if text else None for text in (pipeline.deadline, pipeline.ttl))
    return dsl.PipelineConfig(active_deadline_seconds=deadline, ttl_seconds_after_finished=ttl)


def _resources(task: Any, pod: StepSettings) -> None:
    if pod.cpu:
        task.set_cpu_request(pod.cpu)
    if pod.cpu_limit:
        task.set_cpu_limit(pod.cpu_limit)
    if pod.memory:
        task.set_memory_request(pod.memory).set_memory_limit(pod.memory)
    if pod.gpu:
        task.set_accelerator_type(pod.gpu.type).set_accelerator_limit(pod.gpu.count)
    if pod.shared_memory:
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=pod.shared_memory)


def _nodes(task: Any, pod: StepSettings) -> None:
    for key, value in pod.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for one in pod.tolerations:
        said = {"key": one.key, "value": one.value, "effect": one.effect, "toleration_seconds": one.seconds}
        kubernetes.add_toleration(task, operator=one.operator, **{key: value for key, value in said.items() if value})


def _surroundings(task: Any, pod: StepSettings) -> None:
    for name, value in pod.env.items():
        task.set_env_variable(name, value)
    for secret in pod.secrets:
        for name, key in secret.env.items():
            kubernetes.use_secret_as_env(task, secret.name, {key: name}, optional=secret.optional)
    for volume in pod.volumes:
        kubernetes.mount_pvc(task, volume.claim, volume.path, sub_path=volume.sub_path)
    for key, value in pod.labels.items():
        kubernetes.add_pod_label(task, key, value)
    for key, value in pod.annotations.items():
        kubernetes.add_pod_annotation(task, key, value)
    if pod.run_as_user or pod.run_as_group:
        kubernetes.set_security_context(task, pod.run_as_user, pod.run_as_group, run_as_non_root=True)
    if pod.pull_policy:
        kubernetes.set_image_pull_policy(task, pod.pull_policy)
    if pod.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(pod.pull_secrets))


def _patience(task: Any, pod: StepSettings) -> None:
    if pod.timeout:
        kubernetes.set_timeout(task, duration_s(pod.timeout))
    if pod.retries is not None:
        wait_s = duration_s(pod.retry_wait) if pod.retry_wait else 0
        task.set_retry(pod.retries, backoff_duration=f"{wait_s}s", backoff_factor=2.0)
