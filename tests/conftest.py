"""What all tests share: generated logs, their configuration, who runs where, and how long each level took."""

import functools
import inspect
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from programs import require
from xdist.scheduler import LoadScopeScheduling

from understudy import alerts
from understudy import config as configuration
from understudy.config import Config
from understudy.releases import mlflow_server
from understudy.simulator.kuairand import generate

ROOT = Path(__file__).resolve().parent.parent
# Spark's JVM lives for minutes: what its second compiler costs never comes back.
os.environ.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1")
# kfp looks at the whole stack for the name of one caller; under a test runner, reading its sources takes seconds.
inspect.stack = functools.partial(inspect.stack, context=0)
LEVELS = ("unit", "integration", "e2e")
_USES_SPARK = re.compile(r'session: SparkSession|usefixtures\("session"\)')


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Who runs with whom, where several processes share the tests.

    A file's tests stay together, since they share its fixtures. Files that use Spark's session run in one process:
    starting it costs more than most tests. (xdist's own groups by mark do nothing with pytest 9.2.)
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "spark" if _USES_SPARK.search(_source(file)) else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process begins with Spark's files and makes the lakes; until they are there, others do what needs none."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: _turn(item.nodeid.partition("::")[0]))


@functools.cache
def _turn(file: str) -> int:
    needs_lake, needs_second = (re.search(rf"\b{name}\b", _source(file)) for name in ("released", "taught"))
    if "/e2e/" in file:
        return 0
    if _USES_SPARK.search(_source(file)):
        return 1 if needs_second else 2
    if "/unit/" in file:
        return 6  # short ones fill what is left
    return 5 if needs_second else 4 if needs_lake else 3


@functools.cache
def _source(file: str) -> str:
    return (ROOT / file).read_text()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        require(mark.args[0])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How long the tests of each level took, one after the other."""
    spent: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                spent[report.nodeid.split("/")[1]] += report.duration
    told = [f"{level} {spent[level] / 60:.1f} min" for level in LEVELS if level in spent]
    terminalreporter.write_line(f"time in tests, all processes: {', '.join(told)}")


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
