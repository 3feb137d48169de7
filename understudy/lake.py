"""The lake: a folder, or an object store behind one URI, that holds every table and record.

Nothing is renamed and nothing is overwritten: a file is either created whole or not at all, and
the creation that must win only once (a manifest, an alias) fails where the name exists already.
That holds for folders (a hard link) and for object stores (a conditional put, ``understudy.object_store``).
"""

import errno
import hashlib
import json
import os
import posixpath
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from understudy import __version__
from understudy.errors import BadInput
from understudy.object_store import ObjectStore, file_system
from understudy.schema import FORMAT, SCHEMA_VERSION

__all__ = ["Lake", "file_digest"]

_MARKER = "lake.json"


class Lake:
    """Files of one lake. Paths are relative to it, with forward slashes.

    Raises:
        BadInput: no folder and no URI of an object store; or, wherever something is read or written, the store can't be
            reached, has no such bucket or grants no access.
    """

    def __init__(self, uri: str) -> None:
        self.fs, path = file_system(uri)
        self._path = path.rstrip("/")
        self.is_local = isinstance(self.fs, LocalFileSystem)
        self.root = self._path if self.is_local else str(self.fs.unstrip_protocol(self._path))
        self._store = None if self.is_local else ObjectStore(self.fs, self.root, self.path(_MARKER))

    @classmethod
    def open(cls, uri: str) -> "Lake":
        """Open a lake that exists.

        Raises:
            BadInput: there is none, or a newer version of Understudy wrote it.
        """
        lake = cls(uri)
        if not lake.exists(_MARKER):
            if lake._store is not None:
                lake._store.check_bucket()
            raise BadInput(
                f"lake {uri}: expected a lake (a folder with {_MARKER}), found none; "
                "run `understudy ingest --lake ...` first, or correct --lake"
            )
        lake._check_version(uri)
        return lake

    @classmethod
    def open_or_create(cls, uri: str) -> "Lake":
        """Open a lake, or make an empty one."""
        lake = cls(uri)
        if lake._is_file():
            raise BadInput(f"lake {uri}: expected a folder, found a file; correct --lake")
        if not lake.exists(_MARKER):
            lake.create_json(_MARKER, {"schema_version": SCHEMA_VERSION, "version": __version__})
        lake._check_version(uri)
        return lake

    def _is_file(self) -> bool:
        return self._store.is_file(self._path) if self._store is not None else os.path.isfile(self._path)

    def _check_version(self, uri: str) -> None:
        try:
            marker = self.read_json(_MARKER)
            version, by = marker["schema_version"], marker.get("version")
        except (BadInput, KeyError, TypeError, AttributeError) as error:
            raise BadInput(
                f"lake {uri}: expected {_MARKER} to hold a schema_version, found something else; "
                "restore that file, or ingest into a new lake"
            ) from error
        FORMAT.check(version, f"lake {uri}", by)

    # Paths

    def path(self, *parts: str) -> str:
        """The path as the lake's file system knows it."""
        return posixpath.join(self._path, *parts)

    def uri(self, *parts: str) -> str:
        """The path as Spark, Feast and a new process know it."""
        return posixpath.join(self.root, *parts)

    def exists(self, *parts: str) -> bool:
        path = self.path(*parts)
        return self._store.exists(path) if self._store is not None else os.path.exists(path)

    def names(self, *parts: str) -> list[str]:
        """Names in a folder, sorted; empty where there is no such folder. Hidden names are left out."""
        path = self.path(*parts)
        try:
            found = self._store.names(path) if self._store is not None else os.listdir(path)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in found if not name.startswith("."))

    def files(self, *parts: str) -> list[str]:
        """Every file below a folder, relative to it, sorted. Hidden and underscored names are left out."""
        path = self.path(*parts)
        return _visible(self._store.files(path) if self._store is not None else self._below(path))

    def _below(self, path: str) -> list[str]:
        return [posixpath.relpath(str(name), path) for name in self.fs.find(path)]

    # Bytes

    def read_bytes(self, *parts: str) -> bytes:
        path = self.path(*parts)
        if self._store is not None:
            return self._store.read_bytes(path)
        with open(path, "rb") as file:
            return file.read()

    def fetch(self, target: Path, *parts: str) -> None:
        """Copy a file of the lake to ``target``, never all in memory."""
        path = self.path(*parts)
        if self._store is not None:
            self._store.fetch(path, target)
        else:
            shutil.copyfile(path, target)

    def read_json(self, *parts: str) -> Any:
        """A file's JSON.

        Raises:
            BadInput: it is none; every writer writes whole files, so it was changed.
        """
        try:
            return json.loads(self.read_bytes(*parts))
        except ValueError as error:
            raise BadInput(
                f"{self.path(*parts)}: expected JSON, found a damaged file; restore it from a copy"
            ) from error

    def create(self, path: str, data: bytes) -> bool:
        """Create a file whole. False where it exists already: then nothing has changed."""
        target = self.path(path)
        if self._store is not None:
            return self._store.create(target, data)
        with self._whole(target) as temporary:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            return self._link(temporary, target)

    def create_json(self, path: str, value: Any) -> bool:
        """``create`` of a value as JSON text."""
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return self.create(path, (text + "\n").encode())

    def put(self, source: str | os.PathLike[str], path: str) -> bool:
        """Copy a local file into the lake, whole. False where the name exists already."""
        target = self.path(path)
        if self._store is not None:
            return self._store.put(source, target)
        with self._whole(target) as temporary:
            shutil.copyfile(source, temporary)
            _sync(temporary)
            return self._link(temporary, target)

    def replace(self, path: str, data: bytes) -> None:
        """Write a file whole, over one that exists: for content that any writer may renew."""
        target = self.path(path)
        if self._store is not None:
            self._store.replace(target, data)
            return
        with self._whole(target) as temporary:
            with open(temporary, "wb") as file:
                file.write(data)
            os.replace(temporary, target)

    def swap(self, path: str, before: bytes | None, after: bytes) -> bool:
        """``replace`` a file if it still is ``before``; False where it is not. In a folder, who swaps holds a lock.

        Args:
            before: None: where there is no such file.
        """
        if self._store is not None:
            return self._store.swap(self.path(path), before, after)
        if (self.read_bytes(path) if self.exists(path) else None) != before:
            return False
        self.replace(path, after)
        return True

    @contextmanager
    def _whole(self, target: str) -> Iterator[str]:
        """A temporary name beside ``target`` that is gone afterwards, whatever happens."""
        temporary = os.path.join(os.path.dirname(target), f".{uuid.uuid4().hex}.tmp")
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            yield temporary
        except OSError as error:
            raise unwritable(error, target) from error
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)

    def _link(self, temporary: str, target: str) -> bool:
        """Give a file its name, through to the disk. False where the name exists already."""
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        finally:
            folder = os.path.dirname(target)
            while len(folder) >= max(2, len(self.root)):
                _sync(folder)
                folder = os.path.dirname(folder)
        return True

    def remove(self, *parts: str) -> None:
        """Remove a file or a folder with all below it; nothing where there is none."""
        path = self.path(*parts)
        if self._store is not None:
            self._store.remove(path)
            return
        with suppress(FileNotFoundError):  # another process may remove it at the same time
            if self.fs.exists(path):
                self.fs.rm(path, recursive=True)

    def digest(self, *parts: str) -> str:
        """SHA-256 of a file."""
        with self._told(), self.fs.open(self.path(*parts), "rb") as file:
            return file_digest(file)

    # Tables

    def dataset(self, *parts: str) -> pads.Dataset:
        """The Parquet files below a folder, with ``day=...`` folders as a column of text."""
        path = self.path(*parts)
        fs, found = self._store.table(path) if self._store is not None else (self.fs, self._below(path))
        files = [posixpath.join(path, name) for name in _visible(found) if name.endswith(".parquet")]
        if not files:
            raise BadInput(f"table {self.uri(*parts)}: expected Parquet files, found none; run the step that writes it")
        by_day = any("day=" in name for name in files)
        partitioning = pads.partitioning(pa.schema([("day", pa.string())]), flavor="hive") if by_day else None
        with self._told():
            return pads.dataset(
                files, filesystem=fs, format="parquet", partitioning=partitioning, partition_base_dir=path
            )

    def write_table(self, path: str, batches: pa.Table | Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
        """Write one Parquet file; returns its rows."""
        target, rows = self.path(path), 0
        try:
            with (
                self._written(target) as file,
                pq.ParquetWriter(file, schema, compression="zstd", store_schema=False) as out,
            ):
                for batch in batches.to_batches(max_chunksize=1 << 17) if isinstance(batches, pa.Table) else batches:
                    out.write_batch(batch)
                    rows += batch.num_rows
        except OSError as error:
            raise unwritable(error, target) from error
        return rows

    @contextmanager
    def _written(self, target: str) -> Iterator[Any]:
        if self._store is not None:
            with self._store.writing(target) as file:
                yield file
            return
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            yield file

    def _told(self) -> AbstractContextManager[None]:
        return nullcontext() if self._store is None else self._store.told()


def _visible(names: Iterable[str]) -> list[str]:
    return sorted(n for n in names if not any(part.startswith((".", "_")) for part in n.split("/")))


def _sync(path: str) -> None:
    """Write a file, or the names in a folder, through to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def unwritable(error: OSError, target: str) -> Exception:
    """A full disk or a missing permission is the user's to mend; any other failure stays what it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BadInput(
            f"{target}: expected room to write, found a full disk; free some space, then give the same command again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return BadInput(
            f"{target}: expected a place to write, found: {os.strerror(error.errno).lower()}; "
            "correct the path or its permissions"
        )
    return error


def file_digest(file: Any) -> str:
    """SHA-256 of an open binary file."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
