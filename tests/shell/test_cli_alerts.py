"""`alerts`: what is open is told with its sources and the way to look further, also to machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest
from cli_toy import outputs, toy
from processes import Terminal

from stream_ml.codec import encode
from stream_ml.records import Alert, Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

GOOD = [output for output in outputs(4_000) if output.topic == "events"]


def garbage(number: int) -> list[Output]:
    """So many records that are no JSON."""
    return [Output("events", None, b"{")] * number


def work(path: Path, published: list[Output]) -> None:
    """Have a worker do all that is published."""
    key = Settings().signing_key(str(path))
    with SqliteLog.open_or_create(path) as log, Runner(log, toy, key) as runner:
        log.append(published)
        runner.run()


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    """A log of whose last events a quarter is garbage."""
    path = tmp_path / "log.sqlite"
    mixed = [o for n in range(250) for o in (*GOOD[3 * n : 3 * n + 3], *garbage(1))]
    work(path, mixed)
    return path


def test_garbage_opens_an_alert_that_names_it_and_resolves_by_itself(
    cli: Cli, poisoned: Path
) -> None:
    """Reason, source and first record, in words and for machines; gone once it is over."""
    broker = ("--broker", f"sqlite:{poisoned}")

    text = cli("alerts", *broker).out.splitlines()
    found = cli("alerts", *broker, "--format", "json").json
    status = cli("status", *broker).out.splitlines()
    work(poisoned, GOOD[750:3_800])
    later = cli("alerts", *broker, "--format", "json").json

    assert "open: 1 warning" == text[0]
    assert text[1].startswith("warning open since 2023-11-14")
    assert "poison_rate events/not_json (predict-0): 50 of 200 events were refused" in text[1]
    assert text[1].endswith("; stream-ml dead-letters")
    assert 1 == sum("poison_rate" in line for line in text), "what is open is told once"
    assert "open alerts   1 warning" in status
    assert {"critical": 0, "warning": 1, "info": 0} == found["open_counts"]
    [opened] = found["open"]
    assert ({"events-0": 50}, 3) == (
        opened["details"]["sources"],
        opened["details"]["sample"]["offset"],
    )
    assert [] == later["open"]
    assert ["open", "resolved"] == [each["state"] for each in later["last"]]
    assert [opened["fingerprint"]] * 2 == [each["fingerprint"] for each in later["last"]]
    assert opened["ts"] == later["last"][1]["since"]


def test_alerts_of_others_count_for_nothing_where_a_key_can_tell(cli: Cli, poisoned: Path) -> None:
    """With the key they are counted; without it all is shown, and that it was not checked."""
    forged = encode(Alert("guard", 5, "evaluate", "It harms.", severity="critical"))
    with SqliteLog.open(poisoned) as log, log.session() as session:
        session.stage([Output("alerts", b"guard", value) for value in (forged, b"[]", None)])
        session.commit()
    broker = ("--broker", f"sqlite:{poisoned}", "--format", "json")

    checked = cli("alerts", *broker).json
    poisoned.with_name("log.sqlite.key").unlink()
    unchecked = cli("alerts", *broker).json

    assert ["poison_rate"] == [each["kind"] for each in checked["last"]]
    assert ["3 records are no alerts of ours, and count for nothing"] == checked["notes"]
    assert ["poison_rate", "guard"] == [each["kind"] for each in unchecked["last"]]
    assert "signatures were not checked" in unchecked["notes"][0]


def test_what_came_before_the_first_event_is_told_as_of_the_start(cli: Cli, tmp_path: Path) -> None:
    """Times are of events, and the worker's clock is none of those."""
    path = tmp_path / "log.sqlite"
    raised = [
        Alert("topic_made_anew", -1, "predict", "It is another.", {}, "warning"),
        Alert("lag", -1, "predict", "It is late.", {}, "critical", "open"),
    ]
    with SqliteLog.create(path) as log, log.session() as session:
        session.stage([Output("alerts", b"k", encode(each)) for each in raised])
        session.commit()

    lines = cli("alerts", "--broker", f"sqlite:{path}").out.splitlines()

    found = [line.partition(" (")[0] for line in lines if "predict-0" in line]
    assert [
        "critical open since the start lag",
        "warning once at the start topic_made_anew",
    ] == found


def test_a_log_without_alerts(cli: Cli, worked: Path) -> None:
    """Nothing is open, and the command says so."""
    assert "open: none\n" == cli("alerts", "--broker", f"sqlite:{worked}").out


def test_what_is_open_says_that_it_has_not_read_all(cli: Cli, tmp_path: Path) -> None:
    """What opened before the last 10,000 records may be open still; `--follow` reads all."""
    path = tmp_path / "log.sqlite"
    alerts = [
        Alert("guard", n, "evaluate", "It harms.", severity="critical") for n in range(10_000)
    ]
    opened = Alert("staleness", 0, "evaluate", "It is old.", {}, "warning", "open", "line:a")
    with SqliteLog.create(path) as log, log.session() as session:
        session.stage([Output("alerts", b"k", encode(each)) for each in (opened, *alerts)])
        session.commit()
    command = ("alerts", "--open", "--broker", f"sqlite:{path}")

    text = cli(*command).out
    found = cli(*command, "--format", "json").json
    with Terminal(*command, "--follow", folder=tmp_path) as reader:
        line = reader.line()
        reader.stopped()

    assert "open: none, by the last 10,000 records" == text.splitlines()[0]
    assert (
        "the last 10,000 records were read, of at most 10,001: what opened before them and is open "
        "still is not shown; --follow begins with all that is open"
    ) == found["notes"][-1]
    assert line.startswith("warning open since 1970-01-01 00:00:00Z staleness line:a")


def test_changes_are_told_as_they_come(poisoned: Path) -> None:
    """First what is open, then each change, a JSON line each, until it is asked to stop."""
    command = ("alerts", "--follow", "--open", "--format", "json", "--broker", f"sqlite:{poisoned}")
    with Terminal(*command, folder=poisoned.parent) as reader:
        opened = orjson.loads(reader.line())
        work(poisoned, GOOD[750:3_800])
        resolved = orjson.loads(reader.line())
        ended = reader.stopped()

    assert ("open", "resolved") == (opened["state"], resolved["state"])
    assert opened["since_append_ms"] == resolved["since_append_ms"]
    assert (0, "", "") == (ended.code, ended.out, ended.err)
