"""Releases: whole or not at all, verified, and taken back with all that they spoiled."""

from pathlib import Path
from typing import Any

import pytest
from plain_releases import produce, release

from understudy import releases
from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.releases import lifecycle
from understudy.releases.aliases import move
from understudy.releases.fetching import fetch


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.open_or_create(str(tmp_path))


def test_equal_content_is_the_same_release(lake: Lake) -> None:
    assert release(lake, "a") == release(lake, "a")
    assert len(releases.digests(lake)) == 1


@pytest.mark.parametrize("name", ["model.bin", "manifest.json"])
def test_one_changed_byte_refuses_to_load(lake: Lake, name: str) -> None:
    digest = release(lake, "a")
    path = Path(lake.path("releases", digest, name))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInput, match=f"{name}: expected SHA-256"):
        releases.load(lake, digest)


def test_a_missing_file_is_named(lake: Lake) -> None:
    digest = release(lake, "a")
    Path(lake.path("releases", digest, "model.bin")).unlink()
    with pytest.raises(BadInput, match=r"expected file model\.bin, found none"):
        releases.load(lake, digest)


@pytest.mark.parametrize("ref", ["production", "nothing", "abcdef"])
def test_what_does_not_exist_is_said(lake: Lake, ref: str) -> None:
    release(lake, "a")
    with pytest.raises(BadInput, match=f"release '{ref}': expected"):
        releases.load(lake, ref)


def test_of_two_writers_the_late_one_loses(lake: Lake) -> None:
    first, second = release(lake, "a"), release(lake, "b")
    produce(lake, first)
    releases.move(lake, {"production": second}, "one", expected={"production": first})
    with pytest.raises(BadInput, match="it has moved meanwhile"):
        releases.move(lake, {"production": first}, "other", expected={"production": first})
    assert releases.resolve_alias(lake, "production") == second


def test_rollback_brings_back_the_release_before(lake: Lake) -> None:
    first, second = release(lake, "a"), release(lake, "b")
    produce(lake, first)
    produce(lake, second)
    assert lifecycle.rollback(lake) == first
    assert releases.aliases(lake)["previous"] == second


def test_who_is_beaten_to_an_alias_is_told(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (release(lake, name) for name in "abc")
    produce(lake, first)
    create = Lake.create_json

    def after_another(self: Lake, path: str, value: Any) -> bool:
        create(self, path, {**value, "aliases": {"production": third}})
        return create(self, path, value)

    monkeypatch.setattr(Lake, "create_json", after_another)
    with pytest.raises(BadInput, match=f"expected {first[:12]}, found {third[:12]}: it has moved meanwhile"):
        move(lake, {"production": second}, "promoted", expected={"production": first})
    assert releases.aliases(lake) == {"production": third}


def test_rollback_without_a_previous_release_is_refused(lake: Lake) -> None:
    produce(lake, release(lake, "a"))
    with pytest.raises(BadInput, match="expected a previous release, found none"):
        lifecycle.rollback(lake)


@pytest.mark.parametrize(("reason", "spreads"), [("harm", True), ("scoring", True), ("data", True), ("other", False)])
def test_a_fault_spreads_to_what_was_taught(lake: Lake, reason: str, spreads: bool) -> None:
    first = release(lake, "a")
    second = release(lake, "b", teacher=first)
    third = release(lake, "c", teacher=second)
    lifecycle.put_in_quarantine(lake, second, reason)
    assert releases.quarantined(lake) == ({second, third} if spreads else {second})


@pytest.mark.parametrize(("reason", "spreads"), [("harm", True), ("scoring", True), ("data", True), ("other", False)])
def test_a_fault_spreads_to_what_was_trained_on_rows_that_it_ranked(lake: Lake, reason: str, spreads: bool) -> None:
    first = release(lake, "a")
    second = release(lake, "b", ranked_by=(first,))
    third = release(lake, "c", ranked_by=(second,))
    release(lake, "d")
    lifecycle.put_in_quarantine(lake, first, reason)
    assert releases.quarantined(lake) == ({first, second, third} if spreads else {first})


@pytest.mark.parametrize(("reason", "spreads"), [("harm", False), ("scoring", False), ("data", True), ("other", False)])
def test_a_data_fault_spreads_to_what_was_made_from_the_same_logs(lake: Lake, reason: str, spreads: bool) -> None:
    first, second = release(lake, "a", data="logs"), release(lake, "b", data="logs")
    release(lake, "c")
    lifecycle.put_in_quarantine(lake, first, reason)
    assert releases.quarantined(lake) == ({first, second} if spreads else {first})


def test_aliases_that_stand_already_need_no_move(lake: Lake) -> None:
    first = release(lake, "a")
    produce(lake, first)
    entries = len(lake.names("releases/aliases"))
    releases.move(lake, {"production": first}, "a late process", expected={"production": None})
    assert len(lake.names("releases/aliases")) == entries


def test_production_in_quarantine_falls_back_to_its_nearest_healthy_ancestor(lake: Lake) -> None:
    first = release(lake, "a")
    second = release(lake, "b", teacher=first)
    third = release(lake, "c", teacher=second)
    for one in (first, second, third):
        produce(lake, one)
    assert lifecycle.put_in_quarantine(lake, second, "harm") == (second, first)
    assert releases.aliases(lake) == {"production": first}
    with pytest.raises(BadInput, match="found one in quarantine"):
        lifecycle.promote(lake, third)


def test_a_full_disk_leaves_nothing_of_a_release(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    real = Lake.replace

    def full(self: Lake, path: str, data: bytes) -> None:
        if path.endswith("model.bin"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, path, data)

    monkeypatch.setattr(Lake, "replace", full)
    with pytest.raises(BadInput, match="found a full disk"):
        release(lake, "a")
    assert releases.digests(lake) == []
    assert lake.names("releases") == []


def test_a_lake_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lake.json").write_text('{"schema_version": 999}')
    with pytest.raises(BadInput, match="found 999, which a newer version wrote; install the version"):
        Lake.open(str(tmp_path))


def test_a_fetched_release_is_the_release(lake: Lake, tmp_path: Path) -> None:
    digest = release(lake, "a")
    produce(lake, digest)
    release(lake, "b")
    assert fetch(lake, "production", str(tmp_path / "copy")) == digest
    copy = Lake.open(str(tmp_path / "copy"))
    assert releases.digests(copy) == [digest]
    assert releases.load(copy, digest) == releases.load(lake, digest)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").rglob("*")}
    assert fetch(lake, digest, copy.root) == digest
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "copy").rglob("*")} == before


def test_a_fetch_that_was_cut_off_or_spoiled_is_mended(lake: Lake, tmp_path: Path) -> None:
    digest = release(lake, "a")
    fetch(lake, digest, str(tmp_path / "copy"))
    folder = tmp_path / "copy" / "releases" / digest
    (folder / "model.bin").write_bytes(b"half")
    (folder / "manifest.json").unlink()
    assert fetch(lake, digest, str(tmp_path / "copy")) == digest
    assert (folder / "model.bin").read_bytes() == b"a"


def test_a_damaged_release_is_not_fetched(lake: Lake, tmp_path: Path) -> None:
    digest = release(lake, "a")
    Path(lake.path("releases", digest, "model.bin")).write_bytes(b"other")
    with pytest.raises(BadInput, match=r"model\.bin: expected SHA-256"):
        fetch(lake, digest, str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()


def test_of_a_fetch_that_fails_nothing_can_be_served(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = release(lake, "a")
    real = Lake.replace

    def killed(self: Lake, path: str, data: bytes) -> None:
        if path.endswith("model.bin"):
            raise KeyboardInterrupt
        real(self, path, data)

    monkeypatch.setattr(Lake, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        fetch(lake, digest, str(tmp_path / "copy"))
    assert releases.digests(Lake.open(str(tmp_path / "copy"))) == []
