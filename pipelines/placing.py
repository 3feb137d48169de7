"""Where the steps run on a cluster: a pod's settings, given to kfp."""

import os
from typing import Any

from kfp import dsl, kubernetes

from components.images import image
from pipelines.retraining import ROLES, Place
from understudy.config import Config
from understudy.jobs.spark_jobs import driver_heap, executors_of, spark_application
from understudy.jobs.train_job import train_job
from understudy.kubeflow.config import Pipeline
from understudy.kubeflow.step import StepSettings, joined
from understudy.section import canonical_json, duration_s

__all__ = ["image_of", "jobs_of", "limits", "placing"]

_LAUNCHER = StepSettings(cpu="100m", memory="1Gi")


def placing(config: Config) -> Place:
    """What gives each step's task the settings of its pod."""

    launched = jobs_of(config)

    def place(step: str, task: Any) -> None:
        role = ROLES[step]
        task.set_container_image(image_of(config.pipeline, "tools" if step in launched else role))
        pod = config.pipeline.pod(step, role)
        if step in launched:
            pod = _launcher(config.pipeline, pod)
            _names(task, {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid"})
        elif role == "spark":
            _spark(task, config, step, pod)
        _resources(task, pod)
        _nodes(task, pod)
        _surroundings(task, pod)
        _patience(task, pod)

    return place


def jobs_of(config: Config) -> dict[str, str]:
    """Step → its job, of those steps that the configuration gives to one."""
    found: dict[str, Any] = {}
    if config.spark.mode == "operator":
        image = image_of(config.pipeline, "spark")
        steps = [step for step, role in ROLES.items() if role == "spark"]
        found |= {step: spark_application(config.spark, config.pipeline, step, image) for step in steps}
    if config.training.mode == "trainjob":
        image = image_of(config.pipeline, "train")
        found["train_ranker"] = train_job(config.training, config.pipeline, "train_ranker", image)
    return {step: canonical_json(job) for step, job in found.items()}


def image_of(pipeline: Pipeline, role: str) -> str:
    """The image of a role: the environment's, the configuration's, or our own name for it."""
    return os.environ.get(f"UNDERSTUDY_IMAGE_{role.upper()}") or pipeline.images.get(role) or image(role)


def _launcher(pipeline: Pipeline, step: StepSettings) -> StepSettings:
    """A small pod that waits as long as the step may take, and is tried again as often."""
    patience = StepSettings(timeout=step.timeout, retries=step.retries, retry_wait=step.retry_wait)
    surroundings = pipeline.pod("launch_step", "tools").without("gpu", "shared_memory", "cpu_limit")
    return joined([surroundings, _LAUNCHER, patience])


def _spark(task: Any, config: Config, step: str, pod: StepSettings) -> None:
    """A driver's heap that fits into its pod, and what it must know of executors that are pods."""
    if pod.memory and "SPARK_DRIVER_MEMORY" not in pod.env:
        task.set_env_variable("SPARK_DRIVER_MEMORY", driver_heap(pod.memory))
    if config.spark.mode == "kubernetes":
        _names(task, {"POD_NAME": "metadata.name", "POD_IP": "status.podIP", "POD_NAMESPACE": "metadata.namespace"})
        told = executors_of(config.spark, config.pipeline, step, image_of(config.pipeline, "spark"))
        task.set_env_variable("UNDERSTUDY_SPARK", told)


def _names(task: Any, fields: dict[str, str]) -> None:
    for name, path in fields.items():
        kubernetes.use_field_path_as_env(task, name, path)


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
