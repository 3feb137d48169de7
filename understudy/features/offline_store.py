"""A Feast offline store over Parquet whose join is an as-of join on created timestamps.

Named in ``feature_store.yaml`` as ``understudy.features.offline_store.AsOfOfflineStore``. Entity
rows are a pandas frame, or the path of a Parquet file or folder, which need not fit in memory.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
from feast import FeatureView, OnDemandFeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores.file_source import FileSource, SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel
from feast.saved_dataset import SavedDatasetStorage

from understudy.errors import BadInput
from understudy.features.asof import ROW, Joined, latest_query, point_in_time_query, reach
from understudy.logs.sources import literal, quoted

__all__ = ["AsOfOfflineStore", "AsOfOfflineStoreConfig", "AsOfRetrievalJob"]

_EVENT_COLUMNS = ("event_timestamp", "ts")
_BATCH = 1 << 14  # rows of a group: the loader mixes groups of several days


class AsOfOfflineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]
    """Settings in ``feature_store.yaml``.

    Args:
        lake: the lake that the repository is about, where it is named through the environment.
    """

    type: Literal["understudy.features.offline_store.AsOfOfflineStore"] = (
        "understudy.features.offline_store.AsOfOfflineStore"
    )
    lake: str | None = None

    @pydantic.field_validator("lake")
    @classmethod
    def _is_set(cls, lake: str | None) -> str | None:
        if lake and "${" in lake:
            raise ValueError(f"expected the lake's path, found {lake!r}; export UNDERSTUDY_LAKE")
        if lake and "://" in lake:
            raise ValueError(f"expected a folder, where registry and online store are files, found {lake!r}")
        return lake


class AsOfRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """A query that runs when its result is asked for.

    Args:
        query: SQL.
        prepare: makes what the query reads known to a connection.
        paths: of the files that the query reads.
    """

    def __init__(
        self,
        query: str,
        prepare: Callable[[duckdb.DuckDBPyConnection], None] = lambda _: None,
        metadata: RetrievalMetadata | None = None,
        *,
        paths: Iterable[str] = (),
        full_feature_names: bool = False,
    ) -> None:
        self.query, self.prepare, self.paths = query, prepare, tuple(paths)
        self._metadata, self._full_feature_names = metadata, full_feature_names

    @contextmanager
    def reading(self) -> Iterator[pa.RecordBatchReader]:
        """The rows as batches, never all in memory."""
        with _connection(self.paths) as db:
            self.prepare(db)
            yield db.execute(self.query).to_arrow_reader(_BATCH)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        with _connection(self.paths) as db:
            self.prepare(db)
            return db.execute(self.query).to_arrow_table()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        assert isinstance(storage, SavedDatasetFileStorage), "rows are saved as a Parquet file"
        uri = storage.file_options.uri
        if "://" in uri:
            raise BadInput(f"{uri}: expected a path of this machine, found a URI; save the rows in a folder")
        if Path(uri).exists() and not allow_overwrite:
            raise BadInput(f"{uri}: expected no such file, found one; choose another path, or allow overwriting")
        with self.reading() as rows, pq.ParquetWriter(uri, rows.schema, compression="zstd", store_schema=False) as out:
            for batch in rows:
                out.write_batch(batch)

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata


class AsOfOfflineStore(OfflineStore):  # type: ignore[misc]
    """Point-in-time retrieval without inequality joins: rows out equal rows in."""

    @classmethod
    def ensure_filter_by_created_timestamp_supported(cls) -> None:
        """Always so: a value created at or after the entity row's time is never taken."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **kwargs: Any,
    ) -> RetrievalJob:
        if entity_df is None:
            raise BadInput("entity rows: expected a frame or the path of Parquet files, found none; pass entity_df")
        entities = _Entities(entity_df)
        views = [_joined(view, feature_refs, str(config.repo_path), full_feature_names) for view in feature_views]
        for view in views:
            for key in view.keys.values():
                if key not in entities.columns:
                    raise BadInput(
                        f"entity rows: expected column {key!r} (a key of the feature service), "
                        f"found {', '.join(entities.columns)}; add it"
                    )
        query = point_in_time_query("entities", entities.ts, views)
        names = [name for view in views for name in view.features.values()]
        keys = [name for name in entities.columns if name != entities.ts]
        metadata = RetrievalMetadata(features=names, keys=keys)
        paths = [*entities.paths, *(path for view in views for path in view.paths)]
        return AsOfRetrievalJob(query, entities.register, metadata, paths=paths, full_feature_names=full_feature_names)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        view = _pulled(
            config, data_source, join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column
        )
        return AsOfRetrievalJob(latest_query(view, *_range(start_date, end_date), latest=True), paths=view.paths)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        view = _pulled(
            config, data_source, join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column
        )
        return AsOfRetrievalJob(latest_query(view, *_range(start_date, end_date), latest=False), paths=view.paths)


class _Entities:
    """Entity rows as a relation with a row number."""

    def __init__(self, rows: pd.DataFrame | str) -> None:
        self.rows = rows
        self.paths: tuple[str, ...] = ()
        if isinstance(rows, str):
            self.paths = (_glob(rows),)
            self.relation = f"read_parquet({literal(self.paths[0])}, hive_partitioning=false)"
            with _connection(self.paths) as db:
                described = db.execute(f"DESCRIBE SELECT * FROM {self.relation}").fetchall()
            self.columns = [name for name, *_ in described]
        else:
            self.relation = "entity_frame"
            self.columns = [str(name) for name in rows.columns]
        found = [name for name in _EVENT_COLUMNS if name in self.columns]
        if not found:
            raise BadInput(
                f"entity rows: expected a time column {' or '.join(_EVENT_COLUMNS)}, "
                f"found {', '.join(self.columns)}; rename it"
            )
        self.ts = found[0]

    def register(self, db: duckdb.DuckDBPyConnection) -> None:
        if not isinstance(self.rows, str):
            # As a table, whose row count DuckDB knows: of a registered frame it expects one row, and joins by a loop.
            db.register("given", pa.Table.from_pandas(self.rows, preserve_index=False))
            db.execute("CREATE TABLE entity_frame AS SELECT * FROM given")
            db.unregister("given")
        ts = quoted(self.ts)
        # A time without a zone is UTC, as everywhere in Feast.
        db.execute(
            f"CREATE VIEW entities AS SELECT * REPLACE (CAST({ts} AS TIMESTAMPTZ) AS {ts}), "
            f"row_number() OVER () - 1 AS {ROW} FROM {self.relation}"
        )


def _joined(view: FeatureView, feature_refs: list[str], base: str, full_feature_names: bool) -> Joined:
    source = view.batch_source
    assert source is not None, "a view over tables has a source"
    prefix = view.projection.name_to_use()  # type: ignore[no-untyped-call]
    names = [ref.split(":")[1] for ref in feature_refs if ref.split(":")[0] == prefix]
    keys = view.projection.join_key_map or {column.name: column.name for column in view.entity_columns}
    return Joined(
        paths=_paths(source, base),
        keys=dict(keys),
        features={name: f"{prefix}__{name}" if full_feature_names else name for name in names},
        event=source.timestamp_field,
        created=source.created_timestamp_column or None,
        ttl=view.ttl or timedelta(0),
    )


def _pulled(
    config: RepoConfig, source: DataSource, keys: list[str], features: list[str], event: str, created: str | None
) -> Joined:
    paths = _paths(source, str(config.repo_path))
    names = {name: name for name in features}
    return Joined(paths, {key: key for key in keys}, names, event, created or None, timedelta(0))


def _paths(source: DataSource, base: str) -> tuple[str, ...]:
    assert isinstance(source, FileSource), "this store reads FileSource"
    return (_glob(source.path if "://" in source.path else os.path.join(base, source.path)),)


def _glob(path: str) -> str:
    is_folder = not path.endswith(".parquet") if "://" in path else Path(path).is_dir()
    return f"{path}/**/*.parquet" if "*" not in path and is_folder else path


def _range(start: datetime | None, end: datetime | None) -> tuple[str, str]:
    first = start or datetime(1970, 1, 1, tzinfo=UTC)
    last = end or datetime(9999, 1, 1, tzinfo=UTC)
    return first.astimezone(UTC).isoformat(), last.astimezone(UTC).isoformat()


def _connection(paths: Iterable[str] = ()) -> duckdb.DuckDBPyConnection:
    """A connection that can read the files at these paths."""
    db = duckdb.connect()
    reach(db, paths)
    db.execute("SET TimeZone='UTC'")
    # Its default is a folder below the working directory, which a container may not write.
    db.execute(f"SET temp_directory={literal(str(Path(tempfile.gettempdir(), f'understudy-duckdb-{os.getpid()}')))}")
    return db
