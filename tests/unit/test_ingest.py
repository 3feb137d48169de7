"""Reading logs: nothing is lost in silence, and the order of files changes nothing."""

import csv
import datetime
import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest

from understudy import config as configuration
from understudy.config import Config
from understudy.errors import BadInput
from understudy.lake import Lake
from understudy.logs.ingest import ingest
from understudy.snapshot import Snapshot

LOG = "log_standard_4_25_to_5_04_pure.csv.gz"
ROWS = 12_000
Change = Callable[[Path], None]


def rewritten(change: Callable[[list[str], list[list[str]]], None]) -> Change:
    """A change of the main log's header and rows."""

    def apply(folder: Path) -> None:
        with gzip.open(folder / LOG, "rt", newline="") as file:
            header, *rows = list(csv.reader(file))
        change(header, rows)
        with gzip.open(folder / LOG, "wt", newline="") as file:
            csv.writer(file).writerows([header, *rows])

    return apply


def set_column(name: str, value: str) -> Change:
    def change(header: list[str], rows: list[list[str]]) -> None:
        for row in rows:
            row[header.index(name)] = value

    return rewritten(change)


def drop_column(name: str) -> Change:
    def change(header: list[str], rows: list[list[str]]) -> None:
        at = header.index(name)
        for row in [header, *rows]:
            del row[at]

    return rewritten(change)


def rename_column(name: str) -> Change:
    return rewritten(lambda header, _: header.__setitem__(header.index(name), f"{name}_new"))


def truncate(folder: Path) -> None:
    data = (folder / LOG).read_bytes()
    (folder / LOG).write_bytes(data[: len(data) // 2])


def empty(folder: Path) -> None:
    (folder / LOG).write_bytes(b"")


def repack(change: Callable[[bytes], bytes]) -> Change:
    """A change of the main log's bytes, below its compression."""
    return lambda folder: (folder / LOG).write_bytes(
        gzip.compress(change(gzip.decompress((folder / LOG).read_bytes())))
    )


def folder_instead(folder: Path) -> None:
    (folder / LOG).unlink()
    (folder / LOG).mkdir()


def other_parquet(folder: Path) -> None:
    (folder / "log_standard_other.parquet").write_bytes(b"PAR1 and nothing more")


BAD: dict[str, tuple[Change, str]] = {
    "no such folder": (shutil.rmtree, "expected a folder"),
    "empty file": (empty, "found an empty file"),
    "missing column": (drop_column("is_click"), "expected column 'is_click'"),
    "renamed column": (rename_column("time_ms"), "expected column 'time_ms'"),
    "wrongly typed column": (set_column("is_click", "often"), "is_click: expected a number"),
    "truncated gzip": (truncate, "found a truncated or damaged one"),
    "unparsable times": (set_column("time_ms", "noon"), r"time_ms: expected a time \(ms\)"),
    "times in the future": (set_column("time_ms", "4102444800000"), "a time in the future"),
    "times in ns": (set_column("time_ms", "1650816000000000000"), r"time_ms: expected a time \(ms\)"),
    "times before 1970": (set_column("time_ms", "-1"), "a time before 1970"),
    "an outcome without end": (set_column("is_click", "inf"), "is_click: expected a number"),
    "only a header": (rewritten(lambda _, rows: rows.clear()), "expected rows of impressions, found none"),
    "a column name twice": (
        rewritten(lambda header, _: header.__setitem__(header.index("is_like"), "is_click")),
        "found 'is_click' twice",
    ),
    "semicolons": (repack(lambda data: data.replace(b",", b";")), "expected column 'user_id'"),
    "lines that end in CR": (repack(lambda data: data.replace(b"\n", b"\r")), "expected a header line of column names"),
    "other bytes than text": (repack(lambda _: b"\xff\xfe" * 999), "expected UTF-8 text"),
    "a folder instead of a file": (folder_instead, "expected a readable file, found: Is a directory"),
    "no Parquet behind the name": (other_parquet, "expected a Parquet file, found something else"),
    "no log at all": (lambda folder: (folder / LOG).rename(folder / "other.csv.gz"), "expected files named"),
}


@pytest.mark.parametrize(("change", "expected"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_clear_line_and_leaves_no_lake(
    tmp_path: Path, logs: Path, config: Config, change: Change, expected: str
) -> None:
    shutil.copytree(logs, tmp_path / "logs")
    for random in (tmp_path / "logs").glob("log_random_*"):
        random.unlink()
    change(tmp_path / "logs")
    with pytest.raises(BadInput, match=expected) as caught:
        ingest(config, tmp_path / "logs", str(tmp_path / "lake"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "lake").exists()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, logs: Path, config: Config) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    ingest(config, logs, str(folder))
    return folder


def test_rows_in_are_rows_kept_duplicates_and_rejected(tmp_path: Path, logs: Path, config: Config) -> None:
    shutil.copytree(logs, tmp_path / "logs")

    def spoil(header: list[str], rows: list[list[str]]) -> None:
        rows[0][header.index("user_id")] = ""
        rows[1][header.index("time_ms")] = "soon"
        rows[2][header.index("is_like")] = "maybe"
        rows.append(["1", "2"])

    rewritten(spoil)(tmp_path / "logs")
    done = ingest(config, tmp_path / "logs", str(tmp_path / "lake"))
    counts = done.tables["impressions"]
    assert counts.rows == ROWS + 1
    assert counts.rows == counts.kept + counts.duplicates + counts.rejected
    assert counts.duplicates > 0
    assert set(counts.reasons) == {
        "no user_id",
        "time_ms: expected a time (ms)",
        "is_like: expected a number",
        "malformed line",
    }
    opened = Lake.open(str(tmp_path / "lake"))
    rejected = Snapshot.latest(opened).dataset(opened, "rejected").to_table().to_pylist()
    assert len(rejected) == 4
    assert {row["reason"] for row in rejected} == set(counts.reasons)


def test_dates_of_attributes_are_moments_in_the_configured_zone(tmp_path: Path, logs: Path, config: Config) -> None:
    shutil.copytree(logs, tmp_path / "logs")
    file = next((tmp_path / "logs").glob("video_features_*"))
    with gzip.open(file, "rt", newline="") as opened:
        header, *rows = list(csv.reader(opened))
    at = header.index("upload_dt")
    rows[0][at], rows[1][at], rows[2][at] = "2022-04-09", "", "last week"
    with gzip.open(file, "wt", newline="") as opened:
        csv.writer(opened).writerows([header, *rows])
    done = ingest(config, tmp_path / "logs", str(tmp_path / "lake"))
    assert done.tables["items"].reasons == {"upload_dt: expected a time (iso)": 1}
    lake = Lake.open(str(tmp_path / "lake"))
    found = {
        row["item_id"]: row["upload_dt"] for row in Snapshot.latest(lake).dataset(lake, "items").to_table().to_pylist()
    }
    midnight = datetime.datetime(2022, 4, 9, tzinfo=ZoneInfo("Asia/Shanghai"))
    assert found[rows[0][0]] == int(midnight.timestamp()) * 1_000_000
    assert found[rows[1][0]] is None
    assert rows[2][0] not in found


def test_the_same_files_again_change_nothing(
    lake: Path, logs: Path, config: Config, tree: Callable[[Path], dict[str, bytes]]
) -> None:
    before = tree(lake)
    done = ingest(config, logs, str(lake))
    assert not done.changed
    assert done.tables["impressions"].kept == 0
    assert tree(lake) == before


def test_overlapping_files_in_another_order_make_the_same_tables(
    tmp_path: Path, lake: Path, logs: Path, config: Config
) -> None:
    for part, first, last in (("late", 5000, None), ("early", 0, 7000)):
        shutil.copytree(logs, tmp_path / part)
        rewritten(lambda _, rows, a=first, b=last: rows.__setitem__(slice(None), rows[a:b]))(tmp_path / part)
        ingest(config, tmp_path / part, str(tmp_path / "lake"))
    whole, parts = Snapshot.latest(Lake.open(str(lake))), Snapshot.latest(Lake.open(str(tmp_path / "lake")))
    assert parts.tables == whole.tables


def test_an_outcome_counts_when_any_copy_reports_it(tmp_path: Path, config: Config, logs: Path) -> None:
    shutil.copytree(logs, tmp_path / "logs")

    def disagree(header: list[str], rows: list[list[str]]) -> None:
        copy = rows[0].copy()
        rows[0][header.index("is_click")], copy[header.index("is_click")] = "0", "1"
        rows[:] = [rows[0], copy]

    rewritten(disagree)(tmp_path / "logs")
    for random in (tmp_path / "logs").glob("log_random_*"):
        random.unlink()
    done = ingest(config, tmp_path / "logs", str(tmp_path / "lake"))
    assert (done.tables["impressions"].kept, done.tables["impressions"].duplicates) == (1, 1)
    opened = Lake.open(str(tmp_path / "lake"))
    actions = Snapshot.latest(opened).dataset(opened, "actions").to_table().to_pylist()
    assert "click" in {row["action"] for row in actions}


def test_parquet_with_iso_times_reads_as_well(tmp_path: Path) -> None:
    import pyarrow as pa

    table = pa.table(
        {
            "who": ["a", "a", "b"],
            "what": ["x", "y", "x"],
            "when": ["2024-01-01T23:30:00", "2024-01-01 23:30:00Z", "2024-01-02T00:10:00+01:00"],
            "bought": [True, False, None],
        }
    )
    (tmp_path / "logs").mkdir()
    pq.write_table(table, tmp_path / "logs" / "feed.parquet")
    source = {"impressions": [{"files": ["feed*"]}], "user": "who", "item": "what", "time": "when"}
    config = configuration.parse(
        {"time_zone": "Europe/Berlin", "source": {**source, "outcomes": {"buy": "bought"}}}, "test"
    )
    ingest(config, tmp_path / "logs", str(tmp_path / "lake"))
    opened = Lake.open(str(tmp_path / "lake"))
    snapshot = Snapshot.latest(opened)
    assert snapshot.days() == ["2024-01-01", "2024-01-02"]
    rows = snapshot.dataset(opened, "impressions").to_table().to_pylist()
    assert sorted(row["ts"].isoformat() for row in rows) == [
        "2024-01-01T22:30:00+00:00",
        "2024-01-01T23:10:00+00:00",
        "2024-01-01T23:30:00+00:00",
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"\r\n", b"\n"),
    ],
    ids=["a mark at its beginning", "lines that end in LF"],
)
def test_how_a_text_file_was_written_changes_nothing(
    tmp_path: Path, lake: Path, logs: Path, config: Config, change: Callable[[bytes], bytes]
) -> None:
    shutil.copytree(logs, tmp_path / "logs")
    repack(change)(tmp_path / "logs")
    ingest(config, tmp_path / "logs", str(tmp_path / "lake"))
    again, before = Snapshot.latest(Lake.open(str(tmp_path / "lake"))), Snapshot.latest(Lake.open(str(lake)))
    assert again.tables == before.tables


def test_columns_in_another_order_quoted_and_unnamed_ones_read_as_well(
    tmp_path: Path, lake: Path, logs: Path, config: Config
) -> None:
    shutil.copytree(logs, tmp_path / "logs")

    def turn(header: list[str], rows: list[list[str]]) -> None:
        for row, more in [(header, ["", "a, b"]), *((row, ["7", 'two\nlines, "quoted"']) for row in rows)]:
            row[:] = [*more, *reversed(row)]

    rewritten(turn)(tmp_path / "logs")
    ingest(config, tmp_path / "logs", str(tmp_path / "lake"))
    again, before = Snapshot.latest(Lake.open(str(tmp_path / "lake"))), Snapshot.latest(Lake.open(str(lake)))
    assert again.tables == before.tables


def test_equal_unusable_lines_are_counted_each(tmp_path: Path, logs: Path, config: Config) -> None:
    shutil.copytree(logs, tmp_path / "logs")
    rewritten(lambda _, rows: rows.extend([["1", "2"], ["1", "2"]]))(tmp_path / "logs")
    counts = ingest(config, tmp_path / "logs", str(tmp_path / "lake")).tables["impressions"]
    assert (counts.rows, counts.rejected) == (ROWS + 2, 2)


@pytest.mark.parametrize(("place", "expected"), [("file", "found a file"), ("file/lake", "expected a place to write")])
def test_a_lake_that_cannot_be_written_is_said(
    tmp_path: Path, logs: Path, config: Config, place: str, expected: str
) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(BadInput, match=expected):
        ingest(config, logs, str(tmp_path / place))
    assert (tmp_path / "file").read_text() == "kept"


def test_another_set_of_heads_is_refused(lake: Path, logs: Path, config: Config) -> None:
    import dataclasses

    fewer = dataclasses.replace(config, source=dataclasses.replace(config.source, outcomes={"click": "is_click"}))
    with pytest.raises(BadInput, match="expected heads click, like, long_view"):
        ingest(fewer, logs, str(lake))
