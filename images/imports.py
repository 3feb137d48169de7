"""The last act of an image's build: everything that its role needs is imported, or the build fails with one line.

    python imports.py ROLE EXTRA...

What a role needs is written down elsewhere: its packages are the extras of pyproject.toml that `install.sh extras`
names, its steps say in their component whose image they run in, and its other programs are the manifests' and the
jobs', which a test compares with PROGRAMS. An import inside a function counts as one at the top.
"""

import ast
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["PROGRAMS"]

# role → what its containers run beside steps: a command of `understudy`, or a module
PROGRAMS = {
    "serve": ("serve", "releases fetch"),
    "tools": ("collect", "rollout operate"),
    "spark": ("understudy.jobs.entry", "understudy.jobs.main"),
    "train": ("understudy.training.workers",),
}
_EXECUTOR = "kfp.dsl.executor_main"  # what Kubeflow Pipelines begins a component's body with
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


class Needed(NamedTuple):
    """Something to import: a module, perhaps with a name in it; and the package or the program that wants it."""

    module: str
    name: str
    by: str


def needed(role: str, extras: list[str]) -> Iterator[Needed]:
    """What a role must be able to import: packages first, then what its steps and programs begin with."""
    wanted = _requirements(extras)
    tops: dict[str, str] = {}  # top-level module → its package
    for package, versions in wanted.items():
        for top in _tops(package):
            tops[top] = f"{package}{versions}"
            yield Needed(top, "", tops[top])
    for one in sorted({one for path in _sources("understudy") for one in _imports(ast.parse(path.read_text()))}):
        if (top := one[0].split(".")[0]) in tops:
            yield Needed(*one, tops[top])
    steps = dict(_steps(role))
    if steps:
        yield Needed(_EXECUTOR, "", "kfp")
    for step, tree in steps.items():
        yield from _ours(tree, f"the step {step}")
    for program in PROGRAMS.get(role, ()):
        if program.startswith("understudy."):
            yield Needed(program, "", f"the program {program}")
        else:
            yield from _ours(_function(program), f"`understudy {program}`")


def _requirements(extras: list[str]) -> dict[str, str]:
    """Package → versions, of the core and of some extras."""
    found = {}
    for line in importlib.metadata.requires("understudy") or []:
        extra = re.search(r"""extra == ["'](.+?)["']""", line)
        package = re.match(r"[\w.-]+", line)
        assert package, "a requirement begins with a name"
        if extra is None or extra[1] in extras:
            versions = re.search(r"[=<>!~][^;\s]*", line.partition(";")[0])
            found[package[0]] = versions[0] if versions else ""
    return found


def _tops(package: str) -> list[str]:
    """The top-level modules of a package: the one of its name, or all that are public."""
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return [package.replace("-", "_").lower()]
    found = [top for top, owned in _owners().items() if _plain(package) in map(_plain, owned) and top.isidentifier()]
    same = [top for top in found if _plain(top) == _plain(package)]
    return same or sorted(top for top in found if not top.startswith("_"))


@functools.cache
def _owners() -> Mapping[str, list[str]]:
    """Top-level module → the packages that it is of."""
    return importlib.metadata.packages_distributions()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _sources(package: str) -> list[Path]:
    found = importlib.util.find_spec(package)
    return [path for root in (found and found.submodule_search_locations) or () for path in Path(root).rglob("*.py")]


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Module and name of each import, wherever it stands; not of those that may fail, or are for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Try) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            continue
        if isinstance(node, ast.Import):
            yield from ((one.name, "") for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, one.name) for one in node.names)
        yield from _imports(node)


def _ours(tree: ast.AST, by: str) -> Iterator[Needed]:
    yield from (Needed(*one, by) for one in _imports(tree) if one[0].split(".")[0] == "understudy")


def _steps(role: str) -> Iterator[tuple[str, ast.AST]]:
    """Step → its component's code, of those that run in the role's image."""
    for path in sorted(_sources("components")):
        text = path.read_text()
        if path.name == "component.py" and f'image("{role}")' in text:
            yield path.parent.name, ast.parse(text)


def _function(command: str) -> ast.AST:
    """The code of a command of `understudy`."""
    import inspect
    import textwrap

    import click

    from understudy.cli.main import cli

    found: click.Command | None = cli
    for word in command.split():
        assert isinstance(found, click.Group), command
        found = found.get_command(click.Context(found), word)
    assert found is not None, f"no command {command}"
    assert found.callback is not None
    return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(found.callback))))


def mend(package: str) -> str:
    """What to do where something can't be imported for a package."""
    if package.startswith("torch==") and os.environ.get("VARIANT") == "cpu":
        return (
            f"VARIANT=cpu needs PyTorch's CPU build: set BUILD_ARGS='--build-arg TORCH_INDEX={_CPU_INDEX}', or build "
            "VARIANT=cuda"
        )
    return "correct what images/install.sh leaves out, or the role's extra in pyproject.toml and `make lock`"


def import_all(role: str, extras: list[str], told: int) -> bool:
    """Import what a role needs; whether all could be.

    Args:
        told: file that gets, before each import, a new line: what is expected and what to do, each with a tab; where
            it fails, the reason follows. So it says what was on when an import ends the process.
    """
    line = f"\nimage {role}: expected to find out what it needs\t{mend('')}\t"
    os.write(told, line.encode())
    try:
        for one in needed(role, extras):
            what = f"{one.module}.{one.name}" if one.name else one.module
            os.write(told, f"\nimage {role}: expected to import {what} for {one.by}\t{mend(one.by)}\t".encode())
            module = importlib.import_module(one.module)
            if one.name and not hasattr(module, one.name):
                importlib.import_module(what)
    except BaseException as error:
        os.write(told, " ".join(f"{type(error).__name__}: {error}".split()).encode())
        return False
    return True


def main(role: str, extras: list[str]) -> str:
    """Import it all in a process of its own, of which nothing else is heard; the line of what failed, or none."""
    os.environ["_KFP_RUNTIME"] = "true"  # as in a step's pod, where kfp's other needs are not installed
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os._exit(0 if import_all(role, extras, writing) else 1)
    os.close(writing)
    with open(reading) as lines:
        expected, what_to_do, why = lines.read().splitlines()[-1].split("\t")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    ended = f"that it ends Python, by {signal.Signals(-code).name}" if code < 0 else f"that it ends Python with {code}"
    return f"{expected}, found {why or ended}; {what_to_do}" if code else ""


if __name__ == "__main__":
    failed = main(sys.argv[1], sys.argv[2:])
    sys.exit(f"error: {failed}" if failed else 0)
