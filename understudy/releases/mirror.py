"""The lake's releases as an MLflow server shows them, for people and other tools; the lake stays the truth.

A release is a run and a version of one registered model, both found again by its digest in a tag. What is there
already stays, so that the same call again, also after one that was cut off anywhere, makes it true and no more. What
somebody else has put there is left alone, but for the three aliases, which are the lake's.
"""

import hashlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from understudy.errors import BadInput, Later, first_line
from understudy.lake import Lake
from understudy.releases.aliases import ALIASES, aliases
from understudy.releases.approvals import approval
from understudy.releases.mlflow_server import REPEATS, URI, MlflowServer, Place, ShownRun, Version, connected
from understudy.releases.quarantine import marks, quarantined
from understudy.releases.shown import PREFIX, metrics, origin, params, standing
from understudy.releases.unit import digests, read_manifest

__all__ = ["Mirrored", "keep_mirror", "mirror"]

_Tagged = TypeVar("_Tagged", Version, ShownRun)

_DIGEST = f"{PREFIX}digest"
_REPORT = f"{PREFIX}report"  # a run's: SHA-256 of the page that it shows
_THROUGH_SERVER = ("mlflow-artifacts:", "http:", "https:")
_LIMIT_S, _PAUSE_S = 60.0, 1.0
_THREAD = "mirror"
_REPEATS = 1


@dataclass(frozen=True)
class Mirrored:
    """What was changed.

    Args:
        uri, model: of the server, and the registered model's name there.
        releases: how many the lake has.
        created: digest → number of the version that shows it.
        aliases: alias → digest, or None where it was removed.
        tagged, reported: digests whose tags, or whose page, were brought up to date.
        removed: versions that showed a release twice, as two processes make them at the same moment.
    """

    uri: str
    model: str
    releases: int
    created: dict[str, int] = field(default_factory=dict)
    aliases: dict[str, str | None] = field(default_factory=dict)
    tagged: set[str] = field(default_factory=set)
    reported: set[str] = field(default_factory=set)
    removed: set[int] = field(default_factory=set)

    @property
    def changed(self) -> bool:
        return bool(self.created or self.aliases or self.tagged or self.reported or self.removed)


@dataclass(frozen=True)
class _Release:
    digest: str
    manifest: dict[str, Any]
    run: str | None
    origin: dict[str, str]
    standing: dict[str, str]


def keep_mirror(lake_uri: str) -> None:
    """``mirror`` where the environment names a server. It takes a minute at most, and never raises.

    What fails is one line on stderr.
    """
    if not os.environ.get(URI, "").strip():
        return
    failed = [f"expected to be done within {_LIMIT_S:g} s, found it slow"]
    thread = threading.Thread(target=_try, args=(lake_uri, failed), name=_THREAD, daemon=True)
    thread.start()
    thread.join(_LIMIT_S)  # the client's own limit is between two bytes
    if failed:
        line = f"MLflow does not show the releases as they are: {failed[0]}; `understudy releases mirror` does it again"
        print(line, file=sys.stderr, flush=True)


def _try(lake_uri: str, failed: list[str]) -> None:
    """What went wrong is put into ``failed``; nothing: that is emptied."""
    try:
        mirror(Lake.open(lake_uri), limit_s=_LIMIT_S)
        failed.clear()
    except Exception as error:  # what the mirror shows has been done already
        failed[:] = [first_line(error)]


def mirror(lake: Lake, *, limit_s: float = math.inf) -> Mirrored:
    """Make a registered model show the lake's releases and aliases; what was changed.

    Args:
        limit_s: after which nothing more is asked.

    Raises:
        BadInput: the environment names no server, or none that can be used; or a release is damaged.
        Later: no answer.
    """
    place = Place.from_environment()
    if place is None:
        raise BadInput(f"{URI}: expected the URI of an MLflow server, found none; set it, such as http://mlflow:5000")
    repeats, until_s = _repeats(), time.monotonic() + limit_s
    releases = _releases(lake)
    done = Mirrored(place.uri, place.model, len(releases))
    if releases:
        with connected(place, until_s) as server:
            _again(repeats, lambda: _bring(server, lake, releases, done))
    return done


def _repeats() -> int:
    """As the user has set for MLflow's client, which itself would repeat without a look at what was done."""
    given = os.environ.get(REPEATS, "").strip() or str(_REPEATS)
    if not given.isdecimal():
        raise BadInput(f"{REPEATS}: expected a whole number, found {given!r}; correct it")
    return int(given)


def _again(repeats: int, attempt: Callable[[], None]) -> None:
    for left in range(repeats, -1, -1):
        try:
            attempt()
            return
        except Later:
            if not left:
                raise
        time.sleep(_PAUSE_S)


def _releases(lake: Lake) -> list[_Release]:
    """Oldest window first, as versions are numbered."""
    own, sick, evidence = marks(lake), quarantined(lake), set(lake.names("releases/evidence"))
    found = []
    for digest in digests(lake):
        manifest, name = read_manifest(lake, digest), f"{digest}.json"
        run = str(lake.read_json("releases/evidence", name)["run"]) if name in evidence else None
        tags = origin(digest, manifest, run, lake.uri("releases", digest))
        stands = standing(own.get(digest), digest in sick - set(own), approval(lake, digest))
        found.append(_Release(digest, manifest, run, tags, stands))
    return sorted(found, key=lambda one: (one.manifest["window"]["end"], one.digest))


def _bring(server: MlflowServer, lake: Lake, releases: list[_Release], done: Mirrored) -> None:
    """Versions, their tags and the aliases first: an artifact that can't be stored holds nothing else up."""
    versions, runs = _by_digest(server.versions(), releases), _by_digest(server.runs(), releases)
    missing = [one for one in releases if one.digest not in versions]
    if missing:
        server.create_model(f"Releases of {lake.uri()}, which stays the truth: `understudy releases mirror`")
        for one in missing:
            if not done.created.get(one.digest):
                done.created[one.digest] = 0  # so far nobody has said that it is there
                done.created[one.digest] = _create(server, lake, one, runs.get(one.digest, []))
        versions, runs = _by_digest(server.versions(), releases), _by_digest(server.runs(), releases)
    if len(versions) < len(releases):
        raise Later(f"MLflow at {done.uri}: expected to find every version that was made, found {len(versions)} so far")
    shown = {digest: _only(server, found, done) for digest, found in versions.items()}
    done.created.update({digest: shown[digest].number for digest in done.created})
    for one in releases:
        _tag(server, one, shown[one.digest], done)
    _move(server, aliases(lake), {digest: version.number for digest, version in shown.items()}, done)
    for one in releases:
        for run in _own(server, shown[one.digest], runs.get(one.digest, [])):
            _fill(server, lake, one, run, done)


def _by_digest(found: list[_Tagged], releases: list[_Release]) -> dict[str, list[_Tagged]]:
    """Digest → what shows it, the first one first; only of the lake's releases."""
    here = {one.digest for one in releases}
    shown: dict[str, list[_Tagged]] = {}
    for one in found:
        if (digest := one.tags.get(_DIGEST, "")) in here:
            shown.setdefault(digest, []).append(one)
    return shown


def _create(server: MlflowServer, lake: Lake, one: _Release, runs: list[ShownRun]) -> int:
    """A version, its number, and the run that it names; MLflow takes no folder of a machine as a version's source."""
    run = runs[0] if runs else server.create_run(one.run or one.digest[:12], one.origin)
    source = run.artifacts if lake.is_local else lake.uri("releases", one.digest)
    return server.create_version(run, source, {**one.origin, **one.standing})


def _only(server: MlflowServer, found: list[Version], done: Mirrored) -> Version:
    for doubled in found[1:]:
        done.removed.add(doubled.number)
        server.delete_version(doubled.number)
    return found[0]


def _own(server: MlflowServer, version: Version, runs: list[ShownRun]) -> list[ShownRun]:
    """The version's run; none where somebody has deleted it. Others that show the same release go."""
    own = [run for run in runs if run.id == version.run_id]
    for doubled in runs if own else []:
        if doubled.id != version.run_id:
            server.delete_run(doubled)
    return own


def _tag(server: MlflowServer, one: _Release, version: Version, done: Mirrored) -> None:
    wanted = {**one.origin, **one.standing}
    known = {name: value for name, value in version.tags.items() if name.startswith(PREFIX)}
    for name in sorted(wanted.keys() | known.keys()):
        if wanted.get(name) != known.get(name):
            done.tagged.add(one.digest)
            server.tag_version(version.number, name, wanted.get(name))


def _move(server: MlflowServer, wanted: dict[str, str], numbers: dict[str, int], done: Mirrored) -> None:
    """Those that stand somewhere before those that go, so that production is never nowhere."""
    known = server.aliases()
    for name in sorted(ALIASES, key=lambda name: name not in wanted):
        digest = wanted.get(name)
        number = numbers.get(digest) if digest else None
        if number != known.get(name):
            done.aliases[name] = digest
            server.move_alias(name, number)


def _fill(server: MlflowServer, lake: Lake, one: _Release, run: ShownRun, done: Mirrored) -> None:
    """Figures, manifest and page; the run is finished last. Artifacts go through the server, or not at all."""
    takes = run.artifacts.startswith(_THROUGH_SERVER)
    if not run.finished:
        figures = lake.read_json("releases", one.digest, "metrics.json")
        server.log(run, metrics(figures), params(one.manifest))
        if takes:
            server.upload(run, "manifest.json", lake.read_bytes("releases", one.digest, "manifest.json").decode())
    if takes and one.run is not None and lake.exists("runs", one.run, "report.html"):
        page = lake.read_bytes("runs", one.run, "report.html")
        sha256 = hashlib.sha256(page).hexdigest()
        if run.tags.get(_REPORT) != sha256:
            done.reported.add(one.digest)
            server.upload(run, "report.html", page.decode())
            server.tag_run(run, _REPORT, sha256)
    if not run.finished:
        server.finish(run)
