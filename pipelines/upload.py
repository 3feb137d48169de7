"""Bring a pipeline to Kubeflow Pipelines: one version per content, and nothing where that is there."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_server_api import V2beta1Pipeline

from pipelines.compile import Compiled
from pipelines.connection import Connection, Lost, Refused
from understudy import __version__
from understudy.kubeflow.config import Pipeline
from understudy.kubeflow.versions import compiled_by, made_by

__all__ = ["Uploaded", "experiment_id", "find_experiment", "find_version", "upload", "version_names"]

_CONFLICT = 409


@dataclass(frozen=True)
class Uploaded:
    """A version of a pipeline on the server.

    Args:
        new: whether it was uploaded just now.
        by: the version of the package that has compiled it; empty: the server does not say.
    """

    kind: str
    pipeline: str
    version: str
    pipeline_id: str
    version_id: str
    new: bool
    by: str


def upload(connection: Connection, made: Compiled) -> Uploaded:
    """Find the pipeline and its version of this content; create what is missing.

    Raises:
        Lost: the server did not answer; the same command again goes on from there.
    """
    found = find_version(connection, made)
    if found is not None:
        return found
    pipeline_id = _pipeline_id(connection, made.name) or _create_pipeline(connection, made)
    version_id = _version_id(connection, pipeline_id, made.version) or _create_version(connection, pipeline_id, made)
    return Uploaded(made.kind, made.name, made.version, pipeline_id, version_id, new=True, by=__version__)


def find_version(connection: Connection, made: Compiled) -> Uploaded | None:
    """The version of this content, or None where there is none."""
    pipeline_id = _pipeline_id(connection, made.name)
    found = _version(connection, pipeline_id, made.version) if pipeline_id else None
    if pipeline_id is None or found is None:
        return None
    by = compiled_by(found.description)
    return Uploaded(made.kind, made.name, made.version, pipeline_id, str(found.pipeline_version_id), new=False, by=by)


def version_names(connection: Connection, pipeline: str) -> dict[str, str]:
    """Id → name of every version of a pipeline; none where there is no such pipeline."""
    pipeline_id = _pipeline_id(connection, pipeline)
    if pipeline_id is None:
        return {}
    what, listed = f"versions of pipeline {pipeline}", connection.client.list_pipeline_versions
    found = connection.all(what, listed, "pipeline_versions", pipeline_id=pipeline_id)
    return {one.pipeline_version_id: one.display_name for one in found}


def find_experiment(connection: Connection, pipeline: Pipeline) -> str | None:
    """The id of the experiment that holds runs and schedules, or None."""
    name, listed = pipeline.experiment or pipeline.name, connection.client.list_experiments
    found = connection.named(f"experiment {name}", listed, "experiments", name, namespace=connection.namespace)
    return str(found.experiment_id) if found else None


def experiment_id(connection: Connection, pipeline: Pipeline) -> str:
    """The id of the experiment, which is created where there is none."""
    name = pipeline.experiment or pipeline.name
    known = find_experiment(connection, pipeline)
    if known is not None:
        return known
    create = connection.client.create_experiment
    try:
        made = connection.call(f"creating experiment {name}", create, name, namespace=connection.namespace)
        return str(made.experiment_id)
    except (Lost, Refused) as error:
        return _there_after_all(error, find_experiment(connection, pipeline))


def _pipeline_id(connection: Connection, name: str) -> str | None:
    listed = connection.client.list_pipelines
    found = connection.named(f"pipeline {name}", listed, "pipelines", name, namespace=connection.namespace)
    return str(found.pipeline_id) if found else None


def _version_id(connection: Connection, pipeline_id: str, name: str) -> str | None:
    found = _version(connection, pipeline_id, name)
    return str(found.pipeline_version_id) if found else None


def _version(connection: Connection, pipeline_id: str, name: str) -> Any:
    listed = connection.client.list_pipeline_versions
    return connection.named(f"version {name}", listed, "pipeline_versions", name, pipeline_id=pipeline_id)


def _create_pipeline(connection: Connection, made: Compiled) -> str:
    body = V2beta1Pipeline(
        display_name=made.name, namespace=connection.namespace, description=made.component.description
    )
    create = connection.client.pipelines.pipeline_service_create_pipeline
    try:
        return str(connection.call(f"creating pipeline {made.name}", create, pipeline=body).pipeline_id)
    except (Lost, Refused) as error:
        return _there_after_all(error, _pipeline_id(connection, made.name))


def _create_version(connection: Connection, pipeline_id: str, made: Compiled) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "pipeline.yaml")
        made.write(path)
        given: dict[str, Any] = {"pipeline_version_name": made.version, "pipeline_id": pipeline_id}
        given["description"] = made_by(__version__)
        send = connection.client.upload_pipeline_version
        try:
            return str(connection.call(f"uploading {made.version}", send, path, **given).pipeline_version_id)
        except (Lost, Refused) as error:
            return _there_after_all(error, _version_id(connection, pipeline_id, made.version))


def _there_after_all(error: Lost | Refused, found: str | None) -> str:
    """What was created although no answer came, or by another at the same time.

    Raises:
        Lost, Refused: it is not there.
    """
    if found is None or (isinstance(error, Refused) and error.status != _CONFLICT):
        raise error
    return found
