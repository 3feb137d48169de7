"""The tables: the contract between the steps. Columns, types and meaning, declared once.

Times are UTC microseconds. A column that exists once per head is declared with ``{head}`` in its
name. ``check`` is called when a step starts and when it ends.

A file of the logs stays as it was written; a snapshot knows the version of the tables that it is of. Whoever reads it
sees the columns of today: ``brought_forward`` is all that Arrow and Spark need to know of older ones.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from understudy.errors import BadInput
from understudy.features.views import CROSSES, cross_view
from understudy.formats import Format

__all__ = [
    "FORMAT",
    "SCHEMA_VERSION",
    "TABLES",
    "TIMESTAMP",
    "Column",
    "Rows",
    "Table",
    "arrow_schema",
    "brought_forward",
    "check",
    "mark",
    "version_of",
]

SCHEMA_VERSION = 1
TIMESTAMP = pa.timestamp("us", tz="UTC")


class Rows(NamedTuple):
    """Some rows of a table of the logs."""

    table: str
    rows: pa.Table


FORMAT: Format[Rows] = Format("table", SCHEMA_VERSION, "ingest its logs again")


@dataclass(frozen=True)
class Column:
    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the lake.

    Args:
        extra: types that columns beyond the declared ones may have (attributes, features).
    """

    name: str
    columns: tuple[Column, ...]
    extra: tuple[pa.DataType, ...] = field(default=())


IMPRESSIONS = (
    Column("row_key", pa.int64(), "hash of request and item"),
    Column("request_id", pa.string(), "the request that the candidate answered"),
    Column("user_id", pa.string(), "who was served"),
    Column("item_id", pa.string(), "what was served"),
    Column("ts", TIMESTAMP, "when it was served"),
    Column("position", pa.int32(), "rank in the slate, from 0", nullable=True),
    Column("surface", pa.string(), "where in the product", nullable=True),
    Column("candidate_count", pa.int32(), "candidates of the request", nullable=True),
    Column("seen", pa.bool_(), "false: served, but never on screen"),
    Column("slice", pa.string(), "'policy' or 'random'"),
    Column("propensity", pa.float64(), "of this item at this position; random slice only", nullable=True),
    Column("bucket", pa.int32(), "the user's bucket, 0 to 99", nullable=True),
    Column("arm", pa.string(), "arm of the rollout", nullable=True),
    Column("release", pa.string(), "digest of the release that ranked", nullable=True),
    Column("p_{head}", pa.float32(), "probability that the release predicted", nullable=True),
    Column("negative_keep_rate", pa.float64(), "keep rate in force when it was logged"),
)
EXAMPLES = (
    *IMPRESSIONS,
    Column("label_{head}", pa.float32(), "1 where the action came within the window; null where unseen", nullable=True),
    Column("inclusion_probability", pa.float64(), "1 where any head is positive, else the keep rate"),
)
SAMPLES = (
    *EXAMPLES,
    Column("creator_id", pa.string(), "who made the item", nullable=True),
    Column("topic_id", pa.string(), "the item's topic", nullable=True),
    Column("split", pa.string(), "'train', 'stop', 'calibrate' or 'gate'"),
    Column("sampling_rate", pa.float64(), "chance that the sampling kept the row"),
    Column("importance", pa.float64(), "weight in the loss beyond sample_weight"),
    Column("sample_weight", pa.float64(), "1 / (inclusion_probability × sampling_rate)"),
)
FEATURE_ROW = (
    Column("event_timestamp", TIMESTAMP, "1 µs after the event that made the row"),
    Column("created_timestamp", TIMESTAMP, "when a server could first have read it"),
)
_FEATURES = (
    pa.float32(),
    pa.float64(),
    pa.int64(),
    pa.string(),
    pa.list_(pa.float32()),
    pa.list_(pa.int64()),
)
_ATTRIBUTES = (pa.string(), pa.float64(), pa.int64())  # categories, numbers, times in microseconds

TABLES = {
    table.name: table
    for table in (
        Table("impressions", IMPRESSIONS),
        Table(
            "actions",
            (
                Column("row_key", pa.int64(), "the impression's key"),
                Column("request_id", pa.string(), "the request"),
                Column("item_id", pa.string(), "the item"),
                Column("action", pa.string(), "the head's name"),
                Column("ts", TIMESTAMP, "when it was done"),
                Column("value", pa.float64(), "what was reported, such as 1 or seconds"),
            ),
        ),
        Table("users", (Column("user_id", pa.string(), "the key"),), _ATTRIBUTES),
        Table(
            "items",
            (
                Column("item_id", pa.string(), "the key"),
                Column("creator_id", pa.string(), "who made it", nullable=True),
                Column("topic_id", pa.string(), "what it is about", nullable=True),
            ),
            _ATTRIBUTES,
        ),
        Table(
            "rejected",
            (
                Column("record_key", pa.int64(), "hash of reason and record"),
                Column("source", pa.string(), "file name"),
                Column("reason", pa.string(), "why the row was refused"),
                Column("record", pa.string(), "the row as JSON text"),
            ),
        ),
        Table("examples", EXAMPLES),
        Table("samples", SAMPLES),
        Table("training_set", SAMPLES, _FEATURES),
        Table("user_history", (Column("user_id", pa.string(), "the key"), *FEATURE_ROW), _FEATURES),
        Table("item_history", (Column("item_id", pa.string(), "the key"), *FEATURE_ROW), _FEATURES),
        Table("creator_history", (Column("creator_id", pa.string(), "the key"), *FEATURE_ROW), _FEATURES),
        Table("topic_history", (Column("topic_id", pa.string(), "the key"), *FEATURE_ROW), _FEATURES),
        *(
            Table(
                cross_view(other),
                (
                    Column("user_id", pa.string(), "the key"),
                    Column(f"{other}_id", pa.string(), "the other key"),
                    *FEATURE_ROW,
                ),
                _FEATURES,
            )
            for other in CROSSES
        ),
        Table("user_profile", (Column("user_id", pa.string(), "the key"), *FEATURE_ROW), _FEATURES),
        Table("item_profile", (Column("item_id", pa.string(), "the key"), *FEATURE_ROW), _FEATURES),
        Table(
            "truth",
            (
                Column("row_key", pa.int64(), "the impression's key"),
                Column("p_{head}", pa.float64(), "true probability at the shown position, of a simulated world"),
            ),
        ),
        Table(
            "teacher_scores",
            (
                Column("row_key", pa.int64(), "the row that was scored"),
                Column("teacher", pa.string(), "digest of the release or of the ensemble"),
                Column("teacher_sampling", pa.string(), "digest of the sampling that the teacher was trained by"),
                Column("teacher_age_days", pa.int32(), "days from the last that the teacher had seen to the row's"),
                Column(
                    "logit_{head}", pa.float32(), "uncalibrated logit; null where it has no such head", nullable=True
                ),
            ),
        ),
        Table(
            "member_scores",
            (
                Column("row_key", pa.int64(), "the row that was scored"),
                Column("member", pa.int32(), "number of the ensemble's member"),
                Column("out_of_fold", pa.bool_(), "whether the member was not trained on the row"),
                Column("logit_{head}", pa.float32(), "uncalibrated logit"),
            ),
        ),
        Table(
            "control_scores",
            (
                Column("row_key", pa.int64(), "the row that was scored"),
                Column("logit_{head}", pa.float32(), "calibrated logit of the network that nobody taught"),
            ),
        ),
        Table(
            "scores",
            (
                Column("row_key", pa.int64(), "the row that was scored"),
                Column("logit_{head}", pa.float32(), "uncalibrated logit at the logged position"),
            ),
        ),
    )
}


def arrow_schema(table: str, heads: tuple[str, ...]) -> pa.Schema:
    """The declared columns of ``table`` as an Arrow schema."""
    return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in _expand(table, heads)])


def check(table: str, found: pa.Schema, heads: tuple[str, ...]) -> None:
    """Compare a table's schema with its declaration.

    Raises:
        BadInput: names table, column, the expected and the found type.
    """
    declared = {column.name: column for column in _expand(table, heads)}
    for name, column in declared.items():
        if name not in found.names:
            raise BadInput(
                f"table {table}, column {name}: expected {column.type} ({column.meaning}), found no such column; "
                "run the step that writes it again"
            )
        if not _same(found.field(name).type, column.type):
            raise BadInput(
                f"table {table}, column {name}: expected {column.type}, found {found.field(name).type}; "
                "run the step that writes it again"
            )
    allowed = TABLES[table].extra
    for extra in found:
        if extra.name not in declared and not any(_same(extra.type, kind) for kind in allowed):
            raise BadInput(
                f"table {table}, column {extra.name}: expected no such column of type {extra.type}; "
                "remove it, or declare it in understudy/schema.py"
            )


def mark() -> dict[str, int]:
    """What a snapshot notes of a file that is written now; nothing means the first version of the tables."""
    return {} if FORMAT.newest == 1 else {"schema": FORMAT.newest}


def version_of(part: dict[str, Any]) -> int:
    """The version of the tables that a snapshot's file is of."""
    version: int = part.get("schema", 1)
    return version


def brought_forward(table: str, rows: pa.Table, version: int) -> pa.Table:
    """Rows with the columns of today.

    Args:
        version: of the tables, as which they were written.

    Raises:
        BadInput: this version of Understudy does not read that version of the tables.
    """
    return FORMAT.forward(Rows(table, rows), version, f"table {table}").rows


def _expand(table: str, heads: tuple[str, ...]) -> list[Column]:
    columns: list[Column] = []
    for column in TABLES[table].columns:
        if "{head}" in column.name:
            columns += [Column(column.name.format(head=h), column.type, column.meaning, column.nullable) for h in heads]
        else:
            columns.append(column)
    return columns


def _same(found: pa.DataType, declared: pa.DataType) -> bool:
    """Types are the same, whatever a list's element is called and how text is encoded."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_list(found) and pa.types.is_list(declared):
        return _same(found.value_type, declared.value_type)
    if pa.types.is_large_string(found):
        found = pa.string()
    return bool(found == declared)
