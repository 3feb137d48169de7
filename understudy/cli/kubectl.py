"""``kubectl understudy``: the commands of ``understudy rollout`` on the cluster that kubectl points at."""

import sys

__all__ = ["main"]

_HELP = ("-h", "--help", "help")


def main() -> None:
    """What follows ``kubectl understudy`` follows ``understudy rollout``; a command is asked of the cluster."""
    from understudy.cli.main import main as understudy

    given = sys.argv[1:]
    if not given or given[0] in _HELP:
        understudy(["rollout", "--help"])
    understudy(["rollout", given[0], "--cluster", *given[1:]])
