"""Steps that are done by jobs of their own: the objects, and the launcher that follows them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster import RBAC, Cluster, running
from google.protobuf import json_format
from kubeflow_config import configured
from kubeflow_spark_api.models import SparkV1beta2SparkApplication
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
from kubernetes import client
from kubernetes_rules import granted, pod_faults, train_job_faults
from run_records import FAILED, commit, recorded
from waiting import eventually

from pipelines.compile import compiled
from pipelines.placing import jobs_of
from understudy.config import Config
from understudy.errors import BadInput, GateFailed, UnderstudyError
from understudy.jobs import launching
from understudy.jobs.entry import command_of
from understudy.jobs.pods import cores, mebibytes
from understudy.kubernetes_api import Api, Unreachable
from understudy.lake import Lake
from understudy.runs import Run

DIGEST = "@sha256:" + "a" * 64
IMAGES = {role: f"registry.example/{role}{DIGEST}" for role in ("spark", "tools", "train")}
POD = {
    "all": {
        "run_as_user": 10001,
        "run_as_group": 10001,
        "pull_secrets": ["registry"],
        "labels": {"team": "recs"},
        "volumes": [{"claim": "understudy-lake", "path": "/lake", "sub_path": "main"}],
        "secrets": [{"name": "lake-keys", "env": {"AWS_ACCESS_KEY_ID": "id"}}],
        "env": {"LEVEL": "all"},
    },
    "spark": {"cpu": "2", "memory": "10Gi"},
    "train": {
        "cpu": "8",
        "memory": "64Gi",
        "gpu": {"count": 4},
        "shared_memory": "8Gi",
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "node_selector": {"pool": "gpu"},
        "timeout": "6h",
        "retries": 2,
    },
}
OPERATOR = {"spark": {"mode": "operator", "executors": 3, "executor": {"cpu": "4", "memory": "20Gi"}}}
TRAINJOB = {"training": {"mode": "trainjob", "nodes": 2}}


def placed(more: dict[str, Any]) -> Config:
    return configured(more=more, steps=POD, images=IMAGES, service_account="runs")


def job(more: dict[str, Any], step: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(jobs_of(placed(more))[step])
    return found


# Objects


def test_a_spark_application_has_the_shape_that_the_operator_publishes() -> None:
    made = launching._named(job(OPERATOR, "sample_examples"), "sample_examples", "s3://b/lake", "2026-01-01-ab", "{}")
    read = SparkV1beta2SparkApplication.from_dict(made)
    assert read is not None
    assert without_empty(read.to_dict()) == without_empty(made)
    spec = made["spec"]
    assert spec["arguments"] == ["sample_examples", "s3://b/lake", "2026-01-01-ab", "{}"]
    assert spec["image"] == IMAGES["spark"]
    driver, executor = spec["driver"], spec["executor"]
    assert (driver["cores"], driver["memory"], driver["memoryOverhead"]) == (2, "6144m", "4096m")
    assert (executor["instances"], executor["cores"], executor["coreRequest"]) == (3, 4, "4")
    assert driver["serviceAccount"] == "runs"


def test_a_train_job_has_the_shape_that_the_trainer_publishes() -> None:
    made = launching._named(job(TRAINJOB, "train_ranker"), "train_ranker", "/lake", "2026-01-01-ab", "{}")
    read = TrainerV1alpha1TrainJob.from_dict(made)
    assert read is not None
    assert without_empty(read.to_dict()) == without_empty(made)
    trainer = made["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"], trainer["image"]) == (2, 4, IMAGES["train"])
    assert trainer["resourcesPerNode"]["limits"] == {"memory": "64Gi", "nvidia.com/gpu": "4"}
    assert trainer["args"] == ["/lake", "2026-01-01-ab", "{}"]


def test_a_train_job_keeps_to_the_rules_that_only_the_trainers_webhook_has() -> None:
    made = launching._named(job(TRAINJOB, "train_ranker"), "train_ranker", "/lake", "2026-01-01-ab", "{}")
    assert train_job_faults(made) == []
    for manager in ("understudy.launch-step", "/launch", "understudy.dev/", "Understudy.dev/launch", ""):
        made["spec"]["runtimePatches"][0]["manager"] = manager
        (fault,) = train_job_faults(made)
        assert "must be a domain-prefixed path" in fault


@pytest.mark.parametrize(("more", "step"), [(OPERATOR, "build_features"), (TRAINJOB, "train_ranker")])
def test_pods_of_jobs_keep_to_the_restricted_profile_and_see_the_lake(more: dict[str, Any], step: str) -> None:
    spec = job(more, step)["spec"]
    if "trainer" in spec:
        (replicated,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        pods = [replicated["template"]["spec"]["template"]["spec"]]
        environments = [spec["trainer"]["env"]]
    else:
        pods = [spec[part]["template"]["spec"] for part in ("driver", "executor")]
        environments = [pod["containers"][0]["env"] for pod in pods]
    for pod in pods:
        # The controllers add the image, resources and probes.
        ignored = ("request", "limit", "image", "sizeLimit", "automountServiceAccountToken")
        assert [fault for fault in pod_faults(pod, probes=False) if not any(word in fault for word in ignored)] == []
        (container,) = pod["containers"]
        assert {"name": "understudy-lake", "mountPath": "/lake", "subPath": "main"} in container["volumeMounts"]
        assert {"name": "understudy-lake", "persistentVolumeClaim": {"claimName": "understudy-lake"}} in pod["volumes"]
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
    for environment in environments:
        assert {"name": "LEVEL", "value": "all"} in environment
        secret = {"secretKeyRef": {"name": "lake-keys", "key": "id", "optional": False}}
        assert {"name": "AWS_ACCESS_KEY_ID", "valueFrom": secret} in environment


def without_empty(value: Any) -> Any:
    """Kubernetes does not tell an empty list from none."""
    if isinstance(value, dict):
        return {key: kept for key, inner in value.items() if (kept := without_empty(inner)) not in ({}, [], None)}
    return [without_empty(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("text", "mib"), [("8Gi", 8192), ("512Mi", 512), ("1G", 953), ("1073741824", 1024), ("1Ti", 2**20)]
)
def test_sizes_in_mebibytes(text: str, mib: int) -> None:
    assert mebibytes(text) == mib


@pytest.mark.parametrize(("cpu", "whole"), [("2", 2), ("500m", 1), ("2500m", 2), ("1.5", 1)])
def test_whole_cores(cpu: str, whole: int) -> None:
    assert cores(cpu) == whole


# Pipelines


def graph(more: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    made = compiled(placed(more))
    spec, platform = (
        json_format.MessageToDict(one) for one in (made.component.pipeline_spec, made.component.platform_spec)
    )
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"], made.images


def tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Task → what the graph says of it, by the names that people see."""
    dags = [one["dag"]["tasks"] for one in spec["components"].values() if "dag" in one]
    return {task["taskInfo"]["name"]: task for dag in dags for task in dag.values()}


def test_steps_of_jobs_keep_their_names_and_run_in_a_small_pod() -> None:
    spec, settings, images = graph(OPERATOR | TRAINJOB)
    found = tasks(spec)
    assert {"compact-logs", "build-features", "sample-examples", "train-ranker", "calibrate"} <= set(found)
    for step in ("compact-logs", "sample-examples", "train-ranker"):
        executor = spec["components"][found[step]["componentRef"]["name"]]["executorLabel"]
        container = spec["deploymentSpec"]["executors"][executor]["container"]
        assert container["image"] == IMAGES["tools"]
        assert container["resources"]["resourceCpuRequest"] == "100m"
        assert "accelerator" not in container["resources"]
        paths = {one["name"]: one["fieldPath"] for one in settings[executor]["fieldPathAsEnv"]}
        assert paths == {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid"}
    assert found["train-ranker"]["retryPolicy"]["maxRetryCount"] == 2
    assert images == IMAGES


def test_the_job_of_a_step_stands_in_the_pipeline_whole() -> None:
    spec, _, _ = graph(TRAINJOB)
    said = tasks(spec)["train-ranker"]["inputs"]["parameters"]["job"]["runtimeValue"]["constant"]
    assert json.loads(said) == job(TRAINJOB, "train_ranker")


def test_executors_of_a_step_are_pods_with_its_surroundings() -> None:
    more = {"spark": {"mode": "kubernetes", "executors": 4, "conf": {"spark.executor.extraJavaOptions": "-Dx=y"}}}
    spec, settings, _ = graph(more)
    container = spec["deploymentSpec"]["executors"]["exec-sample-examples"]["container"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert environment["SPARK_DRIVER_MEMORY"] == "6144m"
    told = json.loads(environment["UNDERSTUDY_SPARK"])
    assert told["conf"]["spark.executor.instances"] == "4"
    assert told["conf"]["spark.kubernetes.container.image"] == IMAGES["spark"]
    assert told["conf"]["spark.executor.extraJavaOptions"] == "-Dx=y"
    assert {"name": "LEVEL", "value": "all"} in told["executor"]["spec"]["containers"][0]["env"]
    paths = {one["name"]: one["fieldPath"] for one in settings["exec-sample-examples"]["fieldPathAsEnv"]}
    assert paths["POD_IP"] == "status.podIP"


def test_where_a_run_is_made_does_not_make_it_another() -> None:
    assert placed(OPERATOR).digest() == placed({}).digest()
    plain = placed({"training": {}})
    assert placed(TRAINJOB).digest() == plain.digest()
    assert placed(TRAINJOB).section("training") == plain.section("training")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"spark": {"mode": "yarn"}}, "spark.mode: expected local, kubernetes or operator, found 'yarn'"),
        ({"spark": {"conf": {"driver": "x"}}}, "conf: expected names that begin with spark."),
        ({"spark": {"conf": {"spark.sql.session.timeZone": "x"}}}, "none that decides what tables hold"),
        ({"spark": {"conf": {"spark.a": "b"}}}, "spark.conf: expected none with mode local, found some"),
        ({"spark": {"executor": {"cpu": "2"}}}, "executor.memory: expected a value, found none"),
        ({"training": {"mode": "ray"}}, "training.mode: expected pod or trainjob, found 'ray'"),
        ({"training": {"nodes": 2}}, "training.nodes: expected 1 with mode pod, found 2"),
    ],
)
def test_what_can_not_be_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match="configuration") as refused:
        placed(more)
    assert said in str(refused.value)


# The container of Spark's pods


def test_an_executor_is_told_what_spark_tells_it() -> None:
    environ = {
        "SPARK_DRIVER_URL": "spark://d",
        "SPARK_EXECUTOR_ID": "3",
        "SPARK_EXECUTOR_CORES": "2",
        "SPARK_APPLICATION_ID": "app",
        "SPARK_EXECUTOR_POD_IP": "10.0.0.1",
        "SPARK_RESOURCE_PROFILE_ID": "0",
        "SPARK_EXECUTOR_POD_NAME": "pod",
        "SPARK_EXECUTOR_MEMORY": "4g",
        "SPARK_JAVA_OPT_10": "-Dten=1",
        "SPARK_JAVA_OPT_2": "-Dtwo=1",
    }
    command = command_of(["executor"], environ, Path("/spark"))
    assert command[:5] == ["java", "-Dtwo=1", "-Dten=1", "-Xms4g", "-Xmx4g"]
    assert command[command.index("--podName") + 1] == "pod"
    with pytest.raises(ValueError, match="found no SPARK_DRIVER_URL"):
        command_of(["executor"], {key: environ[key] for key in list(environ)[1:]}, Path("/spark"))


def test_a_driver_becomes_spark_submit_and_anything_else_is_run_as_it_is() -> None:
    command = command_of(["driver", "--class", "x"], {"SPARK_DRIVER_BIND_ADDRESS": "10.0.0.1"}, Path("/spark"))
    assert command == [
        "/spark/bin/spark-submit", "--conf", "spark.driver.bindAddress=10.0.0.1", "--deploy-mode", "client",
        "--class", "x",
    ]  # fmt: skip
    assert command_of(["understudy", "--help"], {}, Path("/spark")) == ["understudy", "--help"]


# Launching


@dataclass
class Place:
    """A cluster, a lake with a run, and the job of its training."""

    cluster: Cluster
    url: str
    lake: Lake
    run: Run
    words: str = json.dumps(job(TRAINJOB, "train_ranker"))

    def launch(self, step: str = "train_ranker", words: str | None = None) -> None:
        launching.launch(step, self.lake.uri(), self.run.id, "{}", words or self.words, every_s=0.02)

    @property
    def made(self) -> int:
        return sum(call[:2] == ("POST", "trainjobs") for call in self.cluster.calls)

    def name(self) -> str:
        (name,) = self.cluster.names("trainjobs")
        return name


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    lake = Lake.open_or_create(str(tmp_path / "lake"))
    with running() as (cluster, url):

        def connected(*_: Any) -> Api:
            settings = client.Configuration()
            settings.host, settings.retries = url, 0
            return Api(client.ApiClient(settings), "recs")

        monkeypatch.setattr(launching, "connect", connected)
        yield Place(cluster, url, lake, recorded(lake, "job"))


@contextlib.contextmanager
def controlled(place: Place, *acts: Callable[[dict[str, Any]], None], plural: str = "trainjobs") -> Iterator[None]:
    """A controller: does one act after the other with the job once it is there."""
    stop = threading.Event()

    def control() -> None:
        left = list(acts)
        while left and not stop.wait(0.05):
            names = place.cluster.names(plural)
            if names and (found := place.cluster.find(plural, names[0])) is not None:
                left.pop(0)(found)
                if place.cluster.find(plural, names[0]) is not None:
                    place.cluster.put(plural, found)

    thread = threading.Thread(target=control, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


def condition(kind: str, message: str = "") -> Callable[[dict[str, Any]], None]:
    def act(found: dict[str, Any]) -> None:
        found["status"] = {"conditions": [{"type": kind, "status": "True", "reason": kind, "message": message}]}

    return act


def active(found: dict[str, Any]) -> None:
    found["status"] = {"jobsStatus": [{"name": "node", "active": 2}]}


def committing(place: Place, *verdicts: Any) -> Callable[[dict[str, Any]], None]:
    def act(found: dict[str, Any]) -> None:
        commit(place.run, "train_ranker", *verdicts)
        condition("Complete")(found)

    return act


def speaking(place: Place, *lines: str) -> Callable[[dict[str, Any]], None]:
    """A pod of the job says lines, a millisecond apart."""

    def act(found: dict[str, Any]) -> None:
        active(found)
        name = found["metadata"]["name"]
        labels = {"jobset.sigs.k8s.io/jobset-name": name, "batch.kubernetes.io/job-completion-index": "0"}
        place.cluster.put("pods", {"metadata": {"name": f"{name}-node-0-0-x", "labels": labels}})
        said = place.cluster.logs.setdefault(f"{name}-node-0-0-x", [])
        said += [(f"2026-11-27T12:00:00.{len(said) + at:09d}Z", line) for at, line in enumerate(lines, 1)]

    return act


def heard(place: Place) -> Callable[[dict[str, Any]], None]:
    """An act: nothing, until the launcher has read all that was said."""
    return lambda _: eventually(
        lambda: place.cluster.heard == {name: len(said) for name, said in place.cluster.logs.items()}
    )


def test_a_job_is_made_followed_and_tidied_up(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    acts = (speaking(place, "epoch 1", "epoch 2"), heard(place), speaking(place, "epoch 3"))
    with controlled(place, *acts, heard(place), committing(place)):
        place.launch()
    assert (place.made, place.cluster.names("trainjobs")) == (1, [])
    of_spark = {(verb, "sparkapplications") for verb in ("create", "get", "delete")}
    assert granted("launch") == place.cluster.asked | of_spark, "the Role grants what is asked, and no more"
    said = capfd.readouterr().err
    assert [said.count(f"epoch {n}\n") for n in (1, 2, 3)] == [1, 1, 1]
    assert "running" in said
    assert "complete" in said


def test_a_step_that_is_committed_makes_no_job(place: Place) -> None:
    commit(place.run, "train_ranker")
    place.launch()
    assert place.cluster.calls == []


def test_a_gate_of_the_step_says_no_through_its_job(place: Place) -> None:
    with controlled(place, committing(place, FAILED)), pytest.raises(GateFailed, match="AUC"):
        place.launch()


def test_a_job_that_fails_says_why_and_stays_to_be_looked_at(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    acts = (speaking(place, "CUDA out of memory"), heard(place), condition("Failed", "pods failed"))
    with controlled(place, *acts), pytest.raises(UnderstudyError, match="found failed: pods failed"):
        place.launch()
    assert place.cluster.names("trainjobs") != []
    assert "last words of its pods:\nCUDA out of memory" in capfd.readouterr().err
    error = place.run.last_error()
    assert error is not None
    assert "TrainJob" in error["error"]


def test_a_pod_that_was_killed_is_told_with_its_exit_code_and_bounded_words(
    place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_PASSWORD", "hunter22")

    def killed(found: dict[str, Any]) -> None:
        speaking(place, *["x" * 500] * 50, "key hunter22")(found)
        pod = place.cluster.find("pods", f"{found['metadata']['name']}-node-0-0-x")
        assert pod is not None
        terminated = {"exitCode": 137, "reason": "OOMKilled"}
        pod["status"] = {
            "phase": "Failed",
            "containerStatuses": [{"name": "node", "state": {"terminated": terminated}}],
        }
        place.cluster.put("pods", pod)

    with (
        controlled(place, killed, heard(place), condition("Failed", "pods failed")),
        pytest.raises(UnderstudyError, match=r"node-0-0-x was killed by SIGKILL \(exit code 137\).*\(OOMKilled\)"),
    ):
        place.launch()
    last = capfd.readouterr().err.partition("last words of its pods:\n")[2].partition("train_ranker: error")[0]
    assert len(last) < 2100
    assert last.endswith("key …\n")


def test_what_the_step_itself_said_is_not_covered_by_its_job(place: Place) -> None:
    def act(found: dict[str, Any]) -> None:
        commit(place.run, "train_ranker", error=BadInput("expected rows, found none"))
        condition("Failed")(found)

    with controlled(place, act), pytest.raises(UnderstudyError):
        place.launch()
    error = place.run.last_error()
    assert error is not None
    assert (error["error"], error["exit_code"]) == ("expected rows, found none", 2)


def test_a_job_that_ends_well_without_a_commit_is_a_failure(place: Place) -> None:
    with controlled(place, condition("Complete")), pytest.raises(UnderstudyError, match="found no commit"):
        place.launch()


def test_a_second_try_makes_a_failed_job_anew(place: Place) -> None:
    with controlled(place, condition("Failed")), pytest.raises(UnderstudyError):
        place.launch()

    def second(found: dict[str, Any]) -> None:
        if "status" not in found:
            committing(place)(found)

    with controlled(place, *[second] * 100):
        place.launch()
    assert (place.made, place.run.manifest("train_ranker") is not None) == (2, True)


def test_a_launcher_that_comes_back_goes_on_following(place: Place) -> None:
    made = launching._named(json.loads(place.words), "train_ranker", place.lake.uri(), place.run.id, "{}")
    place.cluster.put("trainjobs", made)
    with controlled(place, committing(place)):
        place.launch()
    assert place.made == 0


@pytest.mark.parametrize("fault", ["before", "after", 503])
def test_a_cut_between_any_two_calls_makes_nothing_twice(place: Place, fault: int | str) -> None:
    cut: set[int] = set()

    def once_in_two(number: int) -> int | str | None:
        if number % 2:
            return None
        cut.add(number)
        return fault

    place.cluster.fault = once_in_two
    with controlled(place, active, committing(place)):
        place.launch()
    assert cut
    assert place.cluster.names("trainjobs") == []
    assert place.run.manifest("train_ranker") is not None


def test_a_job_that_somebody_removes_is_not_waited_for(place: Place) -> None:
    with (
        controlled(place, lambda found: place.cluster.drop("trainjobs", found["metadata"]["name"])),
        pytest.raises(UnderstudyError, match="found it removed"),
    ):
        place.launch()


def test_a_cluster_that_stays_away_is_given_up(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_PATIENCE_S", 0.5)
    monkeypatch.setattr("understudy.kubernetes_api.time.sleep", lambda _: None)
    with controlled(place, active):
        place.cluster.fault = lambda number: 503 if number > 2 else None
        with pytest.raises(Unreachable):
            place.launch()


def test_a_kind_that_nobody_has_installed_is_named(place: Place) -> None:
    place.cluster.missing.add("trainjobs")
    with pytest.raises(BadInput, match="install Kubeflow Trainer"):
        place.launch()


def test_a_missing_role_is_named(place: Place) -> None:
    place.cluster.refused["trainjobs"] = RBAC
    with pytest.raises(BadInput, match=r"cannot create resource .*give the Role of manifests/overlays/kubeflow"):
        place.launch()


# Who refuses, with the status and in the words that it does; and what is then advised.
REFUSALS = {
    "webhook": (
        (403, 'admission webhook "w.example.com" denied the request: spec.x: must be y'),
        "spec.x: must be y; change what the webhook names",
    ),
    "webhook that has a status of its own": (
        (400, 'admission webhook "w.example.com" denied the request: spec.x: must be y'),
        "spec.x: must be y; change what the webhook names",
    ),
    "webhook that speaks as RBAC does": (
        (403, 'admission webhook "w" denied the request: x is forbidden: User "u" cannot create resource "trainjobs"'),
        "change what the webhook names",
    ),
    "policy": (
        (422, "trainjobs \"t\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: too many"),
        "denied request: too many; change what the policy names",
    ),
    "quota": (
        (403, 'trainjobs "t" is forbidden: exceeded quota: q, requested: pods=2, used: pods=9, limited: pods=10'),
        "limited: pods=10; ask for less, or have the quota raised",
    ),
    "range": (
        (403, 'pods "t" is forbidden: [maximum cpu usage per Container is 2, but limit is 8]'),
        "ask for what the namespace's LimitRange allows",
    ),
    "pod security": (
        (403, 'pods "t" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'),
        "runAsNonRoot != true; change the pod's settings",
    ),
    "namespace that goes": (
        (
            403,
            'trainjobs "t" is forbidden: unable to create new content in namespace recs because it is being terminated',
        ),
        "wait until the namespace is gone",
    ),
    "schema": ((422, "TrainJob t is invalid: spec.x: Required value"), "spec.x: Required value; correct what it names"),
    "nobody known": ((403, ""), "found status 403 Forbidden; correct what it names"),
}


@pytest.mark.parametrize("who", REFUSALS)
def test_a_refusal_is_told_in_its_own_words_and_only_rbacs_names_a_role(place: Place, who: str) -> None:
    place.cluster.refused["trainjobs"], advised = REFUSALS[who]
    with pytest.raises(BadInput) as refused:
        place.launch()
    said = str(refused.value)
    assert advised in said
    assert "Role" not in said
    assert "\n" not in said


def test_a_servers_words_are_cut_and_hold_no_secret(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_PASSWORD", "hunter22")
    words = 'admission webhook "w" denied the request:\n hunter22 in redis://me:hidden@redis ' + "x" * 5000
    place.cluster.refused["trainjobs"] = (403, words)
    with pytest.raises(BadInput, match="denied the request: … in redis://…@redis") as refused:
        place.launch()
    assert len(str(refused.value)) < 800
    assert "\n" not in str(refused.value)


def test_a_job_that_the_trainers_webhook_refuses_is_refused_here(place: Place) -> None:
    wrong = json.loads(place.words)
    wrong["spec"]["runtimePatches"][0]["manager"] = "understudy.launch-step"
    with pytest.raises(BadInput, match=r"manager: .*must be a domain-prefixed path.*change what the webhook names"):
        place.launch(words=json.dumps(wrong))


def test_a_log_that_may_not_be_read_is_told(place: Place) -> None:
    forbidden = 'pods is forbidden: User "u" cannot get resource "pods/log" in API group "" in the namespace "recs"'
    place.cluster.unread = (403, forbidden)
    with (
        controlled(place, speaking(place, "epoch 1")),
        pytest.raises(BadInput, match=r"pods/log.*give the Role of manifests/overlays/kubeflow"),
    ):
        place.launch()


SPARK_STATES = [
    ({}, "waiting", "new"),
    ({"applicationState": {"state": "SUBMITTED"}}, "waiting", "submitted"),
    (
        {"applicationState": {"state": "RUNNING"}, "executorState": {"a": "RUNNING", "b": "PENDING"}},
        "running",
        "running, 1 of 2 executors run",
    ),
    ({"applicationState": {"state": "COMPLETED"}}, "done", "completed"),
    (
        {"applicationState": {"state": "SUBMISSION_FAILED", "errorMessage": "no\n image"}},
        "failed",
        "submission failed: no image",
    ),
    ({"applicationState": {"state": "FAILED"}}, "failed", "failed"),
]


@pytest.mark.parametrize(("status", "state", "said"), SPARK_STATES)
def test_states_of_a_spark_application(status: dict[str, Any], state: str, said: str) -> None:
    found = {"kind": "SparkApplication", "metadata": {"name": "x"}, "status": status}
    assert launching.seen(found)[:2] == (state, said)


def test_a_queue_that_holds_a_train_job_is_named() -> None:
    found = {"kind": "TrainJob", "metadata": {"name": "x"}, "spec": {"suspend": True}}
    assert launching.seen(found)[:2] == ("waiting", "suspended, a queue may hold it")


def test_the_job_of_a_pod_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "run-1-x")
    monkeypatch.setenv("POD_UID", "12-34")
    made = launching._named(job(OPERATOR, "compact_logs"), "compact_logs", "/lake", "r", "{}")
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "run-1-x", "uid": "12-34"}
    ]


def test_a_launcher_that_is_asked_to_stop_removes_its_job(place: Place, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "recs"}}],
                "clusters": [{"name": "c", "cluster": {"server": place.url}}],
                "users": [{"name": "u", "user": {}}],
            }
        )
    )
    code = "import sys; from understudy.jobs.launching import launch; launch(*sys.argv[1:], every_s=0.1)"
    words = ["train_ranker", place.lake.uri(), place.run.id, "{}", place.words]
    environ = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    with subprocess.Popen([sys.executable, "-c", code, *words], env=environ) as launcher:
        eventually(lambda: place.cluster.names("trainjobs"), process=launcher)
        eventually(lambda: sum(call[0] == "GET" for call in place.cluster.calls) > 1, process=launcher)  # it follows
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(30) == 128 + signal.SIGTERM
    assert (place.made, place.cluster.names("trainjobs")) == (1, [])
