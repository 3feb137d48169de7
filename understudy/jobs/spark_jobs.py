"""A step that uses Spark, as pods: executors beside the step's own pod, or a SparkApplication.

Memory is what the pod is given: three fifths of it are the JVM's heap, the rest is for what lies outside of it.
"""

from importlib.metadata import requires
from typing import Any

from understudy.jobs.config import Spark
from understudy.jobs.pods import Json, cores, mebibytes, pod_template
from understudy.kubeflow.config import Pipeline
from understudy.kubeflow.step import StepSettings, joined
from understudy.section import canonical_json

__all__ = ["ENTRY", "driver_heap", "executors_of", "spark_application"]

ENTRY = ["python", "-m", "understudy.jobs.entry"]
MAIN = "local:///app/understudy/jobs/main.py"
_DRIVER, _EXECUTOR = "spark-kubernetes-driver", "spark-kubernetes-executor"
_HEAP = 0.6
_JAVA = "-Dlog4j2.configurationFile=file:/app/understudy/log4j2.properties -XX:+UseParallelGC"


def driver_heap(memory: str) -> str:
    """Heap of a driver in a pod of this size."""
    return f"{int(mebibytes(memory) * _HEAP)}m"


def executors_of(spark: Spark, pipeline: Pipeline, step: str, image: str) -> str:
    """What a driver must know to ask for its executors: JSON, for the variable ``UNDERSTUDY_SPARK``."""
    settings = _executor(spark, pipeline, step)
    return canonical_json({"conf": _conf(spark, settings, image), "executor": pod_template(settings, _EXECUTOR, ENTRY)})


def spark_application(spark: Spark, pipeline: Pipeline, step: str, image: str) -> Json:
    """A step as an object for the Spark operator, without the name and the arguments that a run gives it."""
    own, settings = pipeline.pod(step, "spark"), _executor(spark, pipeline, step)
    account = spark.service_account or pipeline.service_account
    driver = {"cores": cores(own.cpu or "1"), **_memory(own.memory or "4Gi"), **_cpu(own)}
    if account:
        driver["serviceAccount"] = account
    executor = {"instances": spark.executors, "cores": cores(settings.cpu), **_memory(settings.memory)}
    return {
        "apiVersion": "sparkoperator.k8s.io/v1beta2",
        "kind": "SparkApplication",
        "metadata": {"labels": {"app.kubernetes.io/part-of": "understudy", "app.kubernetes.io/component": _name(step)}},
        "spec": {
            "type": "Python",
            "pythonVersion": "3",
            "mode": "cluster",
            "sparkVersion": _spark_version(),
            "image": image,
            **({"imagePullPolicy": own.pull_policy} if own.pull_policy else {}),
            "mainApplicationFile": MAIN,
            "restartPolicy": {"type": "Never"},
            "sparkConf": {"spark.ui.enabled": "false", "spark.driver.extraJavaOptions": _JAVA, **spark.conf},
            "driver": {**driver, "template": pod_template(own, _DRIVER, ENTRY)},
            "executor": {**executor, **_cpu(settings), "template": pod_template(settings, _EXECUTOR, ENTRY)},
        },
    }


def _executor(spark: Spark, pipeline: Pipeline, step: str) -> StepSettings:
    """A pod that reads and writes what the step's does, with its own size; accelerators stay the step's."""
    return joined([pipeline.pod(step, "spark").without("gpu", "cpu", "cpu_limit", "memory"), spark.executor])


def _conf(spark: Spark, settings: StepSettings, image: str) -> dict[str, str]:
    memory = _memory(settings.memory)
    found = {
        **spark.conf,
        "spark.kubernetes.container.image": image,
        "spark.kubernetes.executor.podTemplateContainerName": _EXECUTOR,
        "spark.executor.instances": str(spark.executors),
        "spark.executor.cores": str(cores(settings.cpu)),
        "spark.executor.memory": memory["memory"],
        "spark.executor.memoryOverhead": memory["memoryOverhead"],
        "spark.kubernetes.executor.request.cores": settings.cpu,
    }
    if settings.cpu_limit:
        found["spark.kubernetes.executor.limit.cores"] = settings.cpu_limit
    if settings.pull_policy:
        found["spark.kubernetes.container.image.pullPolicy"] = settings.pull_policy
    return found


def _memory(memory: str) -> dict[str, Any]:
    whole = mebibytes(memory)
    heap = int(whole * _HEAP)
    return {"memory": f"{heap}m", "memoryOverhead": f"{whole - heap}m"}


def _cpu(settings: StepSettings) -> dict[str, str]:
    found = {"coreRequest": settings.cpu, "coreLimit": settings.cpu_limit}
    return {name: value for name, value in found.items() if value}


def _name(step: str) -> str:
    return step.replace("_", "-")


def _spark_version() -> str:
    """Of the image: the one that our own package asks for, whether or not Spark is installed here."""
    wanted = next(one for one in requires("understudy") or [] if one.startswith("pyspark"))
    return wanted.partition("==")[2].partition(";")[0].strip()
