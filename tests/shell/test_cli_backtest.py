"""`backtest`: files in, scores and accounts out."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import orjson
import pytest
from cli_toy import TOY, stream, toy, write_lines

import stream_ml as sml
from stream_ml.cli.execution import backtest
from stream_ml.codec import RECORD_BYTES_MAX
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import SqliteLog

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

AS_JSON = ("--pipeline", TOY, "--format", "json")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Events and labels of the toy in two files, a few lines among them that are none."""
    events, labels = stream(1_200)
    return [
        write_lines(tmp_path / "events.jsonl", events, b"{", b"[1]", b"", b'{"user":"u"}'),
        write_lines(tmp_path / "labels.jsonl", labels, b'{"label":true}'),
    ]


def test_no_backtest_on_a_cluster(cli: Cli) -> None:
    """What is replayed is not put among what workers work on."""
    ran = cli("backtest", "x.jsonl", "--pipeline", TOY, "--broker", "kafka://h:9092")

    assert ran.code == 2
    assert "backtest: expected --broker sqlite:PATH, given kafka://h:9092; it replays" in ran.err


def test_everything_under_stable_names(cli: Cli, files: list[str]) -> None:
    """The JSON holds scores, decisions, accounts, dead letters and timings."""
    ran = cli("backtest", *files, *AS_JSON)

    assert (ran.code, ran.err) == (1, "stream-ml: backtest: 4 of 2,394 were refused\n")
    found = ran.json
    assert found["published"] == {"events": 1_203, "labels": 1_191}
    assert found["events"] == {
        "events": 1_200,
        "predictions": 1_200,
        "refused": 3,
        "no_answer": 0,
        "strays": 0,
        "window_events_dropped": 0,
    }
    assert found["labels"]["joined"] == 1_190
    assert found["labels"]["bad_label"] == 1
    assert found["labels"]["waiting_predictions"] == 10
    assert found["dead_letters"] == {"missing_field": 2, "not_an_object": 1, "not_json": 1}
    assert found["decisions"] == {"bootstrap": 1, "refreshed": 2}
    assert (found["pipeline"], found["task"], found["champion"]) == ("toy", "binary", "plain@1000")
    assert [each["model"] for each in found["models"]] == ["served", "scaled", "prior", "first"]
    served = found["models"][0]
    assert set(served["scores"]) == {"cumulative", "fading", "windowed"}
    assert set(served["scores"]["windowed"]) == {"roc_auc", "log_loss", "brier", "accuracy"}
    assert served["delay_ms"] == {"p50": 10_000, "p90": 10_000, "p99": 10_000}
    assert set(found["seconds"]) == {"publish", "work"}
    assert found["alerts"] == {}
    assert found["written"] == []
    assert found["report"]["examples"] == 1_190
    [ladder] = found["report"]["ladders"]
    assert (ladder["champion"], ladder["challenger"], ladder["pairs"]) == ("plain", "scaled", 1_190)
    assert found["report"]["gaps"] == []


def test_text_for_people(cli: Cli, files: list[str]) -> None:
    """The text says the same in tables and sentences."""
    ran = cli("backtest", *files, "--pipeline", TOY)

    lines = ran.out.splitlines()
    assert lines[0] == "pipeline      toy (binary)"
    assert "published     1,203 events, 1,191 labels" in lines
    assert "dead letters  2 missing field, 1 not an object, 1 not json" in lines
    assert "champion      plain@1000" in lines
    assert "scores over everything" in lines
    assert any(line.startswith("served  plain@1000") for line in lines)


def test_scores_by_slice_where_some_are_declared(cli: Cli, files: list[str]) -> None:
    """Each slice is a row of losses, in a column for each model, and has none where none is."""
    text = cli("backtest", *files, "--pipeline", TOY.replace(":toy", ":sliced")).out

    head, names, row = text.partition("by slice")[2].partition("\n\n")[0].splitlines()
    assert ", over all of it" == head
    assert ["slice", "examples", "served"] == names.split()[:3]
    assert ["seldom", "170"] == row.split()[:2]
    assert "by slice" not in cli("backtest", *files, "--pipeline", TOY).out


def test_the_bound_on_request(cli: Cli, files: list[str]) -> None:
    """With --live there are tables by month with a learner that predicts live among the rest."""
    found = cli("backtest", *files, *AS_JSON, "--live").json
    text = cli("backtest", *files, "--pipeline", TOY, "--live").out

    total = found["report"]["months"][-1]
    assert "live" in total["scores"]
    assert "served  scaled" in text
    assert "  live" in text
    assert "  live" not in cli("backtest", *files, "--pipeline", TOY).out


def test_one_file_or_several_or_a_pipe(
    cli: Cli, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the lines come from makes no difference."""
    apart = cli("backtest", *files, *AS_JSON).json
    together = b"".join(map(_bytes, files))
    (tmp_path / "all.jsonl").write_bytes(together)
    one = cli("backtest", "all.jsonl", *AS_JSON).json
    with (tmp_path / "all.jsonl").open(encoding="utf-8") as given:
        monkeypatch.setattr(sys, "stdin", given)
        piped = cli("backtest", "-", *AS_JSON).json

    for found in (one, piped):
        # Which line it was that was refused differs, of course.
        assert {**found, "seconds": apart["seconds"], "refused": apart["refused"]} == apart


def _bytes(file: str) -> bytes:
    with open(file, "rb") as opened:  # noqa: PTH123 - a name, as a command line has it
        return opened.read()


def test_predictions_in_a_file(cli: Cli, files: list[str], tmp_path: Path) -> None:
    """The predictions are the topic's records, line by line."""
    ran = cli("backtest", *files, *AS_JSON, "--predictions", "out.jsonl", "--broker", "sqlite:l")

    with SqliteLog.open("l") as log:
        expected = [record.value for record in read_all(log, "predictions")]
    lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert lines == expected
    assert orjson.loads(lines[0])["event_id"] == "e0"
    assert ran.json["written"] == ["out.jsonl"]


def test_plots(cli: Cli, files: list[str], tmp_path: Path) -> None:
    """Plots are drawn on request, and named."""
    ran = cli("backtest", *files, "--pipeline", TOY, "--plots", "drawn")

    assert ran.code == 1  # a few lines are none
    pictures = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert "story.png" in pictures
    assert all(f"  drawn/{name}" in ran.out.splitlines() for name in pictures)


def test_nothing_is_kept_unless_asked_for(
    cli: Cli, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log that the surroundings name is somebody's: a backtest does not write to it."""
    monkeypatch.setenv("STREAM_ML_BROKER", "sqlite:production.sqlite")

    assert cli("backtest", *files, *AS_JSON).json["published"]["events"] == 1_203
    assert sorted(os.listdir(tmp_path)) == ["events.jsonl", "labels.jsonl"]  # noqa: PTH208 - names


def test_a_log_with_records_is_refused(cli: Cli, worked: Path, files: list[str]) -> None:
    """A backtest is of its files alone, so it does not add to what is there."""
    ran = cli("backtest", *files, *AS_JSON, "--broker", f"sqlite:{worked}")

    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"stream-ml: backtest: expected a log with nothing in it, given {worked} with 2,500 "
        "events, 2,490 labels; name another, or leave --broker out to work in memory\n"
    )


def test_no_examples_is_no_failure(cli: Cli, tmp_path: Path) -> None:
    """Events without labels are predicted, and nothing is scored."""
    file = write_lines(tmp_path / "events.jsonl", stream(20)[0])

    ran = cli("backtest", file, "--pipeline", TOY)

    assert ran.code == 0
    assert "no label met its prediction: nothing to score" in ran.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["absent"],
            "absent: expected a file of JSON lines, CSV or Parquet, given none of that name",
        ),
        (["."], ".: expected a file of JSON lines, CSV or Parquet, given a folder"),
        (
            ["events.jsonl", "--predictions", "no/out.jsonl"],
            "--predictions: expected a folder no to write into, given none; make it first",
        ),
    ],
)
def test_what_cannot_work_is_said_at_once(
    cli: Cli, files: list[str], arguments: list[str], message: str
) -> None:
    """A wrong path is found before the work, not after it."""
    assert files
    ran = cli("backtest", *arguments, "--pipeline", TOY)

    assert (ran.code, ran.err) == (2, f"stream-ml: {message}\n")


def test_a_line_that_no_log_takes(cli: Cli, tmp_path: Path) -> None:
    """A line of megabytes is refused by its number: that is no file of JSON lines."""
    file = write_lines(tmp_path / "big", stream(1)[0], b"x" * (RECORD_BYTES_MAX + 1))

    ran = cli("backtest", file, "--pipeline", TOY)

    assert (ran.code, ran.err) == (
        2,
        (
            f"stream-ml: {file}:2: expected at most 1048576 bytes in a line, given more; "
            "is it a file of JSON lines?\n"
        ),
    )


def test_an_event_field_named_label_is_refused(
    cli: Cli, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels are told by their member `label`, so no event may have one."""
    events = sml.Events(key="user", fields={**toy.events.fields, "label": str})
    odd = sml.Pipeline(
        "odd",
        events=events,
        features=toy.features,
        label=toy.label,
        models=toy.models,
        champion="plain",
    )
    monkeypatch.setattr(backtest, "pipeline_of", lambda *_: odd)

    ran = cli("backtest", *files)

    assert (ran.code, ran.err) == (
        2,
        (
            "stream-ml: backtest: expected no event field 'label', by which labels are told from "
            "events, given one in pipeline 'odd'; rename it\n"
        ),
    )
