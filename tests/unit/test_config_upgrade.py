"""`understudy config upgrade`: old keys get today's names, and not another byte of the file changes."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from understudy import config as configuration
from understudy import renames
from understudy.cli import main
from understudy.errors import BadInput
from understudy.renames import Rename
from understudy.strict_yaml import parsed
from understudy.upgrading import Done, upgraded

MINIMAL = """
source:
  impressions: [{files: ["log*"]}]
  user: u
  item: i
  time: t
  outcomes: {click: c}
"""
TABLE = (
    Rename("key", "sampling.rate_of_negatives", "sampling.negative_rate", "0.2.0"),
    Rename("key", "sampling.rules[].keep", "sampling.rules[].negative_rate", "0.2.0"),
    Rename("key", "training.held", "rollout.held", "0.2.0"),
    Rename("key", "training.pods", "pipeline.steps", "0.2.0"),
    Rename("key", "days", "window", "0.2.0"),
)
OLD = (
    MINIMAL
    + """
# The beginning.
sampling:          # what is kept
    'rate_of_negatives':   5.0e-1    # half
    rules:
    - {name: new, column: surface, values: ["1"], keep: .25}   # one
    -   name: old   # two
        column: surface
        values: [ "2" ]
        "keep": 0.5
training:
  control_every: 0
  # Buckets that keep
  # the release before.
  held: 3          # of 100

  # About the network.
  ranker: {hidden: [8]}
days: {days: 7}  # a week
"""
)
NEW = (
    MINIMAL
    + """
# The beginning.
sampling:          # what is kept
    'negative_rate':   5.0e-1    # half
    rules:
    - {name: new, column: surface, values: ["1"], negative_rate: .25}   # one
    -   name: old   # two
        column: surface
        values: [ "2" ]
        "negative_rate": 0.5
training:
  control_every: 0

  # About the network.
  ranker: {hidden: [8]}
window: {days: 7}  # a week
rollout:
  # Buckets that keep
  # the release before.
  held: 3          # of 100
"""
)
# text with an old key → the same under today's name; both without the source
MOVED = {
    "to a section that is there": (
        "rollout:\n    mode: none   # yet\n\n# End of it.\ntraining:\n  held: 3\n  seed: 1\n",
        "rollout:\n    mode: none   # yet\n    held: 3\n\n# End of it.\ntraining:\n  seed: 1\n",
    ),
    "the last key of its section": (
        "training:   # none\n  held: 3\nrollout:\n  mode: none\n",
        "training: {}   # none\nrollout:\n  mode: none\n  held: 3\n",
    ),
    "between braces": (
        "training: {held: 3, seed: 1}\nrollout: {mode: none}  # now\n",
        "training: {seed: 1}\nrollout: {mode: none, held: 3}  # now\n",
    ),
    "out of braces": ("training: {seed: 1, held: 3}\n", "training: {seed: 1}\nrollout:\n  held: 3\n"),
    "into empty braces": ("training: {held: 3}\nrollout: {}\n", "training: {}\nrollout: {held: 3}\n"),
    "at the end of a file without a newline": (
        "training:\n  seed: 1\n  held: 3",
        "training:\n  seed: 1\nrollout:\n  held: 3\n",
    ),
    "a whole section, further in": (
        "training:\n  seed: 1\n  pods:\n    all:\n      cpu: '1'   # one\n\n      memory: 1Gi\n# End.\n"
        "pipeline:\n    host: ''\n",
        "training:\n  seed: 1\n# End.\npipeline:\n    host: ''\n"
        "    steps:\n      all:\n        cpu: '1'   # one\n\n        memory: 1Gi\n",
    ),
    "before the end of the document": (
        "training: {held: 3, seed: 1}\n...\n# done\n",
        "training: {seed: 1}\nrollout:\n  held: 3\n...\n# done\n",
    ),
}


@pytest.fixture(autouse=True)
def in_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renames, "VERSION", "0.2.0")
    monkeypatch.setattr(renames, "RENAMES", TABLE)


def file(folder: Path, text: str = OLD, name: str = "my.yaml") -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


def understudy(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["config", "upgrade", *arguments])
    return int(ended.value.code or 0)


# the text


def test_keys_get_their_new_names_and_all_else_stays() -> None:
    text, done = upgraded(OLD)
    assert text == NEW
    assert done == [
        Done("sampling.rate_of_negatives", "sampling.negative_rate", 11),
        Done("sampling.rules[0].keep", "sampling.rules[0].negative_rate", 13),
        Done("sampling.rules[1].keep", "sampling.rules[1].negative_rate", 17),
        Done("training.held", "rollout.held", 22),
        Done("days", "window", 26),
    ]


@pytest.mark.parametrize(("old", "new"), MOVED.values(), ids=MOVED.keys())
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_key_moves_to_the_end_of_its_new_section(old: str, new: str, newline: str) -> None:
    def lines(text: str) -> str:
        return (MINIMAL + text).replace("\n", newline)

    assert upgraded(lines(old))[0] == lines(new)


def test_a_key_that_was_renamed_twice_gets_its_last_name(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = (Rename("key", "a.b", "a.c", "0.2.0"), Rename("key", "a.c", "d.e", "0.3.0"))
    monkeypatch.setattr(renames, "RENAMES", twice)
    assert upgraded("a: {b: 1}\n")[0] == "a: {}\nd:\n  e: 1\n"


BY_HAND = {
    "a merge brings it": ("x: &x {held: 3}\ntraining: {<<: *x, seed: 1}\n", "a YAML alias or merge brings it"),
    "an alias stands for it": ("window: &x {held: 3}\ntraining: *x\n", "a YAML alias or merge brings it"),
    "an anchor stands at it": ("sampling: {&a rate_of_negatives : 1}\n", "the key is written in another way"),
    "an escape is in it": ('sampling: {"rate_of_negative\\x73": 1}\n', "the key is written in another way"),
    "its braces go over lines": ("training: {seed: 1,\n  held: {a:\n 3}}\n", "it stands in braces over several lines"),
    "a comment is in its new braces": ("training:\n  seed: 1\n  held: 3  # x\nrollout: {}\n", "is written in braces"),
    "its new section is an alias": ("a: &x {b: 1}\ntraining: {held: 3, seed: 1}\nrollout: *x\n", "says something else"),
}


@pytest.mark.parametrize(("text", "why"), BY_HAND.values(), ids=BY_HAND.keys())
def test_what_cannot_be_edited_safely_is_left_to_a_person(text: str, why: str) -> None:
    with pytest.raises(BadInput, match=rf"^(line \d+: )?`[\w.]+` is called `[\w.]+`; rename it by hand: .*{why}"):
        upgraded(text)


SPACES = st.text(" ", max_size=3)
COMMENTS = st.sampled_from(["", "  # why", " # held: 4", "   #: x, {y}"])
ABOVE = ["", "\n", "# odd\n"]
KEPT = r"\s*(seed|control_every|mode|rules|look|source|user|item).*"  # lines that hold no old key


@st.composite
def files(draw: st.DrawFn) -> str:
    """A configuration with old keys, in many hands: order, indentation, quotes, comments, blank lines, braces."""
    quote = draw(st.sampled_from(["", "'", '"']))
    sections = {
        "training": [f"{quote}held{quote}:{draw(SPACES)} {draw(st.sampled_from(['3', '0x3', '+3']))}", "seed: 1"],
        "sampling": ["rules: []", f"rate_of_negatives: {draw(st.floats(0.1, 1))!r}"],
        "rollout": ["mode:  'none'", "look: 2h"],
        "days": [f"days:{draw(SPACES)} 7"],
    }
    if draw(st.booleans()):
        sections["training"].append("control_every:   0")
    if draw(st.booleans()):
        del sections["rollout"]
    text = MINIMAL
    for name in draw(st.permutations(sorted(sections))):
        entries = draw(st.permutations(sections[name]))
        text += draw(st.sampled_from([*ABOVE, "  # odd\n"]))
        if draw(st.booleans()):
            text += f"{name}: {{{', '.join(entries)}}}{draw(COMMENTS)}\n"
            continue
        text += f"{name}:{draw(COMMENTS)}\n"
        indent = " " * draw(st.integers(1, 4))
        for entry in entries:
            text += draw(st.sampled_from([*ABOVE, f"{indent}# About it\n"]))
            text += f"{indent}{entry}{draw(COMMENTS)}\n"
    return text if draw(st.booleans()) else text.rstrip("\n")


@settings(max_examples=30, deadline=None)
@given(text=files())
def test_the_upgraded_file_says_the_same_and_keeps_every_comment(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renames, "VERSION", "0.2.0")
        patch.setattr(renames, "RENAMES", TABLE)
        try:
            after, done = upgraded(text)
        except BadInput as error:
            event(str(error).rpartition(": ")[2])
            assert re.search(r"rollout: \{", text)  # a comment does not go into braces
            return
        event("upgraded")
        path = file(tmp_path_factory.mktemp("a"), text)
        before = configuration.load(path)
        assert configuration.load(file(path.parent, after)) == before
        assert parsed(after)[0] == renames.today(parsed(text)[0])
        assert {one.new for one in done} == {"rollout.held", "sampling.negative_rate", "window"}
        assert sorted(re.findall(r"#.*", after)) == sorted(re.findall(r"#.*", text))
        assert [one for one in after.splitlines() if re.fullmatch(KEPT, one)] == [
            one for one in text.splitlines() if re.fullmatch(KEPT, one)
        ]
        assert upgraded(after) == (after, [])


# the command


def test_the_file_is_renamed_in_place_and_loads_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path)
    path.chmod(0o640)
    before = configuration.load(path)
    capsys.readouterr()
    assert understudy(str(path)) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"{path}, line 11: sampling.rate_of_negatives → sampling.negative_rate",
        f"{path}, line 13: sampling.rules[0].keep → sampling.rules[0].negative_rate",
        f"{path}, line 17: sampling.rules[1].keep → sampling.rules[1].negative_rate",
        f"{path}, line 22: training.held → rollout.held",
        f"{path}, line 26: days → window",
    ]
    assert err == ""
    assert path.read_bytes() == NEW.encode()
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in tmp_path.iterdir()] == ["my.yaml"]
    assert configuration.load(path) == before


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.yaml").symlink_to(file(tmp_path))
    assert understudy(str(tmp_path / "link.yaml")) == 0
    assert (tmp_path / "link.yaml").is_symlink()
    assert (tmp_path / "my.yaml").read_text() == NEW


def test_a_dry_run_says_the_same_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path)
    stamp = path.stat()
    assert understudy(str(path), "--dry-run") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{path}: 5 to rename; nothing is written"
    assert (path.read_text(), path.stat().st_ino) == (OLD, stamp.st_ino)


def test_a_file_with_todays_names_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path, NEW)
    os.utime(path, (1, 1))
    stamp = path.stat()
    assert understudy(str(path)) == 0
    assert capsys.readouterr().out == f"{path}: every key has today's name; nothing is written\n"
    assert (path.stat().st_mtime, path.stat().st_ino) == (1, stamp.st_ino)


def test_a_name_that_works_no_more_is_renamed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renames, "VERSION", "0.9.0")
    path = file(tmp_path)
    with pytest.raises(BadInput):
        configuration.load(path)
    assert understudy(str(path)) == 0
    assert configuration.load(path).rollout.held == 3


def test_a_base_is_named_and_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = file(tmp_path, OLD, "base.yaml")
    path = file(tmp_path, "base: base.yaml\ntraining: {held: 4}\n")
    assert understudy(str(path)) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{path}, line 2: training.held → rollout.held",
        f"{base}: 5 old names too; `understudy config upgrade {base}` renames them",
    ]
    assert path.read_text() == "base: base.yaml\ntraining: {}\nrollout:\n  held: 4\n"
    assert base.read_text() == OLD


def test_json_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = file(tmp_path, MINIMAL + "days: {days: 3}\n", "base.yaml")
    path = file(tmp_path, "base: base.yaml\ntraining: {held: 4}\n")
    assert understudy(str(path), "--json", "--dry-run") == 0
    held = {"old": "training.held", "new": "rollout.held", "line": 2}
    assert json.loads(capsys.readouterr().out) == {
        "file": str(path),
        "written": False,
        "renamed": [held],
        "base": {"file": str(base), "renamed": [{"old": "days", "new": "window", "line": 8}]},
    }
    assert understudy(str(path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["written"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (OLD + "nonsense: 1\n", "nonsense: expected no such key"),
        (OLD.replace("held: 3", "held: many"), "rollout.held: "),
        (OLD + "rollout: {held: 3}\n", "`training.held` and `rollout.held`: expected one of the two names"),
        (OLD.replace("held: 3 ", "held: [") + "\n", "expected YAML"),
    ],
    ids=["an unknown key", "a wrong value", "both names", "broken YAML"],
)
def test_a_file_with_another_fault_says_so_in_one_line_and_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, line: str
) -> None:
    path = file(tmp_path, text)
    assert understudy(str(path)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"error: configuration {path}")
    assert line in err
    assert path.read_text() == text


@pytest.mark.parametrize("data", [OLD.encode("utf-16"), None], ids=["UTF-16", "no file"])
def test_a_file_that_cannot_be_edited_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes | None
) -> None:
    path = tmp_path / "my.yaml"
    if data is not None:
        path.write_bytes(data)
    assert understudy(str(path)) == 2
    assert re.match(r"error: configuration .*: expected (UTF-8|a file), found ", capsys.readouterr().err)
    assert data is None or path.read_bytes() == data
