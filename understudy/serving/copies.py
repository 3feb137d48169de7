"""Item snapshots of an object store, copied to this machine: whole or not at all, so that processes can map them."""

import os
import shutil
import tempfile
import uuid
from pathlib import Path

from understudy.errors import BadInput
from understudy.features.items import FOLDER
from understudy.lake import Lake, unwritable

__all__ = ["Copies"]

_KEPT = 2  # what is on stage, and what a process that shares the folder may be about to map


class Copies:
    """The copies of one lake's snapshots.

    Args:
        folder: where they lie; the server's processes share it. None: a folder of its own, which ends with it.
    """

    def __init__(self, lake: Lake, folder: str | None = None) -> None:
        self.lake = lake
        if folder is None:
            self._own = tempfile.TemporaryDirectory(prefix="understudy-items-")
            folder = self._own.name
        self.folder = Path(folder)

    def of(self, name: str) -> Path:
        """The folder with a copy of a snapshot.

        Raises:
            BadInput: the lake has no such snapshot, or there is no room for it.
        """
        target = self.folder / name
        if not target.exists():
            self._copy(name, target)
        self._forget(target)
        return target

    def _copy(self, name: str, target: Path) -> None:
        files = self.lake.files(FOLDER, name)
        if "manifest.json" not in files:
            raise BadInput(
                f"{self.lake.uri(FOLDER, name)}: expected an item snapshot, found none; "
                "run `understudy features refresh`"
            )
        half = self.folder / f".{uuid.uuid4().hex}"
        try:
            half.mkdir()
            for file in files:
                self.lake.fetch(half / file, FOLDER, name, file)
            half.rename(target)
        except OSError as error:
            if not target.exists():  # or another process was first
                raise unwritable(error, str(target)) from error
        finally:
            shutil.rmtree(half, ignore_errors=True)

    def _forget(self, current: Path) -> None:
        """What is mapped stays readable; its name goes."""
        os.utime(current)
        found = [path for path in self.folder.iterdir() if not path.name.startswith(".")]
        for path in sorted(found, key=_used)[:-_KEPT]:
            shutil.rmtree(path, ignore_errors=True)


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process was first
        return 0.0
