"""The one place that makes the Spark session, and the few expressions that steps share."""

import os
import sys
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

__all__ = ["PARTITIONS", "decision", "local_day", "micros", "session", "text_hash", "write_days", "write_sorted"]

PARTITIONS = 8


def session() -> SparkSession:
    """The process's Spark session: UTC, microseconds, fixed partitioning, quiet.

    ``SPARK_MASTER`` chooses a cluster; the default is this process with all its cores.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    log4j = Path(__file__).with_name("log4j2.properties")
    builder = (
        SparkSession.builder.master(os.environ.get("SPARK_MASTER", "local[*]"))
        .appName("understudy")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
        .config("spark.sql.parquet.compression.codec", "zstd")
        # Adaptive execution merges partitions by size: the same rows would make other files.
        .config("spark.sql.adaptive.enabled", "false")
        .config("spark.sql.shuffle.partitions", str(PARTITIONS))
        .config("spark.driver.memory", os.environ.get("SPARK_DRIVER_MEMORY", "3g"))
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "true" if sys.stderr.isatty() else "false")
        .config("spark.driver.host", "localhost")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.extraJavaOptions", f"-Dlog4j2.configurationFile=file:{log4j} -XX:+UseParallelGC")
    )
    spark: SparkSession = builder.getOrCreate()
    return spark


def text_hash(column: Column) -> Column:
    """``hash64`` of a text column; 0 where it is null."""
    return F.when(column.isNull(), F.lit(0).cast("long")).otherwise(F.xxhash64(column))


def decision(name: str, seed: int, *keys: Column) -> Column:
    """The twin of ``understudy.hashing.decision``: a number in [0, 1)."""
    hashed = F.xxhash64(F.lit(name), F.lit(seed).cast("long"), *keys)
    return F.shiftrightunsigned(hashed, 11).cast("double") / F.lit(float(1 << 53))


def local_day(ts: Column, time_zone: str) -> Column:
    """The calendar day (``YYYY-MM-DD``) of a time in a zone."""
    return F.date_format(F.from_utc_timestamp(ts, time_zone), "yyyy-MM-dd")


def micros(ts: Column) -> Column:
    """Microseconds since 1970."""
    return F.unix_micros(ts)


def write_days(frame: DataFrame, uri: str) -> None:
    """One Parquet file per ``day``, in folders ``day=...``, rows ordered by time and key."""
    days = frame.select("day").distinct().count()
    ordered = frame.repartition(max(1, days), "day").sortWithinPartitions("day", "ts", "row_key")
    ordered.write.partitionBy("day").parquet(uri)


def write_sorted(frame: DataFrame, uri: str, *keys: str) -> None:
    """Parquet files by hash of the first key, rows ordered by all of them."""
    frame.repartition(PARTITIONS, keys[0]).sortWithinPartitions(*keys).write.parquet(uri)
