"""The item snapshot: what serving knows of every item, as arrays that all its processes map.

One folder per refresh, ``features/items/<name>/``: an item's own counters and attributes, and those of its creator and
topic beside them, sorted by the hash of its id. ``manifest.json`` is written last, so a snapshot is there whole or not
at all. Nothing in it depends on a release: whoever reads it picks the columns that a model is fed.

Shapes: I items, C texts, N numbers, T times, n counters of a view, S surfaces, K counts.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from understudy import __version__
from understudy.errors import BadInput
from understudy.features.views import CROSSES, VIEWS
from understudy.formats import Format
from understudy.hashing import hash64

__all__ = ["FOLDER", "UNKNOWN_US", "ItemSnapshot", "write"]

FOLDER = "features/items"
UNKNOWN_US = int(np.iinfo(np.int64).min)  # the time of what has not happened
_VIEWS = ("item_history", "creator_history", "topic_history")
_SURFACE = "surface_"
_STAMPS = ("event_timestamp", "created_timestamp")

Int64s = npt.NDArray[np.int64]


class _Files(NamedTuple):
    manifest: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]


_FORMAT: Format[_Files] = Format("snapshot of items", 1, "refresh the features")


@dataclass(frozen=True)
class ItemSnapshot:
    """A snapshot that was opened; its arrays are read-only maps of files.

    Args:
        name: of its folder.
        as_of_us: everything that was readable by then is in it.
        columns: array → names of its last axis.
        ids: (I,) hashes of item ids, rising.
        hashes: (I, C) of texts, 0 where missing. numbers: (I, N). times_us: (I, T).
        counters: view → (I, n). last_us: view → (I,).
        surface_keys: (I, S). surface_counters: (I, S, K).
        codes: ``creator`` and ``topic`` → (I,), the item's place in ``names``; −1 where it has none.
        names: ``creator`` and ``topic`` → their ids as UTF-8 bytes.
    """

    name: str
    as_of_us: int
    columns: dict[str, list[str]]
    ids: Int64s
    hashes: Int64s
    numbers: npt.NDArray[np.float32]
    times_us: Int64s
    counters: dict[str, npt.NDArray[np.float32]]
    last_us: dict[str, Int64s]
    surface_keys: Int64s
    surface_counters: npt.NDArray[np.float32]
    codes: dict[str, npt.NDArray[np.int32]]
    names: dict[str, npt.NDArray[np.bytes_]]

    @classmethod
    def open(cls, folder: Path) -> "ItemSnapshot":
        """Map a snapshot's files.

        Raises:
            BadInput: it is damaged, or a newer version wrote it.
        """
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
            _FORMAT.check(manifest["format"], str(folder), manifest.get("version"))
            arrays = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False).view(np.ndarray)
                for name in manifest["arrays"]
            }
            manifest, arrays = _FORMAT.forward(_Files(manifest, arrays), manifest["format"], str(folder))
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise BadInput(
                f"{folder}: expected an item snapshot, found a damaged one; run `understudy features refresh`"
            ) from error
        names = {cross: arrays.pop(f"{cross}_names") for cross in CROSSES}
        if any(len(array) != manifest["items"] for array in arrays.values()):
            raise BadInput(f"{folder}: expected {manifest['items']} rows in every array; refresh the features")
        return cls(
            name=folder.name,
            as_of_us=manifest["as_of_us"],
            columns=manifest["columns"],
            counters={view: arrays.pop(view) for view in _VIEWS},
            last_us={view: arrays.pop(f"{view}_us") for view in _VIEWS},
            codes={cross: arrays.pop(f"{cross}_codes") for cross in CROSSES},
            names=names,
            **arrays,
        )

    def find(self, item_ids: Int64s) -> Int64s:
        """Rows of items by the hashes of their ids; −1 where an item is unknown."""
        if not len(self.ids):
            return np.full(len(item_ids), -1, np.int64)
        at = np.searchsorted(self.ids, item_ids).clip(max=len(self.ids) - 1)
        found: Int64s = np.where(self.ids[at] == item_ids, at, -1)
        return found


def write(folder: Path, paths: Mapping[str, str], as_of_us: int) -> Path:
    """Write a snapshot of the feature tables as they could be read at a moment; returns its folder.

    Args:
        folder: where it will lie, named as it is; one that is there whole already stays as it is.
        paths: view → glob of its Parquet files.
        as_of_us: rows that were created later are left out.
    """
    if (folder / "manifest.json").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    arrays, columns = _arrays(paths, as_of_us)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    manifest: dict[str, Any] = {"format": _FORMAT.newest, "version": __version__, "as_of_us": as_of_us}
    manifest |= {"items": len(arrays["ids"]), "columns": columns, "arrays": sorted(arrays)}
    whole = folder / ".manifest.json"
    whole.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    whole.replace(folder / "manifest.json")
    return folder


def _arrays(paths: Mapping[str, str], as_of_us: int) -> tuple[dict[str, npt.NDArray[Any]], dict[str, list[str]]]:
    profile, own = (_latest(paths[view], view, as_of_us) for view in ("item_profile", "item_history"))
    ids = pa.chunked_array([*profile["item_id"].chunks, *own["item_id"].chunks], pa.string()).unique().drop_null()
    hashes = hash64(ids)
    order = np.argsort(hashes, kind="stable")
    ids = ids.take(pa.array(order))
    profile = profile.take(pc.index_in(ids, profile["item_id"]))
    texts, numbers, times = (
        [f.name for f in profile.schema if f.name not in ("item_id", *_STAMPS) and kind(f.type)]
        for kind in (pa.types.is_string, pa.types.is_floating, pa.types.is_integer)
    )
    arrays: dict[str, npt.NDArray[Any]] = {
        "ids": hashes[order],
        "hashes": _stacked([_hashes(profile[name]) for name in texts], len(ids), np.int64),
        "numbers": _stacked([_floats(profile[name], np.nan) for name in numbers], len(ids), np.float32),
        "times_us": _stacked([_times(profile[name]) for name in times], len(ids), np.int64),
    }
    columns = {"hashes": texts, "numbers": numbers, "times_us": times}
    for cross in CROSSES:
        coded = profile[f"{cross}_id"].combine_chunks().dictionary_encode()
        arrays[f"{cross}_codes"] = np.asarray(coded.indices.fill_null(-1), np.int32)
        arrays[f"{cross}_names"] = np.array([name.encode() for name in coded.dictionary.to_pylist()], np.bytes_)
    for view in _VIEWS:
        (key,) = VIEWS[view].keys
        rows = own if view == "item_history" else _latest(paths[view], view, as_of_us)
        rows = rows.take(pc.index_in(ids if key == "item_id" else profile[key], rows[key]))
        counters = [f.name for f in rows.schema if pa.types.is_floating(f.type)]
        arrays[view] = _stacked([_floats(rows[name], 0.0) for name in counters], len(ids), np.float32)
        arrays[f"{view}_us"] = _times(rows["last_event_us"])
        columns[view] = counters
        if view == "item_history":
            arrays["surface_keys"], arrays["surface_counters"], columns["surface_counters"] = _surfaces(rows)
    return arrays, columns


def _latest(path: str, view: str, as_of_us: int) -> pa.Table:
    """The view's newest row of each key that could be read by then."""
    import duckdb

    from understudy.features.asof import Joined, latest_query, reach

    with duckdb.connect() as db:
        reach(db, [path])
        db.execute("SET TimeZone='UTC'")
        files = f"SELECT * FROM read_parquet('{path.replace(chr(39), chr(39) * 2)}') LIMIT 0"
        names = [name for name, *_ in db.execute(f"DESCRIBE {files}").fetchall()]
        (key,) = VIEWS[view].keys
        features = {name: name for name in names if name not in (key, *_STAMPS)}
        joined = Joined((path,), {key: key}, features, *_STAMPS, ttl=timedelta(0))
        end = np.datetime64(as_of_us, "us").item().isoformat() + "+00:00"
        return db.execute(latest_query(joined, "1970-01-01T00:00:00+00:00", end, latest=True)).to_arrow_table()


def _surfaces(rows: pa.Table) -> tuple[Int64s, npt.NDArray[np.float32], list[str]]:
    names = [n for n in rows.column_names if n.startswith(_SURFACE) and n != f"{_SURFACE}keys"]
    width = int(pc.max(pc.list_value_length(rows[f"{_SURFACE}keys"])).as_py() or 0)
    keys = _padded(rows[f"{_SURFACE}keys"], width, np.int64)
    counts = [_padded(rows[name], width, np.float32) for name in names]
    shape = (rows.num_rows, width, len(names))
    return keys, np.stack(counts, axis=-1) if counts else np.zeros(shape, np.float32), names


def _padded(column: pa.ChunkedArray, width: int, kind: Any) -> npt.NDArray[Any]:
    column = column.combine_chunks()
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    padded = np.zeros((len(column), width), kind)
    padded[np.arange(width) < lengths[:, None]] = column.flatten().to_numpy(zero_copy_only=False)
    return padded


def _hashes(column: pa.ChunkedArray) -> Int64s:
    column = column.combine_chunks()
    hashes = hash64(column)
    hashes[column.is_null().to_numpy(zero_copy_only=False)] = 0
    return hashes


def _floats(column: pa.ChunkedArray, missing: float) -> npt.NDArray[np.float32]:
    return np.asarray(column.cast(pa.float32(), safe=False).fill_null(missing), np.float32)


def _times(column: pa.ChunkedArray) -> Int64s:
    return np.asarray(column.cast(pa.int64()).fill_null(UNKNOWN_US), np.int64)


def _stacked(columns: list[npt.NDArray[Any]], rows: int, kind: Any) -> npt.NDArray[Any]:
    return np.ascontiguousarray(np.stack(columns, axis=1)) if columns else np.zeros((rows, 0), kind)
