"""Spark beyond one pod: real drivers and executors, in an emulated cluster whose pods are processes of this machine."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads
import pytest
from cluster import Cluster, running
from kubeflow_config import configured
from kubelet import Kubelet
from kubernetes_rules import granted
from steps import small
from waiting import eventually

from understudy.config import Config
from understudy.jobs.launching import _named
from understudy.jobs.spark_jobs import executors_of, spark_application
from understudy.lake import Lake
from understudy.runs import Run

ROOT = Path(__file__).resolve().parent.parent.parent
STEP = "sample_examples"
IMAGE = "registry.example/spark:1"


def on_pods(mode: str) -> Config:
    executor = {"cpu": "1", "memory": "1Gi"}
    steps = {"all": {"env": {"PYTHONPATH": str(ROOT)}}, "spark": {"cpu": "1", "memory": "2Gi"}}
    return configured(more={"spark": {"mode": mode, "executors": 2, "executor": executor}}, steps=steps)


@pytest.fixture
def lake(released: Path, tmp_path: Path) -> Lake:
    """The released lake as if its step had not been done yet; ``before`` keeps what it committed."""
    shutil.copytree(released, tmp_path / "lake")
    found = Lake(str(tmp_path / "lake"))
    (run_id,) = found.names("runs")
    shutil.move(found.path("runs", run_id, "steps", STEP), tmp_path / "before")
    return found


@contextmanager
def cluster_of(tmp_path: Path) -> Iterator[tuple[Cluster, str, Kubelet]]:
    (tmp_path / "pods").mkdir()
    with running() as (cluster, url), Kubelet(cluster, tmp_path / "pods", {}) as kubelet:
        yield cluster, url, kubelet


def same_rows(lake: Lake, before: Path) -> bool:
    """Whether the step has committed the rows and figures that the local mode had, in the same order.

    Bytes may differ: a JVM lists a column's encodings in an order of its own.
    """
    manifest = Run(lake, lake.names("runs")[0]).manifest(STEP)
    assert manifest is not None
    local = json.loads((before / "manifest.json").read_text())
    folders = [Path(lake.path(manifest["attempt"])), before / Path(local["attempt"]).name]
    rows = [pads.dataset(folder / "samples", partitioning="hive").to_table() for folder in folders]
    return bool(rows[0].num_rows and rows[0].equals(rows[1]) and manifest["figures"] == local["figures"])


def test_executors_that_are_pods_sample_the_same_rows(lake: Lake, config: Config, tmp_path: Path) -> None:
    placed, (run_id,) = on_pods("kubernetes"), lake.names("runs")
    with cluster_of(tmp_path) as (cluster, url, kubelet):
        ready = {"phase": "Running", "podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
        cluster.put("pods", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "step-1"}, "status": ready})
        environ = {
            **os.environ,
            "UNDERSTUDY_SPARK": executors_of(placed.spark, placed.pipeline, STEP, IMAGE),
            "SPARK_MASTER": f"k8s://{url}",
            "SPARK_DRIVER_MEMORY": "1g",
            "POD_NAME": "step-1",
            "POD_IP": "127.0.0.1",
            "POD_NAMESPACE": "recs",
        }
        words = [STEP, lake.uri(), run_id, small(config).section("sampling")]
        command = [sys.executable, "-m", "understudy.jobs.main", *words]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr
        executors = kubelet.pods("executor")
        assert len(executors) == 2
        for pod in executors:
            assert pod["metadata"]["ownerReferences"][0]["name"] == "step-1"
            assert pod["spec"]["containers"][0]["image"] == IMAGE
            assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == "1024Mi"
            assert "Finished task" in kubelet.log(pod["metadata"]["name"])
        assert [name for name in cluster.names("pods") if "exec" in name] == []
        assert cluster.asked <= granted("spark")
    assert same_rows(lake, tmp_path / "before")


def submitted(application: dict[str, Any], url: str, folder: Path) -> list[str]:
    """The ``spark-submit`` that the operator makes of a SparkApplication."""
    spec = application["spec"]
    settings = {
        **spec["sparkConf"],
        "spark.kubernetes.namespace": "recs",
        "spark.kubernetes.container.image": spec["image"],
        "spark.kubernetes.submission.waitAppCompletion": "false",
        "spark.executor.instances": str(spec["executor"]["instances"]),
    }
    for role in ("driver", "executor"):
        template, (container,) = folder / f"{role}.json", spec[role]["template"]["spec"]["containers"]
        template.write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", **spec[role]["template"]}))
        settings |= {
            f"spark.{role}.cores": str(spec[role]["cores"]),
            f"spark.{role}.memory": spec[role]["memory"],
            f"spark.{role}.memoryOverhead": spec[role]["memoryOverhead"],
            f"spark.kubernetes.{role}.request.cores": spec[role]["coreRequest"],
            f"spark.kubernetes.{role}.podTemplateFile": str(template),
            f"spark.kubernetes.{role}.podTemplateContainerName": container["name"],
        }
    # Paths of the image, and names of a cluster's DNS, are those of this machine here.
    settings["spark.driver.extraJavaOptions"] = settings["spark.driver.extraJavaOptions"].replace("/app", str(ROOT))
    settings["spark.kubernetes.driver.master"] = url
    main = spec["mainApplicationFile"].replace("/app", str(ROOT))
    told = [part for key, value in settings.items() for part in ("--conf", f"{key}={value}")]
    return ["--master", f"k8s://{url}", "--deploy-mode", "cluster", *told, main, *spec["arguments"]]


@pytest.mark.slow
def test_a_spark_application_samples_the_same_rows(lake: Lake, config: Config, tmp_path: Path) -> None:
    import pyspark

    placed, (run_id,) = on_pods("operator"), lake.names("runs")
    words = (STEP, lake.uri(), run_id, small(config).section("sampling"))
    application = _named(spark_application(placed.spark, placed.pipeline, STEP, IMAGE), *words)
    with cluster_of(tmp_path) as (cluster, url, kubelet):
        submit = [str(Path(pyspark.__file__).parent / "bin" / "spark-submit"), *submitted(application, url, tmp_path)]
        done = subprocess.run(submit, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr
        cluster.asked.clear()  # what follows is the driver's

        def driver() -> Any:
            (one,) = [pod for name in cluster.names("pods") if is_driver(pod := cluster.find("pods", name) or {})]
            return one

        eventually(lambda: driver()["status"]["phase"] in ("Succeeded", "Failed"), 180)
        log = kubelet.log(driver()["metadata"]["name"])
        assert driver()["status"]["phase"] == "Succeeded", log
        assert "sample_examples: kept" in log
        assert cluster.asked <= granted("spark")
        assert len(kubelet.pods("executor")) == 2
    assert same_rows(lake, tmp_path / "before")


def is_driver(pod: dict[str, Any]) -> bool:
    labels: dict[str, str] = pod.get("metadata", {}).get("labels", {})
    return labels.get("spark-role") == "driver"
