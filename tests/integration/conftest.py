"""One Spark session, a lake with a release, and one with two, for all integration tests.

Tests that use ``session`` run in one process, one after the other; those that only read a lake run anywhere.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from shared import once
from steps import FIRST, SECOND, small, through

from understudy import spark
from understudy.config import Config
from understudy.logs.ingest import ingest
from understudy.report.step import write as write_report


@pytest.fixture(scope="session")
def session() -> Iterator[SparkSession]:
    made = spark.session()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def released(
    tmp_path_factory: pytest.TempPathFactory, logs: Path, config: Config, request: pytest.FixtureRequest
) -> Path:
    """A lake with a first release, of the days to 30 April; a test that changes it takes a copy."""

    def make(folder: Path) -> None:
        request.getfixturevalue("session")
        ingest(config, str(logs), str(folder / "lake"))
        through(str(folder / "lake"), small(config), FIRST, "promote")

    return once(tmp_path_factory, "released", make) / "lake"


@pytest.fixture(scope="session")
def taught(
    tmp_path_factory: pytest.TempPathFactory, released: Path, config: Config, request: pytest.FixtureRequest
) -> Path:
    """``released`` with a second release, which the first has taught, and a control beside it; the same holds."""

    def make(folder: Path) -> None:
        request.getfixturevalue("session")
        shutil.copytree(released, folder / "lake")
        run = through(str(folder / "lake"), small(config), SECOND, "promote")
        write_report(str(folder / "lake"), run.id)

    return once(tmp_path_factory, "taught", make) / "lake"
