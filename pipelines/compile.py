"""A pipeline as Kubeflow Pipelines accepts it, and the version that its content makes it."""

import contextlib
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from kfp import compiler
from kfp.compiler.compiler_utils import KubernetesManifestOptions

from pipelines.placing import image_of, jobs_of, limits, placing
from pipelines.retraining import GRAPHS, ROLES, name_of, retraining
from understudy import __version__
from understudy.config import Config
from understudy.errors import BadInput
from understudy.section import canonical_json

__all__ = ["Compiled", "compile_pipeline", "compiled"]

_MOST_BYTES = 1_000_000  # a workflow that is made from it must fit into etcd's 1.5 MB


@dataclass(frozen=True)
class Compiled:
    """A pipeline that can be written.

    Args:
        kind: which graph.
        name: of the pipeline.
        version: ``<name>-<digest of the content>``.
        images: role → image.
        component: kfp's.
    """

    kind: str
    name: str
    version: str
    images: dict[str, str]
    component: Any

    @property
    def loose(self) -> list[str]:
        """Images that are not named by a digest: what runs may change under the same version."""
        return sorted(image for image in set(self.images.values()) if "@sha256:" not in image)

    def write(self, path: str | Path, *, manifest: bool = False, namespace: str = "") -> None:
        """Write it as kfp's YAML, or as objects of Kubernetes: Pipeline and PipelineVersion.

        Raises:
            BadInput: the path has no ending that says YAML.
        """
        if Path(path).suffix not in (".yaml", ".yml"):
            raise BadInput(f"{path}: expected a name that ends with .yaml, found another; correct -o")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        options = KubernetesManifestOptions(
            pipeline_name=self.name,
            pipeline_version_name=self.version,
            namespace=namespace or None,
            include_pipeline_manifest=True,
        )
        given: dict[str, Any] = {"kubernetes_manifest_format": True, "kubernetes_manifest_options": options}
        with _quiet():
            compiler.Compiler().compile(self.component, str(path), **(given if manifest else {}))
        said = f"# Compiled by understudy {__version__}: {self.version}\n"  # no part of the content
        Path(path).write_text(said + Path(path).read_text(encoding="utf-8"), encoding="utf-8")


def compiled(config: Config, kind: str = "retrain") -> Compiled:
    """Compile one graph for a configuration, with the settings of its cluster.

    Raises:
        BadInput: it would be too large for a cluster.
    """
    with _quiet():
        component = retraining(config, kind, placing(config), limits(config.pipeline), jobs_of(config))
    content = [json_format.MessageToDict(one) for one in (component.pipeline_spec, component.platform_spec)]
    content[0].pop("sdkVersion", None)  # another kfp that makes the same is no other version
    text = canonical_json(content)
    if len(text) > _MOST_BYTES:
        raise BadInput(
            f"pipeline {name_of(config, kind)}: expected at most {_MOST_BYTES} bytes, found {len(text)}; "
            "shorten the configuration"
        )
    name = name_of(config, kind)
    version = f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return Compiled(kind, name, version, _images(content[0], config), component)


def compile_pipeline(config: Config, path: str | Path, kind: str = "retrain", *, manifest: bool = False) -> Compiled:
    """Compile one graph into a file."""
    if kind not in GRAPHS:
        raise BadInput(f"--kind {kind!r}: expected one of {', '.join(GRAPHS)}; correct it")
    made = compiled(config, kind)
    made.write(path, manifest=manifest, namespace=config.pipeline.namespace)
    return made


def _images(spec: dict[str, Any], config: Config) -> dict[str, str]:
    """Role → image, of the roles that this graph has; a job's step has the launcher's and its own."""
    names = [name.removeprefix("exec-").replace("-", "_") for name in spec["deploymentSpec"]["executors"]]
    roles = {ROLES[name] for name in names if name in ROLES}
    if len(names) > sum(name in ROLES for name in names):
        roles |= {"tools", *(ROLES[step] for step in jobs_of(config) if step in _steps_of(spec))}
    return {role: image_of(config.pipeline, role) for role in sorted(roles)}


def _steps_of(spec: dict[str, Any]) -> set[str]:
    """Steps of a graph, by the names that people see."""
    tasks = [task for one in spec["components"].values() for task in one.get("dag", {}).get("tasks", {}).values()]
    return {task["taskInfo"]["name"].replace("-", "_") for task in tasks}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
