"""Configuration: strict, and every error names its path."""

from itertools import pairwise
from pathlib import Path

import pytest

from understudy import config as configuration
from understudy.errors import BadInput
from understudy.section import canonical_json, from_json

ROOT = Path(__file__).resolve().parent.parent.parent
MINIMAL = """
source:
  impressions: [{files: ["log*"]}]
  user: u
  item: i
  time: t
  outcomes: {click: c}
"""

BAD = {
    "broken YAML": ("source: [", "line 1, column 10: expected YAML"),
    "an unknown key": (MINIMAL + "sampling: {negative_rat: 0.5}", "sampling.negative_rat: expected no such key"),
    "a wrong type": (MINIMAL + "window: {days: many}", "window.days: "),
    "a rate above 1": (MINIMAL + "sampling: {negative_rate: 1.5}", "negative_rate: expected a number of at least"),
    "a rate below 0": (MINIMAL + "sampling: {negative_rate: -0.1}", "negative_rate: expected a number of at least"),
    "no source": (
        "window: {days: 3}",
        "source: expected either source (raw logs) or logging (a feed's own), found none",
    ),
    "an unknown zone": (MINIMAL + "time_zone: Mars/Olympus", "time_zone: expected an IANA name"),
    "a list": ("- 1", "expected keys such as source, found list"),
    "an outcome as an input": (
        MINIMAL + "  users: {files: [u], key: u, numeric: [c]}",
        "column 'c' is an outcome and can never become an input",
    ),
    "an unknown primary head": (MINIMAL + "evaluation: {primary_heads: [buy]}", "expected one of click, found 'buy'"),
    "a refresh that divides no day": (MINIMAL + "features: {refresh: 7h}", "a duration that divides a day"),
    "a rate that is no number": (MINIMAL + "sampling: {negative_rate: .nan}", "negative_rate: expected a number"),
    "a bound without end": (
        MINIMAL + "training: {weight_decay: .inf}",
        "weight_decay: expected a number of at least 0",
    ),
    "a duration of ages": (MINIMAL + "labels: {attribution_window: 999999999d}", "labels: expected a duration"),
    "the same key twice": (MINIMAL + "window: {days: 3}\nwindow: {days: 4}", "found the key 'window' twice"),
    "a list as a key": ("? [a]\n: 1", "expected YAML"),
    "aliases without end": (
        "a: &a [x, x, x]\n" + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in pairwise("abcdefgh")),
        "expected at most 100000 values",
    ),
    "a value that contains itself": ("a: &a [*a]", "found ValueError: a value that contains itself"),
    "brackets without end": ("[" * 50_000, "expected plain nested keys"),
    "a head that names no column": (MINIMAL.replace("click: c", "'cl ick': c"), "outcomes: expected a name of letters"),
    "no outcome": (MINIMAL.replace("click: c", ""), "outcomes: expected at least one outcome"),
    "an attribute named as a key": (
        MINIMAL + "  users: {files: [u], key: k, categorical: [user_id]}",
        "expected each column once, and none named",
    ),
    "unknown head of a teacher": (
        MINIMAL + "training: {distillation: {heads: {like: {alpha: 0.1}}}}",
        "training.distillation.heads: expected one of",
    ),
    "more folds than members": (
        MINIMAL + "training: {ensemble: {members: 3, folds: 4}}",
        "members: expected at least as many as folds (4), found 3",
    ),
    "no such teacher": (
        MINIMAL + "training: {distillation: {teacher: the best}}",
        "expected production, ensemble or none, found 'the best'",
    ),
    "no such mode": (MINIMAL + "sampling: {mode: flink}", "mode: expected spark or loader, found 'flink'"),
    "code in YAML": ("source: !!python/object/apply:os.system [ls]", "expected YAML"),
}


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD.keys())
def test_a_bad_configuration_is_one_clear_line(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "understudy.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        configuration.load(path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected a file, found none"):
        configuration.load(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_valid_and_survive_canonical_json(path: Path) -> None:
    config = configuration.load(path)
    assert from_json(configuration.Config, canonical_json(config)) == config


def test_a_variation_adds_to_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(MINIMAL + "sampling: {negative_rate: 0.5, seed: 3}\n")
    (tmp_path / "own.yaml").write_text("base: base.yaml\nsampling: {seed: 4}\nwindow: {days: 3}\n")
    found = configuration.load(tmp_path / "own.yaml")
    assert (found.sampling.negative_rate, found.sampling.seed, found.window.days) == (0.5, 4, 3)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("../base.yaml", "base: expected the name of a file beside it, found '../base.yaml'"),
        ("7", "base: expected the name of a file beside it, found 7"),
        ("none.yaml", "none.yaml: expected a file, found none"),
        ("own.yaml", "base: expected a file without a base, found one in own.yaml"),
    ],
)
def test_a_base_that_cannot_be_used_is_one_clear_line(tmp_path: Path, base: str, expected: str) -> None:
    (tmp_path / "own.yaml").write_text(f"base: {base}\n")
    with pytest.raises(BadInput) as error:
        configuration.load(tmp_path / "own.yaml")
    assert expected in str(error.value)
