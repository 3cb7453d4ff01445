"""`forget`: what is of a key goes from stages, records and the file, and it is proved."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from cli_toy import START_MS, TOY, outputs, toy

from stream_ml.errors import LogError, StateRefused
from stream_ml.records import Command, Output, is_forgotten
from stream_ml.sealing import MARKER, content
from stream_ml.shell.embedded.replay import output_of
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.forget import append_markers, erasures_of, find_traces, verify
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Cli

HOUR_MS = 3_600_000
KEY = "a-person-of-our-own"


def published(hours: int, *keys: str) -> list[Output]:
    """Twenty events of each key, some hours later, and labels for all but the last ten of each."""
    result = []
    for number in range(20):
        for key in keys:
            event_id, ts = f"{key}.{hours}.{number}", START_MS + hours * HOUR_MS + 1_000 * number
            event = {"event_id": event_id, "ts": ts, "user": key, "x": 1.0}
            result.append(output_of(toy, "events", event))
            if number < 10:
                label = {"event_id": event_id, "ts": ts + 10_000, "label": True}
                result.append(output_of(toy, "labels", label))
    return result


def work(path: Path, records: list[Output]) -> None:
    """Have a worker do all that is published."""
    key = Settings().signing_key(str(path))
    with SqliteLog.open_or_create(path) as log, Runner(log, toy, key) as runner:
        log.append(records)
        runner.run()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log with events of one key among those of others."""
    path = tmp_path / "log.sqlite"
    bad = [Output("events", None, b'{"event_id":"bad","user":"%s"}' % KEY.encode())]
    work(path, [*outputs(100), *published(1, KEY, "bob"), *bad])
    return path


@contextmanager
def working(path: Path) -> Iterator[None]:
    """A worker on the log, in a thread of its own."""
    over = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            key = Settings().signing_key(str(path))
            with SqliteLog.open(path) as log, Runner(log, toy, key) as runner:
                while not over.is_set():
                    runner.run()
                    over.wait(0.01)
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert [] == errors


def forget(path: Path, cli: Cli, *arguments: str) -> Any:
    """Run the command while a worker runs."""
    broker = ("--broker", f"sqlite:{path}", "--pipeline", TOY)
    with working(path):
        return cli("forget", KEY, *broker, "--reason", "asked for", "--format", "json", *arguments)


def test_all_that_is_of_a_key_is_gone_and_it_is_proved(cli: Cli, path: Path) -> None:
    """Windows, predictions that wait, records, and their bytes in the file; others stay.

    Ids are known until time has passed them, which the proof says; then nothing is left.
    """
    ids = path.parent / "ids.txt"
    everything = ("--records", "--verify", "--ids", str(ids))
    before = path.read_bytes().count(KEY.encode())

    first = forget(path, cli, *everything)
    work(path, published(9, "bob", "eve", "joe"))
    again = forget(path, cli, *everything)
    work(path, published(10, KEY))

    assert before > 40
    assert (1, {"state of predict-0", "state of join-0"}) == (
        first.code,
        {where for where in first.json["found"] if where.startswith("state")},
    )
    assert 0 == again.code, again.err
    assert {} == again.json["found"]
    # 20 events and a bad one, 10 labels, 20 predictions, 10 examples, their answers, the letter.
    assert first.json["erased"] >= 62
    assert [] == first.json["remains"]
    assert (10, True) == (first.json["learned"], bool(first.json["lines"]))
    with SqliteLog.open(path) as log:
        forgotten = [record for record in read_all(log, "events") if is_forgotten(record)]
        newest = [orjson.loads(r.value or b"{}").get("key") for r in read_all(log, "predictions")]
    assert 21 == len(forgotten)
    assert (20, 80) == (
        newest.count(KEY),
        newest.count("bob") + newest.count("eve") + newest.count("joe"),
    )


def test_a_file_of_ids_that_is_not_there_proves_nothing(cli: Cli, path: Path) -> None:
    """A misspelt name is refused, and not taken for a file without ids, nor made."""
    ids = path.with_name("misspelt.txt")
    ran = forget(path, cli, "--only-verify", "--ids", str(ids))

    assert (2, False) == (ran.code, ids.exists())
    assert f"given {ids}, which is not there" in ran.err


def test_a_version_that_learned_from_forgotten_examples_is_not_rebuilt(
    cli: Cli, tmp_path: Path
) -> None:
    """It is said that they were forgotten, and not that retention took them."""
    path = tmp_path / "log.sqlite"
    work(path, outputs(1_500))
    with SqliteLog.open(path) as log:
        assert 2 == log.erase({("examples", 0): [3, 4]}, "subject")
    ran = cli("rebuild", "plain@1000", "--broker", f"sqlite:{path}", "--pipeline", TOY)

    assert 1 == ran.code
    assert "where 2 records were forgotten (`stream-ml forget --records`)" in ran.err
    assert "retention" not in ran.err


def test_a_log_with_forgotten_records_is_read_and_worked_on_as_ever(cli: Cli, path: Path) -> None:
    """The audit is whole and names no key; readers, and new lines, pass over what is gone."""
    forget(path, cli, "--records")
    broker = ("--broker", f"sqlite:{path}")

    wider = replace(toy, models={**toy.models, "late": toy.models["plain"]})
    with SqliteLog.open(path) as log:
        key = Settings().signing_key(str(path))
        with Runner(log, wider, key) as runner:
            log.append(published(2, KEY, "bob"))
            runner.run()
        with Runner(log, toy, key) as runner:
            runner.run()
    history = cli("audit", "log", *broker, "--format", "json").out
    ran = {
        name: cli(*name.split(), *broker, *more).code
        for name, more in {
            "audit verify": (),
            "status": (),
            "models": (),
            "predictions": (),
            "dead-letters": (),
            "what-if": (TOY, "--pipeline", TOY),
        }.items()
    }
    exports = [
        cli("export", subject, "--to", "a.csv", *broker, "--pipeline", TOY, "--format", "json").json
        for subject in ("events", "labels", "examples")
    ]

    # A marker in each partition of events and labels; nothing of them is a bad record.
    assert [
        {"forgotten": 21, "markers": 1},
        {"forgotten": 10, "markers": 1},
        {"forgotten": 10},
    ] == [each["left_out"] for each in exports]
    assert [{}, {}, {}] == [each["refused"] for each in exports]
    assert ("forgotten" in history, KEY in history) == (True, False)
    assert dict.fromkeys(ran, 0) == ran


def test_without_records_it_says_what_remains_and_until_when(cli: Cli, path: Path) -> None:
    """The stages forget; what lies on the log is counted, with the end of its retention."""
    ran = forget(path, cli)

    assert 0 == ran.code
    remains = {each["topic"]: each for each in ran.json["remains"]}
    assert (21, 10, 20, 10) == tuple(
        remains[topic]["records"] for topic in ("events", "labels", "predictions", "examples")
    )
    assert remains["predictions"]["until_ms"] < remains["events"]["until_ms"]
    found = cli(
        "forget", KEY, "--broker", f"sqlite:{path}", "--pipeline", TOY, "--reason", "to see",
        "--only-verify",
    )  # fmt: skip
    assert (1, True) == (found.code, "events" in found.err)


def test_a_state_that_was_made_of_forgotten_records_is_not_made_again(cli: Cli, path: Path) -> None:
    """It would be another one: the start is refused, with the way out."""
    forget(path, cli, "--records")
    key = Settings().signing_key(str(path))
    with SqliteLog.open(path) as log:
        name = next(name for name, _ in log.state("predict-0") if name != MARKER.decode())
        log._file.write(
            "UPDATE state SET piece = x'00' WHERE owner = 'predict-0' AND key = ?", [(name,)]
        )
    with SqliteLog.open(path) as log, pytest.raises(StateRefused, match="were forgotten"):
        Runner(log, toy, key)


class Killed(BaseException):
    """Dies at an instant."""


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13])
def test_whoever_dies_while_a_key_is_forgotten_forgets_it_all_the_same(
    tmp_path: Path, steps: int
) -> None:
    """A worker that dies between any two steps, and goes on, holds what one holds that did not."""

    def dying(left: list[int]) -> Callable[[str], None]:
        def step(_: str) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed

        return step

    states, outputs_of = [], []
    for death in (0, steps):
        path = tmp_path / f"{death}.sqlite"
        now_ms = START_MS + 100 * HOUR_MS
        with SqliteLog.create(path, identity="same", now_ms=lambda at=now_ms: at) as log:
            key = b"k" * 32
            with Runner(log, toy, key) as runner:
                log.append(published(1, KEY, "bob"))
                runner.run()
            asked = Command("c", "forget", now_ms, "local", "ana", "asked for")
            append_markers(log, toy, erasures_of(log, toy, key), KEY, asked)
            log.append(published(2, KEY, "bob"))
            if death:
                with pytest.raises(Killed), Runner(log, toy, key, step=dying([death])) as runner:
                    runner.run()
            with Runner(log, toy, key) as runner:
                runner.run()
            states.append(
                {
                    (task, name): content(value)
                    for task in ("predict-0", "join-0")
                    for name, value in log.state(task)
                    if name != MARKER.decode()
                }
            )
            values = [[r.value for r in read_all(log, t)] for t in ("predictions", "examples")]
            outputs_of.append(values)
    assert states[0] == states[1]
    assert outputs_of[0] == outputs_of[1]
    windows = [name for task, name in states[0] if task == "predict-0" and KEY in name]
    assert 0 < len(windows)  # of the events behind the marker


@pytest.mark.parametrize("key", [KEY, "jo", "jörg"])
def test_refused_records_of_a_key_are_found_whatever_their_form(tmp_path: Path, key: str) -> None:
    """Nested, broken, escaped, or under the record's key only; another's letters are none of it."""
    quoted = orjson.dumps(key)
    own = [
        b'{"data":{"user":%s}}' % quoted,
        b'{"user":%s,' % quoted,
        json.dumps({"data": json.dumps({"user": key})}).encode(),
        b'{"x":1,"user":"%s",}' % json.dumps(key)[1:-1].encode(),
    ]
    others = [b'{"data":{"user":"bob"}}', b'{"user":"bob","x":%s}' % quoted, b"{jo-anne, major"]
    keyed = [Output("events", key.encode(), b"{"), Output("labels", None, b'{"event_id":["e1"]}')]
    path = tmp_path / "log.sqlite"
    work(path, [*(Output("events", None, value) for value in (*own, *others)), *keyed])
    with SqliteLog.open(path) as log:
        found = find_traces(log, toy, key, ["e1"]).counts.get("dead-letters")
        assert len(own) + len(keyed) == found


def test_alerts_that_name_a_key_are_found_whatever_is_in_it(tmp_path: Path) -> None:
    """A key may have blanks, colons and brackets; longer names that begin or end so are others."""
    key = 'ada: (42) "x"'
    named = [f"of {key}.", f"[{key}]", f"\n{key}, again"]
    others = [f"of {key}y", f"of the-{key}", "of ada"]
    with SqliteLog.create(tmp_path / "log.sqlite") as log:
        texts = (*named, *others)
        values = [orjson.dumps({"kind": "new", "message": text}) for text in texts]
        values.append(f"no JSON: {key}".encode())
        with log.session() as session:
            session.stage([Output("alerts", b"new", value) for value in values])
            session.commit()
        assert [0, 1, 2, 6] == find_traces(log, toy, key).offsets.get(("alerts", 0))


def test_no_record_is_erased_that_is_yet_to_be_read(path: Path) -> None:
    """What a group has not read stays; compacted topics are refused."""
    with SqliteLog.open(path) as log:
        log.append(published(3, KEY))
        traces = find_traces(log, toy, KEY)
        end = log.committed("predict-0")["events", 0]
        unread = [o for o in traces.offsets["events", 0] if o >= end]
        erased = log.erase({("events", 0): traces.offsets["events", 0]}, "s" * 64)
        with pytest.raises(LogError, match="compacted"):
            log.erase({("models", 0): [0]}, "s" * 64)
        assert (20, 21) == (len(unread), erased)
        assert 0 < verify(log, toy, KEY, traces.ids)["events"]


def test_what_was_erased_is_in_no_byte_of_the_file_once_it_is_scrubbed(tmp_path: Path) -> None:
    """Also where SQLite leaves what it deletes, and in pages that hold nothing any more."""
    path = tmp_path / "log.sqlite"

    def found() -> list[int]:
        files = [path, path.with_name("log.sqlite-wal")]
        return [file.read_bytes().count(KEY.encode()) for file in files if file.exists()]

    with SqliteLog.create(path) as log:
        log._file.row("PRAGMA secure_delete = OFF")
        log.append(published(1, KEY, "bob") * 20)
        traces = find_traces(log, toy, KEY)
        log._file.row("PRAGMA wal_checkpoint(TRUNCATE)")
        log.erase(traces.offsets, "s" * 64)
        before = found()
        log.scrub()
        after = found()

    assert all(count > 0 for count in before)
    assert [0] * len(after) == after
