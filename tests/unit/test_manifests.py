"""The manifests build, are valid, ask for little, and fit together; `kubectl` builds them as it would apply them."""

import copy
import functools
import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_rules import GATEWAY, INFERENCE_SERVICE, pod_faults, role_faults, route_faults

from pipelines.compile import compiled
from pipelines.retraining import GRAPHS
from understudy.cli.main import cli
from understudy.config import load

MANIFESTS = Path(__file__).resolve().parent.parent.parent / "manifests"
ARMS = ("stable", "canary", "baseline", "previous", "month")
SECRETS = {"understudy-serve-token", "understudy-collect-token", "understudy-redis", "understudy-alerts"}
GATEWAY_API, KSERVE = "gateway.networking.k8s.io/v1", "serving.kserve.io/v1beta1"
OPERATORS_OWN = "monitoring.coreos.com/"  # checked where these are made
OLDEST, NEWEST = "1.34", kubernetes_validate.latest_version()

pytestmark = pytest.mark.needs("kubectl")  # which builds the manifests
Json = dict[str, Any]


def builds() -> list[str]:
    """`base`, each overlay, and each component on top of the base."""
    overlays, components = ([p.name for p in (MANIFESTS / one).iterdir()] for one in ("overlays", "components"))
    return [
        "base",
        *(f"overlays/{name}" for name in sorted(overlays)),
        *(f"base+{name}" for name in sorted(components)),
    ]


@functools.cache
def built(name: str) -> list[Json]:
    base, _, component = name.partition("+")
    if not component:
        return kustomize(MANIFESTS / base)
    with tempfile.TemporaryDirectory() as folder:
        up = os.path.relpath(MANIFESTS, folder)
        both = {"resources": [f"{up}/{base}"], "components": [f"{up}/components/{component}"]}
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(both))
        return kustomize(Path(folder))


def kustomize(folder: Path) -> list[Json]:
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.load_all(done.stdout, yaml.CSafeLoader))


def of_kind(name: str, *kinds: str) -> Iterator[Json]:
    return (one for one in built(name) if one["kind"] in kinds)


def pods(name: str) -> Iterator[tuple[str, Json, Json]]:
    """Name, labels and spec of each pod that is asked for."""
    for one in built(name):
        if one["kind"] == "InferenceService":
            spec = one["spec"]["predictor"]
            yield one["metadata"]["name"], spec["labels"], spec
        elif "template" in one.get("spec", {}):
            template = one["spec"]["template"]
            yield one["metadata"]["name"], template["metadata"]["labels"], template["spec"]


def containers(spec: Json) -> list[Json]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def one_of(name: str, kind: str, called: str) -> Json:
    (found,) = [one for one in of_kind(name, kind) if one["metadata"]["name"] == called]
    return found


def is_label_of(selector: Json, labels: Json) -> bool:
    same = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    ins = all(labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", []))
    return same and ins


# Each object


@pytest.mark.parametrize("name", builds())
def test_objects_are_valid(name: str) -> None:
    for one in built(name):
        where = f"{one['kind']} {one['metadata']['name']}"
        if one["apiVersion"] == GATEWAY_API and one["kind"] == "HTTPRoute":
            assert route_faults(one) == [], where
        elif one["apiVersion"] in (GATEWAY_API, KSERVE):
            jsonschema.validate(one, GATEWAY if one["kind"] == "Gateway" else INFERENCE_SERVICE)
        elif not one["apiVersion"].startswith(OPERATORS_OWN):
            for version in (OLDEST, NEWEST):
                kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("name", builds())
def test_pods_keep_to_the_restricted_profile(name: str) -> None:
    # The driver serves nothing: there is nothing to ask it. Its one probe is held in test_ending.py.
    found = {pod: pod_faults(spec, probes=pod != "understudy-rollout-driver") for pod, _, spec in pods(name)}
    assert found == {pod: [] for pod in found}
    assert len(found) >= 3


def without(*path: Any) -> Callable[[Json], None]:
    def spoil(spec: Json) -> None:
        *way, last = path
        functools.reduce(lambda part, key: part[key], way, spec).pop(last)

    return spoil


def having(value: Any, *path: Any) -> Callable[[Json], None]:
    def spoil(spec: Json) -> None:
        *way, last = path
        functools.reduce(lambda part, key: part[key], way, spec)[last] = value

    return spoil


FIRST = ("containers", 0)
SPOILED = [
    (having(True, "hostNetwork"), "hostNetwork"),
    (having(True, "hostPID"), "hostPID"),
    (having(True, "hostIPC"), "hostIPC"),
    (having([{"name": "disk", "hostPath": {"path": "/"}}], "volumes"), "volume disk: hostPath"),
    (having([{"name": "tmp", "emptyDir": {}}], "volumes"), "volume tmp: no sizeLimit"),
    (having([{"name": "a", "value": "1"}], "securityContext", "sysctls"), "sysctls"),
    (without("automountServiceAccountToken"), "automountServiceAccountToken is not said"),
    (without("securityContext", "runAsNonRoot"), "serve: runAsNonRoot"),
    (having(False, *FIRST, "securityContext", "runAsNonRoot"), "serve: runAsNonRoot"),
    (without("securityContext", "runAsUser"), "serve: runAsUser"),
    (having(0, *FIRST, "securityContext", "runAsUser"), "serve: runAsUser"),
    (having("app", "securityContext", "runAsUser"), "serve: runAsUser"),
    (without("securityContext", "seccompProfile"), "serve: seccompProfile"),
    (having({"type": "Unconfined"}, *FIRST, "securityContext", "seccompProfile"), "serve: seccompProfile"),
    (without(*FIRST, "securityContext", "allowPrivilegeEscalation"), "serve: allowPrivilegeEscalation"),
    (having(True, *FIRST, "securityContext", "privileged"), "serve: privileged"),
    (without(*FIRST, "securityContext", "capabilities"), "serve: capabilities"),
    (having(["NET_ADMIN"], *FIRST, "securityContext", "capabilities", "add"), "serve: capabilities"),
    (without(*FIRST, "securityContext", "readOnlyRootFilesystem"), "serve: readOnlyRootFilesystem"),
    (having("Unmasked", *FIRST, "securityContext", "procMount"), "serve: procMount"),
    (having(80, *FIRST, "ports", 0, "hostPort"), "serve: hostPort"),
    (without(*FIRST, "resources", "requests", "cpu"), "serve: no request of cpu"),
    (without(*FIRST, "resources", "limits"), "serve: no limit of memory"),
    (without(*FIRST, "livenessProbe"), "serve: no livenessProbe"),
    (without(*FIRST, "readinessProbe"), "serve: no readinessProbe"),
    (without(*FIRST, "startupProbe"), "serve: no startupProbe"),
    (without("initContainers", 0, "securityContext"), "fetch: readOnlyRootFilesystem"),
]


@pytest.mark.parametrize(("spoil", "fault"), SPOILED, ids=[fault for _, fault in SPOILED])
def test_a_pod_that_breaks_a_rule_is_found(spoil: Callable[[Json], None], fault: str) -> None:
    spec = copy.deepcopy(one_of("base", "Deployment", "understudy-stable")["spec"]["template"]["spec"])
    assert pod_faults(spec) == []
    spoil(spec)
    assert fault in pod_faults(spec)


@pytest.mark.parametrize("name", builds())
def test_roles_name_what_they_grant(name: str) -> None:
    assert not list(of_kind(name, "ClusterRole", "ClusterRoleBinding"))
    # Jobs and executors have new names each time; what these two may do is held against what is asked, with the jobs.
    unnamed = ("understudy-launch", "understudy-spark")
    for role in of_kind(name, "Role"):
        faults = role_faults(role)
        if role["metadata"]["name"] in unnamed:
            faults = [fault for fault in faults if not fault.startswith("no names")]
        assert faults == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"verbs": ["*"]}, "a wildcard"),
        ({"resources": ["secrets"]}, "secrets"),
        ({"resourceNames": []}, "no names"),
        ({"verbs": ["bind"]}, "more than its own rights"),
    ],
)
def test_a_role_that_grants_too_much_is_found(change: Json, fault: str) -> None:
    rule = {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["one"], "verbs": ["get"]}
    assert role_faults({"rules": [rule]}) == []
    assert fault in role_faults({"rules": [rule | change]})[0]


@pytest.mark.parametrize(
    ("rules", "matches", "is_valid"), [(16, 8, True), (2, 64, True), (17, 1, False), (1, 65, False), (16, 9, False)]
)
def test_a_route_keeps_to_the_limits_of_the_gateway_api(rules: int, matches: int, is_valid: bool) -> None:
    route = copy.deepcopy(one_of("base", "HTTPRoute", "understudy"))
    match = {"headers": [{"name": "x-understudy-bucket", "value": "7"}]}
    route["spec"]["rules"] = [{**route["spec"]["rules"][0], "matches": [match] * matches}] * rules
    assert (route_faults(route) == []) is is_valid


@pytest.mark.parametrize(
    "change", [{"rules": []}, {"rules": [{"match": []}]}, {"parentRefs": [{"kind": "Gateway"}]}, {"hostnames": ["A b"]}]
)
def test_a_route_of_another_shape_is_found(change: Json) -> None:
    route = copy.deepcopy(one_of("base", "HTTPRoute", "understudy"))
    assert route_faults({**route, "spec": route["spec"] | change}) != []


# How they fit together


@pytest.mark.parametrize("name", builds())
def test_labels_say_what_it_is(name: str) -> None:
    for one in built(name):
        assert one["metadata"].get("labels", {}).get("app.kubernetes.io/name") == "understudy", one["metadata"]["name"]
    assert all(labels["app.kubernetes.io/component"] for _, labels, _ in pods(name))


@pytest.mark.parametrize("name", builds())
def test_what_a_pod_refers_to_is_there(name: str) -> None:
    there = {(one["kind"], one["metadata"]["name"]) for one in built(name)} | {("Secret", one) for one in SECRETS}
    wanted = set()
    for _, _, spec in pods(name):
        if "serviceAccountName" in spec:
            wanted.add(("ServiceAccount", spec["serviceAccountName"]))
        for volume in spec.get("volumes", []):
            wanted |= {("ConfigMap", volume["configMap"]["name"])} if "configMap" in volume else set()
            wanted |= {("Secret", volume["secret"]["secretName"])} if "secret" in volume else set()
            if "persistentVolumeClaim" in volume:
                wanted.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
        for env in (env for one in containers(spec) for env in one.get("env", [])):
            if "secretKeyRef" in env.get("valueFrom", {}):
                wanted.add(("Secret", env["valueFrom"]["secretKeyRef"]["name"]))
    assert wanted <= there


@pytest.mark.parametrize("name", builds())
def test_no_secret_is_in_git(name: str) -> None:
    assert not list(of_kind(name, "Secret"))


@pytest.mark.parametrize("name", builds())
def test_what_is_mounted_is_a_volume(name: str) -> None:
    claims = {
        one["metadata"]["name"]: {claim["metadata"]["name"] for claim in one["spec"]["volumeClaimTemplates"]}
        for one in of_kind(name, "StatefulSet")
    }
    for pod, _, spec in pods(name):
        volumes = {volume["name"] for volume in spec.get("volumes", [])} | claims.get(pod, set())
        assert {mount["name"] for one in containers(spec) for mount in one["volumeMounts"]} == volumes


@pytest.mark.parametrize("name", builds())
def test_commands_are_understood(name: str) -> None:
    for _, _, spec in pods(name):
        for one in (one for one in containers(spec) if one["command"] == ["understudy"]):
            known = {env["name"] for env in one["env"]} | {"UNDERSTUDY_RELEASE"}
            assert set(re.findall(r"\$\((\w+)\)", " ".join(one["args"]))) <= known
            assert parsed(one["args"])


def parsed(arguments: list[str]) -> Json:
    """The options of a command line, as the command reads them."""
    command, rest = cli, list(arguments)
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), rest[0])
        assert found is not None, f"no command {rest[0]!r} of `{' '.join(arguments)}`"
        command, rest = found, rest[1:]
    return command.make_context(arguments[0], rest).params


@pytest.mark.parametrize("name", builds())
def test_a_service_has_its_port_and_a_route_its_service(name: str) -> None:
    services = {one["metadata"]["name"]: one for one in of_kind(name, "Service")}
    for service in services.values():
        selected = [
            spec for _, labels, spec in pods(name) if is_label_of({"matchLabels": selector_of(service)}, labels)
        ]
        # The driver makes the other arms' pods.
        if service["metadata"]["labels"].get("understudy.dev/arm") in (None, "stable"):
            assert selected
        for spec in selected:
            ports = {port["name"] for one in spec["containers"] for port in one["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for route in (one for one in of_kind(name, "HTTPRoute") if one["metadata"]["name"] != "feed"):
        for backend in (backend for rule in route["spec"]["rules"] for backend in rule["backendRefs"]):
            assert backend["port"] in {port["port"] for port in services[backend["name"]]["spec"]["ports"]}


def selector_of(service: Json) -> Json:
    selector: Json = service["spec"]["selector"]
    return selector


@pytest.mark.parametrize("name", builds())
def test_selectors_select_the_pods_beside_them(name: str) -> None:
    for one in of_kind(name, "Deployment", "StatefulSet"):
        assert is_label_of(one["spec"]["selector"], one["spec"]["template"]["metadata"]["labels"])
    for budget in of_kind(name, "PodDisruptionBudget"):
        assert any(is_label_of(budget["spec"]["selector"], labels) for _, labels, _ in pods(name))
        assert budget["spec"]["maxUnavailable"] == 1
    for scaler in of_kind(name, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert "replicas" not in one_of(name, target["kind"], target["name"])["spec"]


# Who may speak to whom

LABELS = {
    component: {"app.kubernetes.io/name": "understudy", "app.kubernetes.io/component": component}
    for component in ("serve", "collect", "rollout", "redis")
}


def lets_through(name: str, source: str, target: str, port: int) -> bool:
    """Whether the policies let pods of one component reach another's port."""

    def allows(policy: Json, way: str, of: str, peer: str) -> bool:
        if not is_label_of(policy["spec"]["podSelector"], LABELS[of]):
            return False
        return any(
            any("podSelector" in one and is_label_of(one["podSelector"], LABELS[peer]) for one in rule.get(end, []))
            and port in {one["port"] for one in rule["ports"]}
            for rule in policy["spec"].get(way, [])
            for end in ("from", "to")
        )

    policies = list(of_kind(name, "NetworkPolicy"))
    out = any(allows(policy, "egress", source, target) for policy in policies)
    return out and any(allows(policy, "ingress", target, source) for policy in policies)


def test_who_must_speak_to_another_can_and_nobody_else() -> None:
    ports = {"serve": 8800, "collect": 8900, "redis": 6379, "rollout": 8800}
    found = {(a, b) for a in LABELS for b in LABELS if lets_through("overlays/kind", a, b, ports[b])}
    assert found == {("serve", "collect"), ("rollout", "serve"), ("serve", "redis"), ("collect", "redis")}


@pytest.mark.parametrize("name", builds())
def test_what_no_policy_allows_is_denied(name: str) -> None:
    denied = one_of(name, "NetworkPolicy", "understudy-default-deny")["spec"]
    assert denied["policyTypes"] == ["Ingress", "Egress"]
    assert set(denied) == {"podSelector", "policyTypes"}
    assert all(is_label_of(denied["podSelector"], labels) for _, labels, _ in pods(name))


@pytest.mark.parametrize("name", builds())
def test_the_driver_s_probe_reads_the_file_that_its_loop_touches(name: str) -> None:
    (driver,) = one_of(name, "Deployment", "understudy-rollout-driver")["spec"]["template"]["spec"]["containers"]
    heartbeat = parsed([one.replace("$(UNDERSTUDY_LAKE)", "/lake") for one in driver["args"]])["heartbeat"]
    assert heartbeat in " ".join(driver["livenessProbe"]["exec"]["command"])
    assert any(heartbeat.startswith(f"{mount['mountPath']}/") for mount in driver["volumeMounts"])


# What the rollout driver builds upon


@pytest.mark.parametrize("name", builds())
def test_the_release_of_stable_is_not_in_git(name: str) -> None:
    stable = one_of(name, "Deployment", "understudy-stable")["spec"]["template"]["spec"]
    env = {one["name"]: {env["name"]: env.get("value") for env in one["env"]} for one in containers(stable)}
    assert set(env) == {"fetch", "serve"}
    assert all("UNDERSTUDY_RELEASE" not in its for its in env.values())
    assert env["serve"]["UNDERSTUDY_ARM"] == "stable"
    fetch, serve = (parsed(one["args"]) for one in containers(stable))
    assert (fetch["ref"], fetch["to"]) == ("$(UNDERSTUDY_RELEASE)", serve["fetched"])
    assert (serve["release"], serve["arm"]) == ("$(UNDERSTUDY_RELEASE)", "$(UNDERSTUDY_ARM)")
    assert stable["terminationGracePeriodSeconds"] > serve["drain_s"] + 10


def test_every_arm_has_a_service_and_only_stable_pods_in_git() -> None:
    services = {one["metadata"]["name"]: selector_of(one) for one in of_kind("base", "Service")}
    for arm in ARMS:
        assert services[f"understudy-{arm}"] == LABELS["serve"] | {"understudy.dev/arm": arm}
    serving = [one for one in of_kind("base", "Deployment") if one["metadata"]["labels"].get("understudy.dev/arm")]
    assert [one["metadata"]["name"] for one in serving] == ["understudy-stable"]


def test_an_arm_s_pods_spread_among_themselves() -> None:
    spec = one_of("base", "Deployment", "understudy-stable")["spec"]["template"]["spec"]
    for one in spec["topologySpreadConstraints"]:
        assert "understudy.dev/arm" in one["matchLabelKeys"]
        assert not set(one["matchLabelKeys"]) & set(one["labelSelector"]["matchLabels"])


def test_the_driver_may_do_what_it_does_and_no_more() -> None:
    rules = one_of("base", "Role", "understudy-rollout")["rules"]
    may = {
        (resource, named, verb)
        for rule in rules
        for resource in rule["resources"]
        for named in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }
    others = [f"understudy-{arm}" for arm in ARMS[1:]]
    assert may == {
        *(("configmaps", "understudy-rollout", verb) for verb in ("get", "update", "patch")),
        *(("deployments", "understudy-stable", verb) for verb in ("get", "patch")),
        *(("deployments", name, verb) for name in others for verb in ("get", "patch", "delete")),
        ("deployments", "", "create"),
        ("httproutes", "understudy", "get"),
        *(("httproutes", "understudy-arms", verb) for verb in ("get", "patch", "delete")),
        ("httproutes", "", "create"),
        ("pods", "", "list"),
    }
    with_token = [pod for pod, _, spec in pods("overlays/kind") if spec["automountServiceAccountToken"]]
    assert with_token == ["understudy-rollout-driver"]
    assert "data" not in one_of("base", "ConfigMap", "understudy-rollout")


def test_the_way_in_removes_the_bucket() -> None:
    (rule,) = one_of("base+edge", "HTTPRoute", "feed")["spec"]["rules"]
    assert rule["filters"][0]["requestHeaderModifier"]["remove"] == ["x-understudy-bucket"]


# Overlays


@pytest.mark.parametrize("name", builds())
def test_the_configuration_is_valid(name: str, tmp_path: Path) -> None:
    (found,) = [one for one in of_kind(name, "ConfigMap") if "understudy.yaml" in one.get("data", {})]
    (tmp_path / "understudy.yaml").write_text(found["data"]["understudy.yaml"])
    assert load(tmp_path / "understudy.yaml").rollout.mode == "none"


@pytest.mark.parametrize("name", [one for one in builds() if one.startswith("overlays/")])
def test_an_overlay_is_whole(name: str) -> None:
    namespaces = list(of_kind(name, "Namespace"))
    if name == "overlays/kubeflow":  # the installation's own: it would be removed with what is in it
        assert namespaces == []
    else:
        assert namespaces[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    lies = "kubeflow" if not namespaces else "understudy"
    assert {one["metadata"].get("namespace") for one in built(name) if one not in namespaces} == {lies}
    gateways = {one["metadata"]["name"] for one in of_kind(name, "Gateway")}
    assert {parent["name"] for one in of_kind(name, "HTTPRoute") for parent in one["spec"]["parentRefs"]} <= gateways
    for pod in ("understudy-stable", "understudy-collect"):
        assert "UNDERSTUDY_REDIS_URL" in json.dumps(next(spec for found, _, spec in pods(name) if found == pod))


def test_the_pipeline_beside_the_overlay_finds_what_it_names() -> None:
    name = "overlays/kubeflow"
    config = load(MANIFESTS / name / "pipeline.yaml")
    assert config.rollout.namespace == one_of(name, "ConfigMap", "understudy-rollout")["metadata"]["namespace"]
    pod = config.pipeline.pod("build_features", "spark")
    assert [one_of(name, "PersistentVolumeClaim", volume.claim) for volume in pod.volumes]
    assert {secret.name for secret in pod.secrets} <= SECRETS
    (policy,) = [one for one in of_kind(name, "NetworkPolicy") if one["metadata"]["name"] == "understudy-redis"]
    selectors = [peer["podSelector"] for peer in policy["spec"]["ingress"][0]["from"]]
    assert any(is_label_of(selector, pod.labels) for selector in selectors)
    assert {kind: compiled(config, kind).version for kind in GRAPHS}


def test_a_lake_in_a_bucket_takes_the_place_of_the_volume() -> None:
    assert not list(of_kind("base+objectstore", "PersistentVolumeClaim"))
    found = {pod: spec for pod, _, spec in pods("base+objectstore")}
    for name in ("understudy-stable", "understudy-collect", "understudy-rollout-driver"):
        assert "understudy-lake" not in json.dumps(found[name].get("volumes"))
        for one in containers(found[name]):
            assert {"secretRef": {"name": "understudy-lake"}} in one["envFrom"]
            assert [env["value"] for env in one["env"] if env["name"] == "UNDERSTUDY_LAKE"] == ["s3://understudy/lake"]
            assert "/lake" not in [mount["mountPath"] for mount in one["volumeMounts"]]


def test_production_runs_images_by_their_digest() -> None:
    images = {one["image"] for _, _, spec in pods("overlays/production") for one in containers(spec)}
    assert all(re.fullmatch(r"[^@]+@sha256:[0-9a-f]{64}", image) for image in images), images
    assert one_of("overlays/production", "HorizontalPodAutoscaler", "understudy-stable")["spec"]["minReplicas"] >= 2


def test_the_readme_s_commands_make_the_secrets() -> None:
    text = (MANIFESTS / "README.md").read_text()
    assert set(re.findall(r"create secret generic (\S+)", text)) == SECRETS


GUIDE = (MANIFESTS.parent / "docs" / "cluster.md").read_text()


def test_the_guide_s_files_exist() -> None:
    ours = GUIDE.replace("{jobs,pipeline}", "jobs").replace("pipelines/manifests", "")
    found = set(re.findall(r"(?:manifests|images|examples)/[\w/.-]*\w", ours))
    assert len(found) >= 4
    assert [path for path in found if not (MANIFESTS.parent / path).exists()] == []


def test_the_guide_makes_the_secrets_and_gives_commands_that_are_understood() -> None:
    kinds = ("serve", "collect")
    made = {name.replace("$one", kind) for name in re.findall(r"secret generic (\S+)", GUIDE) for kind in kinds}
    assert made == SECRETS - {"understudy-alerts"}
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)).replace("\\\n", " ")
    overlay = MANIFESTS / "overlays" / "kubeflow"
    blocks = blocks.replace("$pipeline", f"{overlay}/pipeline.yaml").replace("/etc/understudy", str(overlay))
    given = re.findall(r"(?:^|-- +)understudy ([a-z].*)$", blocks, re.MULTILINE)
    assert len(given) >= 6
    for line in given:
        assert parsed(shlex.split(line, comments=True))
