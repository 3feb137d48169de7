"""Programs that some tests start, and Python's packages do not bring.

`python tests/support/programs.py` (`make deps-test`) installs what is missing with Debian's packages, or says how to.
"""

import os
import shutil
import subprocess
import sys

__all__ = ["PROGRAMS", "require"]

# program → its package, of Debian and of Homebrew
PROGRAMS = {
    "kubectl": ("kubernetes-client", "kubernetes-cli"),
    "node": ("nodejs", "node"),
    "prometheus": ("prometheus", "prometheus"),
    "promtool": ("prometheus", "prometheus"),
    "redis-server": ("redis-server", "redis"),
}


def require(program: str) -> None:
    """Skip the test where the program is missing; with ``CI=true`` fail it: there nothing is left out."""
    import pytest

    if shutil.which(program) is not None:
        return
    text = f"expected {program} on the PATH, found none; `make deps-test` installs it, or says how"
    if os.environ.get("CI") == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def main() -> int:
    """Install what is missing, where this may; the exit code."""
    if not _missing():
        return 0
    if shutil.which("apt-get") is not None and os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        packages = sorted({PROGRAMS[program][0] for program in _missing()})
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", "-qq", *command], env=environment, stdout=subprocess.DEVNULL, check=False)
    if not (missing := _missing()):
        return 0
    place, install = (1, "brew install") if sys.platform == "darwin" else (0, "sudo apt-get install")
    packages = sorted({PROGRAMS[program][place] for program in missing})
    print(f"error: expected {', '.join(missing)}, found none; {install} {' '.join(packages)}", file=sys.stderr)
    return 2


def _missing() -> list[str]:
    return [program for program in PROGRAMS if shutil.which(program) is None]


if __name__ == "__main__":
    sys.exit(main())
