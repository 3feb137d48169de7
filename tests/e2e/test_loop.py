"""The loop on a laptop: the real pipeline, real Spark, Feast and Evidently, each step its own process."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import CLI, ROOT, understudy
from waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # two whole runs come before the first test

CONFIG = str(ROOT / "examples" / "generated.yaml")
WINDOW_END = "2022-04-30"


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of generated logs that no run has seen."""
    folder = tmp_path_factory.mktemp("loop")
    understudy("generate", "--out", str(folder / "logs"), "--rows", "20000")
    understudy("ingest", "--config", CONFIG, "--source", str(folder / "logs"), "--lake", str(folder / "lake"))
    return folder / "lake"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, ingested: Path) -> tuple[Path, dict[str, Any]]:
    """The lake after a run that was killed in the middle of training and started again."""
    lake = tmp_path_factory.mktemp("released") / "lake"
    shutil.copytree(ingested, lake)
    command = [*CLI, "run", "--config", CONFIG, "--lake", str(lake), "--window-end", WINDOW_END, "--json"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **quiet) as first:  # type: ignore[call-overload]
        try:
            eventually(lambda: list(lake.glob("runs/*/steps/train_ranker/checkpoints/*")), 900, first)
        finally:
            os.killpg(first.pid, signal.SIGKILL)
    before = {path: path.stat().st_mtime_ns for path in lake.glob("runs/*/steps/*/manifest.json")}
    assert len(before) >= 4
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    return lake, json.loads(done.stdout)


def test_one_command_makes_a_release(released: tuple[Path, dict[str, Any]]) -> None:
    lake, run = released
    assert run["promoted"]
    (one,) = json.loads(understudy("releases", "list", "--lake", str(lake), "--json"))
    assert one["digest"] == run["digest"]
    assert one["aliases"] == ["candidate", "production"]
    assert (one["teacher"], one["window"]["end"]) == (None, WINDOW_END)
    assert one["metrics"]["click"]["auc"] > 0.6


def test_the_report_opens_without_a_network(released: tuple[Path, dict[str, Any]]) -> None:
    _, run = released
    page = Path(run["report"]).read_text()
    assert run["digest"] in page
    for title in ("Verdicts", "Calibration", "ROC", "Training", "Drift", "What sampling kept", "Lineage", "Seconds"):
        assert f"<h2>{title}</h2>" in page
    assert "<script" not in page
    assert 'src="http' not in page


def test_a_released_window_is_not_run_again(released: tuple[Path, dict[str, Any]]) -> None:
    lake, run = released
    again = understudy("run", "--config", CONFIG, "--lake", str(lake), "--window-end", WINDOW_END, "--json")
    assert json.loads(again)["digest"] == run["digest"]


@pytest.mark.slow
def test_a_run_in_another_folder_makes_the_same_release(
    tmp_path: Path, ingested: Path, released: tuple[Path, dict[str, Any]]
) -> None:
    shutil.copytree(ingested, tmp_path / "elsewhere")
    lake = str(tmp_path / "elsewhere")
    run = json.loads(understudy("run", "--config", CONFIG, "--lake", lake, "--window-end", WINDOW_END, "--json"))
    assert run["digest"] == released[1]["digest"]


def test_any_days_can_be_scored_with_a_release(released: tuple[Path, dict[str, Any]]) -> None:
    lake, run = released
    days = ("--from", "2022-05-01", "--to", "2022-05-02")
    found = json.loads(understudy("evaluate", "--release", "production", "--lake", str(lake), *days, "--json"))
    assert found["release"] == run["digest"]
    assert set(found["by_day"]) == {"2022-05-01", "2022-05-02"}
    click = found["heads"]["click"]
    for name in ("auc", "log_loss", "normalized_entropy", "calibration_ratio", "ece"):
        low, high = click[f"{name}_interval"]
        assert low < high
    assert click["auc"] > 0.6


def test_isotonic_calibration_passes_the_same_gates(tmp_path: Path, released: tuple[Path, dict[str, Any]]) -> None:
    from understudy import config as configuration
    from understudy.calibration import step as calibration
    from understudy.evaluation import step as evaluation

    shutil.copytree(released[0], tmp_path / "lake")
    lake, run_id = str(tmp_path / "lake"), released[1]["run"]
    for step in ("calibrate", "evaluate", "publish_release", "promote"):
        shutil.rmtree(tmp_path / "lake" / "runs" / run_id / "steps" / step)
    value = yaml.safe_load(Path(CONFIG).read_text()) | {"calibration": {"method": "isotonic"}}
    config = configuration.parse(value, "test")
    calibrated = calibration.run(lake, run_id, config.section("calibration", "training"))["figures"]
    assert all(len(one["x"]) > 10 for one in calibrated["calibrators"].values())
    evaluated = evaluation.run(lake, run_id, config.section("evaluation"))
    assert {verdict["outcome"] for verdict in evaluated["verdicts"]} <= {"pass", "report", "warn"}
    after, before = (evaluated["figures"][name]["click"] for name in ("heads", "before_calibration"))
    assert abs(after["calibration_ratio"] - 1) < 0.1
    assert after["auc"] == pytest.approx(before["auc"], abs=1e-3)


def test_a_failed_gate_stops_the_pipeline_visibly_and_keeps_production(
    tmp_path: Path, released: tuple[Path, dict[str, Any]]
) -> None:
    lake, run = released
    value = yaml.safe_load(Path(CONFIG).read_text())
    value["evaluation"]["min_auc"] = 0.99
    strict = tmp_path / "strict.yaml"
    strict.write_text(yaml.safe_dump(value))
    said = understudy("run", "--config", str(strict), "--lake", str(lake), "--window-end", WINDOW_END, code=3)
    assert "AUC click is" in said
    assert "it must be at least 0.99" in said
    releases = json.loads(understudy("releases", "list", "--lake", str(lake), "--json"))
    assert [one["digest"] for one in releases] == [run["digest"]]
    runs = json.loads(understudy("runs", "list", "--lake", str(lake), "--json"))
    (failed,) = [one for one in runs if one["status"] == "gate failed"]
    page = (lake / "runs" / failed["run"] / "report.html").read_text()
    assert "Stopped: gate AUC: click said no" in page


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config", "none.yaml"], "configuration none.yaml: expected a file"),
        (["--config", CONFIG, "--window-end", "2031-01-01"], "expected a complete day"),
        (["--config", CONFIG, "--window-end", "2022-04-25"], "expected impressions on 2 days"),
    ],
)
def test_bad_input_leaves_the_lake_as_it_was(ingested: Path, arguments: list[str], expected: str) -> None:
    before = sorted(ingested.rglob("*"))
    said = understudy("run", "--lake", str(ingested), *arguments, code=2)
    assert expected in said
    assert said.count("\n") == 1
    assert sorted(ingested.rglob("*")) == before


def test_the_same_graph_compiles_for_kubeflow(tmp_path: Path) -> None:
    from kfp.components import load_component_from_text

    from pipelines.retraining import STEPS

    understudy("compile", "--config", CONFIG, "-o", str(tmp_path / "pipeline.yaml"))
    spec, *_ = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    executors = {name.removeprefix("exec-").replace("-", "_") for name in spec["deploymentSpec"]["executors"]}
    assert executors == {*STEPS, "plan_window", "write_report"}
    assert all("image" in e["container"] for e in spec["deploymentSpec"]["executors"].values())
    text = (tmp_path / "pipeline.yaml").read_text()
    assert len(text) < 500_000
    assert str(ROOT) not in text
    assert set(load_component_from_text(text).component_spec.inputs) == {"lake", "window_end", "again"}
    images = {e["container"]["image"].rpartition("/")[2] for e in spec["deploymentSpec"]["executors"].values()}
    assert {image.partition("-")[0] for image in images} == {"spark", "tools", "train"}
