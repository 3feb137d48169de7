"""Python that sees no more of what is installed than one role's lock file names."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["as_role"]

ROOT = Path(__file__).resolve().parent.parent
_FAR = """
import importlib.metadata, re, sys
plain = lambda name: re.sub('[-_.]+', '-', name).lower()
locked = {line.split('==')[0] for line in open('requirements/ROLE.txt')} | {'understudy'}
owners = importlib.metadata.packages_distributions()
far = {top for top, names in owners.items() if not locked & {plain(name) for name in names}}
class Far:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in far:
            raise ModuleNotFoundError(f'not of this role: {name}', name=name)
sys.meta_path.insert(0, Far())
"""


def as_role(role: str, code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run code with all other packages out of its reach."""
    return subprocess.run(
        [sys.executable, "-c", _FAR.replace("ROLE", role) + code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
