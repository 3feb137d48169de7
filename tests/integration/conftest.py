"""One Spark session, and one lake with a release, for all integration tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from steps import FIRST, small, through

from understudy import spark
from understudy.config import Config
from understudy.logs.ingest import ingest


@pytest.fixture(scope="session")
def session() -> Iterator[SparkSession]:
    made = spark.session()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory, logs: Path, config: Config, session: SparkSession) -> Path:
    """A lake with a first release, of the days to 30 April; a test that changes it takes a copy."""
    lake = tmp_path_factory.mktemp("released") / "lake"
    ingest(config, str(logs), str(lake))
    through(str(lake), small(config), FIRST, "promote")
    return lake
