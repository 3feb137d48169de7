"""Debian's prometheus scrapes real rank servers: what it says of them is what they say themselves."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, start_http_server
from prometheus_server import PrometheusServer
from ranking import PATIENT, RankServer, another_release, items_of

from understudy.rollout.metrics import Counted, Tally, read
from understudy.rollout.prometheus import Prometheus
from understudy.rollout.state import ArmSeen, State

pytestmark = pytest.mark.needs("prometheus")


@pytest.fixture
def arms(released: Path, tmp_path: Path) -> Iterator[dict[str, RankServer]]:
    """A canary that is out of time for most requests, and a baseline of two processes."""
    lake = tmp_path / "lake"
    shutil.copytree(released, lake)
    hasty = another_release(lake, serving={"budget_ms": 1.0})
    patient = another_release(lake, serving=PATIENT)
    made = {
        "canary": RankServer(lake, "--release", hasty),
        "baseline": RankServer(lake, "--release", patient, "--workers", "2"),
    }
    yield made
    for one in made.values():
        one.stop()


@pytest.fixture
def pods() -> Iterator[tuple[str, ...]]:
    """What says that the canary's server was restarted three times; two of them, as while one takes another's place."""
    registry = CollectorRegistry()
    labels = ("namespace", "pod", "container")
    restarts = Counter("kube_pod_container_status_restarts", "As kube-state-metrics has it.", labels, registry=registry)
    restarts.labels("stage", "canary-0", "serve").inc(3)
    restarts.labels("another", "baseline-0", "serve").inc(7)
    server, _ = start_http_server(0, "127.0.0.1", registry)
    yield f"127.0.0.1:{server.server_port}", f"localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_prometheus_says_what_servers_say(
    released: Path, tmp_path: Path, arms: dict[str, RankServer], pods: tuple[str, ...]
) -> None:
    began = time.time()
    watch = PrometheusServer(tmp_path, {arm: one.url for arm, one in arms.items()}, "stage", pods)
    source = Prometheus(watch.url, "stage")
    state = State.begin("r", "new", "old", began)
    assert source.arms(state, began - 3600) == {"canary": ArmSeen(), "baseline": ArmSeen()}
    before = {arm: counted(one) for arm, one in arms.items()}
    assert all(one.requests == 0 for one in before.values())
    watch.wait(lambda: watch.value("count(count_over_time(understudy_serving_resident_bytes[1h]) >= 4)") == 2)
    idle = source.arms(state, time.time())
    assert [(one.requests, one.errors, one.p99_ms, one.scores) for one in idle.values()] == [(0, 0, None, {})] * 2
    items = items_of(released)[:50]
    for place in range(200):
        for one in arms.values():
            one.rank(f"u{place % 20}", items)
    time.sleep(5)
    end = time.time()
    time.sleep(1)
    found = source.arms(state, end)
    tally = Tally()
    tally.arms(state, {arm: {arm: one} for arm, one in before.items()})
    said = tally.arms(state, {arm: {arm: counted(one)} for arm, one in arms.items()})
    assert source.unanswered == {}
    for arm, theirs in found.items():
        ours = said[arm]
        assert ours.requests == 200
        assert theirs.requests == pytest.approx(ours.requests, rel=0.1)
        assert theirs.errors == pytest.approx(ours.errors, rel=0.1)
        assert theirs.scored == pytest.approx(ours.scored, rel=0.1)
        assert theirs.p99_ms == pytest.approx(ours.p99_ms, rel=0.01)
        assert theirs.scores == pytest.approx(ours.scores, rel=1e-3)
        assert theirs.memory_mb == pytest.approx(ours.memory_mb, rel=0.1)
        assert theirs.memory_mb == pytest.approx(largest_mb(arms[arm].process.pid), rel=0.1)
    assert (found["canary"].errors or 0) > 20
    assert found["baseline"].errors == 0
    assert [one.restarts for one in found.values()] == [3, None]
    assert Prometheus(watch.url, "another").arms(state, end) == {"canary": ArmSeen(), "baseline": ArmSeen()}
    watch.stop()
    assert source.arms(state, end) == {"canary": ArmSeen(), "baseline": ArmSeen()}
    assert source.unanswered["requests"] == "no connection"


def largest_mb(pid: int) -> float:
    """Memory of the largest of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [Path(f"/proc/{one}/status").read_text() for one in (pid, *children)]
    return max(int(text.partition("VmRSS:")[2].split()[0]) / 1024 for text in found)


def counted(server: RankServer) -> Counted:
    found = read(server.url)
    assert found is not None
    return found
