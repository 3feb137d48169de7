"""Quarantine: releases that must not serve, teach, or be learned from.

Harm, scoring and data faults spread to every release that was taught by a quarantined one or trained
on rows that it ranked; a data fault also to every release made from the same logs. Other reasons only
mark the release itself as rejected.
"""

import datetime
import json
from typing import Any

from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.releases.aliases import aliases
from understudy.releases.unit import digests, read_manifest

__all__ = ["REASONS", "SPREADING", "marks", "nearest_healthy", "quarantine", "quarantined"]

REASONS = ("harm", "scoring", "data", "other")
SPREADING = ("harm", "scoring", "data")
_FOLDER = "releases/quarantine"
_READ: dict[tuple[str, str], dict[str, Any]] = {}


def marks(lake: Lake) -> dict[str, dict[str, Any]]:
    """Digest → ``reason``, ``note``, ``at`` of every release that was marked itself."""
    return {name.removesuffix(".json"): lake.read_json(_FOLDER, name) for name in lake.names(_FOLDER)}


def quarantine(lake: Lake, digest: str, reason: str, note: str = "") -> None:
    """Mark a release. A mark that spreads replaces one that does not."""
    if reason not in REASONS:
        raise BadInput(f"--reason {reason!r}: expected one of {', '.join(REASONS)}; correct it")
    known = marks(lake).get(digest)
    if known is not None and (known["reason"] in SPREADING or reason not in SPREADING):
        return
    at = datetime.datetime.now(datetime.UTC).isoformat()
    value = {"reason": reason, "note": note, "at": at}
    lake.replace(f"{_FOLDER}/{digest}.json", (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def quarantined(lake: Lake) -> set[str]:
    """Releases that are marked, and all to which a fault has spread."""
    own = marks(lake)
    parents = {digest: _parents(lake, digest) for digest in digests(lake)} if own else {}
    spoiled = {
        parents[digest]["data"] for digest, mark in own.items() if mark["reason"] == "data" and digest in parents
    }
    faulty = {digest for digest, mark in own.items() if mark["reason"] in SPREADING}
    faulty |= {digest for digest, one in parents.items() if one["data"] in spoiled}
    while (
        spread := {digest for digest, one in parents.items() if {one["teacher"], *one["ranked_by"]} & faulty} - faulty
    ):
        faulty |= spread
    return set(own) | faulty


def _parents(lake: Lake, digest: str) -> dict[str, Any]:
    """Read once in a process: what a digest names never changes, and drivers and servers ask every few seconds."""
    key = lake.uri(), digest
    if key not in _READ:
        _READ[key] = read_manifest(lake, digest)["parents"]
    return _READ[key]


def nearest_healthy(lake: Lake, digest: str) -> str | None:
    """The release itself, or its nearest ancestor (teacher, then the release before it), not in quarantine."""
    sick = quarantined(lake)
    seen: set[str] = set()
    one: str | None = digest
    known = set(digests(lake))
    while one is not None and one in known and one not in seen:
        if one not in sick:
            return one
        seen.add(one)
        manifest = read_manifest(lake, one)
        one = manifest["teacher"] or manifest["parents"].get("production")
    previous = aliases(lake).get("previous")
    return previous if previous in known and previous not in sick else None
