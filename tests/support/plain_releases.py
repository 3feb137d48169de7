"""Releases that hold next to nothing, and become production."""

from understudy import releases
from understudy.lake import Lake
from understudy.releases import lifecycle
from understudy.releases.unit import build

__all__ = ["produce", "release"]


def release(lake: Lake, name: str, teacher: str | None = None, data: str = "", ranked_by: tuple[str, ...] = ()) -> str:
    parents = {"teacher": teacher, "data": data or name, "ranked_by": list(ranked_by)}
    content = {"window": {"start": "a", "end": name}, "teacher": teacher, "parents": parents}
    return build(lake, content, {"metrics.json": b"{}", "model.bin": name.encode()})


def produce(lake: Lake, digest: str) -> None:
    releases.move(lake, {"candidate": digest}, "test", expected={})
    lifecycle.promote(lake, "candidate")
