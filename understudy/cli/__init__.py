"""The command line: ``understudy <command>``."""

from understudy.cli.main import main

__all__ = ["main"]
