"""Generated logs, their configuration, and one small lake for the whole session."""

from collections.abc import Callable
from pathlib import Path

import pytest

from understudy import alerts
from understudy import config as configuration
from understudy.config import Config
from understudy.releases import mlflow_server
from understudy.simulator.kuairand import generate

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test tells whom this machine's environment names, or waits to try again."""
    monkeypatch.delenv(alerts.WEBHOOK, raising=False)
    monkeypatch.delenv(alerts.ALERTMANAGER, raising=False)
    monkeypatch.delenv(mlflow_server.URI, raising=False)
    monkeypatch.setattr(alerts, "_PAUSE_S", 0.01)


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of generated logs in KuaiRand's layout."""
    folder = tmp_path_factory.mktemp("logs")
    generate(folder, seed=0, rows=12_000)
    return folder


@pytest.fixture(scope="session")
def config() -> Config:
    return configuration.load(ROOT / "examples" / "generated.yaml")


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder and its bytes; none where there is no folder."""
    return lambda folder: {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
