"""What Feast knows of the features: entities, views over the lake's tables, the feature service."""

import json
import re
import urllib.parse
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from understudy.errors import BadInput
from understudy.features.light import light_imports
from understudy.features.pointer import redis_parts
from understudy.features.views import VIEWS, View

with light_imports():
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig
    from feast.repo_config import MaterializationConfig
    from feast.types import Array, Float32, Float64, Int64, String
    from feast.value_type import ValueType

    from understudy.features.offline_store import AsOfOfflineStoreConfig

__all__ = ["PROJECT", "SERVICE", "apply", "definitions", "features_of", "open_store"]

PROJECT = "understudy"
SERVICE = "ranker"
_STAMPS = ("event_timestamp", "created_timestamp")
_WRITTEN = re.compile(r"/runs/[^/]+/steps/build_features/")  # in the path of a run's feature tables
_KINDS = (
    (pa.types.is_float32, Float32),
    (pa.types.is_float64, Float64),
    (pa.types.is_int64, Int64),
    (pa.types.is_string, String),
)


def definitions(tables: dict[str, tuple[str, pa.Schema]], service: str = SERVICE) -> list[Any]:
    """Entities, feature views and the feature service over feature tables.

    Feast knows no view without features: a table that has none, such as of users without attributes, is left out.

    Args:
        tables: view → its folder and schema.
        service: name of the feature service, one per version of a model.
    """
    ours = [VIEWS[name] for name, (_, fields) in tables.items() if features_of(VIEWS[name], fields)]
    keys = sorted({key for view in ours for key in view.keys})
    entities = {key: Entity(name=key.removesuffix("_id"), join_keys=[key], value_type=ValueType.STRING) for key in keys}
    views: list[Any] = []
    for view in ours:
        path, fields = tables[view.name]
        views.append(
            FeatureView(
                name=view.name,
                entities=[entities[key] for key in view.keys],
                ttl=timedelta(0),
                schema=[
                    *(Field(name=key, dtype=String) for key in view.keys),
                    *(Field(name=f.name, dtype=_kind(f.type)) for f in features_of(view, fields)),
                ],
                source=FileSource(
                    name=view.name, path=path, timestamp_field=_STAMPS[0], created_timestamp_column=_STAMPS[1]
                ),
            )
        )
    return [*entities.values(), *views, FeatureService(name=service, features=views)]


def features_of(view: View, fields: pa.Schema) -> list[pa.Field]:
    """A table's columns that are features: all but its keys and times."""
    return [field for field in fields if field.name not in (*view.keys, *_STAMPS)]


def apply(store: FeatureStore, objects: list[Any]) -> list[str]:
    """Make the registry hold these definitions; returns the views' names.

    A view that an earlier run of ours registered, and that is not among them, leaves it with its online table. What
    somebody else has registered stays, with its online tables.

    Raises:
        BadInput: something of somebody else has the name of one of these.
    """
    names = [one.name for one in objects if isinstance(one, FeatureView)]
    registered = store.list_all_feature_views()
    _refuse_taken(store, objects, registered)
    gone: list[Any] = [view for view in registered if view.name not in names and _is_ours(view)]
    store.apply(objects, objects_to_delete=gone, partial=False)
    return names


def _refuse_taken(store: FeatureStore, objects: list[Any], registered: list[Any]) -> None:
    keys = {one.name: one.join_key for one in objects if isinstance(one, Entity)}
    others = {
        "feature view": [view.name for view in registered if not _is_ours(view)],
        "entity": [one.name for one in store.list_entities() if one.join_key != keys.get(one.name)],
        "feature service": [
            one.name
            for one in store.list_feature_services()
            if not {projection.name for projection in one.feature_view_projections} <= VIEWS.keys()
        ],
    }
    kinds: dict[str, Any] = {"feature view": FeatureView, "entity": Entity, "feature service": FeatureService}
    for kind, taken in others.items():
        for name in (one.name for one in objects if isinstance(one, kinds[kind])):
            if name in taken:
                raise BadInput(
                    f"Feast registry, project {PROJECT}: {kind} {name!r} is not Understudy's, which needs that "
                    "name; rename yours, apply it under its new name, and delete the old one from the registry"
                )


def _is_ours(view: Any) -> bool:
    """Whether a run wrote what the view reads: it has a name of ours, over a table of ``build_features``."""
    source = getattr(view, "batch_source", None)
    path = PurePosixPath(source.path) if isinstance(source, FileSource) else PurePosixPath()
    return view.name in VIEWS and path.name == view.name and _WRITTEN.search(f"{path.parent}/") is not None


def open_store(folder: Path, registry: str, online: str, redis: str | None = None) -> FeatureStore:
    """A store whose registry and online store are the given files.

    Args:
        redis: URL of a Redis that takes the online file's place.
    """
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry=registry,
        offline_store=AsOfOfflineStoreConfig(),
        online_store=SqliteOnlineStoreConfig(path=online) if redis is None else _redis(redis),
        materialization=MaterializationConfig(pull_latest_features=True),
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    return FeatureStore(config=config)


def _redis(url: str) -> Any:
    from feast.infra.online_stores.redis import RedisOnlineStoreConfig

    parts = redis_parts(url)
    settings = {"db": parts.path.strip("/") or "0", "ssl": str(parts.scheme == "rediss").lower()}
    settings |= {
        name: json.dumps(urllib.parse.unquote(value))
        for name, value in (("username", parts.username), ("password", parts.password))
        if value
    }
    text = ",".join(
        [f"{parts.hostname}:{parts.port or 6379}", *(f"{name}={value}" for name, value in settings.items())]
    )
    # Only the newest row of each key is written, and what is older would never be newer.
    return RedisOnlineStoreConfig(connection_string=text, skip_dedup=True)


def _kind(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return Array(_kind(kind.value_type))
    return next(ours for matches, ours in _KINDS if matches(kind))
