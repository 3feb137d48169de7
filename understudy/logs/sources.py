"""Raw log files as relations: find them, prove that they can be read, name their columns.

DuckDB reads CSV and Parquet out of core. Every value is read as text first, so that a value of a
wrong type costs one row, with a reason, and not the file.
"""

import csv
import fnmatch
import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from understudy.errors import BadInput

__all__ = ["Raw", "find_files", "read_raw"]

_SUFFIXES = (".csv", ".csv.gz", ".parquet")
_MAX_HEADER = 1 << 20


@dataclass(frozen=True)
class Raw:
    """A file that was found: its path and its columns."""

    path: Path
    columns: tuple[str, ...]


def find_files(folder: Path, patterns: tuple[str, ...], needed: list[str], what: str) -> list[Raw]:
    """Files of ``folder`` that match, each proven readable and with the needed columns.

    Raises:
        BadInput: no such folder or file, an empty or truncated one, or a missing column.
    """
    if not folder.is_dir():
        raise BadInput(f"--source {folder}: expected a folder with log files, found none; correct the path")
    names = sorted(
        name
        for name in os.listdir(folder)
        if name.endswith(_SUFFIXES) and any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    )
    files = []
    for name in names:
        raw = _open(folder / name)
        for column in needed:
            if column not in raw.columns:
                raise BadInput(
                    f"{folder / name}: expected column {column!r} ({what}), "
                    f"found {', '.join(raw.columns[:12])}{', …' if len(raw.columns) > 12 else ''}; "
                    "correct the file, or the name in the configuration"
                )
        files.append(raw)
    return files


def _open(path: Path) -> Raw:
    if path.stat().st_size == 0:
        raise BadInput(f"{path}: expected rows, found an empty file; fetch it again or remove it")
    if path.suffix == ".parquet":
        return Raw(path, _parquet_columns(path))
    header = _header(path)
    if not header.strip():
        raise BadInput(f"{path}: expected a header line, found none; fetch the file again or remove it")
    try:
        (names,) = csv.reader([header.removeprefix("\ufeff")], strict=True)
    except csv.Error as error:
        raise BadInput(
            f"{path}: expected a header line of column names that ends in LF or CRLF, found: {error}; correct it"
        ) from error
    # A first column without a name is an index that somebody's data frame wrote along.
    columns = [name.strip() or f"column {at}" for at, name in enumerate(names, 1)]
    lower = [name.lower() for name in columns]
    repeated = [name for name in columns if lower.count(name.lower()) > 1]
    if repeated:
        raise BadInput(f"{path}: expected distinct column names, found {repeated[0]!r} twice; correct the header")
    return Raw(path, tuple(columns))


def _header(path: Path) -> str:
    """The first line; reads a gzipped file to its end, because only there it shows whether it is whole."""
    try:
        if path.suffix != ".gz":
            with path.open("rb") as file:
                return file.readline(_MAX_HEADER).decode().rstrip("\r\n")
        with gzip.open(path, "rb") as file:
            header = file.readline(_MAX_HEADER).decode()
            while file.read(1 << 20):
                pass
            return header.rstrip("\r\n")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(
            f"{path}: expected a whole gzip file, found a truncated or damaged one; fetch it again"
        ) from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: expected UTF-8 text, found other bytes; convert the file") from error
    except OSError as error:
        raise BadInput(f"{path}: expected a readable file, found: {error.strerror or error}; correct it") from error


def _parquet_columns(path: Path) -> tuple[str, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return tuple(pq.read_schema(path).names)
    except PermissionError as error:
        raise BadInput(f"{path}: expected a readable file, found: {error.strerror}; correct it") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{path}: expected a Parquet file, found something else; fetch it again") from error


def read_raw(db: duckdb.DuckDBPyConnection, table: str, raw: Raw, part: str = "") -> None:
    """Append a file to ``table`` (columns of text); lines that are no row go to ``malformed``.

    Args:
        table: has the file's columns, and ``_source`` and ``_slice`` for its name and ``part``.
    """
    if raw.path.suffix == ".parquet":
        columns = ", ".join(f"CAST({quoted(c)} AS VARCHAR) AS {quoted(c)}" for c in raw.columns)
        relation = f"(SELECT {columns} FROM read_parquet($path))"
    else:
        types = "{" + ", ".join(f"{literal(c)}: 'VARCHAR'" for c in raw.columns) + "}"
        relation = (
            f"read_csv($path, auto_detect=false, columns={types}, header=true, delim=',', quote='\"', escape='\"', "
            "nullstr='', strict_mode=true, store_rejects=true, rejects_limit=0, max_line_size=2097152)"
        )
    values: dict[str, Any] = {"path": str(raw.path), "source": raw.path.name, "slice": part}
    try:
        db.execute(
            f"INSERT INTO {table} BY NAME SELECT $source AS _source, $slice AS _slice, * FROM {relation}", values
        )
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        problem = " ".join(str(error).split("Possible fixes")[0].split())[:200]
        if "state machine" in problem:
            problem = "lines that end in different ways (LF, CRLF), or a quote that does not close"
        raise BadInput(f"{raw.path}: expected rows that can be read, found: {problem}; correct the file") from error
    if raw.path.suffix != ".parquet":
        db.execute(
            "INSERT INTO malformed SELECT ?, 'malformed line', csv_line "
            "FROM (SELECT DISTINCT line, csv_line FROM reject_errors)",
            [raw.path.name],
        )
        db.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")


def quoted(name: str) -> str:
    """An identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"
