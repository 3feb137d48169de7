"""The command line as the end-to-end tests call it."""

import subprocess
import sys
from pathlib import Path

__all__ = ["CLI", "ROOT", "understudy"]

ROOT = Path(__file__).resolve().parent.parent.parent
CLI = [sys.executable, "-m", "understudy.cli"]


def understudy(*arguments: str, code: int = 0) -> str:
    """Run a command; its stdout, or its stderr where another code than 0 is expected."""
    done = subprocess.run([*CLI, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout if code == 0 else done.stderr
