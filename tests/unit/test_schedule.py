"""`understudy schedule` against an emulated server: what is on it afterwards, and that no run in flight is ended."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import Client
from kubeflow_config import written
from kubeflow_server import Call, Kubeflow, running

from pipelines import scheduling
from pipelines.compile import compiled
from understudy.cli.main import main

FEATURES = {"name": "features", "kind": "refresh", "cron": "5 * * * *"}


@pytest.fixture(scope="module", autouse=True)
def _compiled_once() -> Iterator[None]:
    """Compiling takes most of the time, and depends on the configuration alone."""
    cached = functools.cache(lambda work, pipeline, kind: compiled(config_of[work, pipeline], kind))
    config_of: dict[tuple[str, str], Any] = {}

    def quick(config: Any, kind: str) -> Any:
        key = config.work(), repr(config.pipeline.images)
        config_of[key] = config
        return cached(*key, kind)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling, "compiled", quick)
        yield


class Place:
    """A server, and the command on a configuration that changes."""

    def __init__(self, server: Kubeflow, url: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.server, self.url, self.folder, self.capsys = server, url, folder, capsys

    def run(self, *arguments: str, code: int = 0, window_days: int = 14, **pipeline: Any) -> str:
        """What the command prints, on either stream."""
        config = written(self.folder, window_days, **pipeline)
        with pytest.raises(SystemExit) as ended:
            main(["schedule", *arguments, "--config", config, "--host", self.url])
        out, err = self.capsys.readouterr()
        assert int(ended.value.code or 0) == code, out + err
        return out + err

    def apply(self, *schedules: dict[str, Any], code: int = 0, **more: Any) -> str:
        return self.run("apply", code=code, schedules=list(schedules), **more)

    def on(self) -> dict[str, str]:
        """Schedule → cron of what is on."""
        jobs = self.server.tables["recurringruns"].values()
        found = [one for one in jobs if one["mode"] == "ENABLE"]
        assert len({one["display_name"].partition("@")[0] for one in found}) == len(found), "a schedule is on twice"
        name = {one["recurring_run_id"]: one["display_name"].partition("@")[0].partition("/")[2] for one in found}
        return {name[one["recurring_run_id"]]: one["trigger"]["cron_schedule"]["cron"] for one in found}

    def id_of(self, schedule: str) -> str:
        (found,) = [
            key
            for key, one in self.server.tables["recurringruns"].items()
            if f"/{schedule}@" in one["display_name"] and one["mode"] == "ENABLE"
        ]
        return found


def schedule(cron: str = "5 * * * *", **more: Any) -> dict[str, Any]:
    return {**FEATURES, "cron": cron, **more}


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    server = Kubeflow()
    with running(server) as url:
        yield Place(server, url, tmp_path, capsys)


def test_a_first_apply_makes_all_of_it_true(place: Place) -> None:
    said = place.apply({"name": "weekly", "cron": "0 3 * * 1"}, FEATURES)
    assert place.on() == {"weekly": "0 0 19 * * 0", "features": "0 5 * * * *"}  # of Asia/Shanghai, in UTC
    for one in place.server.tables["recurringruns"].values():
        assert (one["max_concurrency"], one["no_catchup"]) == ("1", True)
        assert one["runtime_config"]["parameters"] == {"lake": "/lake"}
        version = one["pipeline_version_reference"]["pipeline_version_id"]
        kind = "retrain" if "weekly" in one["display_name"] else "refresh"
        assert place.server.versions[version]["display_name"].startswith(f"understudy-{kind}-")
    assert "upload" in said
    assert said.count("create") == 2
    assert said.endswith("done\n")


def test_a_second_apply_changes_nothing(place: Place) -> None:
    place.apply(FEATURES)
    place.server.calls.clear()
    assert "nothing to do" in place.apply(FEATURES)
    assert place.server.writes() == []


def test_a_dry_run_only_looks(place: Place) -> None:
    said = place.run("apply", "--dry-run", schedules=[FEATURES])
    assert "upload" in said
    assert place.server.writes() == []
    place.apply(FEATURES)
    place.server.calls.clear()
    found = json.loads(place.run("apply", "--dry-run", "--json", schedules=[schedule("6 * * * *")]))
    assert found["applied"] is False
    assert found["schedules"] == [
        {
            "schedule": "features",
            "action": "replace",
            "why": ["cron: 0 5 * * * * → 0 6 * * * *"],
            "stays": [],
        }
    ]
    assert place.server.writes() == []


def test_the_plan_says_when_pipeline_and_images_are_of_several_versions(place: Place) -> None:
    images = {"spark": "me/spark:0.1.0", "tools": "me/tools:7.3.0"}
    assert "its images are of 7.3.0 (tools)" in place.apply(FEATURES, images=images)
    images["tools"] = "me/tools:0.1.9"
    assert "its images are of" not in place.apply(FEATURES, images=images)
    for version in place.server.versions.values():
        version["description"] = "made by understudy 0.0.7"
    found = json.loads(place.run("apply", "--dry-run", "--json", schedules=[FEATURES], images=images))
    assert len(found["versions"]) == 1
    assert found["versions"][0].startswith("pipeline understudy-refresh: compiled by understudy 0.0.7, its images are")


def test_another_time_replaces_the_old_one(place: Place) -> None:
    place.apply(FEATURES)
    old = place.id_of("features")
    said = place.apply(schedule("6 * * * *"))
    assert "cron: 0 5 * * * * → 0 6 * * * *" in said
    assert place.on() == {"features": "0 6 * * * *"}
    assert old not in place.server.tables["recurringruns"]


def test_new_content_of_the_pipeline_moves_the_schedule_on(place: Place) -> None:
    place.apply(FEATURES)
    first = place.server.tables["recurringruns"][place.id_of("features")]["pipeline_version_reference"]
    said = place.apply(FEATURES, window_days=7)
    second = place.server.tables["recurringruns"][place.id_of("features")]["pipeline_version_reference"]
    assert second["pipeline_id"] == first["pipeline_id"]
    assert second["pipeline_version_id"] != first["pipeline_version_id"]
    assert "version: understudy-refresh-" in said
    assert len(place.server.tables["recurringruns"]) == 1


@pytest.mark.parametrize("orphans", [True, False], ids=["a new server", "an old server"])
def test_a_run_in_flight_is_never_ended(place: Place, orphans: bool) -> None:
    place.server.orphans = orphans
    place.apply(FEATURES)
    old = place.id_of("features")
    run = place.server.start(old)
    said = place.apply(schedule("6 * * * *"))
    assert "the old one is deleted when its run has ended" in said
    assert f"features: {old} stays, off, until its run has ended" in said
    assert place.on() == {"features": "0 6 * * * *"}
    assert "stays" in place.apply(schedule("6 * * * *"))
    assert place.server.tables["runs"][run]["state"] == "RUNNING"
    place.server.tables["runs"][run]["state"] = "SUCCEEDED"
    assert "clear" in place.apply(schedule("6 * * * *"))
    assert list(place.server.tables["recurringruns"]) == [place.id_of("features")]
    assert place.server.terminated == []


def test_a_run_that_began_between_look_and_delete_is_seen(place: Place) -> None:
    place.apply(FEATURES)
    old = place.id_of("features")

    def begin(call: Call) -> None:
        if call.path.endswith(f"{old}:disable"):
            place.server.fault = lambda _: None
            place.server.start(old)

    place.server.fault = begin
    assert "stays, off" in place.apply(schedule("6 * * * *"))
    assert place.server.terminated == []


def test_what_is_no_longer_wanted_goes(place: Place) -> None:
    place.apply(FEATURES, {"name": "hourly", "kind": "refresh", "cron": "@hourly"})
    said = place.apply(FEATURES)
    assert "remove" in said
    assert place.on() == {"features": "0 5 * * * *"}
    assert "remove" in place.apply()
    assert place.server.tables["recurringruns"] == {}


def test_what_others_made_is_left_alone(place: Place) -> None:
    place.apply(FEATURES)
    ours = place.server.tables["recurringruns"][place.id_of("features")]
    for name in ("by hand", "other/features@01234567"):
        place.server._store("recurringruns", {**ours, "display_name": name})
    place.apply()
    assert set(place.server.named("recurringruns")) == {"by hand", "other/features@01234567"}


def cut(method: str, path: str, fault: int | str, at: int = 0) -> Callable[[Call], int | str | None]:
    """The fault at one such request."""
    seen = [0]

    def choose(call: Call) -> int | str | None:
        if call.method != method or path not in call.path:
            return None
        seen[0] += 1
        return fault if seen[0] == at + 1 else None

    return choose


def test_an_answer_that_is_lost_makes_no_second_schedule(place: Place) -> None:
    place.server.fault = cut("POST", "/recurringruns", "after")
    place.apply(FEATURES)
    assert len(place.server.tables["recurringruns"]) == 1
    assert place.on() == {"features": "0 5 * * * *"}


@pytest.mark.parametrize("fault", ["before", "after", 500])
@pytest.mark.parametrize("step", ["recurringruns", ":disable", ":enable", "DELETE"])
def test_wherever_an_apply_stops_the_next_one_goes_on(place: Place, step: str, fault: int | str) -> None:
    place.apply(FEATURES)
    method = "DELETE" if step == "DELETE" else "POST"
    place.server.fault = cut(method, "recurringruns" if step == "DELETE" else step, fault)
    config = {"schedules": [schedule("6 * * * *")]}
    place.server.calls.clear()
    with pytest.raises(SystemExit):
        main(["schedule", "apply", "--config", written(place.folder, **config), "--host", place.url])
    place.capsys.readouterr()
    assert len(place.on()) <= 1
    place.server.fault = lambda _: None
    place.apply(schedule("6 * * * *"))
    assert place.on() == {"features": "0 6 * * * *"}
    assert len(place.server.tables["recurringruns"]) == 1


def test_a_list_that_fills_pages_is_read_whole(place: Place) -> None:
    place.server.most = 2
    place.apply(FEATURES)
    ours = place.server.tables["recurringruns"][place.id_of("features")]
    for at in range(5):
        place.server._store("recurringruns", {**ours, "display_name": f"by hand {at}"})
    for at in range(5):
        place.server.start(ours["recurring_run_id"], "SUCCEEDED", at=at)
    place.server.start(ours["recurring_run_id"])
    assert "nothing to do" in place.apply(FEATURES)
    (found,) = json.loads(place.run("list", "--json", schedules=[FEATURES]))
    assert found["in_flight"] == 1


def test_the_zone_of_a_person_becomes_the_server_s(place: Place) -> None:
    said = place.apply({**FEATURES, "cron": "0 3 * * 1", "time_zone": "Asia/Shanghai"})
    assert place.on() == {"features": "0 0 19 * * 0"}
    assert "clocks" not in said
    said = place.apply({**FEATURES, "cron": "0 3 * * 1", "time_zone": "Europe/Berlin"}, cron_zone="Europe/Berlin")
    assert place.on() == {"features": "0 0 3 * * 1"}
    said = place.apply({**FEATURES, "cron": "0 3 1 * *", "time_zone": "Asia/Tokyo"}, code=2)
    assert "configuration: pipeline.schedules.features.cron: expected times that one cron of UTC can say" in said
    assert place.on() == {"features": "0 0 3 * * 1"}


def test_list_and_show(place: Place) -> None:
    place.apply(FEATURES, service_account="runner")
    (found,) = json.loads(place.run("list", "--json", schedules=[FEATURES]))
    assert (found["schedule"], found["on"], found["cron"], found["in_flight"]) == ("features", True, "0 5 * * * *", 0)
    assert found["service_account"] == "runner"
    assert found["next"].endswith(":05:00+08:00")
    assert "features" in place.run("list", schedules=[FEATURES])
    shown = json.loads(
        place.run("show", "features", "--json", schedules=[schedule("6 * * * *")], service_account="runner")
    )
    assert (shown["apply"], shown["why"]) == ("replace", ["cron: 0 5 * * * * → 0 6 * * * *"])
    assert "unchanged" in place.run("show", "features", schedules=[FEATURES], service_account="runner")
    assert "expected one of the configuration or the server" in place.run("show", "none", code=2, schedules=[FEATURES])


def test_a_person_switches_off_and_on(place: Place) -> None:
    place.apply(FEATURES)
    assert "is off until" in place.run("pause", "features", schedules=[FEATURES])
    assert place.on() == {}
    assert "was off" in place.run("pause", "features", schedules=[FEATURES])
    assert "runs at once" in place.run("resume", "features", schedules=[FEATURES])
    assert place.on() == {"features": "0 5 * * * *"}
    place.run("pause", "features", schedules=[FEATURES])
    assert "on: no → yes" in place.apply(FEATURES)
    assert place.on() == {"features": "0 5 * * * *"}
    assert "on: yes → no" in place.apply(schedule(enabled=False))
    assert place.on() == {}
    assert "expected one of features" in place.run("pause", "weekly", code=2, schedules=[FEATURES])


def test_delete_waits_for_what_runs(place: Place) -> None:
    place.apply(FEATURES)
    run = place.server.start(place.id_of("features"))
    assert "1 in flight" in place.run("delete", "features", schedules=[FEATURES])
    assert place.on() == {}
    place.server.tables["runs"][run]["state"] = "FAILED"
    assert "is gone" in place.run("delete", "features", schedules=[FEATURES])
    assert place.server.tables["recurringruns"] == {}
    assert place.server.terminated == []


def test_without_a_lake_nothing_is_scheduled(place: Place) -> None:
    said = place.apply(FEATURES, code=2, lake="")
    assert "pipeline.lake: expected a URI without credentials or an absolute path" in said
    assert said.count("\n") == 1
    assert place.server.writes() == []
