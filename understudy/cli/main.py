"""Commands are imported when they are used; an error is one line, with the exit codes of the design."""

import importlib
import sys
import traceback
from typing import Any

import click

from understudy import __version__
from understudy.cli.ending import ASKED, stopped_by_sigterm
from understudy.errors import BadInput, UnderstudyError, first_line

__all__ = ["cli", "main"]

# command → module, and what `understudy --help` says of it
_COMMANDS = {
    "demo": ("demo", "Watch a ranker keep itself fresh for several weeks of a simulated feed."),
    "ingest": ("ingest", "Read raw logs into a lake."),
    "generate": ("ingest", "Write small logs with a planted signal, in KuaiRand's layout."),
    "collect": ("collect", "Take what a feed served, and what people saw and did, over HTTP."),
    "serve": ("serve", "Rank slates over HTTP with a release."),
    "simulate": ("simulate", "Let a simulated feed run for some days and log what happens."),
    "run": ("pipeline", "Make, gate and release a ranker for one window."),
    "compile": ("pipeline", "Write the pipeline as a file for Kubeflow Pipelines."),
    "upload": ("pipeline", "Upload the pipeline to Kubeflow Pipelines."),
    "schedule": ("schedule", "Make the configuration's schedules true on Kubeflow Pipelines."),
    "compare": ("compare", "Train several configurations on one window and tell them apart."),
    "evaluate": ("pipeline", "Score any ingested days with a release."),
    "runs": ("runs", "Look at runs: list, show; on Kubeflow: submit, wait."),
    "releases": ("releases", "Look at releases, approve, promote, roll back, quarantine."),
    "rollout": ("rollout", "Put a candidate in front of more and more people, judge it, take it back."),
    "features": ("features", "Refresh what serving reads."),
    "config": ("config", "Bring a configuration file to the names of this version."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"understudy.cli.{_COMMANDS[name][0]}")
        command: click.Command = getattr(module, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.command(cls=_Lazy)
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Keep a recommendation ranker fresh.

    \b
    understudy ingest --config examples/kuairand.yaml --source DIR --lake lake
    understudy run    --config examples/kuairand.yaml --lake lake
    understudy releases list --lake lake

    Exit codes: 0 done, 1 crash, 2 bad input, 3 a gate said no, 143 stopped by SIGTERM.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    given = [one for one in given if one != "--debug"]
    with stopped_by_sigterm() as came:
        code = _code_of(given, debug, came)
    sys.exit(code)


def _code_of(given: list[str], debug: bool, came: list[int]) -> int:
    """Run a command; its exit code.

    Args:
        came: SIGTERMs, which stop it as Ctrl-C does.
    """
    try:
        result: Any = cli.main(given, prog_name="understudy", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        print("stopped; give the same command again to go on", file=sys.stderr)
        return ASKED if came else 1
    except UnderstudyError as error:
        return _tell(error, first_line(error), error.exit_code, debug)
    except PermissionError as error:
        where = error.filename or f"the lake's object store ({error})"
        line = f"{where}: expected permission to read and write it, found none; correct the path or its mode"
        return _tell(error, line, BadInput.exit_code, debug)
    except Exception as error:
        return _tell(error, f"{first_line(error)}; --debug shows where", 1, debug)
    return result if isinstance(result, int) else 0


def _tell(error: BaseException, line: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"error: {line}", file=sys.stderr)
    return code
