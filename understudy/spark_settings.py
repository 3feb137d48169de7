"""Settings that every Spark session has, whatever made it."""

from collections.abc import Mapping

__all__ = ["FIXED", "OURS", "PARTITIONS", "object_store"]

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


def object_store(environ: Mapping[str, str]) -> dict[str, str]:
    """How Spark reaches ``s3://``: by Hadoop's S3A, at the address that AWS' own variables give.

    Keys and regions it reads from the environment itself. S3A comes with two jars that Spark does not bring:
    hadoop-aws and the AWS SDK.
    """
    found = {"spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem"}
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        found |= {"spark.hadoop.fs.s3a.endpoint": endpoint, "spark.hadoop.fs.s3a.path.style.access": "true"}
    if region := environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"):
        found["spark.hadoop.fs.s3a.endpoint.region"] = region
    return found
