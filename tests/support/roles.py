"""Python that sees no more of what is installed than one role's lock file names."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["as_role"]

ROOT = Path(__file__).resolve().parent.parent.parent
_FAR = """
import importlib.metadata, re, sys
plain = lambda name: re.sub('[-_.]+', '-', name).lower()
locked = {line.split('==')[0] for role in 'ROLE'.split() for line in open(f'requirements/{role}.txt')} | {'understudy'}
owners = importlib.metadata.packages_distributions()
far = {top for top, names in owners.items() if not locked & {plain(name) for name in names}}
class Near:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *more):
        return None if name.split('.')[0] in far else self.finder.find_spec(name, *more)
sys.meta_path[:] = map(Near, sys.meta_path)
"""


def as_role(role: str, code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run code with all other packages out of its reach.

    Args:
        role: names of lock files, separated by spaces.
    """
    return subprocess.run(
        [sys.executable, "-c", _FAR.replace("ROLE", role) + code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
