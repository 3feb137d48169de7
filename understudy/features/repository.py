"""What Feast knows of the features: entities, views over the lake's tables, the feature service."""

import json
import urllib.parse
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from understudy.features.light import light_imports
from understudy.features.pointer import redis_parts
from understudy.features.views import VIEWS

with light_imports():
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig
    from feast.repo_config import MaterializationConfig
    from feast.types import Array, Float32, Float64, Int64, String
    from feast.value_type import ValueType

    from understudy.features.offline_store import AsOfOfflineStoreConfig

__all__ = ["PROJECT", "SERVICE", "apply", "definitions", "open_store"]

PROJECT = "understudy"
SERVICE = "ranker"
_STAMPS = ("event_timestamp", "created_timestamp")
_KINDS = (
    (pa.types.is_float32, Float32),
    (pa.types.is_float64, Float64),
    (pa.types.is_int64, Int64),
    (pa.types.is_string, String),
)


def definitions(tables: dict[str, tuple[str, pa.Schema]], service: str = SERVICE) -> list[Any]:
    """Entities, feature views and the feature service over feature tables.

    Args:
        tables: view → its folder and schema.
        service: name of the feature service, one per version of a model.
    """
    ours = [VIEWS[name] for name in tables]
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
                    *(Field(name=f.name, dtype=_kind(f.type)) for f in fields if f.name not in (*view.keys, *_STAMPS)),
                ],
                source=FileSource(
                    name=view.name, path=path, timestamp_field=_STAMPS[0], created_timestamp_column=_STAMPS[1]
                ),
            )
        )
    return [*entities.values(), *views, FeatureService(name=service, features=views)]


def apply(store: FeatureStore, objects: list[Any]) -> list[str]:
    """Make the registry hold these definitions, and no view that it held before; returns the views' names."""
    names = [one.name for one in objects if isinstance(one, FeatureView)]
    gone: list[Any] = [view for view in store.list_feature_views() if view.name not in names]
    store.apply(objects, objects_to_delete=gone, partial=False)
    return names


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
