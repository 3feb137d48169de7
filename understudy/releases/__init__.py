"""The release unit, aliases and quarantine."""

from understudy.releases.aliases import aliases, move, resolve_alias
from understudy.releases.quarantine import nearest_healthy, quarantined
from understudy.releases.unit import Release, ancestors, digests, load, read_manifest, resolve

__all__ = [
    "Release",
    "aliases",
    "ancestors",
    "digests",
    "load",
    "move",
    "nearest_healthy",
    "quarantined",
    "read_manifest",
    "resolve",
    "resolve_alias",
]
