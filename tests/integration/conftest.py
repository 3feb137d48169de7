"""One Spark session for all integration tests."""

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from understudy import spark


@pytest.fixture(scope="session")
def session() -> Iterator[SparkSession]:
    made = spark.session()
    yield made
    made.stop()
