"""Which image a component runs in: one per role, named by the environment at compile time."""

import os

from understudy import __version__

__all__ = ["image"]


def image(role: str) -> str:
    """The image of a role: ``UNDERSTUDY_IMAGE_<ROLE>``, or our own name for it."""
    return os.environ.get(f"UNDERSTUDY_IMAGE_{role.upper()}") or f"understudy/{role}-python:{__version__}"
