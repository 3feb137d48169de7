"""How processes have ended, in words; and that every one of ours that dies is told with its last lines."""

from pathlib import Path

import pytest

from understudy.errors import UnderstudyError
from understudy.evaluation import latency
from understudy.inputs import Inputs
from understudy.processes import how_it_ended
from understudy.training.member import _work


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, "ended with exit code 1"),
        (0, "ended with exit code 0"),
        (127, "ended with exit code 127"),
        (255, "ended with exit code 255"),
        (-9, "was killed by SIGKILL (exit code 137), as it is where memory runs out"),
        (137, "was killed by SIGKILL (exit code 137), as it is where memory runs out"),
        (139, "was killed by SIGSEGV (exit code 139), a fault of native code"),
        (143, "was killed by SIGTERM (exit code 143)"),
    ],
)
def test_a_signal_is_named(code: int, said: str) -> None:
    assert how_it_ended(code) == said


@pytest.fixture(params=["os.kill(os.getpid(), 9)", "raise SystemExit('no room')"])
def death(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every child of Python dies as it begins; what is then said of it."""
    (tmp_path / "sitecustomize.py").write_text(f"import os, sys\nprint('began', file=sys.stderr)\n{request.param}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "was killed by SIGKILL (exit code 137)" if "kill" in request.param else "ended with exit code 1"


def test_a_member_that_dies_is_told(death: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnderstudyError) as failed:
        _work(str(tmp_path), 3)
    assert str(failed.value).startswith("ensemble, member 03: expected it to be trained, found that its process")
    assert death in str(failed.value)
    assert "began" in capfd.readouterr().err


def test_a_measurement_that_dies_is_told(death: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnderstudyError) as failed:
        latency._in_process(b"", Inputs(("click",), "UTC", (), (), ("1d",), 4, 1), [1])
    assert death in str(failed.value)
    assert "began" in capfd.readouterr().err
