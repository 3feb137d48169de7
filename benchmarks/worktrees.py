"""Revisions beside each other: each in a worktree of its own, so that the checkout stays as it is."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ROOT", "copy_of"]

ROOT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def copy_of(revision: str, folder: Path) -> Iterator[Path]:
    """A worktree of a revision; the folder is not there yet, and is gone afterwards."""
    command = ["git", "worktree", "add", "--quiet", "--detach", str(folder), revision]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {revision}: expected a revision of this repository, found: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(folder)], cwd=ROOT, check=True)
