"""Processes that have no more than their role's packages, and what an image of a role has to import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from plain_releases import release
from roles import as_role

from understudy.lake import Lake
from understudy.releases.mlflow_server import URI

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "images"
ROLES = ("serve", "tools", "spark", "train")


def extras(role: str) -> list[str]:
    """What an image of a role is made of."""
    command = ["sh", str(IMAGES / "install.sh"), "extras"]
    done = subprocess.run(command, env={**os.environ, "ROLE": role}, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("role", ROLES)
def test_every_role_can_read_a_lake_in_an_object_store(role: str) -> None:
    assert extras(role)[0] == role
    assert "s3" in extras(role)


@pytest.mark.timeout(360)
@pytest.mark.parametrize("role", ROLES)
def test_a_role_s_locks_hold_what_it_imports(role: str) -> None:
    names = extras(role)
    more = [] if role == "serve" else ["pipeline"]  # of which an image has kfp alone, for a step's pod
    code = (
        f"import runpy, sys\nsys.argv[1:] = {[role, *names]}\nrunpy.run_path('images/imports.py', run_name='__main__')"
    )
    done = as_role(" ".join([*names, *more]), code)
    assert (done.returncode, done.stderr) == (0, "")


def check(folder: Path, role: str, broken: dict[str, str], **environment: str) -> "subprocess.CompletedProcess[str]":
    """The check with modules of other content in the place of what is installed."""
    for name, content in broken.items():
        (folder / f"{name}.py").write_text(content)
    return subprocess.run(
        [sys.executable, str(IMAGES / "imports.py"), role, *extras(role)],
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


CUDA = "print('noise')\nraise ImportError('libcudart.so.13: cannot open shared object file')"


@pytest.mark.parametrize(
    ("role", "module", "content", "why", "mend"),
    [
        (
            "train",
            "torch",
            CUDA,
            "ImportError: libcudart.so.13: cannot open shared object file",
            "TORCH_INDEX=https://",
        ),
        ("serve", "mmh3", "import nowhere", "ModuleNotFoundError: No module named 'nowhere'", "images/install.sh"),
        ("tools", "duckdb", "raise OSError('a\\nb')", "OSError: a b", "the role's extra in pyproject.toml"),
        ("spark", "duckdb", "import sys\nsys.exit('no')", "SystemExit: no", "`make lock`"),
        ("serve", "mmh3", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "by SIGSEGV", "images/install.sh"),
        ("serve", "mmh3", "import os\nos._exit(7)", "that it ends Python with 7", "images/install.sh"),
    ],
)
def test_an_image_that_cannot_import_a_package_is_not_built_and_says_so_in_one_line(
    tmp_path: Path, role: str, module: str, content: str, why: str, mend: str
) -> None:
    done = check(tmp_path, role, {module: content}, VARIANT="cpu")
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: image {role}: expected to import {module} for {module}==")
    assert f"{why}; " in line
    assert mend in line


def test_an_import_inside_a_function_counts(tmp_path: Path) -> None:
    """`understudy serve` imports its server when it is called, and that imports uvicorn when it serves."""
    (tmp_path / "uvicorn").mkdir()
    (tmp_path / "uvicorn" / "__init__.py").touch()  # it has no supervisors
    done = check(tmp_path, "serve", {})
    assert done.returncode == 1
    assert "expected to import uvicorn" in done.stderr
    assert "No module named 'uvicorn." in done.stderr


def test_fetching_needs_no_more_than_a_server_s_packages(tmp_path: Path) -> None:
    lake = Lake.open_or_create(str(tmp_path))
    digest = release(lake, "a")
    command = ["releases", "fetch", digest, "--lake", lake.root, "--to", str(tmp_path / "copy")]
    done = as_role("serve", f"from understudy.cli import main\nmain({command!r})")
    assert (done.returncode, done.stdout) == (0, f"{digest[:12]} is in {tmp_path / 'copy'}, verified\n"), done.stderr


def test_a_collector_needs_no_more_than_its_own_role_s_packages(tmp_path: Path) -> None:
    """It comes as far as its address."""
    code = (
        "from understudy.cli import main\n"
        "import uvicorn, uvloop, understudy.http_guard\n"
        f"main(['collect', '--config', 'examples/collector.yaml', '--lake', {str(tmp_path / 'lake')!r},\n"
        f"      '--state', {str(tmp_path / 'state.db')!r}, '--host', '192.0.2.1'])\n"
    )
    done = as_role("collect", code, UNDERSTUDY_COLLECT_TOKEN="a-token-for-tests-only")
    assert (done.returncode, "expected a free address" in done.stderr) == (2, True), done.stderr[-2000:]


@pytest.mark.parametrize("role", ["serve", "tools"])
def test_mlflow_is_loaded_only_where_it_is_named(role: str, tmp_path: Path) -> None:
    lake = Lake.open_or_create(str(tmp_path))
    digest = release(lake, "a")
    code = f"""
import sys
from understudy.cli import main
try:
    main(["releases", "promote", {digest!r}, "--lake", {lake.uri()!r}])
except SystemExit as end:
    assert not end.code
assert "mlflow" not in sys.modules
"""
    done = as_role(role, code, **{URI: ""})
    assert (done.returncode, done.stderr) == (0, "")


def test_where_mlflow_is_not_installed_that_is_said(tmp_path: Path) -> None:
    lake = Lake.open_or_create(str(tmp_path))
    release(lake, "a")
    command = ["releases", "mirror", "--lake", lake.uri()]
    done = as_role("serve", f"from understudy.cli import main\nmain({command!r})", **{URI: "http://127.0.0.1:1"})
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {URI}: expected Python's package mlflow-skinny, found none")


def test_no_step_of_the_pipeline_loads_what_knows_the_truth() -> None:
    code = (
        "import importlib, pathlib, sys\n"
        "for path in sorted(pathlib.Path('components').glob('*/component.py')):\n"
        "    importlib.import_module('.'.join(path.with_suffix('').parts))\n"
        "import understudy.logs.compaction, understudy.features.building, understudy.sampling.step\n"
        "import understudy.features.retrieval, understudy.drift.step, understudy.training.step\n"
        "import understudy.calibration.step, understudy.evaluation.step, understudy.releases.publish\n"
        "import understudy.runs.planning\n"
        "known = [name for name in sys.modules if name.startswith('understudy.simulator.')]\n"
        "assert set(known) <= {'understudy.simulator.config'}, known\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
