"""Score any ingested days with a release, also days that are newer than it."""

from typing import Any

from understudy.config import Config
from understudy.evaluation.figures import by_value, heads_summary
from understudy.evaluation.scored import Scored
from understudy.inputs import Inputs
from understudy.lake import Lake
from understudy.ranker.served import Served
from understudy.runs import Run
from understudy.runs.planning import plan_window
from understudy.section import stored

__all__ = ["evaluate_release"]


def evaluate_release(lake_uri: str, ref: str, start: str, end: str) -> dict[str, Any]:
    """Metrics of a release on the days from ``start`` to ``end``, with intervals by user bootstrap.

    Compacts these days and builds their features with the release's own configuration.

    Returns:
        ``release``, ``from``, ``to``, ``rows``, ``heads`` (per head the metrics, each with
        ``…_interval``), ``by_day`` and ``by_slice``.
    """
    from understudy import releases
    from understudy.features import building, retrieval
    from understudy.logs import compaction
    from understudy.sampling import step as sampling

    lake = Lake.open(lake_uri)
    release = releases.load(lake, ref)
    where, by = f"release {release.digest[:12]}", release.manifest["version"]
    config = stored(Config, release.manifest["config"], where=where, by=by)
    plan = plan_window(lake_uri, config, end, purpose="evaluate", window_start=start)
    compaction.run(lake_uri, plan.run_id, config.section("labels"))
    building.run(lake_uri, plan.run_id, config.section("features", "labels"))
    sampling.run(lake_uri, plan.run_id, config.section("sampling"))
    retrieval.run(lake_uri, plan.run_id, config.section("features"))
    table = lake.dataset(Run(lake, plan.run_id).table_path("retrieve_features", "training_set")).to_table()
    inputs = Inputs.from_json(release.files["inputs.json"].decode())
    probabilities, _ = Served(release.files["served.onnx"], inputs).score(table)
    scored = Scored.of(table, inputs.heads, probabilities)
    resamples = config.evaluation.bootstrap
    return {
        "release": release.digest,
        "from": start,
        "to": end,
        "rows": table.num_rows,
        "heads": heads_summary(scored, resamples=resamples, seed=config.evaluation.seed),
        "by_day": by_value(scored, table["day"]),
        "by_slice": by_value(scored, table["slice"]),
    }
