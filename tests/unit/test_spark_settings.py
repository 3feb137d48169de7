"""What Spark needs for an object store: one list in the code, which the pages and the installed Spark agree with."""

import importlib.util
import re
from pathlib import Path

import pytest
from run_records import recorded

from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.runs import Outcome, execute
from understudy.spark_settings import S3_JARS, missing_jars

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(str(importlib.util.find_spec("pyspark").origin)).parent / "jars"  # type: ignore[union-attr]
COORDINATES = re.compile(r"[a-z0-9.]+:(?:hadoop-aws|bundle|analyticsaccelerator-s3):[\d.]+\d")


def test_hadoop_aws_has_the_version_of_the_hadoop_that_spark_brings() -> None:
    (hadoop,) = FOLDER.glob("hadoop-client-api-*.jar")
    assert f"org.apache.hadoop:hadoop-aws:{hadoop.stem.removeprefix('hadoop-client-api-')}" == S3_JARS[0]


@pytest.mark.parametrize("page", ["README.md", "docs/cluster.md"])
def test_pages_name_the_jars_that_the_code_names(page: str) -> None:
    text = (ROOT / page).read_text()
    assert tuple(dict.fromkeys(COORDINATES.findall(text))) == S3_JARS
    assert f"Hadoop ({S3_JARS[0].rpartition(':')[2]})" in text


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (
            "An error occurred while calling o52.parquet.\n: java.lang.RuntimeException: "
            "java.lang.ClassNotFoundException: Class org.apache.hadoop.fs.s3a.S3AFileSystem not found\n\tat org.apache",
            "org.apache.hadoop.fs.s3a.S3AFileSystem",
        ),
        (
            "java.lang.NoClassDefFoundError: software/amazon/awssdk/core/exception/SdkException",
            "software.amazon.awssdk.core.exception.SdkException",
        ),
        (
            "java.lang.NoClassDefFoundError: software/amazon/s3/analyticsaccelerator/S3SeekableInputStreamFactory",
            "software.amazon.s3.analyticsaccelerator.S3SeekableInputStreamFactory",
        ),
    ],
)
def test_a_step_without_the_jars_says_which_and_where_they_belong(tmp_path: Path, said: str, name: str) -> None:
    lake = Lake.open_or_create(str(tmp_path / "lake"))
    run = recorded(lake, "jars")

    def body(_: object) -> Outcome:
        raise RuntimeError(said)

    with pytest.raises(BadInput) as missing:
        execute(lake.root, run.id, "compact_logs", "{}", body, needs=[])
    line = str(missing.value)
    assert f"found no class {name};" in line
    assert all(one in line for one in (*S3_JARS, str(FOLDER), "SPARK_JARS of images/build.sh"))
    error = run.last_error()
    assert error is not None
    assert (error["exit_code"], error["error"]) == (2, line)


@pytest.mark.parametrize("said", ["", "java.lang.ClassNotFoundException: com.example.Udf", "s3a is slow"])
def test_other_words_of_spark_are_left_alone(said: str) -> None:
    assert missing_jars(said) == ""
