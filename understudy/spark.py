"""The one place that makes the Spark session, and the few expressions that steps share."""

import atexit
import functools
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from understudy import schema
from understudy.lake import Lake
from understudy.snapshot import Snapshot
from understudy.spark_settings import FIXED, OURS, PARTITIONS, object_store

__all__ = [
    "close",
    "connect_server",
    "decision",
    "local_day",
    "micros",
    "read_logs",
    "session",
    "text_hash",
    "write_days",
    "write_sorted",
]

_connected: list[SparkSession] = []


def session() -> SparkSession:
    """The process's Spark session: UTC, microseconds, fixed partitioning, quiet.

    ``SPARK_REMOTE`` names a Spark Connect server, ``SPARK_MASTER`` a cluster, ``UNDERSTUDY_SPARK`` executors that are
    pods; whoever started this process by ``spark-submit`` has said it; the default is this process with all its cores.
    """
    _forget_a_server_that_is_gone()
    if "SPARK_REMOTE" in os.environ:
        connected: SparkSession = _with(SparkSession.builder, FIXED).getOrCreate()
        if connected not in _connected:
            _connected.append(connected)
            atexit.register(close)  # the server lives on, and would keep what was cached
            if OURS in os.environ:
                _expect_answers(connected)
        return connected
    spark: SparkSession = _with(_builder(), FIXED).getOrCreate()
    return spark


def _forget_a_server_that_is_gone() -> None:
    """Where the command's server was killed, this process has a Spark of its own."""
    port = os.environ.get(OURS)
    if port is None or _connected:
        return
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
    except OSError:
        print("Spark: the server of this command is gone; this step starts its own", file=sys.stderr, flush=True)
        for name in (OURS, "SPARK_REMOTE", "SPARK_CONNECT_AUTHENTICATE_TOKEN"):
            os.environ.pop(name, None)


def _expect_answers(connected: SparkSession) -> None:
    """A server of this machine that does not answer has ended: Spark's own patience would be ten minutes."""
    from pyspark.sql.connect.client.retries import DefaultPolicy

    connected.client.set_retry_policies([DefaultPolicy(max_retries=4)])


def close() -> None:
    """Leave the Spark Connect server; one that is gone would be called again and again for minutes at the exit."""
    while _connected:
        _connected.pop().stop()


def connect_server() -> int:
    """Make this process a Spark Connect server on a free port of loopback; returns the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    serving = {
        "spark.plugins": "org.apache.spark.sql.connect.SparkConnectPlugin",
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
    }
    _with(_builder(), serving).getOrCreate()
    return port


def _builder() -> SparkSession.Builder:
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = _with(SparkSession.builder.appName("understudy"), object_store(os.environ))
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        return builder
    log4j = Path(__file__).with_name("log4j2.properties")
    own = {
        "spark.driver.memory": os.environ.get("SPARK_DRIVER_MEMORY", "3g"),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "true" if sys.stderr.isatty() else "false",
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile=file:{log4j} -XX:+UseParallelGC",
    }
    if "UNDERSTUDY_SPARK" in os.environ:
        from understudy.jobs.driving import driver_settings

        return _with(builder, own | driver_settings(os.environ))
    own |= {"spark.driver.host": "localhost", "spark.driver.bindAddress": "127.0.0.1"}
    master = os.environ.get("SPARK_MASTER")
    if not master:
        # A job that lists files takes longer than this process does, where they are near.
        own["spark.sql.sources.parallelPartitionDiscovery.threshold"] = "10000"
    return _with(builder.master(master or "local[*]"), own)


def _with(builder: SparkSession.Builder, settings: dict[str, str]) -> SparkSession.Builder:
    for key, value in settings.items():
        builder = builder.config(key, value)
    return builder


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


def read_logs(lake: Lake, snapshot: Snapshot, table: str, first: str = "", last: str = "~") -> DataFrame | None:
    """A table of the logs from ``first`` to ``last`` with the columns of today; None where it has no file.

    Raises:
        BadInput: a file is of a version of the tables that this version does not read.
    """
    frames = []
    for version, paths in snapshot.by_version(table, first, last).items():
        frame = session().read.parquet(*map(lake.uri, paths))
        if version != schema.FORMAT.newest:
            written = pads.dataset(lake.path(paths[0]), filesystem=lake.fs, format="parquet").schema
            frame = _brought_forward(frame, table, version, written)
        frames.append(frame)
    return functools.reduce(lambda one, other: one.unionByName(other), frames) if frames else None


def _brought_forward(frame: DataFrame, table: str, version: int, written: pa.Schema) -> DataFrame:
    """As ``schema.brought_forward``, batch by batch."""
    fields = schema.brought_forward(table, written.empty_table(), version).schema
    forward = schema.FORMAT.forward  # goes with the function to where it is run

    def changed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = forward(schema.Rows(table, pa.Table.from_batches([batch])), version, table).rows
            yield from rows.to_batches()

    return frame.mapInArrow(changed, from_arrow_schema(fields))


def write_days(frame: DataFrame, uri: str) -> None:
    """One Parquet file per ``day``, in folders ``day=...``, rows ordered by time and key."""
    days = frame.select("day").distinct().count()
    ordered = frame.repartition(max(1, days), "day").sortWithinPartitions("day", "ts", "row_key")
    ordered.write.partitionBy("day").parquet(uri)


def write_sorted(frame: DataFrame, uri: str, *keys: str) -> None:
    """Parquet files by hash of the first key, rows ordered by all of them."""
    frame.repartition(PARTITIONS, keys[0]).sortWithinPartitions(*keys).write.parquet(uri)
