"""The runner: what is picked next, when a new set serves, and how a worker starts and stops."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import orjson
import pytest

import stream_ml as sml
from stream_ml.errors import LogError, LogLocked, StreamMLError, UsageError
from stream_ml.sealing import content
from stream_ml.shell.embedded import runner as runner_module
from stream_ml.shell.embedded.runner import ROUND_RECORDS, Runner
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.stages.learn import Learn
from stream_ml.stages.predict import Predict
from stream_ml.testing import Driver
from tests.shop import KEY, declare, shop, stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stream_ml.records import Output, Record

daily = declare(promotion=sml.Promotion(refresh="1d"), predict=None, label=sml.Label(bool, "1h"))


@pytest.fixture
def log() -> Iterator[SqliteLog]:
    """A log in memory on which 120 events and their labels lie."""
    with SqliteLog.create(MEMORY, now_ms=lambda: 2**42, identity="testing") as log:
        publisher = Driver(shop)
        publisher.log, unused = log, publisher.log
        unused.close()
        events, labels = stream()
        publisher.publish("labels", labels)
        publisher.publish("events", events)
        yield log


def records(log: SqliteLog, topic: str) -> list[Record]:
    """What lies in a topic of one partition."""
    return log.read(topic, 0, 0, 1_000_000)


def values(log: SqliteLog, topic: str) -> list[bytes | None]:
    """The bytes that lie in a topic of one partition."""
    return [record.value for record in records(log, topic)]


def undisturbed(topic: str) -> list[bytes | None]:
    """What a worker that nothing happens to writes."""
    with Driver(shop, key=KEY) as driver:
        driver.feed(*stream())
        return [record.value for record in driver.records(topic)]


# --- which next -------------------------------------------------------------------------------


def in_order(events: list[Any], labels: list[Any]) -> list[tuple[str, str]]:
    """The fixed rule, plainly: by time, labels before events."""
    inputs = [(each["ts"], 0, "labels", each["event_id"]) for each in labels]
    inputs += [(each["ts"], 1, "events", each["event_id"]) for each in events]
    return [(topic, event_id) for _, _, topic, event_id in sorted(inputs, key=lambda i: i[:2])]


def test_a_new_set_serves_from_the_next_round_on() -> None:
    """Between instants everything runs in rounds of 64 inputs; within one nothing changes."""
    events, labels = stream(count=700)
    labels = [{"event_id": e["event_id"], "ts": e["ts"] + 10_000, "label": True} for e in events]
    with Driver(daily) as driver:
        driver.feed(events, labels)
        models = {each["event_id"]: each["model"] for each in driver.read("predictions")}

    rounds = {each: n // ROUND_RECORDS for n, each in enumerate(in_order(events, labels))}
    learned = [each for each in in_order(events, labels) if each[0] == "labels"]
    switch = rounds[learned[499]]
    expected = {
        event_id: "logistic@500" if number > switch else "logistic@0"
        for (topic, event_id), number in rounds.items()
        if topic == "events"
    }
    assert expected == models
    assert {"logistic@0", "logistic@500"} == set(models.values())


def test_where_refreshes_are_counted_a_new_set_serves_at_once() -> None:
    """Each event is answered by the newest snapshot of all examples before it."""
    events, labels = stream()
    with Driver(shop) as driver:
        driver.feed(events, labels)
        models = {each["event_id"]: each["model"] for each in driver.read("predictions")}

    expected, learned = {}, 0
    for topic, event_id in in_order(events, labels):
        if topic == "labels":
            learned += 1
        elif event_id in models:
            expected[event_id] = f"logistic@{learned // 20 * 20}"
    assert expected == models


@pytest.mark.parametrize("limit", [1, 7, 64, 100])
def test_how_much_is_worked_on_per_transaction_does_not_matter(limit: int) -> None:
    """Small transactions or large ones: the same bytes, as rounds are counted from the start."""
    events, labels = stream(count=700)
    outcomes = []
    for size in (limit, 5_000):
        with Driver(daily) as driver:
            driver.publish("labels", labels)
            driver.publish("events", events)
            while driver.runner.poll(size):
                pass
            outcomes.append([record.value for record in driver.records("predictions")])

    assert outcomes[0] == outcomes[1]


def test_progress_tells_of_every_transaction(log: SqliteLog) -> None:
    """Whoever waits is told how many records were read so far, and in the end."""
    told: list[int] = []
    count = len(records(log, "events")) + len(records(log, "labels"))
    with Runner(log, shop, KEY) as runner:
        assert count == runner.run(told.append)

    assert count == told[-1]
    assert sorted(told) == told


# --- start ------------------------------------------------------------------------------------


def test_a_second_worker_is_refused(log: SqliteLog) -> None:
    """One worker per log; when it has gone another may come."""
    with Runner(log, shop, KEY), pytest.raises(LogLocked):
        Runner(log, shop, KEY)

    Runner(log, shop, KEY).close()


def test_another_key_is_said_to_be_another(log: SqliteLog) -> None:
    """A worker with the wrong key stops at the start, and gives up its place."""
    with Runner(log, shop, KEY) as runner:
        runner.run()

    with pytest.raises(UsageError, match="sealed by another key; set STREAM_ML_KEY"):
        Runner(log, shop, b"another")
    with Runner(log, shop, KEY) as runner:
        assert 0 == runner.run()


def test_a_missing_snapshot_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch, log: SqliteLog
) -> None:
    """If what should serve is gone from the log, the error says where it was."""
    with Runner(log, shop, KEY) as runner:
        runner.run()
    decision = orjson.loads(values(log, "registry")[-1] or b"")
    lost = decision["serving"]["champion"]["offset"]
    read = SqliteLog.read

    def without(self: SqliteLog, topic: str, partition: int, offset: int, limit: int) -> Any:
        found = read(self, topic, partition, offset, limit)
        return [r for r in found if (r.topic, r.offset) != ("models", lost)]

    monkeypatch.setattr(SqliteLog, "read", without)
    with pytest.raises(StreamMLError) as refused:
        Runner(log, shop, KEY)

    assert (
        f"nothing can serve: the newest serving set names snapshots that `models` lacks, at {lost}"
    ) == str(refused.value)


def test_a_restart_goes_on_where_the_former_worker_stopped(
    monkeypatch: pytest.MonkeyPatch, log: SqliteLog
) -> None:
    """Inputs are read from their positions on; learners learn nothing a second time."""
    with Runner(log, shop, KEY) as runner:
        runner.run()
    learned = len(records(log, "examples"))
    asked: list[tuple[str, int]] = []
    read = SqliteLog.read

    def spy(self: SqliteLog, topic: str, partition: int, offset: int, limit: int) -> Any:
        asked.append((topic, offset))
        return read(self, topic, partition, offset, limit)

    def fail(*_: object) -> None:
        raise AssertionError("an example was learned from twice")

    monkeypatch.setattr(SqliteLog, "read", spy)
    monkeypatch.setattr(Learn, "_learn", fail)
    with Runner(log, shop, KEY) as runner:
        assert 0 == runner.run()

    ends = {topic: log.end_offset(topic, 0) for topic in ("events", "labels", "predictions")}
    assert learned > 0
    assert set(ends.items()) | {("examples", learned)} == {
        (topic, offset)
        for topic, offset in asked
        if topic in {"events", "labels", "predictions", "examples"}
    }


# --- failure ----------------------------------------------------------------------------------


def test_an_exception_in_a_stage_stops_the_worker_and_nothing_is_skipped(
    monkeypatch: pytest.MonkeyPatch, log: SqliteLog
) -> None:
    """Nothing of the failing batch is seen; the next worker does it all, to the same bytes."""
    predict = Predict._predict

    def broken(self: Predict, asking: Sequence[Any], *arguments: Any) -> Iterator[Output]:
        if any(each.record.offset >= 100 for each in asking):
            raise RuntimeError("planted")
        return predict(self, asking, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Predict, "_predict", broken)
        with pytest.raises(RuntimeError, match="planted"), Runner(log, shop, KEY) as runner:
            runner.run()
        assert [] == values(log, "predictions")

    with Runner(log, shop, KEY) as runner:
        runner.run()
    for topic in ("predictions", "examples"):
        assert undisturbed(topic) == values(log, topic)


def test_a_worker_that_leaves_in_good_order_writes_down_its_learners(log: SqliteLog) -> None:
    """After a clean stop the positions of every task are at the end of what it reads."""
    rare = declare(promotion=sml.Promotion(refresh=10_000))
    with Runner(log, rare, KEY, checkpoint_examples=10_000) as runner:
        runner.run()

    ends = {(topic, 0): len(records(log, topic)) for topic in ("examples", "registry")}
    assert ends == log.committed("learn-0")


def test_a_reader_sees_nothing_before_the_commit(log: SqliteLog) -> None:
    """Outputs, positions and state appear together, or not at all."""
    seen: list[Sequence[Any]] = []

    def look(step: str) -> None:
        if step == "dirty":
            seen.append(values(log, "predictions"))

    runner = Runner(log, shop, KEY, step=look)
    runner.poll(1_000)
    runner.close()

    assert [[], []] == seen
    assert len(values(log, "predictions")) > 0


# --- positions that are not of their partitions -----------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log in a file, of whose 120 events and labels 60 each were worked on."""
    path = tmp_path / "log.sqlite"
    events, labels = stream()
    with SqliteLog.create(path, now_ms=lambda: 2**42) as log:
        append(log, events[:60], labels[:60])
        with Runner(log, shop, KEY) as runner:
            runner.run()
        append(log, events[60:], labels[60:])
    return path


def append(log: SqliteLog, events: list[Any], labels: list[Any]) -> None:
    """Publish."""
    publisher = Driver(shop)
    publisher.log, unused = log, publisher.log
    unused.close()
    publisher.publish("labels", labels)
    publisher.publish("events", events)


def tamper(path: Path, *statements: str) -> None:
    """Change the file as no worker does; `$events` is the table of the first partition's events."""
    with sqlite3.connect(path) as file:
        (number,) = file.execute("SELECT id FROM partitions WHERE topic = 'events'").fetchone()
        for statement in statements:
            file.execute(statement.replace("$events", f"records_{number}"))
    file.close()


# What removes events before the 90th as retention does.
EXPIRED = (
    "DELETE FROM $events WHERE at < 90",
    "UPDATE partitions SET first = 90 WHERE topic = 'events'",
)
# What takes events away from the end.
CUT_OFF = (
    "DELETE FROM $events WHERE at >= 40",
    "UPDATE partitions SET next = 40 WHERE topic = 'events'",
)


def counted(log: SqliteLog) -> dict[str, int]:
    """What predict has counted."""
    counts: dict[str, int] = orjson.loads(content(log.piece("predict-0", "") or b""))["counts"]
    return counts


def test_what_was_removed_before_it_was_read_is_counted_and_told(path: Path) -> None:
    """And the rest is worked on."""
    tamper(path, *EXPIRED)
    with SqliteLog.open(path) as log:
        with Runner(log, shop, KEY) as runner:
            runner.run()
        with Runner(log, shop, KEY) as runner:
            runner.run()

        alerts = [orjson.loads(value or b"") for value in values(log, "alerts")]
        told = [each["details"] for each in alerts if each["kind"] == "records_lost"]
        lost = {"topic": "events", "partition": 0, "from": 60, "to": 90, "skipped": 30}
        assert [lost] == told
        assert (90, 30) == (counted(log)["events"], counted(log)["skipped"])


def test_what_is_removed_under_a_runner_ends_it(path: Path) -> None:
    """It does not read on over the gap: started again, it would count and tell it."""
    with SqliteLog.open(path) as log, Runner(log, shop, KEY) as runner:
        tamper(path, *EXPIRED)
        with pytest.raises(LogError, match=r"expected to go on from 60, given .* goes on at 90"):
            runner.run()


def test_a_partition_that_ends_before_its_position_is_refused_until_accepted(path: Path) -> None:
    """What was put in its place is read from its beginning, and that is told."""
    tamper(path, *CUT_OFF)
    with SqliteLog.open(path) as log:
        with pytest.raises(
            UsageError, match=r"read up to 60, .* begins at 0 and ends at 40.*ACCEPT_TOPICS=events"
        ):
            Runner(log, shop, KEY)
        with Runner(log, shop, KEY, accepted_topics=["events"]) as runner:
            runner.run()

        kinds = [orjson.loads(value or b"")["kind"] for value in values(log, "alerts")]
        assert 1 == kinds.count("topic_made_anew")
        assert {("events", 0): 40} == log.committed("predict-0")


def test_a_batch_that_takes_long_is_committed_before_it_is_full(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So whoever is killed soon after each start gets on; and what comes out is the same."""
    monkeypatch.setattr(runner_module, "BATCH_S", 0.0)
    with Runner(log, shop, KEY) as runner:
        first = runner.poll()
        committed = log.committed("predict-0")
        runner.run()

    assert 0 < first < 240
    assert committed[("events", 0)] > 0
    for topic in ("predictions", "examples", "evaluations"):
        assert undisturbed(topic) == values(log, topic)
