"""What a compiled pipeline names stays reachable: one that 0.1 compiled runs in the images of the next minor too.

``tests/golden/<minor version>/named.json`` is what ``tests/golden/make.py`` of that version has found in its pipelines.
"""

import importlib
import importlib.util
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from understudy.jobs.main import PACKAGES

ROOT = Path(__file__).resolve().parent.parent.parent
NAMED: dict[str, Any] = {
    path.parent.name: json.loads(path.read_text()) for path in sorted((ROOT / "tests" / "golden").glob("*/named.json"))
}
CALLS = [(version, name) for version, named in NAMED.items() for name in named["calls"]]


def resolved(name: str) -> Any:
    """What ``module:name`` stands for; the name may lead on to attributes."""
    module, _, way = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in way.split("."):
        found = getattr(found, part)
    return found


def test_every_component_of_a_run_is_recorded() -> None:
    assert "0.1" in NAMED
    steps = {"plan_window", "launch", "write", "tell_end", "run"}
    assert steps <= {name.rpartition(":")[2] for name in NAMED["0.1"]["calls"]}


@pytest.mark.parametrize(("version", "name"), CALLS, ids=[f"{name} of {version}" for version, name in CALLS])
def test_what_a_component_s_body_calls_takes_the_same_arguments(version: str, name: str) -> None:
    signature = inspect.signature(resolved(name))
    for call in NAMED[version]["calls"][name]:
        if call:
            signature.bind(*[None] * call["by_place"], **dict.fromkeys(call["by_name"]))


@pytest.mark.parametrize("version", NAMED)
def test_what_a_launched_job_begins_with_is_there(version: str) -> None:
    for path in NAMED[version]["files"]:
        assert (ROOT / path).is_file(), f"{path}: pipelines of {version} begin with it"
    for module in NAMED[version]["modules"]:
        spec = importlib.util.find_spec(module)
        assert spec is not None, f"{module}: pipelines of {version} run it"
        assert spec.origin is not None
        assert '__name__ == "__main__"' in Path(spec.origin).read_text(), f"{module}: it is run as a program"
    for step in NAMED[version]["steps"]:
        assert callable(importlib.import_module(PACKAGES[step]).run)
