"""What `understudy run` makes of a graph that has ended: the record decides, not what the runner says."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from run_records import commit, recorded

from pipelines import local
from pipelines.watching import End
from understudy.cli.main import cli
from understudy.config import Config
from understudy.errors import BadInput, UnderstudyError
from understudy.lake import Lake
from understudy.logs.ingest import ingest
from understudy.runs import Run


def test_a_graph_that_ends_well_without_a_record_is_no_release(
    logs: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a container that vanished, which kfp's Docker runner takes for one that has ended well."""
    ingest(config, str(logs), str(tmp_path / "lake"))
    monkeypatch.setattr(local, "_run_graph", lambda *_: None)
    with pytest.raises(UnderstudyError, match="expected plan_window to commit, found that it ended without a word"):
        local.run_pipeline(config, str(tmp_path / "lake"), runner="docker")


# What happens in a step's process before the step says its first line → what is told of it, and a line above it.
DEATHS = {
    "a package that is not installed": (
        "compact_logs",
        "sys.modules['pyspark'] = None",
        ("ended with exit code 1", "its last line: ModuleNotFoundError: No module named 'pyspark"),
        "in compact_logs\n",
    ),
    "out of memory": (
        "plan_window",
        "print('reading', flush=True); os.kill(os.getpid(), 9)",
        ("was killed by SIGKILL (exit code 137), as it is where memory runs out", "its last line: Killed"),
        "reading\n",
    ),
    "a segfault": (
        "compact_logs",
        "print('\\n'.join(f'{n} hunter22' for n in range(50)), flush=True); os.kill(os.getpid(), 11)",
        ("was killed by SIGSEGV (exit code 139), a fault of native code", "its last line: Segmentation fault"),
        "49 …\n",
    ),
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_process_that_dies_is_told_with_its_exit_code_and_its_last_lines(
    logs: Path,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    death: str,
) -> None:
    step, does, told, wrote = DEATHS[death]
    lake = str(tmp_path / "lake")
    ingest(config, str(logs), lake)
    code = f"import os, sys\nif {step!r} in sys.orig_argv:\n    {does}\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("STORE_PASSWORD", "hunter22")
    monkeypatch.setattr(local, "serving", contextlib.nullcontext)
    with pytest.raises(UnderstudyError) as failed:
        local.run_pipeline(config, lake)
    error = " ".join(str(failed.value).split())
    assert f"{step}: expected its process to commit the step, found that it" in error
    assert all(part in error for part in told)
    assert len(error) < 1000
    said = capfd.readouterr().err
    lines = said.partition(f"{step}: last lines of its process:\n")[2]
    assert 0 < len(lines.splitlines()) <= 22
    assert "hunter22" not in lines
    assert wrote in lines
    if step != "plan_window":
        (run,) = Run.all(Lake.open(lake))
        found = run.last_error()
        assert found is not None
        assert (run.status(), found["step"]) == ("crashed", step)
        assert told[0] in found["error"]
        assert len(found["lines"]) <= 20
        page = (tmp_path / "lake" / run.folder / "report.html").read_text()
        assert f"Stopped in {step}: expected its process" in page
        cli.main(["runs", "show", run.id, "--lake", lake], standalone_mode=False)
        assert found["lines"][-1] in capfd.readouterr().out


def test_what_a_step_has_said_itself_is_not_covered(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lake = Lake.open_or_create(str(tmp_path / "lake"))
    run = recorded(lake, "job")
    for steps in ({"error": BadInput("expected rows, found none")}, {}):
        commit(run, "compact_logs", **steps)
        ends: Any = local._Ends(run, "2026", local._Tap(None, set()))
        ends.hear(End("compact_logs", 2, ["Traceback"]))
        assert "last lines" not in capfd.readouterr().err
    assert run.last_error() is None
    assert ends.first.step == "compact_logs"
