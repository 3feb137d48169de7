"""Names that have changed: people have a minor version's time, what a version of ours wrote is read without a word."""

import ast
import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from understudy import __version__, renames
from understudy import config as configuration
from understudy.errors import BadInput
from understudy.kubernetes_api import Conflict
from understudy.lake import Lake
from understudy.renames import Rename, is_newer, names, renamed, today
from understudy.rollout.cluster.operator import Operator
from understudy.rollout.cluster.record import NAME, START, WORD, ClusterRollouts
from understudy.rollout.config import Rollout
from understudy.rollout.driver import Driver
from understudy.rollout.record import Rollouts, entry_of
from understudy.rollout.state import State
from understudy.runs.plan import Plan
from understudy.runs.teaching import decide_teaching
from understudy.sampling.config import Sampling
from understudy.section import canonical_json, content, from_json, part, stored
from understudy.training.config import Distillation, Training

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
    Rename("key", "training.held", "rollout.held", "0.2.0"),
    Rename("key", "sampling.rules[].keep", "sampling.rules[].negative_rate", "0.2.0"),
    Rename("key", "pipeline.steps.*.ram", "pipeline.steps.*.memory", "0.2.0"),
    Rename("key", "days", "window", "0.2.0"),
    Rename("key", "training.ranker.layers", "training.ranker.hidden", "0.2.0"),
    Rename("annotation", "understudy.dev/command", WORD, "0.2.0"),
    Rename("annotation", "understudy.dev/begin", START, "0.2.0"),
    Rename("state", "holdout", "held", "0.2.0"),
)
OLD = {
    "source": {
        "impressions": [{"files": ["log*"]}],
        "user": "u", "item": "i", "time": "t", "outcomes": {"click": "c"},
    },
    "sampling": {"rate_of_negatives": 0.5, "rules": [{"name": "new", "column": "days", "values": ["x"], "keep": 0.5}]},
    "training": {"held": 3, "control_every": 0, "ranker": {"layers": [8]}},
    "pipeline": {"steps": {"all": {"ram": "1Gi"}, "train": {"ram": "2Gi", "cpu": "1"}}},
    "days": {"days": 7},
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, "0.2.3")


def at(monkeypatch: pytest.MonkeyPatch, version: str, table: tuple[Rename, ...] = TABLE) -> None:
    monkeypatch.setattr(renames, "VERSION", version)
    monkeypatch.setattr(renames, "RENAMES", table)


def file(folder: Path, text: str, name: str = "my.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


# what it does to a configuration


def test_keys_are_renamed_move_between_sections_and_keep_their_values() -> None:
    value, found = renamed(OLD)
    assert value["sampling"] == {
        "negative_rate": 0.5,
        "rules": [{"name": "new", "column": "days", "values": ["x"], "negative_rate": 0.5}],
    }
    assert value["training"] == {"control_every": 0, "ranker": {"hidden": [8]}}
    assert value["rollout"] == {"held": 3}
    assert value["pipeline"]["steps"] == {"all": {"memory": "1Gi"}, "train": {"memory": "2Gi", "cpu": "1"}}
    assert value["window"] == {"days": 7}
    assert [(one.old, one.new) for one in found] == [
        ("sampling.rate_of_negatives", "sampling.negative_rate"),
        ("training.held", "rollout.held"),
        ("sampling.rules[0].keep", "sampling.rules[0].negative_rate"),
        ("pipeline.steps.all.ram", "pipeline.steps.all.memory"),
        ("pipeline.steps.train.ram", "pipeline.steps.train.memory"),
        ("days", "window"),
        ("training.ranker.layers", "training.ranker.hidden"),
    ]


def test_what_was_given_is_not_changed() -> None:
    before = json.dumps(OLD)
    renamed(OLD)
    assert json.dumps(OLD) == before


KEYS = st.sampled_from(
    ["sampling", "rate_of_negatives", "negative_rate", "rules", "keep", "training", "held", "rollout", "days",
     "window", "pipeline", "steps", "ram", "memory", "else"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(config=st.dictionaries(KEYS, VALUES, max_size=6))
def test_reading_twice_is_reading_once_and_nothing_gets_lost(config: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at(patch, "0.2.0")
        try:
            once = today(config)
        except BadInput:
            reject()  # a key under both names
        assert today(once) == once
        assert sorted(map(repr, leaves(once))) == sorted(map(repr, leaves(config)))


def leaves(value: Any) -> list[Any]:
    """What is no section with something in it; a section that was emptied says nothing."""
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in leaves(one)]
    if isinstance(value, list):
        return [leaf for one in value for leaf in leaves(one)]
    return [value]


def test_a_key_that_was_renamed_twice_is_told_once_by_its_last_name(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = (Rename("key", "a.b", "a.c", "0.2.0"), Rename("key", "a.c", "d.e", "0.3.0"))
    at(monkeypatch, "0.3.0", twice)
    value, found = renamed({"a": {"b": 1}})
    assert value == {"a": {}, "d": {"e": 1}}
    assert [(one.old, one.new, one.rename.is_over) for one in found] == [("a.b", "d.e", True)]
    assert [(one.old, one.new, one.rename.is_over) for one in renamed({"a": {"c": 1}})[1]] == [("a.c", "d.e", False)]


def test_both_names_at_once_are_an_error_that_names_both() -> None:
    with pytest.raises(BadInput, match=r"`sampling.rate_of_negatives` and `sampling.negative_rate`: expected one of"):
        renamed({"sampling": {"rate_of_negatives": 1, "negative_rate": 1}})
    with pytest.raises(BadInput, match=r"`training.held` and `rollout.held`: .* found both"):
        renamed({"training": {"held": 1}, "rollout": {"held": 1}})


@pytest.mark.parametrize(
    "wrong",
    [
        ("key", "a", "a.b", "0.2.0"),
        ("key", "a.b", "a", "0.2.0"),
        ("key", "a[].b", "c.b", "0.2.0"),
        ("key", "a.*", "a.b", "0.2.0"),
        ("value", "a", "b", "0.2.0"),
    ],
)
def test_a_rename_that_cannot_be_done_is_refused_by_the_table(wrong: tuple[str, str, str, str]) -> None:
    with pytest.raises(AssertionError):
        Rename(*wrong)


@pytest.mark.parametrize(
    ("version", "is_over"),
    [("0.1.0", False), ("0.2.0rc1", False), ("0.2.9", False), ("0.3.0", True), ("0.10.0", True), ("1.0.0", True)],
)
def test_an_old_name_works_for_one_minor_version(monkeypatch: pytest.MonkeyPatch, version: str, is_over: bool) -> None:
    at(monkeypatch, version)
    assert TABLE[0].is_over is is_over


# a file that a person wrote


def test_an_old_key_works_with_a_warning_that_names_line_and_new_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file(tmp_path, MINIMAL + "sampling:\n  # why\n  rate_of_negatives: 0.5\n")
    assert configuration.load(path).sampling.negative_rate == 0.5
    assert capsys.readouterr().err == (
        f"warning: configuration {path}, line 10: `sampling.rate_of_negatives` is now called `sampling.negative_rate`; "
        f"the old name works until version 0.3.0; `understudy config upgrade {path}` renames it\n"
    )


def test_a_version_later_it_is_an_error_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, "0.3.0")
    path = file(tmp_path, MINIMAL + "sampling: {rate_of_negatives: 0.5}")
    with pytest.raises(BadInput) as error:
        configuration.load(path)
    assert str(error.value) == (
        f"configuration {path}, line 8: `sampling.rate_of_negatives` is called `sampling.negative_rate` since version "
        f"0.2.0; `understudy config upgrade {path}` renames it"
    )


def test_a_file_and_its_base_may_use_different_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = file(tmp_path, MINIMAL + "sampling: {rate_of_negatives: 0.5}", "base.yaml")
    own = file(tmp_path, "base: base.yaml\nsampling: {negative_rate: 0.25}")
    assert configuration.load(own).sampling.negative_rate == 0.25
    assert f"configuration {base}, line 8: " in capsys.readouterr().err
    own.write_text("base: base.yaml\nsampling: {rate_of_negatives: 0.125}")
    assert configuration.load(own).sampling.negative_rate == 0.125


def test_both_names_in_a_file_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = file(tmp_path, MINIMAL + "sampling: {rate_of_negatives: 0.5, negative_rate: 0.5}")
    with pytest.raises(BadInput, match=rf"^configuration {path}: `sampling.rate_of_negatives` and .* found both"):
        configuration.load(path)


def test_todays_names_are_no_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configuration.load(file(tmp_path, MINIMAL + "sampling: {negative_rate: 0.5}"))
    assert capsys.readouterr().err == ""


# what a version of ours wrote


@pytest.mark.parametrize("version", ["0.2.0", "0.3.0"])
def test_a_stored_configuration_is_read_under_its_old_names_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], version: str
) -> None:
    at(monkeypatch, version)
    text = canonical_json(OLD)
    config = from_json(configuration.Config, text)
    assert (config.rollout.held, config.window.days, config.pipeline.steps["train"].memory) == (3, 7, "2Gi")
    assert part(Sampling, text, "sampling").negative_rate == 0.5
    assert stored(Training, OLD, "training").ranker.hidden == (8,)
    assert from_json(Training, canonical_json(OLD["training"]), "training") == stored(Training, OLD, "training")
    assert capsys.readouterr() == ("", "")


def test_what_a_stored_configuration_lacks_has_its_default() -> None:
    config = from_json(configuration.Config, canonical_json({"source": OLD["source"]}))
    assert config.sampling == Sampling()
    assert stored(Sampling, {}, "sampling") == Sampling()


def test_a_step_that_is_given_no_section_does_not_take_defaults_for_it() -> None:
    with pytest.raises(BadInput, match="expected the section sampling, found training; upload the pipeline again"):
        part(Sampling, '{"training": {}}', "sampling")


def test_a_step_whose_key_lay_in_a_section_that_it_was_not_given_does_not_take_the_default() -> None:
    kept = content(Rollout())
    assert part(Rollout, canonical_json({"rollout": kept}), "rollout") == Rollout()
    del kept["held"]  # as a version has compiled it in which it was training.held
    with pytest.raises(BadInput, match=r"expected `rollout\.held`, which was `training\.held`, found rollout; upload"):
        part(Rollout, canonical_json({"rollout": kept}), "rollout")
    both = canonical_json({"rollout": kept, "training": {"held": 3}})
    assert part(Rollout, both, "rollout").held == 3


def test_a_key_of_a_later_version_is_an_error_that_says_which_version_wrote_it() -> None:
    with pytest.raises(BadInput) as error:
        stored(Sampling, {"sampling": {"rules": [{"sort": 1}]}}, "sampling", "release 0123", "0.4.1")
    assert str(error.value).startswith("release 0123: `sampling.rules.0.sort`: expected a key that version ")
    assert str(error.value).endswith("found another: version 0.4.1 wrote it; use version 0.4.1 or newer")


def test_a_key_that_no_version_knows_is_an_error_too() -> None:
    with pytest.raises(BadInput, match=r"`sampling\.sort`: .* another version wrote it, or somebody has changed it"):
        stored(Sampling, {"sampling": {"sort": 1}}, "sampling", "release 0123", "0.1.0")


# file → why it reads a release's or plan's configuration as it was written
AS_WRITTEN = {
    "releases/shown.py": "its digest names what was written",
    "simulator/spoiling.py": "a release of this version is spoilt for a rehearsal",
}


def test_every_stored_configuration_is_read_in_todays_names() -> None:
    root = Path(renames.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        if not path.relative_to(root).parts[0].startswith(("pipelines", "components")):
            tree = ast.parse(path.read_text())
            read = {id(arg) for call in ast.walk(tree) if isinstance(call, ast.Call) for arg in _read(call)}
            found |= {str(path.relative_to(root)) for one in ast.walk(tree) if _is_config(one) and id(one) not in read}
    assert found == set(AS_WRITTEN)


def _is_config(node: ast.AST) -> bool:
    """Whether it is ``…["config"]``, read."""
    return isinstance(node, ast.Subscript) and ast.unparse(node.slice) == "'config'" and isinstance(node.ctx, ast.Load)


def _read(call: ast.Call) -> list[ast.expr]:
    """What a call brings to today's names."""
    readers = ("today", "stored", "_sampling_digest")
    return call.args if ast.unparse(call.func).rpartition(".")[2] in readers else []


def plan(**changed: Any) -> dict[str, Any]:
    none = {"production": None, "reference": None, "teacher": None, "control": False, "given_up": False}
    days = dict.fromkeys(("history_start", "window_start", "window_end"), "2026-01-01")
    rest = {"snapshot": 1, "teacher_note": "", "input_fingerprint": "", "config_digest": "", "time_zone": "UTC"}
    same = {"run_id": "r", "purpose": "train", "heads": ["click"], "quarantined": [], "reference_features": None}
    return {**none, **days, **rest, **same, "config": OLD, "version": "0.1.0", **changed}


def test_a_plan_is_read_in_todays_names() -> None:
    assert Plan.from_json(plan()).config["sampling"]["negative_rate"] == 0.5


def test_a_plan_with_a_field_of_a_later_version_names_that_version() -> None:
    with pytest.raises(BadInput, match=r"run r: expected a plan that version .* found one by version 0\.9\.0"):
        Plan.from_json(plan(version="0.9.0", more=1))


def test_a_release_with_old_names_counts_as_one_that_was_trained_alike() -> None:
    training = Training(distillation=Distillation(give_up_after=2))
    kept = json.loads(canonical_json({"training": content(training)}))
    del kept["training"]["distillation"]["teacher"]  # as if it were newer than the release
    manifest = {"digest": "d", "control": {"click": -1.0}, "config": kept, "version": "0.1.0"}
    assert decide_teaching(training, "d", "d", [manifest, manifest]).given_up


STATE = State.begin("r", "c", "s", 1.0, steps=(5, 25), held=2)


def old_state() -> dict[str, Any]:
    value = json.loads(json.dumps(STATE.to_json()))
    value["holdout"] = value.pop("held")
    return dict(value)


def test_a_rollout_is_read_under_its_old_names(tmp_path: Path) -> None:
    lake = Lake.open_or_create(str(tmp_path))
    Rollouts(lake).keep("r", [{**entry_of(STATE, ("begun",)), "state": old_state()}])
    assert Rollouts(lake).load("r") == (1, STATE)


def test_a_rollout_of_a_later_version_is_an_error_that_names_it(tmp_path: Path) -> None:
    lake = Lake.open_or_create(str(tmp_path))
    entry = {**entry_of(STATE, ("begun",)), "state": {**STATE.to_json(), "mood": "good"}, "version": "0.7.0"}
    Rollouts(lake).keep("r", [entry])
    with pytest.raises(
        BadInput, match=r"unknown fields: mood; version 0\.7\.0 wrote it, .* use version 0\.7\.0 or newer"
    ):
        Rollouts(lake).load("r")


def test_an_entry_says_which_version_wrote_it() -> None:
    assert entry_of(STATE, ())["version"] == __version__


@pytest.mark.parametrize(("version", "newer"), [("0.3.0", True), ("0.2.9", False), ("0.1.0", False), ("?", False)])
def test_a_later_minor_version_is_newer(version: str, newer: bool) -> None:
    assert is_newer(version) is newer


# annotations


def test_an_annotation_says_the_same_under_both_names() -> None:
    assert names("annotation", WORD) == (WORD, "understudy.dev/command")
    assert renames.asked({WORD: "abort"}, WORD) == ("abort", (WORD,), "", "")
    asked = renames.asked({"understudy.dev/command": "abort"}, WORD)
    assert asked.value == "abort"
    assert asked.warning == (
        "warning: annotation understudy.dev/command is now called understudy.dev/word; "
        "the old name works until version 0.3.0"
    )


def test_both_annotations_at_once_count_for_nothing() -> None:
    asked = renames.asked({WORD: "abort", "understudy.dev/command": "promote"}, WORD)
    assert asked.value is None
    assert f"{WORD} and understudy.dev/command: expected one name, found 2" in asked.refusal


def test_an_annotation_under_a_name_of_long_ago_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, "0.3.0")
    asked = renames.asked({"understudy.dev/command": "abort"}, WORD)
    assert (asked.value, asked.warning) == (None, "")
    assert asked.refusal == (
        "annotation understudy.dev/command: it is called understudy.dev/word since version 0.2.0; use that name"
    )


class OneMap:
    """A Kubernetes API that has one ConfigMap, and refuses to replace another than the newest."""

    namespace = "recs"

    def __init__(self, **annotations: str) -> None:
        self.found: dict[str, Any] = {"metadata": {"name": NAME, "annotations": annotations, "resourceVersion": "1"}}

    def get(self, kind: str, name: str) -> dict[str, Any]:
        assert (kind, name) == ("ConfigMap", NAME)
        return dict(json.loads(json.dumps(self.found)))

    def replace(self, kind: str, value: dict[str, Any]) -> None:
        if value["metadata"]["resourceVersion"] != self.found["metadata"]["resourceVersion"]:
            raise Conflict("replace", kind)
        version = str(int(value["metadata"]["resourceVersion"]) + 1)
        self.found = {**value, "metadata": {**value["metadata"], "resourceVersion": version}}

    def merge(self, kind: str, name: str, value: dict[str, Any]) -> dict[str, Any]:
        self.found = {**self.found, "data": {**self.found.get("data", {}), **value.get("data", {})}}
        return self.found

    @property
    def annotations(self) -> dict[str, str]:
        return dict(self.found["metadata"]["annotations"])


def operator(api: OneMap, folder: Path, said: list[str]) -> Operator:
    lake = Lake.open_or_create(str(folder))
    record = ClusterRollouts(cast(Any, api), lake)
    nothing = cast(Any, None)
    return Operator(Driver(lake, record, Rollout(), ("click",), nothing, nothing, said.append), record)


def test_the_driver_does_what_an_old_annotation_asks_and_says_how_it_is_called(tmp_path: Path) -> None:
    api, said = OneMap(**{"understudy.dev/command": "abort"}), list[str]()
    operator(api, tmp_path, said).look()
    assert said == [
        "warning: annotation understudy.dev/command is now called understudy.dev/word; "
        "the old name works until version 0.3.0",
        "not understood: no rollout is on; expected rollback, found 'abort'",
    ]
    assert api.annotations == {}


def test_an_old_annotation_that_waits_is_told_once(tmp_path: Path) -> None:
    api, said = OneMap(**{"understudy.dev/begin": "candidate"}), list[str]()
    on = State.begin("r", "c", "s", 1.0)
    api.merge("ConfigMap", NAME, {"data": {"state": json.dumps(on.to_json()), "number": "1", "history": "[]"}})
    one = operator(api, tmp_path, said)
    for _ in range(3):
        one._tell_of_old_names()
    assert len(said) == 1


@pytest.mark.parametrize(
    ("version", "annotations", "answer"),
    [
        ("0.3.0", {"understudy.dev/command": "abort"}, "it is called understudy.dev/word since version 0.2.0"),
        ("0.2.0", {"understudy.dev/command": "abort", WORD: "promote"}, "expected one name, found 2"),
    ],
    ids=["a name of long ago", "both names"],
)
def test_the_driver_answers_an_annotation_that_counts_for_nothing_and_takes_it_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, annotations: dict[str, str], answer: str
) -> None:
    at(monkeypatch, version)
    api, said = OneMap(**annotations, other="stays"), list[str]()
    operator(api, tmp_path, said).look()
    assert len(said) == 1
    assert answer in said[0]
    assert api.annotations == {"other": "stays"}
    assert api.found["data"]["said"] == said[0]


def test_no_old_name_is_used_for_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    keys = {name for cls in (configuration.Config,) for name in _paths(cls, ())}
    assert "rollout.held" in keys
    for one in renames.RENAMES:
        assert one.kind != "key" or one.old not in keys, f"{one.old}: it has its old name still"
        assert one.kind != "state" or one.old not in {f.name for f in dataclasses.fields(State)}


def _paths(cls: Any, above: tuple[str, ...]) -> list[str]:
    found = []
    for one in dataclasses.fields(cls):
        found.append(".".join((*above, one.name)))
        if dataclasses.is_dataclass(one.type):
            found += _paths(one.type, (*above, one.name))
    return found
