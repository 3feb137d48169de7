"""What `understudy run` makes of a graph that has ended: the record decides, not what the runner says."""

from pathlib import Path

import pytest

from pipelines import local
from understudy.config import Config
from understudy.errors import UnderstudyError
from understudy.logs.ingest import ingest


def test_a_graph_that_ends_well_without_a_record_is_no_release(
    logs: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a container that vanished, which kfp's Docker runner takes for one that has ended well."""
    ingest(config, str(logs), str(tmp_path / "lake"))
    monkeypatch.setattr(local, "_run_graph", lambda *_: None)
    with pytest.raises(UnderstudyError, match="expected plan_window to commit, found that it ended without a word"):
        local.run_pipeline(config, str(tmp_path / "lake"), runner="docker")
