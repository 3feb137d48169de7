"""A release: one immutable folder, named by the digest of its manifest.

``manifest.json`` lists every file with its SHA-256 and is created last, so a release is there
whole or not at all. Nothing in it depends on the clock or the machine.

A release is never written again. What an older version made is verified as it was written, and brought to today's
format in memory, where it is read.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from understudy.errors import BadInput
from understudy.formats import Format
from understudy.lake import Lake, unwritable
from understudy.releases.aliases import ALIASES, resolve_alias

__all__ = [
    "FORMAT",
    "Content",
    "Release",
    "ancestors",
    "build",
    "digests",
    "load",
    "load_as_written",
    "read_manifest",
    "resolve",
]


class Content(NamedTuple):
    """What a step to the next format changes.

    Args:
        manifest: its ``files`` stay as they were written.
        files: name → bytes; empty where only the manifest is read.
    """

    manifest: dict[str, Any]
    files: dict[str, bytes]


FORMAT = 2  # 2: what the candidates of a request share comes first among a network's inputs
_FORMAT: Format[Content] = Format("release", FORMAT, "release again")
_FOLDER = "releases"
_NOT_RELEASES = ("aliases", "quarantine", "evidence")
_SHORTEST_PREFIX = 6


@dataclass(frozen=True)
class Release:
    """A release whose every byte was verified.

    Args:
        digest: SHA-256 of the manifest.
        manifest: what it is: format, window, heads, teacher, control, parents, config, files.
        files: name → bytes; of an older release as today's code reads them.
    """

    digest: str
    manifest: dict[str, Any]
    files: dict[str, bytes]

    @property
    def metrics(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.files["metrics.json"])
        return value


def digests(lake: Lake) -> list[str]:
    """Every release in the lake, sorted."""
    names = [name for name in lake.names(_FOLDER) if name not in _NOT_RELEASES]
    return [name for name in names if lake.exists(_FOLDER, name, "manifest.json")]


def ancestors(lake: Lake, digest: str) -> list[dict[str, Any]]:
    """Manifests, each with its ``digest``, of a release and of those in production before it, newest first."""
    known, found = set(digests(lake)), []
    one: str | None = digest
    while one in known:
        manifest = read_manifest(lake, str(one))
        found.append({"digest": one, **manifest})
        known.discard(str(one))
        one = manifest["parents"]["production"]
    return found


def resolve(lake: Lake, ref: str) -> str:
    """The digest that an alias, a digest or a unique beginning of one names.

    Raises:
        BadInput: it names none, or several.
    """
    if ref in ALIASES:
        digest = resolve_alias(lake, ref)
        if digest is None:
            raise BadInput(
                f"release {ref!r}: expected the alias in lake {lake.root}, found none; "
                "`understudy releases list` shows what there is"
            )
        return digest
    found = [d for d in digests(lake) if d == ref or (len(ref) >= _SHORTEST_PREFIX and d.startswith(ref))]
    if len(found) != 1:
        raise BadInput(
            f"release {ref!r}: expected an alias ({', '.join(ALIASES)}) or one digest in lake {lake.root}, "
            f"found {len(found)}; `understudy releases list` shows what there is"
        )
    return found[0]


def read_manifest(lake: Lake, digest: str) -> dict[str, Any]:
    """The manifest of a release, verified against its digest.

    What a release comes from can be read of every format, so one that this version cannot load stands in no list's way.
    """
    manifest = _manifest(lake, digest)
    if not _FORMAT.reads(manifest.get("format")):
        return manifest
    return _FORMAT.forward(Content(manifest, {}), manifest["format"], digest).manifest


def _manifest(lake: Lake, digest: str) -> dict[str, Any]:
    data = lake.read_bytes(_FOLDER, digest, "manifest.json")
    _verify(lake, digest, "manifest.json", data, digest)
    manifest: dict[str, Any] = json.loads(data)
    return manifest


def load(lake: Lake, ref: str) -> Release:
    """Read a release and verify every file.

    Raises:
        BadInput: no such release, a file is not what the manifest says, or this version reads no release of its format.
    """
    written = load_as_written(lake, ref)
    content = Content(written.manifest, written.files)
    manifest, files = _FORMAT.forward(content, written.manifest["format"], f"release {written.digest[:12]}")
    return replace(written, manifest=manifest, files=files)


def load_as_written(lake: Lake, ref: str) -> Release:
    """``load``, with manifest and files in the format of the version that made them, as a copy needs them."""
    digest = resolve(lake, ref)
    manifest, files = _manifest(lake, digest), {}
    _FORMAT.check(manifest.get("format"), f"release {digest[:12]}", manifest.get("version"))
    for name, sha256 in manifest["files"].items():
        if not lake.exists(_FOLDER, digest, name):
            raise BadInput(
                f"release {digest[:12]}: expected file {name}, found none; restore it from a copy, or release again"
            )
        files[name] = lake.read_bytes(_FOLDER, digest, name)
        _verify(lake, digest, name, files[name], sha256)
    return Release(digest, manifest, files)


def build(lake: Lake, content: dict[str, Any], files: dict[str, bytes]) -> str:
    """Write a release; returns its digest. One that exists already is left as it is.

    Raises:
        BadInput: the disk is full; nothing of the release stays.
    """
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    manifest = {"format": FORMAT, **content, "files": sums}
    text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    if lake.exists(_FOLDER, digest, "manifest.json"):
        load(lake, digest)
        return digest
    try:
        for name, data in files.items():
            lake.replace(f"{_FOLDER}/{digest}/{name}", data)
        lake.create(f"{_FOLDER}/{digest}/manifest.json", text.encode())
    except BaseException as error:
        if not lake.exists(_FOLDER, digest, "manifest.json"):
            lake.remove(_FOLDER, digest)
        if isinstance(error, OSError):
            raise unwritable(error, lake.path(_FOLDER, digest)) from error
        raise
    return digest


def _verify(lake: Lake, digest: str, name: str, data: bytes, expected: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise BadInput(
            f"{lake.path(_FOLDER, digest, name)}: expected SHA-256 {expected[:12]}…, found {found[:12]}…: the file was "
            "changed; restore it from a copy, or release again"
        )
