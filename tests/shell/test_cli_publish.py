"""`publish` and `predictions`: what is taken, what is refused, what is reported, what is read."""

from __future__ import annotations

import threading
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest
from cli_toy import START_MS, TOY, outputs, stream, toy, write_lines
from processes import DEADLINE_S, Terminal
from river import linear_model

import stream_ml as sml
from stream_ml.client import Publisher, predictions
from stream_ml.errors import BadRecord, UsageError
from stream_ml.records import Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.processes import line_batches as lines
from stream_ml.shell.processes.stop import Stop
from stream_ml.shell.rows import reader
from stream_ml.shell.settings.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli


@pytest.fixture
def log(tmp_path: Path) -> SqliteLog:
    """The log that a command finds where it runs."""
    return SqliteLog.create(tmp_path / "stream_ml.sqlite", partitions=3)


def _reported(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


# --- publish ----------------------------------------------------------------------------------


def test_a_file_of_events(cli: Cli, log: SqliteLog, tmp_path: Path) -> None:
    """Each line lies where the report says, keyed as the topic is."""
    events, _ = stream(2_500)
    file = write_lines(tmp_path / "events.jsonl", events)

    ran = cli("publish", "events", file, "--pipeline", TOY, "--report", "report.jsonl")

    assert (ran.code, ran.out) == (0, "")
    assert ran.err.startswith("published 2,500 events in ")
    report = _reported(tmp_path / "report.jsonl")
    assert [each["line"] for each in report] == [*range(1, 2_501)]
    for each, event in zip(report, events, strict=True):
        [record] = log.read("events", each["partition"], each["offset"], 1)
        assert (record.key, record.value) == (event["user"].encode(), orjson.dumps(event))


def test_bad_lines_are_named_and_the_rest_goes_on(cli: Cli, log: SqliteLog, tmp_path: Path) -> None:
    """A refused line is told with number, reason and path, counted, and makes the exit code 1."""
    good, other = stream(2)[0]
    bad = [b"nope", b"[1]", b'{"event_id":"e","ts":1,"user":"u","x":"high"}']
    file = write_lines(tmp_path / "events.jsonl", [good], *bad, b"", orjson.dumps(other))

    ran = cli("publish", "events", file, "--pipeline", TOY, "--report", "report.jsonl")

    assert ran.code == 1
    told = ran.err.splitlines()
    assert told[0].startswith(f"{file}:2: not_json at $: expected a JSON object: ")
    assert told[1] == f"{file}:3: not_an_object at $: expected a JSON object, given list of 1"
    assert told[2] == f"{file}:4: wrong_type at $.x: expected float, given str 'high'"
    assert told[3].endswith("refused: 1 not json, 1 not an object, 1 wrong type")
    assert told[4] == "stream-ml: publish: 3 lines were refused"
    report = _reported(tmp_path / "report.jsonl")
    assert sorted((each["line"], each.get("refused")) for each in report) == [
        (1, None),
        (2, "not_json"),
        (3, "not_an_object"),
        (4, "wrong_type"),
        (6, None),
    ]
    assert sum(log.end_offset("events", partition) for partition in range(3)) == 2


def test_strict_stops_at_the_first_bad_line(cli: Cli, log: SqliteLog, tmp_path: Path) -> None:
    """What came before it is published, and nothing after it."""
    events, _ = stream(3)
    lines_ = [orjson.dumps(events[0]), b"nope", orjson.dumps(events[1])]
    file = write_lines(tmp_path / "events.jsonl", [], *lines_)

    ran = cli("publish", "events", file, "--pipeline", TOY, "--strict", "--format", "json")

    assert (ran.code, ran.json["events"], ran.json["refused"]) == (1, 1, {"not_json": 1})
    assert ran.err.splitlines()[-1] == (
        f"stream-ml: publish: stopped at {file}:2, as --strict asks; what came before it was "
        "published"
    )
    assert sum(log.end_offset("events", partition) for partition in range(3)) == 1


def test_a_line_that_is_too_long(
    cli: Cli, log: SqliteLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that nobody would read is refused without being held."""
    monkeypatch.setattr(reader, "RECORD_BYTES_MAX", 100)
    monkeypatch.setattr(lines, "READ_BYTES", 64)
    file = write_lines(tmp_path / "labels.jsonl", stream(11)[1], b"x" * 1_000)

    ran = cli("publish", "labels", file, "--pipeline", TOY)

    assert ran.code == 1
    assert f"{file}:2: too_large at $: expected at most 100 bytes in a line" in ran.err
    assert sum(log.end_offset("labels", partition) for partition in range(3)) == 1


@pytest.mark.usefixtures("log")
def test_a_rate(cli: Cli, tmp_path: Path) -> None:
    """With --rate the last line does not leave before its time."""
    file = write_lines(tmp_path / "events.jsonl", stream(30)[0])

    ran = cli("publish", "events", file, "--pipeline", TOY, "--rate", "200", "--format", "json")

    assert (ran.code, ran.json["events"]) == (0, 30)
    assert ran.json["seconds"] >= 20 / 200


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "often"])
def test_no_rate(cli: Cli, given: str) -> None:
    """A rate that is none is refused as usage."""
    ran = cli("publish", "events", "-", "--rate", given)

    assert ran.code == 2
    assert f"argument --rate: expected a number above 0, given '{given}'" in ran.err


def test_what_must_be_there(cli: Cli, log: SqliteLog) -> None:
    """A file that is not there is named before anything is sent; so is a log that is not there."""
    absent = cli("publish", "events", "absent.jsonl", "--pipeline", TOY)
    elsewhere = cli("publish", "events", "-", "--pipeline", TOY, "--broker", "sqlite:other")

    wanted = "stream-ml: absent.jsonl: expected a file of JSON lines, CSV or Parquet, given none"
    assert (absent.code, absent.err) == (2, f"{wanted} of that name\n")
    assert elsewhere.code == 3
    assert "other: expected a log, given no file" in elsewhere.err
    assert log.end_offset("events", 0) == 0


def test_waiting_for_the_log_of_a_worker_that_starts(cli: Cli, tmp_path: Path) -> None:
    """Whoever starts both at once loses nothing, and one that waits in vain is told so."""
    path = tmp_path / "later.sqlite"
    file = write_lines(tmp_path / "events", stream(10)[0])
    command = ("publish", "events", file, "--pipeline", TOY, "--broker", f"sqlite:{path}")
    worker = threading.Timer(0.5, lambda: SqliteLog.create(path).close())

    at_once = cli(*command)
    in_vain = cli(*command, "--wait", "0.1")
    worker.start()
    in_time = cli(*command, "--wait", "60")
    worker.join()

    assert (3, 3, 0) == (at_once.code, in_vain.code, in_time.code)
    assert "expected a log, given no file" in in_vain.err
    assert "published 10 events" in in_time.err


def test_stopped_half_way(tmp_path: Path, log: SqliteLog) -> None:
    """Asked to stop, it ends with 130, and everything that it reported as taken was taken."""
    events, _ = stream(5_000)
    file = write_lines(tmp_path / "events.jsonl", events)
    report = tmp_path / "report.jsonl"
    arguments = ("publish", "events", file, "--rate", "1000", "--report", str(report))
    with Terminal(*arguments, folder=tmp_path, STREAM_ML_PIPELINE=TOY) as publisher, Stop() as stop:
        deadline = time.monotonic() + DEADLINE_S
        while not report.exists() or len(report.read_bytes().splitlines()) < 100:
            assert time.monotonic() < deadline
            stop.wait(0.005)
        ended = publisher.stopped()

    assert ended.code == 130
    assert ended.err.splitlines()[-1] == "stream-ml: interrupted"
    reported = _reported(report)
    assert 100 <= len(reported) < 5_000
    assert len(reported) == sum(log.end_offset("events", partition) for partition in range(3))
    for each in reported:
        [record] = log.read("events", each["partition"], each["offset"], 1)
        assert record.value == orjson.dumps(events[each["line"] - 1])


@pytest.mark.parametrize(
    ("members", "reason", "path"),
    [
        ({"event_id": "e", "ts": 1, "user": "u"}, "missing_field", "$.x"),
        ({"event_id": "e", "ts": 1, "user": "u", "x": float("nan")}, "wrong_type", "$.x"),
        ({"event_id": "e", "ts": 1, "user": "u", "x": {1}}, "wrong_type", "$.x"),
        ({"event_id": "e", "ts": 1, "user": "u", "x": 2**70}, "out_of_range", "$.x"),
        ({"event_id": "e", "ts": 1, "user": "u", "x": -(2**63) - 1}, "out_of_range", "$.x"),
        ({"event_id": "e", "ts": 1, "user": "u", "x": np.float32(1.5)}, "wrong_type", "$.x"),
        ({"event_id": "e", "ts": np.int64(1), "user": "u", "x": 1.5}, "wrong_type", "$.ts"),
        ({"event_id": "e", "ts": 1, "user": "u", "x": 1.5, 7: 1}, "not_json", "$"),
    ],
)
def test_publishing_from_python_refuses(members: dict[str, Any], reason: str, path: str) -> None:
    """What the pipeline would refuse is refused where it is published, and nothing is sent."""
    with SqliteLog.create(MEMORY) as log:
        with pytest.raises(BadRecord) as refused:
            Publisher(log, toy).publish_event(members)

        assert (refused.value.reason, refused.value.path) == (reason, path)
        assert log.end_offset("events", 0) == 0


def test_publishing_from_python() -> None:
    """Events are keyed by their entity, labels by their event."""
    events, labels = stream(11)
    with SqliteLog.create(MEMORY) as log:
        publisher = Publisher(log, toy)
        event, label = publisher.publish_event(events[0]), publisher.publish_label(labels[0])

        assert (event.topic, event.key, event.offset) == ("events", b"u0", 0)
        assert (label.topic, label.key, label.offset) == ("labels", b"e0", 0)
        with Runner(log, toy, b"key") as runner:
            runner.run()
        assert log.end_offset("examples", 0) == 1


# --- predictions ------------------------------------------------------------------------------


def test_predictions_as_they_are(cli: Cli, worked: Path) -> None:
    """The records themselves, in order, and the end where the log ends."""
    ran = cli("predictions", "--broker", f"sqlite:{worked}", "--format", "json")

    told = ran.out.splitlines()
    with SqliteLog.open(worked) as log:
        assert told == [
            (record.value or b"").decode() for record in log.read("predictions", 0, 0, 10_000)
        ]
    assert len(told) == 2_500


def test_predictions_of_one_entity_from_a_time_on(cli: Cli, worked: Path) -> None:
    """Times are those of events, as the text shows them."""
    arguments = ("predictions", "--broker", f"sqlite:{worked}", "--key", "u3")

    ran = cli(*arguments, "--from", "2023-11-14T22:54:00Z")

    first = next(
        n for n in range(2_500) if n % 7 == 3 and START_MS + 1_000 * n >= 1_700_002_440_000
    )
    assert (ran.code, ran.err) == (0, "")
    lines_ = ran.out.splitlines()
    assert lines_[0].split("  ")[1:3] == [f"e{first}", "u3"]
    assert lines_[0].endswith("  plain@2000")
    assert len(lines_) == len(range(first, 2_500, 7))
    assert cli(*arguments, "--from", "end").out == ""


@pytest.mark.parametrize(
    ("time", "hint"),
    [
        ("1700000000", "; if these are seconds, it is 2023-11-14 22:13:20Z: write 1700000000000"),
        ("1700000000000000", "; if these are microseconds, it is 2023-11-14 22:13:20Z: write"),
        ("202611271200", ""),
        ("20261127120000", ""),
        ("99999999", ""),
        ("-1", ""),
        ("1960-01-01", ""),
        ("9" * 400, ""),
    ],
)
@pytest.mark.parametrize("command", [["predictions", "--from={}"], ["audit", "at", "{}"]])
def test_a_number_that_is_hardly_a_time(cli: Cli, command: list[str], time: str, hint: str) -> None:
    """Seconds, finer units and dates without signs are not taken for milliseconds of 1970."""
    if command[0] == "audit" and time == "-1":
        command = ["audit", "at", "--", "{}"]

    ran = cli(*(word.format(time) for word in command))

    assert ran.code == 2
    told = f"expected a time such as 2013-05-01T12:00Z or UTC milliseconds, given {time!r}{hint}"
    assert told in ran.err


@pytest.mark.parametrize("declared", [True, False])
def test_all_predictions_from_a_time_on_whatever_the_skew(
    cli: Cli, tmp_path: Path, declared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that were published long before their time are not passed over."""
    plan = sml.Pipeline(
        "plan",
        events=sml.Events(key="user", fields={"x": float}, skew="30d", lateness="30d"),
        features=[sml.field("x")],
        label=sml.Label(bool, "1h"),
        champion="plain",
        models={"plain": linear_model.LogisticRegression()},
    )
    day = 86_400_000
    with SqliteLog.create(tmp_path / "stream_ml.sqlite", now_ms=lambda: START_MS) as log:
        publisher = Publisher(log, plan)
        for ahead in (20, 0, 2, 10):
            event = {"event_id": f"in {ahead}", "ts": START_MS + ahead * day, "user": "u", "x": 1.0}
            publisher.publish_event(event)
        with Runner(log, plan, b"k" * 32) as worker:
            worker.run()
        since_ms, skew_ms = START_MS + 5 * day, plan.skew_ms if declared else None
        found = [each.event_id for each in predictions(log, since_ms=since_ms, skew_ms=skew_ms)]
        monkeypatch.setattr("stream_ml.cli.commands.predictions._skew_ms", lambda _: skew_ms)
        ran = cli("predictions", "--from", "2023-11-19T22:13:20Z")

    assert found == ["in 20", "in 10"]
    assert [line.split("  ")[1] for line in ran.out.splitlines()] == found


def test_seconds_from_python() -> None:
    """A time in seconds is refused with what it would be in milliseconds."""
    with SqliteLog.create(MEMORY) as log, pytest.raises(UsageError, match="it is 1700000000000"):
        list(predictions(log, since_ms=1_700_000_000))


def test_no_time(cli: Cli) -> None:
    """What is no time is answered with one that is."""
    ran = cli("predictions", "--from", "noon")

    assert ran.code == 2
    assert "expected a time such as 2013-05-01T12:00Z or UTC milliseconds, given 'noon'" in ran.err


def test_following_from_python() -> None:
    """An iterator gives typed records as they come, until it is asked to stop."""
    event = b'{"event_id":"z","ts":1700000020000,"user":"u","x":1}'
    with (
        SqliteLog.create(MEMORY, partitions=2) as log,
        Runner(log, toy, b"key") as runner,
        Stop() as stop,
    ):
        log.append(outputs(20))
        runner.run()
        following = predictions(log, stop=stop)
        assert len(list(islice(following, 20))) == 20
        log.append([Output("events", b"u", event)])
        runner.run()

        later = next(following)
        stop.ask()

        assert (later.event_id, later.key, later.model) == ("z", "u", "plain@0")
        assert next(following, None) is None
        assert len(list(predictions(log))) == 21


def test_an_answer_per_class(cli: Cli, tmp_path: Path) -> None:
    """Of several classes the text names the likeliest."""
    from river import naive_bayes  # noqa: PLC0415 - only this test declares a pipeline

    import stream_ml as sml  # noqa: PLC0415 - as above

    colours = sml.Pipeline(
        "colours",
        events=toy.events,
        features=toy.features,
        label=sml.Label(sml.Enum("red", "green", "blue"), horizon="1h", fallback="green"),
        models={"bayes": naive_bayes.GaussianNB()},
        champion="bayes",
    )
    path = tmp_path / "colours.sqlite"
    key = Settings().signing_key(str(path))
    with SqliteLog.create(path) as log, Runner(log, colours, key) as runner:
        log.append(outputs(1)[:1])
        runner.run()

    ran = cli("predictions", "--broker", f"sqlite:{path}")

    assert ran.out == "2023-11-14 22:13:20Z  e0  u0  green 1.0000  bayes@0, no answer\n"
