"""`export`: what lies on a log as CSV and JSON lines (Parquet: `tests_extras/test_parquet.py`)."""

from __future__ import annotations

import csv
import shutil
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from cli_toy import START_MS, TOY, outputs, stream, toy

from stream_ml.cli.commands.export import SUBJECTS as OFFERED
from stream_ml.records import Output
from stream_ml.shell.embedded.replay import replay
from stream_ml.shell.export.run import export as run_export
from stream_ml.shell.export.tables import SUBJECTS
from stream_ml.shell.log.reading import examples, read_all
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings
from stream_ml.shell.whole_files import PARTIAL
from tests.stages.test_generations import applied, former, wider

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli, Ran


@pytest.fixture
def export(cli: Cli, worked: Path, tmp_path: Path) -> Any:
    """Exports from the log on which the toy has run."""

    def run(subject: str, to: str, *more: str) -> Ran:
        log = ("--broker", f"sqlite:{worked}", "--pipeline", TOY)
        return cli(*log, "export", subject, "--to", str(tmp_path / to), *more)

    return run


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a file of CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_help_offers_what_there_is() -> None:
    """Every subject that can be exported is offered, and no other."""
    assert set(SUBJECTS) == set(OFFERED)


def test_events_come_out_as_they_went_in(export: Any, tmp_path: Path) -> None:
    """Each declared field is a member, and the lines can be published again as they are."""
    ran = export("events", "events.jsonl")

    lines = lines_of(tmp_path / "events.jsonl")
    assert (0, "") == (ran.code, ran.err)
    assert "2,500 events written" in ran.out
    assert stream(2_500)[0] == [{name: line[name] for name in list(line)[:4]} for line in lines]
    assert list(range(2_500)) == [line["log_offset"] for line in lines]


def test_a_backtest_of_exported_files_gives_the_same_predictions(
    cli: Cli, export: Any, worked: Path, tmp_path: Path
) -> None:
    """What was exported as JSON lines is read as what was published at first."""
    export("events", "events.jsonl")
    export("labels", "labels.jsonl")
    files = [str(tmp_path / f"{name}.jsonl") for name in ("events", "labels")]
    again = tmp_path / "predictions.jsonl"

    ran = cli("--pipeline", TOY, "backtest", *files, "--predictions", str(again))

    with SqliteLog.open(worked) as log:
        former = [orjson.loads(record.value or b"") for record in read_all(log, "predictions")]
    assert ran.code == 0
    assert [(each["event_id"], each["prediction"]) for each in former] == [
        (each["event_id"], each["prediction"]) for each in lines_of(again)
    ]


def test_examples_have_a_column_for_each_feature_and_the_answers_of_all(
    export: Any, worked: Path, tmp_path: Path
) -> None:
    """A spreadsheet shows what was learned from: features, truth, and what each line had said."""
    export("examples", "examples.csv")
    export("examples", "examples.jsonl")

    with SqliteLog.open(worked) as log:
        expected = list(examples(log))
    rows, lines = rows_of(tmp_path / "examples.csv"), lines_of(tmp_path / "examples.jsonl")
    assert [each.prediction.features for each in expected] == [
        {name: line[f"feature.{name}"] for name in toy.feature_set.names} for line in lines
    ]
    assert [each.prediction.shadows["scaled"].prediction for each in expected] == [
        line["shadows"]["scaled"]["prediction"] for line in lines
    ]
    assert [str(each.prediction.prediction) for each in expected] == [
        row["prediction"] for row in rows
    ]
    assert ["true" if each.label else "false" for each in expected] == [r["label"] for r in rows]
    assert "2023-11-14T22:13:20.000Z" == rows[0]["ts"]


def test_only_what_is_of_the_time_is_written(export: Any, tmp_path: Path) -> None:
    """From `--since` on, up to before `--until`, by the time of the event; the rest is counted."""
    begin, end = START_MS + 100_000, START_MS + 103_000
    ran = export("predictions", "p.jsonl", "--since", str(begin), "--until", str(end))
    empty = export("predictions", "p.jsonl", "--since", str(end), "--until", str(begin))

    assert [begin, begin + 1_000, begin + 2_000] == [
        line["ts"] for line in lines_of(tmp_path / "p.jsonl")
    ]
    assert "2,497 are of other times" in ran.out
    assert (2, True) == (empty.code, "after --since" in empty.err)


def test_equal_logs_give_equal_bytes(worked: Path, tmp_path: Path) -> None:
    """An export can be compared with one of yesterday; each subject has rows."""
    key = Settings().verifying_key(str(worked))
    with SqliteLog.open(worked) as log:
        for number, subject in enumerate(OFFERED):
            ending = ("csv", "jsonl")[number % 2]
            for name in ("a", "b"):
                made = run_export(log, toy, key, subject, tmp_path / f"{name}.{ending}")
            first, second = [(tmp_path / f"{name}.{ending}").read_bytes() for name in ("a", "b")]
            assert first == second
            assert made.rows + (ending == "csv") == first.count(b"\n") > 1


def test_rows_of_a_former_declaration_have_the_features_that_they_had(tmp_path: Path) -> None:
    """Features that were added on the way are empty before that, and no row is refused."""
    with applied() as driver:
        made = run_export(driver.log, wider, b"testing", "examples", tmp_path / "a.csv")
        count = len(driver.records("examples"))

    rows = rows_of(tmp_path / "a.csv")
    new, *_ = [name for name in wider.feature_set.names if name not in former.feature_set.names]
    held = [bool(row[f"feature.{new}"]) for row in rows]
    assert (count, {}) == (made.rows, made.refused)
    assert {False, True} == set(held)
    assert sorted(held) == held


def test_what_is_no_record_is_counted(cli: Cli, tmp_path: Path) -> None:
    """A line that nobody could read, and a prediction that is not ours, are named and left out."""
    path = tmp_path / "log.sqlite"
    key = Settings().signing_key(str(path))
    with SqliteLog.create(path) as log:
        replay(log, toy, key, [Output("events", b"u1", b"{"), *outputs(50)])
        forged = log.read("predictions", 0, 7, 1)[0].value or b""
        log._append([Output("predictions", b"e7", forged.replace(b'"u', b'"w'))])
    base = ("--broker", f"sqlite:{path}", "--pipeline", TOY, "export")
    events = cli(*base, "events", "--to", "e.csv", "--format", "json").json
    predictions = cli(*base, "predictions", "--to", "p.csv", "--format", "json").json

    assert (50, {"not_json": 1}) == (events["rows"], events["refused"])
    assert "events-0, offset 0: not_json at $" in events["first_refused"]
    assert (50, {"forged": 1}) == (predictions["rows"], predictions["refused"])


def test_a_file_that_is_not_whole_has_no_name(
    export: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export that fails half way leaves the former file as it was, and nothing beside it."""
    export("labels", "labels.csv")
    former = (tmp_path / "labels.csv").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stream_ml.shell.export.files.CsvWriter.write", full)
    ran = export("labels", "labels.csv")

    assert 1 == ran.code
    assert "No space left" in ran.err
    assert former == (tmp_path / "labels.csv").read_bytes()
    assert not (tmp_path / f"labels.csv{PARTIAL}").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("events.xlsx", "expected a file that ends in .parquet, .csv or .jsonl"),
        ("nowhere/events.csv", "make it first"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused(export: Any, name: str, words: str) -> None:
    """Of which kind it must be, or what is missing, is said before anything is read."""
    ran = export("events", name)

    assert (2, True) == (ran.code, words in ran.err)


def test_without_pyarrow_the_way_out_is_said(export: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for Parquet without its library is told what to install, or to write instead."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    ran = export("events", "events.parquet")

    assert 2 == ran.code
    assert 'pip install "stream-ml[archive]", or write .csv or .jsonl' in ran.err


def test_a_log_is_exported_while_a_worker_holds_it(cli: Cli, worked: Path, tmp_path: Path) -> None:
    """It only reads, so whoever works on the log is not in its way."""
    copy = tmp_path / "copy.sqlite"
    shutil.copy(worked, copy)
    shutil.copy(f"{worked}.key", f"{copy}.key")
    with SqliteLog.open(copy) as log, log.session():
        ran = cli(
            "--broker", f"sqlite:{copy}", "--pipeline", TOY, "export", "labels", "--to", "l.csv"
        )

    assert 0 == ran.code
