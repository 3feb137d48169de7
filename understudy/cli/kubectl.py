"""``kubectl understudy``: the commands of ``understudy rollout`` on the cluster that kubectl points at."""

import sys

__all__ = ["main"]


def main() -> None:
    """What follows ``kubectl understudy`` follows ``understudy rollout``; a command is asked of the cluster."""
    from understudy.cli.main import main as understudy
    from understudy.cli.rollout import rollout

    given = sys.argv[1:]
    names = set(rollout.commands)
    at = next((place for place, one in enumerate(given) if one in names), None)
    if at is None:
        understudy(["rollout", "--help"])
    assert at is not None, "help ends the process"
    # kubectl's own options may come first: `kubectl understudy -n feed status`
    understudy(["rollout", given[at], "--cluster", *given[:at], *given[at + 1 :]])
