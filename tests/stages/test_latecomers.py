"""A line that is declared on a running log is taught all that was there, and equals the others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from river import naive_bayes, tree

from stream_ml.models.envelope import decode
from stream_ml.records import Output
from stream_ml.shell.embedded.follow import work_on
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.stages.latecomers import PACE
from stream_ml.stages.learn import Learn
from stream_ml.testing import CRASH, Driver
from tests.shop import KEY, declare, stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Record

EVENTS = 900
DAY_MS = 86_400_000
whole = declare(
    models={
        **declare().models,
        "late": tree.HoeffdingTreeClassifier(grace_period=20, max_depth=3),
    }
)
former = declare()


def halves() -> Iterator[tuple[list[Any], list[Any]]]:
    """The events before the other line is declared and those after, each with their labels."""
    events, labels = stream(count=EVENTS)
    end = events[EVENTS // 2]["ts"]
    yield events[: EVENTS // 2], [label for label in labels if label["ts"] <= end]
    yield events[EVENTS // 2 :], [label for label in labels if label["ts"] > end]


def snapshots(driver: Driver, line: str) -> dict[int, Any]:
    """What a line has published, by version."""
    found = [decode(record.value) for record in driver.records("models") if record.value]
    return {snapshot.version: snapshot for snapshot in found if snapshot.name == line}


def declared_late(later: Pipeline, *, seed: int | None = None, crash: bool = False) -> Driver:
    """A log on which a line was declared half way."""
    (first, first_labels), (second, second_labels) = halves()
    driver = Driver(former, seed=seed)
    driver.feed(first, first_labels)
    driver.declare(later)
    driver.feed([*second[:100], *([CRASH] if crash else []), *second[100:]], second_labels)
    return driver


@pytest.fixture(scope="module")
def from_the_start() -> Iterator[Driver]:
    """A log on which all lines were there from the start."""
    with Driver(whole) as driver:
        for events, labels in halves():
            driver.feed(events, labels)
        yield driver


def test_it_equals_a_line_that_was_there_from_the_start(from_the_start: Driver) -> None:
    """From its first snapshot on: by digest, by the number of its examples, and by their place."""
    with declared_late(whole) as driver:
        late, always = snapshots(driver, "late"), snapshots(from_the_start, "late")
        for line in former.models:
            others, expected = snapshots(driver, line), snapshots(from_the_start, line)
            shared = others.keys() & expected.keys()
            assert [expected[v].digest for v in shared] == [others[v].digest for v in shared]
            assert shared
        alerts = [alert["kind"] for alert in driver.read("alerts")]

    assert len(late) > 3
    for version, snapshot in late.items():
        assert (snapshot.digest, snapshot.examples) == (
            always[version].digest,
            always[version].examples,
        )
        assert snapshot.examples["count"] == version
    assert ["declaration_changed"] == alerts


def test_it_contends_when_an_eighth_as_many_have_come() -> None:
    """Not sooner; and it is no fault of the others that it publishes nothing until then."""
    with declared_late(whole) as driver:
        late = snapshots(driver, "late")
        declared_at = max(v for v in snapshots(driver, "bayes") if v not in late and v < min(late))
        registry = driver.read("registry")
        joined = [d for d in registry if "late" in d["serving"]["challengers"]]

    first = min(late)
    n_before = (first - 1) * PACE // (PACE + 1)
    assert declared_at < first <= n_before + n_before // PACE + 1 + 20
    assert f"late@{first}" == joined[0]["serving"]["challengers"]["late"]["model"]
    assert not [d for d in registry if d["kind"] == "refused"]


@pytest.mark.parametrize("seed", range(4))
def test_what_comes_out_hangs_on_no_batch_and_no_crash(seed: int) -> None:
    """Random batches, redelivery and a death in between: the same snapshots, byte by byte."""
    with declared_late(whole) as quiet, declared_late(whole, seed=seed, crash=True) as crashed:
        expected = [record.value for record in quiet.records("models")]
        actual = [record.value for record in crashed.records("models")]

    assert len(expected) == len(actual)
    assert expected == actual


def test_retention_leaves_it_less_and_its_number_says_so() -> None:
    """It learns what is there; the count is of its own examples, and the first one's place."""
    (first, first_labels), (second, second_labels) = halves()
    with Driver(former) as driver:
        driver.feed(
            first[:200], [label for label in first_labels if label["ts"] < first[200]["ts"]]
        )
        gone = driver.log.end_offset("examples", 0)
        driver.now_ms += 200 * DAY_MS
        driver.feed(
            first[200:], [label for label in first_labels if label["ts"] >= first[200]["ts"]]
        )
        driver.crash()
        driver.now_ms += 200 * DAY_MS
        while driver.log.expire(driver.now_ms):
            pass
        driver.declare(whole)
        driver.feed(second, second_labels)
        late = snapshots(driver, "late")

    assert gone > 50
    assert len(late) > 3
    for version, snapshot in late.items():
        assert {"count": version - gone, "first": gone} == {
            name: snapshot.examples[name] for name in ("count", "first")
        }


def test_one_that_fails_while_it_catches_up_is_quarantined_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is told with the next outputs; the others go on."""

    def fail(*_: object) -> None:
        raise RecursionError

    learn_one = tree.HoeffdingTreeClassifier.learn_one
    (first, first_labels), (second, second_labels) = halves()
    with Driver(former) as driver:
        driver.feed(first, first_labels)
        monkeypatch.setattr(tree.HoeffdingTreeClassifier, "learn_one", fail)
        monkeypatch.setattr("stream_ml.models.fast._learner", lambda _: None)
        driver.declare(whole)
        driver.feed(second, second_labels)
        monkeypatch.setattr(tree.HoeffdingTreeClassifier, "learn_one", learn_one)
        alerts = [(alert["kind"], alert["subject"]) for alert in driver.read("alerts")]
        newest = max(snapshots(driver, "bayes"))

    assert ("line_quarantined", "line:late") == alerts[-1]
    assert 2 == len(alerts)
    assert newest > 400


def test_without_a_backlog_it_starts_with_what_is_to_come() -> None:
    """Where nobody brings what was there, as on a cluster of a former release."""
    with Driver(former) as driver:
        for events, labels in halves():
            driver.feed(events, labels)
        records = driver.records("examples")
    first, other = Learn(former, KEY), Learn(whole, KEY)
    first.apply(_plain(records[:100]))
    other.restore([(name, value) for name, value in first.dirty() if value is not None])

    assert other.backlog() is None


def test_the_others_wait_for_a_stretch_at_most() -> None:
    """While it is behind what comes is worked on, and between two batches it learns one stretch."""
    (first, first_labels), (second, second_labels) = halves()
    with Driver(former) as driver:
        driver.feed(first, first_labels)
        driver.declare(whole)
        behind = driver.runner.learn.backlog()
        driver.publish("labels", second_labels)
        driver.publish("events", second[:5])
        driver.runner.poll(5)
        after = driver.runner.learn.backlog()

    assert behind == 0
    assert after is None or after == 256


def test_a_busy_log_leaves_nothing_to_teach_when_the_line_is_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is brought eight examples for each that comes: before it contends nobody has to wait."""
    monkeypatch.setattr("stream_ml.shell.embedded.runner.CATCH_UP_RECORDS", 4)
    (first, first_labels), (second, second_labels) = halves()
    with Driver(former) as driver:
        driver.feed(first, first_labels)
        driver.declare(whole)
        learn, waits = driver.runner.learn, list[int]()
        must_catch_up = learn.must_catch_up

        def watched(records: Sequence[Record]) -> bool:
            if is_due := must_catch_up(records):
                waits.append(learn.backlog() or 0)
            return is_due

        driver.runner.learn.must_catch_up = watched  # type: ignore[method-assign]  # looks on
        driver.publish("labels", second_labels)
        driver.publish("events", second)
        while driver.runner.poll(20):
            pass
        late = snapshots(driver, "late")

    assert [] == waits
    assert len(late) > 3


def test_one_that_fails_while_nothing_comes_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its alert waits for no other record."""

    def fail(*_: object) -> None:
        raise RecursionError

    (first, first_labels), _ = halves()
    with Driver(former) as driver:
        driver.feed(first, first_labels)
        monkeypatch.setattr(tree.HoeffdingTreeClassifier, "learn_one", fail)
        monkeypatch.setattr("stream_ml.models.fast._learner", lambda _: None)
        driver.declare(whole)
        idle: Any = Idle(3)
        options: Any = {"commit_s": 3_600.0, "on_decision": lambda _: None, "clock": idle.clock}
        work_on(driver.runner, driver.log, idle, **options)
        driver.crash()
        alerts = [(alert["kind"], alert["subject"]) for alert in driver.read("alerts")]

    assert ("line_quarantined", "line:late") == alerts[-1]


def test_what_an_idle_worker_has_taught_outlives_it(tmp_path: Path) -> None:
    """It is written down while nothing comes: nobody teaches it again after a death."""
    events, labels = stream(count=2_000)
    refreshed = replace(whole.promotion, refresh=1_000)
    with SqliteLog.create(tmp_path / "log", now_ms=lambda: 2**42) as log:
        log.append([Output("labels", b"l", orjson.dumps(label)) for label in labels])
        log.append([Output("events", b"e", orjson.dumps(event)) for event in events])
        with Runner(log, replace(former, promotion=refreshed), KEY) as runner:
            while runner.poll():
                pass
        runner = Runner(log, replace(whole, promotion=refreshed), KEY, checkpoint_s=3_600)
        idle: Any = Idle(4)
        work_on(runner, log, idle, commit_s=0.0, on_decision=lambda _: None, clock=idle.clock)
        taught = runner.learn.backlog()
        runner.close()  # as a death would
        with Runner(log, replace(whole, promotion=refreshed), KEY) as runner:
            again = runner.learn.backlog()

    assert taught is None or taught >= 768
    assert again == taught


class Idle:
    """Asked to stop after so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks, self.now_s = looks, 0.0

    @property
    def is_requested(self) -> bool:
        """Whether it is over."""
        self.looks -= 1
        return self.looks < 0

    def wait(self, _: float) -> None:
        """No time passes."""

    def clock(self) -> float:
        """A second more at each look."""
        self.now_s += 1.0
        return self.now_s


def _plain(records: list[Record]) -> list[Record]:
    from stream_ml.sealing import strip_seal  # noqa: PLC0415 - for this test alone

    return [replace(record, value=strip_seal(record.value), memo=None) for record in records]


def test_naive_bayes_is_no_latecomer_where_it_was_there() -> None:
    """A line keeps what it has: a restart makes nobody late."""
    with Driver(former) as driver:
        events, labels = stream(count=200)
        driver.feed(events, labels)
        driver.declare(replace(former, promotion=former.promotion))
        assert driver.runner.learn.backlog() is None
        assert isinstance(former.models["bayes"], naive_bayes.GaussianNB)


@pytest.mark.parametrize("on_failure", ["restart", "restore"])
def test_a_line_that_is_not_due_yet_is_no_line_that_fails(
    on_failure: str, from_the_start: Driver
) -> None:
    """However many refreshes go by before it publishes, nobody has it start anew."""
    promotion = replace(whole.promotion, on_failure=on_failure, refusals=1)
    (first, first_labels), (second, second_labels) = halves()
    with Driver(replace(former, promotion=promotion)) as driver:
        driver.feed(first, first_labels)
        driver.declare(replace(whole, promotion=promotion))
        driver.feed(second[:30], second_labels)
        driver.crash()
        driver.feed(second[30:], [])
        late, always = snapshots(driver, "late"), snapshots(from_the_start, "late")
        registry = driver.read("registry")

    assert not [decision for decision in registry if decision["kind"] == "restarted"]
    assert len(late) > 3
    assert [always[v].digest for v in late] == [snapshot.digest for snapshot in late.values()]


def test_one_that_failed_before_it_was_due_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that is declared: its silence is a fault from then on."""

    def fail(*_: object) -> None:
        raise RecursionError

    promotion = replace(whole.promotion, on_failure="restart", refusals=2)
    (first, first_labels), (second, second_labels) = halves()
    with Driver(replace(former, promotion=promotion)) as driver:
        driver.feed(first, first_labels)
        with monkeypatch.context() as planted:
            planted.setattr(tree.HoeffdingTreeClassifier, "learn_one", fail)
            planted.setattr("stream_ml.models.fast._learner", lambda _: None)
            driver.declare(replace(whole, promotion=promotion))
            driver.feed(second[:30], second_labels)
        driver.feed(second[30:], [])
        restarted = [d for d in driver.read("registry") if d["kind"] == "restarted"]
        late = snapshots(driver, "late")

    assert ["late"] == [decision["evidence"]["line"] for decision in restarted]
    assert late


def test_where_nothing_is_left_that_it_could_learn_it_learns_with_the_others() -> None:
    """Where retention has left none of those that others have learned, but later ones."""
    with Driver(former) as driver:
        for events, labels in halves():
            driver.feed(events, labels)
        records = _plain(driver.records("examples"))
    learn = Learn(former, KEY)
    learn.apply(records[:100])
    other = Learn(whole, KEY, has_backlog=True)
    other.restore([(name, value) for name, value in learn.dirty() if value is not None])
    behind = other.backlog()
    other.catch_up(records[100:110])

    assert 0 == behind
    assert other.backlog() is None
