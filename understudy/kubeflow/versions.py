"""Whether a pipeline and the images that its steps run in are of one version, as far as their names tell.

A pipeline runs in images of the minor version that compiled it, and of the next. An image's version is known from a tag
such as ``0.1.0``; one that is named by a digest alone says nothing, and nothing is pulled to ask.
"""

import re
from collections.abc import Mapping

__all__ = ["compiled_by", "difference", "image_version", "made_by"]

_MADE_BY = "made by understudy "
_TAG = re.compile(r":v?(\d{1,3}\.\d{1,3}\.\d{1,3})(?:[-+_.][\w.+-]*)?$")
_VERSION = re.compile(r"\d+\.\d+\.\d+\S*")


def made_by(version: str) -> str:
    """What the server keeps beside a version of a pipeline."""
    return f"{_MADE_BY}{version}"


def compiled_by(description: str | None) -> str:
    """Which version of the package has compiled what the server describes so; empty: it does not say."""
    found = _VERSION.match((description or "").partition(_MADE_BY)[2])
    return found[0] if found else ""


def image_version(image: str) -> str:
    """The version that an image's tag names; empty: it names none."""
    found = _TAG.search(image.partition("@")[0].rpartition("/")[2])
    return found[1] if found else ""


def difference(pipeline: str, by: str, images: Mapping[str, str], this: str) -> str | None:
    """One line where a pipeline and its images, or this command, are of several minor versions; None: they are not.

    Args:
        by: the version that compiled it; empty: nobody knows.
        images: role → image. this: the version of the command.
    """
    if not by:
        return None
    own = _minor(by)
    others: dict[str, list[str]] = {}
    for role, image in sorted(images.items()):
        version = image_version(image)
        if version and _minor(version) != own:
            others.setdefault(version, []).append(role)
    runs_in = f"{_text(own)} and {_text((own[0], own[1] + 1))}"
    begun = f"pipeline {pipeline}: compiled by understudy {by}"
    if others:
        told = ", ".join(f"{version} ({', '.join(roles)})" for version, roles in sorted(others.items()))
        works = all(_minor(version) == (own[0], own[1] + 1) for version in others)
        do = "apply again with that version soon" if works else "set pipeline.images, or apply with the images' version"
        return f"{begun}, its images are of {told}; it runs in images of {runs_in}: {do}"
    if _minor(this) != own:
        return f"{begun}, this command is {this}; it runs in images of {runs_in}"
    return None


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _text(minor: tuple[int, int]) -> str:
    return f"{minor[0]}.{minor[1]}"
