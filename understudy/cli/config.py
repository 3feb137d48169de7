"""``understudy config``."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from understudy.cli.output import json_option, print_json

if TYPE_CHECKING:
    from understudy.upgrading import Done

__all__ = ["config"]


@click.group()
def config() -> None:
    """Look after configuration files."""


@config.command("upgrade")
@click.argument("file", metavar="FILE")
@click.option("--dry-run", is_flag=True, help="Say what would be renamed; write nothing.")
@json_option
def upgrade(file: str, dry_run: bool, as_json: bool) -> None:
    """Rename the keys of a configuration that have a new name; all else in the file stays as it is.

    \b
    understudy config upgrade my.yaml --dry-run
    """
    from understudy import strict_yaml
    from understudy.config import load

    path = Path(file)
    load(path, whatever_name=True)
    before, after, done = _read(path)
    if done and not dry_run:
        _write(path, before, after)
    base = strict_yaml.base_of(path, strict_yaml.read_one(path))
    old = [] if base is None else _read(base)[2]
    if as_json:
        found: dict[str, Any] = {"file": file, "written": bool(done) and not dry_run}
        bases = None if base is None else {"file": str(base), "renamed": [one._asdict() for one in old]}
        print_json({**found, "renamed": [one._asdict() for one in done], "base": bases})
        return
    _tell(file, done, dry_run)
    if old:
        click.echo(f"{base}: {len(old)} old names too; `understudy config upgrade {base}` renames them")


def _tell(file: str, done: "list[Done]", dry_run: bool) -> None:
    for one in done:
        click.echo(f"{file}, line {one.line}: {one.old} → {one.new}")
    if not done:
        click.echo(f"{file}: every key has today's name; nothing is written")
    elif dry_run:
        click.echo(f"{file}: {len(done)} to rename; nothing is written")


def _read(path: Path) -> "tuple[bytes, str, list[Done]]":
    """A file's bytes, its text in today's names, and what is renamed in it."""
    from understudy.errors import BadInput
    from understudy.upgrading import upgraded

    before = path.read_bytes()
    try:
        text, done = upgraded(before.decode())
    except UnicodeDecodeError as error:
        raise BadInput(f"configuration {path}: expected UTF-8, found another encoding; save it as UTF-8") from error
    except BadInput as error:
        raise BadInput(f"configuration {path}: {error}") from error
    return before, text, done


def _write(path: Path, before: bytes, text: str) -> None:
    """Replace a file whole, with the mode that it had, unless somebody has changed it meanwhile."""
    from understudy.errors import BadInput

    target = path.resolve()
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            new = Path(file.name)
            try:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
                new.chmod(target.stat().st_mode & 0o7777)
                if target.read_bytes() != before:
                    raise BadInput(f"configuration {path}: it was changed meanwhile; give the same command again")
                new.replace(target)
            except BaseException:
                new.unlink(missing_ok=True)
                raise
    except PermissionError:
        raise
    except OSError as error:
        raise BadInput(
            f"configuration {path}: expected to write it, found: {error.strerror}; it is as it was"
        ) from error
