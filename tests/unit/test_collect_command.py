"""`understudy collect` with input that can't be used: one clear line and exit code 2, before it listens."""

import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from understudy.cli import main
from understudy.logs.journal import hold

ROOT = Path(__file__).resolve().parent.parent.parent
TOKEN = "a-token-for-tests-only"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def no_database(folder: Path) -> None:
    (folder / "state.db").write_text("notes of a person, and no database at all\n" * 100)


def of_a_later_version(folder: Path) -> None:
    with sqlite3.connect(folder / "state.db") as db:
        db.execute("PRAGMA user_version=99")


def a_file_as_lake(folder: Path) -> None:
    (folder / "lake").write_text("no folder")


def nothing(_: Path) -> None:
    pass


def held(folder: Path) -> None:
    hold(folder / "state.db")


CASES: list[tuple[str, list[str], Callable[[Path], None], str, str]] = [
    ("no token", [], nothing, "", "UNDERSTUDY_COLLECT_TOKEN: expected a token of 16 characters or more, found 0"),
    ("short token", [], nothing, "short", "expected a token of 16 characters or more, found 5"),
    ("no token file", ["--token-file", "{folder}/none"], nothing, TOKEN, "none: expected a file that can be read"),
    ("no configuration", ["--config", "none.yaml"], nothing, TOKEN, "configuration none.yaml: expected a file"),
    ("no logging", ["--config", "examples/kuairand.yaml"], nothing, TOKEN, "expected the key logging, found none"),
    ("no folder", ["--state", "{folder}/no/state.db"], nothing, TOKEN, "state.db: expected stores that open, found"),
    ("a folder", ["--state", "{folder}"], nothing, TOKEN, "expected stores that open, found: unable to open"),
    ("no database", [], no_database, TOKEN, "expected stores that open, found: file is not a database"),
    ("later version", [], of_a_later_version, TOKEN, "expected a journal of format 1, found 99, which a newer"),
    ("in use", [], held, TOKEN, "state.db: expected no other collector on this file, found one"),
    ("no lake", [], a_file_as_lake, TOKEN, "expected a folder, found a file; correct --lake"),
    ("no Redis", ["--redis", "redis://127.0.0.1:1/0"], nothing, TOKEN, "--redis redis://127.0.0.1:1/0: expected"),
    ("no URL", ["--redis", "nonsense"], nothing, TOKEN, "--redis nonsense: expected stores that open, found"),
    ("port in use", ["--port", "{port}"], nothing, TOKEN, "expected a free address, found: Address already in use"),
    ("no such host", ["--host", "192.0.2.1"], nothing, TOKEN, "expected a free address, found: Cannot assign"),
    ("no such port", ["--port", "70000"], nothing, TOKEN, "70000 is not in the range"),
    ("no interval", ["--flush-s", "0"], nothing, TOKEN, "0.0 is not in the range"),
]


@pytest.mark.parametrize(("name", "given", "prepare", "token", "line"), CASES, ids=[case[0] for case in CASES])
def test_bad_input_is_one_clear_line(
    name: str,
    given: list[str],
    prepare: Callable[[Path], None],
    token: str,
    line: str,
    tmp_path: Path,
    taken_port: int,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("UNDERSTUDY_COLLECT_TOKEN", token)
    prepare(tmp_path)
    usual = ["--config", "examples/collector.yaml", "--lake", str(tmp_path / "lake"), "--port", "0"]
    more = [part.format(folder=tmp_path, port=taken_port) for part in given]
    with pytest.raises(SystemExit) as ended:
        main(["collect", *usual, "--state", str(tmp_path / "state.db"), *more])
    told = capfd.readouterr().err
    assert ended.value.code == 2
    assert line in told
    assert "Traceback" not in told
    assert TOKEN not in told
    if "Usage" not in told:
        assert len(told.splitlines()) == 1
