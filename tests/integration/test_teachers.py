"""Teachers on real logs: production, an ensemble, a control beside them, and what each was worth."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from steps import FIRST, RUN, SECOND, run_of, small, through

from understudy.config import Config
from understudy.lake import Lake
from understudy.releases import read_manifest
from understudy.runs import Run
from understudy.runs.planning import draft_plan
from understudy.training import member
from understudy.training.config import Distillation, Ensemble, Variant

pytestmark = pytest.mark.usefixtures("session")  # the steps before training are Spark's


@pytest.fixture(scope="module")
def second(taught: Path) -> Run:
    """The second run, taught by the first release, with a control."""
    return run_of(str(taught), SECOND)


def test_the_first_taught_run_has_a_control_and_says_what_the_teacher_was_worth(second: Run) -> None:
    assert second.plan().control
    figures = second.manifest("evaluate")["figures"]["teaching"]  # type: ignore[index]
    for head in ("click", "long_view"):
        low, high = figures["control"][head]["auc_interval"]
        assert low < figures["control"][head]["auc"] < high
        edge = figures["edge"][head]
        shown = edge["auc_interval"][0] > 0
        kept = figures["control"][head]["auc"] / edge["auc"]
        assert figures["retained"][head] == (pytest.approx(kept, abs=1e-5) if shown else None)
    (release,) = [one for one in [second.manifest("publish_release")] if one]
    manifest = read_manifest(second.lake, release["figures"]["digest"])
    assert manifest["control"]["click"] == figures["control"]["click"]["auc"]
    reasons = [v["reason"] for v in second.manifest("evaluate")["verdicts"]]  # type: ignore[index]
    assert any("student − control" in reason for reason in reasons)


def test_the_control_differs_in_nothing_but_the_teacher(
    second: Run, taught: Path, config: Config, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    shutil.copytree(taught, lake)
    alone = small(config, distillation=Distillation(teacher="none"))
    run = through(str(lake), alone, SECOND, "train_ranker", like=run_of(str(lake), SECOND), own="train_ranker")
    control = second.manifest("train_ranker")["files"]["control/model.safetensors"]["sha256"]  # type: ignore[index]
    assert control == run.manifest("train_ranker")["files"]["model.safetensors"]["sha256"]  # type: ignore[index]


def test_the_teacher_scores_each_row_once_and_the_row_says_who_spoke(second: Run) -> None:
    scores = second.lake.dataset(second.table_path("train_ranker", "teacher_scores")).to_table()
    rows = second.lake.dataset(second.table_path("retrieve_features", "training_set")).to_table()
    assert sorted(scores["row_key"].to_pylist()) == sorted(rows["row_key"].to_pylist())
    assert scores["teacher"].unique().to_pylist() == [second.plan().teacher]
    place = pc.index_in(rows["row_key"], scores["row_key"])
    days = rows["day"].cast(pa.string()).to_pylist()
    ages = dict(zip(days, scores["teacher_age_days"].take(place).to_pylist(), strict=True))
    assert ages[FIRST] == 0
    assert ages[SECOND] == 2


def test_the_next_run_trains_no_control_until_its_turn(second: Run, config: Config) -> None:
    lake = second.lake
    assert not draft_plan(lake, small(config), "2022-05-03").control
    assert draft_plan(lake, small(config, control_every=1), "2022-05-03").control


def test_a_teacher_reads_its_own_features_where_the_student_has_others(
    second: Run, released: Path, config: Config, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    shutil.copytree(released, lake)
    other = dataclasses.replace(config.features, half_lives=("3d", "14d"), recent_events=20, crosses=("topic",))
    run = through(str(lake), dataclasses.replace(small(config), features=other), SECOND, "train_ranker")
    inputs = json.loads(run.lake.read_bytes(run.manifest("train_ranker")["files"]["inputs.json"]["path"]))  # type: ignore[index]
    assert (inputs["half_lives"], inputs["recent_events"], inputs["crosses"]) == (["3d", "14d"], 20, ["topic"])
    service = run.lake.read_json(run.manifest("retrieve_features")["files"]["feature_service.json"]["path"])  # type: ignore[index]
    names = service["views"]["user_history"]["features"]
    assert "impressions_3d" in names
    assert "impressions_1d" not in names
    scores = [one.lake.dataset(one.table_path("train_ranker", "teacher_scores")).to_table() for one in (second, run)]
    same = [np.asarray(one.sort_by("row_key")["logit_click"]) for one in scores]
    np.testing.assert_allclose(same[0], same[1], atol=1e-5)


ENSEMBLE = Ensemble(
    members=5,
    folds=2,
    processes=1,
    variants=(
        Variant(),
        Variant(ids=False),
        Variant(feature_share=0.5),
        Variant(hidden=(8, 8)),
        Variant(day_share=0.4),
    ),
)


@pytest.fixture(scope="module")
def ensemble(released: Path, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run taught by an ensemble; it was stopped after two members and goes on."""
    lake = tmp_path_factory.mktemp("ensemble") / "lake"
    shutil.copytree(released, lake)
    taught_by = small(config, distillation=Distillation(teacher="ensemble", alpha=0.9), ensemble=ENSEMBLE)
    like = run_of(str(lake), FIRST)
    run = through(str(lake), taught_by, FIRST, "check_drift", like=like)
    seen: list[str] = []
    patch = pytest.MonkeyPatch()

    def third_dies(folder: str, number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt
        member_process(folder, number)

    member_process = member._work
    patch.setattr(member, "_work", third_dies)
    with pytest.raises(KeyboardInterrupt):
        RUN["train_ranker"][0](str(lake), run.id, taught_by.section("training", "sampling"))
    done = list(lake.glob("runs/*/steps/train_ranker/checkpoints/ensemble/done/*"))
    assert 1 <= len(done) < 5
    before = {path: path.stat().st_mtime_ns for path in done}

    def counted(folder: str, number: int) -> None:
        seen.append(f"{number:02d}")
        assert {path: path.stat().st_mtime_ns for path in before} == before
        member_process(folder, number)

    patch.setattr(member, "_work", counted)
    through(str(lake), taught_by, FIRST, "evaluate", like=like, own="train_ranker")
    patch.undo()
    assert sorted(seen + [path.name[:2] for path in done]) == ["00", "01", "02", "03", "04"]
    return Run(Lake.open(str(lake)), run.id)


def test_a_row_is_taught_by_the_members_that_did_not_see_it(ensemble: Run) -> None:
    scores = ensemble.lake.dataset(ensemble.table_path("train_ranker", "teacher_scores")).to_table().to_pandas()
    members = ensemble.lake.dataset(ensemble.table_path("train_ranker", "member_scores")).to_table().to_pandas()
    assert members.groupby("row_key").size().eq(5).all()
    outside = members[members["out_of_fold"]].groupby("row_key")["logit_click"].agg(["mean", "size"])
    joined = scores.set_index("row_key").join(outside)
    np.testing.assert_allclose(joined["logit_click"], joined["mean"], atol=1e-5)
    train = ensemble.lake.dataset(ensemble.table_path("retrieve_features", "training_set")).to_table()
    training_rows = train.filter(pc.equal(train["split"], "train"))["row_key"].to_pylist()
    assert set(joined.loc[training_rows, "size"]) == {2, 3}
    assert set(joined.drop(training_rows)["size"]) == {5}


def test_the_record_says_whether_the_ensemble_beats_its_best_member(ensemble: Run) -> None:
    found = ensemble.manifest("evaluate")["figures"]["teaching"]  # type: ignore[index]
    click = found["ensemble"]["click"]
    assert click["ensemble"] > click["mean"]
    assert click["best"] >= click["mean"]
    assert found["teacher"]["click"]["student_auc"] > 0.55
    members = ensemble.manifest("train_ranker")["figures"]["members"]  # type: ignore[index]
    assert members[1]["ids"] is False
    assert "ids" not in members[0]


def test_a_members_files_score_as_it_spoke(ensemble: Run) -> None:
    from understudy.inputs import encode
    from understudy.ranker.files import from_files
    from understudy.ranker.fitting import as_tensors

    lake, manifest = ensemble.lake, ensemble.manifest("train_ranker")
    rows = lake.dataset(ensemble.table_path("retrieve_features", "training_set")).to_table().slice(0, 500)
    scores = lake.dataset(ensemble.table_path("train_ranker", "member_scores")).to_table()
    for number in range(5):
        files = {
            name.rpartition("/")[2]: lake.read_bytes(one["path"])
            for name, one in manifest["files"].items()  # type: ignore[index]
            if name.startswith(f"members/{number:02d}/")
        }
        model = from_files(files)
        logits = model(as_tensors(encode(rows, model.inputs))).detach().numpy()
        own = scores.filter(pc.equal(scores["member"], number))
        said = own["logit_click"].take(pc.index_in(rows["row_key"], own["row_key"]))
        np.testing.assert_allclose(logits[:, model.inputs.heads.index("click")], np.asarray(said), atol=1e-4)
