"""The step ``retrieve_features``: each sample with the features that a server could have read then."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from understudy.errors import UnderstudyError
from understudy.features.config import Features
from understudy.features.needed import needed
from understudy.features.views import PROFILES, views_of
from understudy.runs import Outcome, Step, execute
from understudy.section import canonical_json, part

__all__ = ["run"]

NAME = "retrieve_features"


def run(lake: str, run_id: str, section: str) -> dict[str, Any]:
    """Write ``training_set`` by day, and which feature service made it.

    Args:
        section: canonical JSON with ``features``.
    """
    features = part(Features, section, "features")
    needs = ["build_features", "sample_examples"]
    return execute(lake, run_id, NAME, section, lambda step: _body(step, features), needs=needs)


def _body(step: Step, features: Features) -> Outcome:
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("FEAST_USAGE", "False")
    from understudy.features import repository
    from understudy.features.offline_store import AsOfRetrievalJob

    all_features = needed(step, features)
    step.dataset("sample_examples", "samples")
    samples = step.run.table_path("sample_examples", "samples")
    rows = 0
    with tempfile.TemporaryDirectory(prefix="understudy-feast-") as folder:
        tables = {view.name: _table(step, view.name, Path(folder)) for view in views_of(all_features.crosses)}
        store = repository.open_store(Path(folder), f"{folder}/registry.db", f"{folder}/online.db")
        store.apply(repository.definitions(tables))
        service = store.get_feature_service(repository.SERVICE)
        for name in step.lake.files(samples):
            if not name.endswith(".parquet"):
                continue
            day = name.split("/")[0]
            entity_rows = step.lake.uri(samples, name)
            job = store.get_historical_features(entity_df=entity_rows, features=service, full_feature_names=True)
            assert isinstance(job, AsOfRetrievalJob), "this repository's offline store made the job"
            target = f"{step.table('training_set')}/{day}/rows.parquet"
            with job.reading() as found:
                written = step.lake.write_table(target, found, found.schema)
            step.say(f"{day}: {written} rows")
            rows += written
    expected = int(step.figures("sample_examples")["rows"])
    if rows != expected:
        raise UnderstudyError(f"table training_set: expected {expected} rows, one per sample, found {rows}")
    return Outcome(tables=["training_set"], files=[_describe(step, features, tables)], figures={"rows": rows})


def _table(step: Step, view: str, folder: Path) -> tuple[str, pa.Schema]:
    """Where a view's files are, and its columns. Each day reads all of them: from an object store they come once."""
    fields = step.dataset("build_features", view).schema
    path = step.run.table_path("build_features", view)
    if step.lake.is_local:
        return step.lake.uri(path), fields
    for name in step.lake.files(path):
        target = folder / view / name
        target.parent.mkdir(parents=True, exist_ok=True)
        step.lake.fetch(target, path, name)
    return str(folder / view), fields


def _describe(step: Step, features: Features, tables: dict[str, tuple[str, pa.Schema]]) -> str:
    """The feature service of the model that is trained, as data: views, their keys, features and types."""
    from understudy.features.repository import features_of

    others = tuple(f"_{text}" for text in needed(step, features).half_lives if text not in features.half_lives)
    views = {}
    for view in views_of(features.crosses):
        features_there = features_of(view, tables[view.name][1])
        own = {f.name: str(f.type) for f in features_there if not _belongs(f.name, others, view.name)}
        if own:
            views[view.name] = {"keys": view.keys, "features": own}
    value = {"name": "ranker", "refresh": features.refresh, "views": views}
    step.lake.create(f"{step.attempt}/feature_service.json", canonical_json(value).encode())
    return "feature_service.json"


def _belongs(name: str, half_lives: tuple[str, ...], view: str) -> bool:
    """Whether a counter is of half-lives that only another model reads."""
    return view not in PROFILES and name.endswith(half_lives)
