"""The budget of serving is a gate: measured on the file that is served, and no release where it is missed."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from steps import small

from understudy.config import Config
from understudy.errors import GateFailed
from understudy.evaluation import step as evaluation
from understudy.lake import Lake
from understudy.releases import digests, publish
from understudy.runs import Run


def test_what_was_measured_lies_beside_the_release_and_names_it(released: Path) -> None:
    (digest,) = digests(Lake.open(str(released)))
    found = json.loads((released / "releases" / "evidence" / f"{digest}.json").read_text())
    assert (found["release"], found["slate_size"], found["bound_ms"]) == (digest, 500, 100.0)
    assert set(found["slates"]) == {"100", "500", "1000"}
    for one in found["slates"].values():
        assert 0 < one["p50_ms"] <= one["p99_ms"]
    assert found["memory_mb"] > 10


@pytest.mark.parametrize(
    ("bound", "gate"), [({"max_p99_ms": 0.001}, "latency"), ({"max_size_mb": 0.001}, "size")], ids=["latency", "size"]
)
def test_a_ranker_beyond_its_budget_is_not_published(
    released: Path, config: Config, tmp_path: Path, bound: dict[str, float], gate: str
) -> None:
    shutil.copytree(released, tmp_path / "lake")
    lake = Lake.open(str(tmp_path / "lake"))
    (run_id,) = [path.name for path in (tmp_path / "lake" / "runs").iterdir()]
    for step in ("evaluate", "publish_release", "promote"):
        shutil.rmtree(tmp_path / "lake" / "runs" / run_id / "steps" / step)
    for digest in digests(lake):
        shutil.rmtree(tmp_path / "lake" / "releases" / digest)
    strict = small(config)
    strict = dataclasses.replace(strict, evaluation=dataclasses.replace(strict.evaluation, **bound))
    with pytest.raises(GateFailed, match=gate):
        evaluation.run(lake.root, run_id, strict.section("evaluation"))
    verdicts = {one["gate"]: one["outcome"] for one in (Run(lake, run_id).manifest("evaluate") or {})["verdicts"]}
    assert verdicts[gate] == "fail"
    with pytest.raises(GateFailed):
        publish.run(lake.root, run_id, strict.section())
    assert digests(lake) == []
