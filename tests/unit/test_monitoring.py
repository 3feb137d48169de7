"""What watches a cluster asks for metrics that exist, and its alerts fire when they should."""

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from understudy.logs.metrics import Metrics as CollectorMetrics
from understudy.serving.metrics import Metrics as ServingMetrics

FOLDER = Path(__file__).resolve().parent.parent.parent / "manifests" / "components" / "monitoring"
needs_promtool = pytest.mark.needs("promtool")

SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}


def exported(registry: CollectorRegistry) -> set[str]:
    return {family.name + suffix for family in registry.collect() for suffix in SUFFIXES[family.type]}


def objects() -> list[dict[str, Any]]:
    return [yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [one for one in objects() if one["kind"] == kind]


def groups() -> list[dict[str, Any]]:
    (rule,) = of_kind("PrometheusRule")
    found: list[dict[str, Any]] = rule["spec"]["groups"]
    return found


def rules() -> dict[str, dict[str, Any]]:
    return {one["alert"]: one for group in groups() for one in group["rules"]}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
    return found


def targets() -> list[tuple[str, dict[str, Any]]]:
    return [(panel["title"], one) for panel in dashboard()["panels"] for one in panel.get("targets", [])]


EXPRESSIONS = {
    **{alert: one["expr"] for alert, one in rules().items()},
    **{f"{title} {one['refId']}": one["expr"] for title, one in targets()},
}


@pytest.fixture(scope="module")
def names() -> set[str]:
    return exported(ServingMetrics().registry) | exported(CollectorMetrics().registry)


def test_every_metric_exists(names: set[str]) -> None:
    metric = re.compile(r"understudy_(?:serving|collector)_\w+")
    assert all(metric.search(expression) for expression in EXPRESSIONS.values())
    assert set(metric.findall(json.dumps([dashboard(), groups()]))) <= names


def test_a_dashboard_is_whole() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    for _, target in targets():
        assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert 'namespace="$namespace"' in target["expr"]
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= set(re.findall(r"\w+", target["expr"]))


def test_monitors_select_pods_by_role_and_pass_the_arm_on() -> None:
    monitors = {one["metadata"]["name"]: one for one in of_kind("PodMonitor")}
    for component in ("serve", "collect"):
        spec = monitors[f"understudy-{component}"]["spec"]
        labels = {"app.kubernetes.io/name": "understudy", "app.kubernetes.io/component": component}
        assert spec["selector"] == {"matchLabels": labels}
        (endpoint,) = spec["podMetricsEndpoints"]
        assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
    assert monitors["understudy-serve"]["spec"]["podTargetLabels"] == ["understudy.dev/arm"]
    (component,) = of_kind("Component")
    written = {path.name for path in FOLDER.iterdir()} - {"kustomization.yaml"}
    assert {*component["resources"], *component["configMapGenerator"][0]["files"]} == written


@needs_promtool
def test_every_expression_is_one(tmp_path: Path) -> None:
    records = [
        {"record": "x", "expr": expr.replace("$__rate_interval", "5m"), "labels": {"of": where}}
        for where, expr in EXPRESSIONS.items()
    ]
    checked(tmp_path, "check", {"groups": [*groups(), {"name": "all", "rules": records}]})


S, B = "understudy_serving_", "understudy_collector_"
ARM = 'namespace="n",understudy_dev_arm="stable"'
CALM = {
    f'{S}release_info{{{ARM},release="a"}}': "1+0x240",
    f'{S}requests_total{{{ARM},status="200"}}': "0+6000x240",
    f'{S}requests_total{{{ARM},status="500"}}': "0+6x240",
    f'{S}shed_total{{{ARM},cause="queue"}}': "0+6x240",
    f'{S}users_total{{{ARM},features="known"}}': "0+6000x240",
    f'{S}users_total{{{ARM},features="unavailable"}}': "0+6x240",
    f'{S}request_seconds_bucket{{{ARM},le="0.025"}}': "0+6000x240",
    f'{S}request_seconds_bucket{{{ARM},le="0.1"}}': "0+6006x240",
    f'{S}request_seconds_bucket{{{ARM},le="+Inf"}}': "0+6006x240",
    f"{S}stale_requests_total{{{ARM}}}": "0+0x240",
    f'{S}context_total{{{ARM},outcome="lost"}}': "0+0x240",
    f'{S}reloads_total{{{ARM},outcome="failed"}}': "0+0x240",
    f"{S}resident_bytes{{{ARM}}}": "500000000+0x240",
    f'{B}last_flush_timestamp_seconds{{namespace="n",pod="c"}}': "0+60x240",
    f'{B}failures_total{{namespace="n",pod="c",where="lake"}}': "0+0x240",
    f'{B}busy_total{{namespace="n",pod="c"}}': "0+0x240",
    f'{B}events_total{{namespace="n",pod="c"}}': "0+6000x240",
    f'{B}refused_events_total{{namespace="n",pod="c",cause="late"}}': "0+6x240",
}
TROUBLE = {
    "UnderstudyNoServer": {f'{S}release_info{{{ARM},release="a"}}': "1+0x200 0+0x40"},
    "UnderstudyErrors": {f'{S}requests_total{{{ARM},status="500"}}': "0+120x240"},
    "UnderstudyShedding": {f'{S}shed_total{{{ARM},cause="queue"}}': "0+120x240"},
    "UnderstudySlow": {f'{S}request_seconds_bucket{{{ARM},le="0.025"}}': "0+5800x240"},
    "UnderstudyFeaturesStale": {f"{S}stale_requests_total{{{ARM}}}": "0+1x240"},
    "UnderstudyFeaturesUnavailable": {f'{S}users_total{{{ARM},features="unavailable"}}': "0+120x240"},
    "UnderstudyContextLost": {f'{S}context_total{{{ARM},outcome="lost"}}': "0+0x200 0+1x40"},
    "UnderstudyReloadFails": {f'{S}reloads_total{{{ARM},outcome="failed"}}': "0+1x240"},
    "UnderstudyMemory": {f"{S}resident_bytes{{{ARM}}}": "1200000000+0x240"},
    "UnderstudyNoCollector": {f'{B}last_flush_timestamp_seconds{{namespace="n",pod="c"}}': "0+60x200 stale"},
    "UnderstudyCollectorBehind": {f'{B}last_flush_timestamp_seconds{{namespace="n",pod="c"}}': "0+60x200 12000+0x40"},
    "UnderstudyCollectorFailing": {f'{B}failures_total{{namespace="n",pod="c",where="lake"}}': "0+1x240"},
    "UnderstudyCollectorBusy": {f'{B}busy_total{{namespace="n",pod="c"}}': "0+1x240"},
    "UnderstudyEventsRefused": {f'{B}refused_events_total{{namespace="n",pod="c",cause="late"}}': "0+120x240"},
}


NEVER = [("UnderstudyNoServer", f"{S}release_info"), ("UnderstudyNoCollector", f"{B}last_flush")]
CASES = [
    ("", CALM),
    *((alert, CALM | series) for alert, series in TROUBLE.items()),
    *((alert, {key: one for key, one in CALM.items() if not key.startswith(name)}) for alert, name in NEVER),
]


def test_every_alert_has_its_trouble() -> None:
    assert TROUBLE.keys() == rules().keys()


@needs_promtool
@pytest.mark.parametrize(("alert", "series"), CASES, ids=[alert or "calm" for alert, _ in CASES])
def test_an_alert_fires_in_its_trouble_and_no_other_does(alert: str, series: dict[str, str], tmp_path: Path) -> None:
    values = [{"series": name, "values": value} for name, value in series.items()]
    fires = 'count by (alertname) (ALERTS{alertstate="firing"})'
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if alert else []
    test = {
        "interval": "1m",
        "input_series": values,
        "promql_expr_test": [{"expr": fires, "eval_time": "230m", "exp_samples": samples}],
    }
    (tmp_path / "rules.json").write_text(json.dumps({"groups": groups()}))
    checked(tmp_path, "test", {"rule_files": ["rules.json"], "evaluation_interval": "1m", "tests": [test]})


def checked(folder: Path, what: str, content: dict[str, Iterable[Any]]) -> None:
    path = folder / f"{what}.json"
    path.write_text(json.dumps(content))
    done = subprocess.run(["promtool", what, "rules", path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
