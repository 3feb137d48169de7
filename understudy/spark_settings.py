"""Settings that every Spark session has, whatever made it."""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

__all__ = ["FIXED", "OURS", "PARTITIONS", "S3_JARS", "missing_jars", "object_store"]

# the port of the server that a command keeps for its steps; it ends with the command
OURS = "UNDERSTUDY_SPARK_PORT"

PARTITIONS = 8

# What decides the bytes of a table, wherever Spark runs.
FIXED = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "zstd",
    # Adaptive execution merges partitions by size: the same rows would make other files.
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": str(PARTITIONS),
}

# What pyspark does not bring for ``s3://``, as Maven names it: of its Hadoop's version, and what that was built with.
S3_JARS = (
    "org.apache.hadoop:hadoop-aws:3.5.0",
    "software.amazon.awssdk:bundle:2.35.4",
    "software.amazon.s3.analyticsaccelerator:analyticsaccelerator-s3:1.3.1",
)
_ITS_CLASSES = r"(org[./]apache[./]hadoop[./]fs[./]s3a|software[./]amazon[./](awssdk|s3))[./][\w./$]+"
_MISSING = re.compile(
    rf"(ClassNotFoundException|NoClassDefFoundError|ClassNotFound): (Class )?(?P<name>{_ITS_CLASSES})"
)


def object_store(environ: Mapping[str, str]) -> dict[str, str]:
    """How Spark reaches ``s3://``: by Hadoop's S3A, at the address that AWS' own variables give.

    Keys and regions it reads from the environment itself. S3A comes with jars that Spark does not
    bring: ``S3_JARS``.
    """
    found = {"spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem"}
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        found |= {"spark.hadoop.fs.s3a.endpoint": endpoint, "spark.hadoop.fs.s3a.path.style.access": "true"}
    if region := environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"):
        found["spark.hadoop.fs.s3a.endpoint.region"] = region
    return found


def missing_jars(said: str) -> str:
    """What to do where Spark's words name a class of S3A that it has not found; empty where they do not."""
    found = _MISSING.search(said)
    if found is None:
        return ""
    *others, last = S3_JARS
    return (
        f"Spark: expected the jars that it needs for s3://, found no class {found['name'].replace('/', '.')}; put "
        f"{', '.join(others)} and {last} into {_jars_folder()}, and into images by SPARK_JARS of images/build.sh"
    )


def _jars_folder() -> str:
    spec = importlib.util.find_spec("pyspark")
    return str(Path(spec.origin).parent / "jars") if spec and spec.origin else "the folder jars/ of its Spark"
