"""The pipelines as a cluster gets them: what the configuration says of pods, and nothing of it in what a run is."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kubeflow_config import configured

from components.images import image
from pipelines.compile import compile_pipeline, compiled
from pipelines.retraining import GRAPHS, ROLES, STEPS, retraining
from understudy.errors import BadInput
from understudy.kubeflow.config import IMAGE_ROLES
from understudy.kubeflow.step import StepSettings, joined
from understudy.section import from_json

DIGEST = "@sha256:" + "a" * 64
POD = {
    "all": {
        "cpu": "500m", "memory": "4Gi", "run_as_user": 10001, "run_as_group": 10001, "pull_policy": "IfNotPresent",
        "pull_secrets": ["registry"], "labels": {"team": "recs"}, "annotations": {"sidecar.istio.io/inject": "false"},
        "secrets": [{"name": "lake-keys", "env": {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}}],
        "volumes": [{"claim": "understudy-lake", "path": "/lake", "sub_path": "main"}], "env": {"LEVEL": "all"},
    },
    "train": {
        "cpu": "8", "cpu_limit": "16", "gpu": {"count": 2}, "shared_memory": "8Gi", "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "env": {"LEVEL": "role", "TRAIN": "yes"},
    },
    "train_ranker": {"timeout": "6h", "retries": 2, "retry_wait": "1m", "env": {"LEVEL": "step"}},
}  # fmt: skip


def parts(kind: str = "retrain", **pipeline: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """kfp's specification and its settings for Kubernetes."""
    made = compiled(configured(**pipeline), kind).component
    spec, platform = (json_format.MessageToDict(one) for one in (made.pipeline_spec, made.platform_spec))
    return spec, platform.get("platforms", {}).get("kubernetes", {})


def pod(spec: dict[str, Any], kubernetes: dict[str, Any], step: str) -> tuple[dict[str, Any], dict[str, Any]]:
    name = f"exec-{step.replace('_', '-')}"
    settings = kubernetes.get("deploymentSpec", {}).get("executors", {}).get(name, {})
    return spec["deploymentSpec"]["executors"][name]["container"], settings


def test_every_setting_reaches_the_pod() -> None:
    spec, kubernetes = parts(steps=POD)
    container, settings = pod(spec, kubernetes, "train_ranker")
    assert container["resources"] | {"accelerator": None} == {
        "cpuRequest": 8.0, "cpuLimit": 16.0, "resourceCpuRequest": "8", "resourceCpuLimit": "16",
        "memoryRequest": 4.294967296, "memoryLimit": 4.294967296, "resourceMemoryRequest": "4Gi",
        "resourceMemoryLimit": "4Gi", "accelerator": None,
    }  # fmt: skip
    assert container["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert container["resources"]["accelerator"]["resourceCount"] == "2"
    assert {one["name"]: one["value"] for one in container["env"]} == {"LEVEL": "step", "TRAIN": "yes"}
    assert settings["emptyDirMounts"] == [
        {"volumeName": "shared-memory", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "8Gi"}
    ]
    assert settings["nodeSelector"] == {"labels": {"pool": "gpu"}}
    assert settings["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert settings["securityContext"] == {"runAsUser": "10001", "runAsGroup": "10001", "runAsNonRoot": True}
    assert settings["podMetadata"] == {
        "labels": {"team": "recs"},
        "annotations": {"sidecar.istio.io/inject": "false"},
    }
    assert (settings["imagePullPolicy"], settings["activeDeadlineSeconds"]) == ("IfNotPresent", str(6 * 3600))
    assert [(one["secretName"], one["keyToEnv"]) for one in settings["secretAsEnv"]] == [
        ("lake-keys", [{"secretKey": "id", "envVar": "AWS_ACCESS_KEY_ID"}]),
        ("lake-keys", [{"secretKey": "key", "envVar": "AWS_SECRET_ACCESS_KEY"}]),
    ]
    (volume,) = settings["pvcMount"]
    assert (volume["constant"], volume["mountPath"], volume["subPath"]) == ("understudy-lake", "/lake", "main")
    (steps,) = [one for one in spec["components"].values() if "train-ranker" in one.get("dag", {}).get("tasks", {})]
    assert steps["dag"]["tasks"]["train-ranker"]["retryPolicy"] == {
        "maxRetryCount": 2, "backoffDuration": "60s", "backoffFactor": 2.0, "backoffMaxDuration": "3600s",
    }  # fmt: skip
    assert "retryPolicy" not in steps["dag"]["tasks"]["evaluate"]


def test_the_exit_handler_has_its_pod_too() -> None:
    container, settings = pod(*parts(steps=POD), "write_report")
    assert {one["name"]: one["value"] for one in container["env"]} == {"LEVEL": "all"}
    assert "emptyDirMounts" not in settings
    assert settings["secretAsEnv"][0]["secretName"] == "lake-keys"


@pytest.mark.parametrize(("env", "heap"), [({}, "4915m"), ({"SPARK_DRIVER_MEMORY": "1g"}, "1g")])
def test_a_driver_s_heap_follows_from_its_pod_unless_it_is_named(env: dict[str, str], heap: str) -> None:
    container, _ = pod(*parts(steps={"spark": {"memory": "8Gi", "env": env}}), "sample_examples")
    assert {one["name"]: one["value"] for one in container["env"]} == {"SPARK_DRIVER_MEMORY": heap}


def test_without_settings_the_installation_decides() -> None:
    spec, kubernetes = parts()
    assert kubernetes == {}
    for step in ROLES:
        container, _ = pod(spec, kubernetes, step)
        assert set(container) == {"args", "command", "image"}


def test_a_whole_run_has_limits() -> None:
    _, kubernetes = parts(deadline="3d", ttl="7d")
    assert kubernetes["pipelineConfig"] == {"activeDeadlineSeconds": 259200, "resourceTtlOnCompletion": 604800}


def test_images_come_from_the_environment_then_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"spark": f"ghcr.io/me/spark{DIGEST}", "tools": f"ghcr.io/me/tools:1{DIGEST}", "train": "ghcr.io/me/train:1"}
    monkeypatch.setenv("UNDERSTUDY_IMAGE_TOOLS", "registry.local:5000/tools:dev")
    made = compiled(configured(images=own))
    assert made.images == {"spark": own["spark"], "tools": "registry.local:5000/tools:dev", "train": own["train"]}
    assert made.loose == ["ghcr.io/me/train:1", "registry.local:5000/tools:dev"]
    spec, _ = (json_format.MessageToDict(one) for one in (made.component.pipeline_spec, made.component.platform_spec))
    for step, role in ROLES.items():
        assert pod(spec, {}, step)[0]["image"] == made.images[role]


def test_roles_are_those_of_the_components() -> None:
    made = json_format.MessageToDict(retraining(configured()).pipeline_spec)
    found = {step: pod(made, {}, step)[0]["image"] for step in ROLES}
    assert found == {step: image(role) for step, role in ROLES.items()}
    assert set(ROLES.values()) == set(IMAGE_ROLES)


@pytest.mark.parametrize(
    ("kind", "steps", "inputs"),
    [
        ("retrain", set(STEPS), {"lake", "window_end", "again"}),
        ("drift", set(list(STEPS)[:5]), {"lake", "window_end"}),
        ("refresh", {"compact_logs", "build_features"}, {"lake"}),
    ],
)
def test_three_graphs_share_the_same_steps(kind: str, steps: set[str], inputs: set[str]) -> None:
    made = compiled(configured(), kind)
    spec = json_format.MessageToDict(made.component.pipeline_spec)
    executors = {name.removeprefix("exec-").replace("-", "_") for name in spec["deploymentSpec"]["executors"]}
    assert executors == {*steps, "plan_window", "write_report"}
    assert set(spec["root"]["inputDefinitions"]["parameters"]) == inputs
    assert spec["pipelineInfo"]["name"] == made.name == f"understudy-{kind}"
    whole = json.dumps(spec)
    assert whole.count('"constant": "train"') + whole.count('"constant": "refresh"') == 1
    assert whole.count(f'"constant": "{GRAPHS[kind].last}"') == 2, "the plan and the page are told the last step"


def test_a_run_is_named_by_an_id_that_a_cluster_fills_in() -> None:
    """It does so only where a placeholder is the whole value: in a longer text all runs would have the same name."""
    spec, _ = parts()
    (steps,) = [one for one in spec["components"].values() if "plan-window" in one.get("dag", {}).get("tasks", {})]
    for task in (steps["dag"]["tasks"]["plan-window"], spec["root"]["dag"]["tasks"]["write-report"]):
        assert task["inputs"]["parameters"]["job"]["runtimeValue"]["constant"] == "{{$.pipeline_job_uuid}}"


def test_the_version_follows_the_content_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    first = compiled(configured()).version
    assert compiled(configured()).version == first
    schedule = {"name": "weekly", "cron": "0 3 * * 1"}
    assert compiled(configured(schedules=[schedule], host="http://localhost:1", namespace="recs")).version == first
    others = {
        compiled(configured(window_days=7)).version,
        compiled(configured(steps={"all": {"cpu": "1"}})).version,
        compiled(configured(images={"train": f"a/b{DIGEST}"})).version,
    }
    assert len(others | {first}) == 4
    monkeypatch.setattr("kfp.__version__", "9.9.9")
    assert compiled(configured()).version == first


def test_where_runs_run_is_no_part_of_what_they_are() -> None:
    plain, placed = configured(), configured(steps=POD, deadline="3d", schedules=[{"name": "a", "cron": "0 3 * * *"}])
    assert placed.digest() == plain.digest()
    assert "pipeline" not in json.loads(placed.work())
    assert from_json(type(placed), placed.work()).digest() == plain.digest()


def test_a_manifest_holds_pipeline_and_version(tmp_path: Path) -> None:
    made = compile_pipeline(configured(namespace="recs", steps=POD), tmp_path / "it.yaml", manifest=True)
    pipeline, version = yaml.safe_load_all((tmp_path / "it.yaml").read_text())
    assert (pipeline["kind"], pipeline["metadata"]) == ("Pipeline", {"name": made.name, "namespace": "recs"})
    assert (version["kind"], version["metadata"]) == ("PipelineVersion", {"name": made.version, "namespace": "recs"})
    assert version["apiVersion"] == "pipelines.kubeflow.org/v2beta1"
    assert version["spec"]["pipelineName"] == made.name
    assert (
        "exec-train-ranker" in version["spec"]["platformSpec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    )


def test_a_file_that_kfp_reads_back(tmp_path: Path) -> None:
    from kfp.components import load_component_from_file

    compile_pipeline(configured(steps=POD), tmp_path / "a" / "it.yaml", "drift")
    assert load_component_from_file(str(tmp_path / "a" / "it.yaml")).name == "understudy-drift"
    with pytest.raises(BadInput, match=r"expected a name that ends with \.yaml"):
        compile_pipeline(configured(), tmp_path / "it.json")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown step": ({"steps": {"trian": {}}}, "pipeline.steps: expected all, spark, tools, train, plan_window"),
    "an unknown setting": ({"steps": {"all": {"gpus": 1}}}, "pipeline.steps.all.gpus: expected no such key"),
    "a size that is none": (
        {"steps": {"all": {"memory": "4 GB"}}},
        "memory: expected a size such as 8Gi, found '4 GB'",
    ),
    "cores that are none": ({"steps": {"all": {"cpu": "two"}}}, "cpu: expected cores such as 2 or 500m"),
    "root": ({"steps": {"all": {"run_as_user": 0}}}, "run_as_user: expected a number of at least 1"),
    "retries without end": (
        {"steps": {"all": {"retries": 99}}},
        "retries: expected a number of at least 0 and at most 5",
    ),
    "a role without an image": ({"images": {"serve": "a/b"}}, "images: expected spark, tools or train, found 'serve'"),
    "an image that is none": ({"images": {"spark": "a b"}}, "images.spark: expected an image such as"),
    "a digest too short": ({"images": {"spark": "a/b@sha256:abc"}}, "images.spark: expected an image such as"),
    "a host with a password": ({"host": "http://me:secret@host"}, "host: expected a URL such as http://localhost:8080"),
    "a lake beside us": ({"lake": "./lake"}, "lake: expected a URI without credentials or an absolute path"),
    "a lake with its key": ({"lake": "s3://me:secret@bucket"}, "lake: expected a URI without credentials"),
    "an unknown zone": ({"cron_zone": "Mars"}, "cron_zone: expected an IANA name"),
    "a taint without a key": ({"steps": {"all": {"tolerations": [{}]}}}, "key: expected a taint's key"),
    "a secret without variables": (
        {"steps": {"all": {"secrets": [{"name": "a", "env": {}}]}}},
        "env: expected variables",
    ),
    "a volume nowhere": (
        {"steps": {"all": {"volumes": [{"claim": "a", "path": "lake"}]}}},
        "path: expected an absolute",
    ),
    "a schedule twice": (
        {"schedules": [{"name": "a", "cron": "0 3 * * 1"}] * 2},
        "pipeline.schedules: expected each name once, found a twice",
    ),
    "an unknown kind": (
        {"schedules": [{"name": "a", "kind": "train", "cron": "0 3 * * 1"}]},
        "pipeline.schedules.0.kind: expected retrain, drift or refresh, found 'train'",
    ),
    "a parameter of another kind": (
        {"schedules": [{"name": "a", "kind": "refresh", "cron": "0 3 * * 1", "parameters": {"again": True}}]},
        "pipeline.schedules.0.parameters: expected none for a refresh, found again: True",
    ),
    "a cron that is none": (
        {"schedules": [{"name": "a", "cron": "weekly"}]},
        "pipeline.schedules.0.cron: expected five fields",
    ),
}


@pytest.mark.parametrize(("pipeline", "expected"), BAD.values(), ids=BAD.keys())
def test_a_section_that_can_t_be_honoured_is_one_clear_line(pipeline: dict[str, Any], expected: str) -> None:
    with pytest.raises(BadInput) as error:
        configured(**pipeline)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert "secret@" not in str(error.value)


def test_nobody_is_asked_for_longer_than_the_pod_lives() -> None:
    required = {"approval": "required", "approval_wait": "2d"}
    with pytest.raises(BadInput, match=r"pipeline\.deadline: expected more than rollout\.approval_wait"):
        configured(rollout=required, deadline="1d")
    with pytest.raises(
        BadInput, match=r"pipeline.steps.promote.timeout: expected more than rollout.approval_wait \(2d\)"
    ):
        configured(rollout=required, steps={"tools": {"timeout": "6h"}})
    assert configured(rollout=required, steps={"tools": {"timeout": "6h"}, "promote": {"timeout": "3d"}})


def test_the_last_word_counts() -> None:
    one = StepSettings(cpu="1", env={"A": "1", "B": "1"}, retries=2, pull_secrets=("a",))
    two = StepSettings(env={"B": "2"}, retries=0, pull_secrets=("b",))
    found = joined([one, two])
    assert (found.cpu, found.env, found.retries, found.pull_secrets) == ("1", {"A": "1", "B": "2"}, 0, ("a", "b"))
    assert joined([]) == StepSettings()
