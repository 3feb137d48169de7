"""A copy of one release in a folder of its own: a server that reads it needs the lake's copy only once."""

from understudy.lake import Lake
from understudy.releases.unit import load, load_as_written

__all__ = ["fetch"]


def fetch(lake: Lake, ref: str, target_folder: str) -> str:
    """Copy a release, its manifest last; returns its digest. What is there already, and whole, stays as it is.

    Args:
        target_folder: is laid out as a lake.

    Raises:
        BadInput: no such release, or a file that is not what the manifest says, before or after.
    """
    release = load_as_written(lake, ref)
    folder = f"releases/{release.digest}"
    target = Lake.open_or_create(target_folder)
    for name, data in {**release.files, "manifest.json": lake.read_bytes(folder, "manifest.json")}.items():
        if not target.exists(folder, name) or target.read_bytes(folder, name) != data:
            target.replace(f"{folder}/{name}", data)
    return load(target, release.digest).digest
