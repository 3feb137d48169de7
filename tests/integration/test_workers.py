"""Training by several processes, as ``torchrun`` starts them, on real logs."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from steps import SECOND, run_of, small, undo

from understudy.config import Config
from understudy.runs import Run
from understudy.training import step as training


@pytest.fixture(scope="module")
def prepared(taught: Path, config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Config]:
    """A second run up to its training, in a lake of its own."""
    lake = tmp_path_factory.mktemp("workers") / "lake"
    shutil.copytree(taught, lake)
    run = run_of(str(lake), SECOND)
    undo(run, "train_ranker")
    return run, small(config)


def torchrun(run: Run, section: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words = ["-m", "understudy.training.workers", run.lake.uri(), run.id, section]
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=300, check=False)


def test_two_processes_commit_once_and_learn_what_one_does(prepared: tuple[Run, Config], tmp_path: Path) -> None:
    run, config = prepared
    section = config.section("training", "sampling")
    shutil.copytree(run.lake.root, tmp_path / "lake")
    alone = training.run(str(tmp_path / "lake"), run.id, section)
    done = torchrun(run, section)
    assert done.returncode == 0, done.stderr
    shared = run.manifest("train_ranker")
    assert shared is not None
    curves = [[point["stop_loss"] for point in one["figures"]["curve"]] for one in (alone, shared)]
    np.testing.assert_allclose(curves[0], curves[1], rtol=0.01)
    assert shared["figures"]["teacher"]["digest"] == run.plan().teacher
    assert run.plan().control
    assert set(shared["files"]) == set(alone["files"])
    assert [name for name in run.lake.names(run.folder, "steps", "train_ranker") if name.startswith("attempt-")] == [
        shared["attempt"].rpartition("/")[2]
    ]
    assert done.stderr.count("rows train") == 1, "only the first process speaks"


def test_processes_of_a_committed_step_have_nothing_to_do(prepared: tuple[Run, Config]) -> None:
    run, config = prepared
    before = run.manifest("train_ranker")
    done = torchrun(run, config.section("training", "sampling"))
    assert done.returncode == 0, done.stderr
    assert "committed already, skipped" in done.stderr
    assert run.manifest("train_ranker") == before


def test_a_failure_of_the_step_ends_all_processes_and_stands_in_the_record(
    prepared: tuple[Run, Config], tmp_path: Path
) -> None:
    run, config = prepared
    shutil.copytree(run.lake.root, tmp_path / "lake")
    broken = Run(type(run.lake)(str(tmp_path / "lake")), run.id)
    broken.lake.remove(broken.folder, "steps", "train_ranker")
    broken.lake.remove(broken.table_path("retrieve_features", "training_set"))
    done = torchrun(broken, config.section("training", "sampling"))
    assert done.returncode != 0
    error = broken.last_error()
    assert error is not None
    assert (error["step"], error["exit_code"]) == ("train_ranker", 2)
