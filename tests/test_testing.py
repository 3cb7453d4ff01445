"""The driver that users test with: what is fed comes out, wherever the worker dies."""

from __future__ import annotations

from typing import Any

import pytest

from stream_ml.records import Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteSession
from stream_ml.testing import CRASH, Driver
from tests.shop import shop, stream

EVENTS, LABELS = stream()
TOPICS = ("predictions", "examples", "registry", "alerts", "dead-letters")


def outcome(driver: Driver) -> dict[str, Any]:
    """What was written, in bytes."""
    return {topic: [record.value for record in driver.records(topic)] for topic in TOPICS}


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """What comes out where nobody dies."""
    with Driver(shop) as driver:
        driver.feed(EVENTS, LABELS)
        return outcome(driver)


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
@pytest.mark.parametrize("places", [[0], [60], [120], [10, 10, 50], [0, 30, 60, 90, 120]])
def test_crashes_anywhere_change_nothing(
    expected: dict[str, Any], places: list[int], seed: int | None
) -> None:
    """A marker among the events kills the worker there; what comes out is what would have."""
    events: list[Any] = list(EVENTS)
    for place in reversed(places):
        events.insert(place, CRASH)
    with Driver(shop, seed=seed) as driver:
        driver.feed(events, LABELS)

        assert expected == outcome(driver)


def test_the_worker_dies_at_the_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has worked on the events before it and committed none of them; another goes on."""
    started: list[dict[Any, int]] = []
    restore = Runner._restore

    def spy(self: Runner) -> None:
        started.append(self._log.committed("predict-0"))
        restore(self)

    worked: list[int] = []
    close = SqliteSession.close

    def last(self: SqliteSession) -> None:
        if driver._runner is not None:
            worked.append(sum(stage.counts["events"] for stage in driver._runner.predicts))
        close(self)

    monkeypatch.setattr(Runner, "_restore", spy)
    monkeypatch.setattr(SqliteSession, "close", last)
    with Driver(shop) as driver:
        driver.feed([*EVENTS[:70], CRASH, *EVENTS[70:]], LABELS)
        assert [{}, {}] == started
        assert [70] == worked


def test_a_worker_that_loses_what_it_committed_is_caught(
    monkeypatch: pytest.MonkeyPatch, expected: dict[str, Any]
) -> None:
    """The driver's crashes show a worker whose positions run ahead of what it has written."""
    commit = SqliteSession.commit

    def ahead(self: SqliteSession, positions: Any = None, state: Any = ()) -> None:
        moved = {
            task: {place: at + (place[0] == "events") for place, at in places.items()}
            for task, places in positions.items()
        }
        commit(self, moved, state)

    monkeypatch.setattr(SqliteSession, "commit", ahead)
    caught = 0
    for seed in range(5):
        with Driver(shop, seed=seed) as driver:
            try:
                driver.feed([*EVENTS[:70], CRASH, *EVENTS[70:]], LABELS)
                caught += expected != outcome(driver)
            except AssertionError:
                caught += 1
    assert caught > 0


def test_what_is_fed_in_several_feeds_is_worked_on_in_between(expected: dict[str, Any]) -> None:
    """A second feed goes on where the first one ended."""
    border = EVENTS[60]["ts"]
    early = [label for label in LABELS if label["ts"] < border]
    with Driver(shop) as driver:
        driver.feed(EVENTS[:60], early)
        assert 0 < len(driver.read("predictions")) < len(expected["predictions"])
        driver.feed(EVENTS[60:], LABELS[len(early) :])

        assert expected == outcome(driver)


def test_bytes_are_fed_as_they_are() -> None:
    """A test may send what no client should."""
    with Driver(shop) as driver:
        driver.feed([b"{", b"[]", b'{"shop": 5}'], [b"\xff"])

        letters = [(each["topic"], each["reason"]) for each in driver.read("dead-letters")]
        assert [
            ("events", "missing_field"),
            ("events", "not_an_object"),
            ("events", "not_json"),
            ("labels", "not_utf8"),
        ] == sorted(letters)


def test_a_text_that_is_no_marker_is_a_slip() -> None:
    """JSON as `str` is not quietly taken for a crash."""
    with Driver(shop) as driver, pytest.raises(AssertionError, match="no record"):
        driver.feed(["{}"])


def test_records_lie_where_a_client_would_have_put_them() -> None:
    """Events by entity, labels by id: each in the partition that Kafka's partitioner names."""
    with Driver(shop, partitions=3) as driver:
        records = driver.publish("events", EVENTS)
        places = {(record.key, record.partition) for record in records}
        assert 2 == len(places)

        assert sum(len(driver.log.read("events", p, 0, 1_000)) for p in range(3)) == len(EVENTS)
        assert len(EVENTS) == len(driver.records("events"))


def test_the_clock_is_set_by_the_test() -> None:
    """An event is from the future by the driver's clock, not by the machine's."""
    with Driver(shop, now_ms=EVENTS[0]["ts"] - shop.skew_ms - 1) as driver:
        driver.feed(EVENTS[:1])
        driver.now_ms += 1
        driver.feed(EVENTS[:1])

        assert ["from_the_future"] == [each["reason"] for each in driver.read("dead-letters")]


def test_all_records_of_a_topic_are_read_however_many_bytes_they_take() -> None:
    """A log gives 64 MB at once at most, and a test is not to miss the rest."""
    with Driver(shop) as driver:
        driver.log.append([Output("events", None, bytes(1_000_000))] * 70)

        assert 70 == len(driver.records("events"))
