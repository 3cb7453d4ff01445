"""Windows of an entity over several partitions: what each answer holds, whoever dies when."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stream_ml as sml
from benchmarks.entities import (
    DELAY_MS,
    LATENESS_MS,
    declare,
    declare_late,
    differences,
    expected_late,
    payments,
)
from stream_ml.errors import UsageError
from stream_ml.records import Record
from stream_ml.shell.handover import Preparation
from stream_ml.stages.delayed import DelayedPredict
from stream_ml.stages.entity_windows import EntityWindows
from stream_ml.stages.task import Task
from stream_ml.summaries import decode_facts
from stream_ml.testing import CRASH, Driver
from stream_ml.topics import partition_of
from tests.shop import started

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.records import Output

PARTITIONS = 3
MARKET = declare_late()
SERVING = started(MARKET)[2]
KEY = b"testing"
NOW_MS = 2**42


class Worker:
    """A process: tasks that share windows, which lag behind what was committed."""

    def __init__(self, cluster: Cluster, numbers: Sequence[int]) -> None:
        self.cluster = cluster
        self.windows = EntityWindows(MARKET.feature_set, PARTITIONS)
        self.fed = 0
        self.tasks = {
            number: Task(
                f"predict-{number}",
                DelayedPredict(
                    MARKET, SERVING, PARTITIONS, partition=number, entities=self.windows
                ),
            )
            for number in numbers
        }
        self.outputs: list[Output] = []
        self.feed(len(cluster.entities))
        for number, task in self.tasks.items():
            state, position, end = cluster.states[number]
            task.restore(state.items())
            task.positions = {("events", number): position}
            for first in range(position, end, 7):
                task.replay(cluster.read(number, first, min(first + 7, end)))
            self.stage(number).settle()

    def stage(self, number: int) -> DelayedPredict:
        """The stage of a partition."""
        stage = self.tasks[number].stage
        assert isinstance(stage, DelayedPredict)
        return stage

    def feed(self, count: int) -> None:
        """Read on on `entities`; what was read before comes again now and then."""
        end = min(self.fed + count, len(self.cluster.entities))
        for value in self.cluster.entities[max(0, self.fed - 2) : end]:
            self.windows.read(value)
        self.fed = end

    def apply(self, number: int, count: int) -> bool:
        """Fold some of a partition in; whether there was anything."""
        task = self.tasks[number]
        position = task.positions.get(("events", number), 0)
        records = self.cluster.read(number, position, position + count)
        if records:
            self.outputs += task.apply(records)
        return bool(records)

    def commit(self, *, checkpoint: bool) -> None:
        """One transaction: outputs, positions, and state where it is due."""
        for output in self.outputs:
            log = self.cluster.entities if output.topic == "entities" else self.cluster.predictions
            if output.topic in {"entities", "predictions"}:
                log.append(output.value or b"")
        self.outputs = []
        for number, task in self.tasks.items():
            state, valid, _ = self.cluster.states[number]
            end = task.positions.get(("events", number), 0)
            if checkpoint or self.stage(number).needs_checkpoint():
                state, valid = dict(state), end
                for name, value in task.dirty():
                    if value is None:
                        state.pop(name, None)
                    else:
                        state[name] = value
            self.cluster.states[number] = (state, valid, end)


class Cluster:
    """The logs: events of each partition, facts, predictions, and the state of each task."""

    def __init__(self, sent: Sequence[dict[str, Any]]) -> None:
        self.events: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        for event in sent:
            number = partition_of(event["card"].encode(), PARTITIONS)
            self.events[number].append(orjson.dumps(event))
        self.entities: list[bytes] = []
        self.predictions: list[bytes] = []
        # State, the position where it is valid, and the committed one.
        self.states: list[tuple[dict[str, bytes], int, int]] = [({}, 0, 0)] * PARTITIONS

    def read(self, number: int, first: int, end: int) -> list[Record]:
        """The records of a partition of events."""
        return [
            Record("events", number, offset, None, value, NOW_MS)
            for offset, value in enumerate(self.events[number][first:end], first)
        ]


class World:
    """Two workers on a cluster, at random speeds, one of which dies now and then."""

    def __init__(self, sent: Sequence[dict[str, Any]], seed: int, silence: float = 0.0) -> None:
        self.cluster = Cluster(sent)
        self._rand = random.Random(seed)
        self._silence = silence
        self._shares = [[0, 2], [1]]
        self._workers = [Worker(self.cluster, share) for share in self._shares]
        self._speed = [self._rand.choice([1, 4, 20]) for _ in range(PARTITIONS)]

    def step(self) -> None:
        """Let something happen."""
        rand, which = self._rand, self._rand.randrange(2)
        worker, number = self._workers[which], rand.choice(self._shares[which])
        act = rand.random()
        if act < 0.4:
            worker.apply(number, rand.randrange(1, 1 + self._speed[number]))
        elif act < 0.6:
            worker.feed(rand.choice([1, 5, 50]))
        elif act < 0.75:
            worker.outputs += worker.stage(number).release()
        elif act < 0.93:
            worker.commit(checkpoint=rand.random() < 0.3)
        elif act < 0.97:
            self._workers[which] = Worker(self.cluster, self._shares[which])
        elif rand.random() < self._silence:
            worker.outputs += worker.stage(number).close(NOW_MS)

    def end(self) -> list[dict[str, Any]]:
        """Work on all there is, and let all partitions be silent then: the predictions."""
        tasks = [(worker, number) for worker in self._workers for number in worker.tasks]
        while sum(worker.apply(number, 50) for worker, number in tasks):
            pass
        for _ in range(2 * PARTITIONS):
            for worker, number in tasks:
                worker.commit(checkpoint=False)
                worker.feed(10**6)
                worker.outputs += worker.stage(number).release()
                worker.outputs += worker.stage(number).close(NOW_MS)
        return [orjson.loads(value) for value in self.cluster.predictions]


def world_payments(seed: int) -> list[dict[str, Any]]:
    """Payments of a minute, or of hours, in which windows lose what they held."""
    return payments(seed, 300, cards=30, merchants=5, pace=300 if seed % 2 else 1)


def worked(sent: Sequence[dict[str, Any]], seed: int, silence: float = 0.0) -> World:
    """What happened in some hundred steps."""
    world = World(sent, seed, silence)
    for _ in range(300):
        world.step()
    return world


@given(st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_answers_hold_what_all_partitions_took_whoever_is_ahead_or_dies(seed: int) -> None:
    """Late and doubled payments over three partitions at different speeds are as brute force says.

    Workers die, read facts twice and late, and take over with a state of before.
    """
    sent = world_payments(seed)

    assert [] == differences(expected_late(sent, PARTITIONS), worked(sent, seed).end())


@given(st.integers(0, 2**32))
@settings(max_examples=6, deadline=None)
def test_what_comes_after_its_partition_was_silent_is_in_no_entitys_window(seed: int) -> None:
    """It is answered itself; all agree on what is left out, for the facts say so."""
    sent = world_payments(seed)
    world = worked(sent, seed, silence=1.0)
    predictions = world.end()
    facts = [decode_facts(value) for value in world.cluster.entities]

    closed_ms: dict[str, int] = {}
    for each in predictions:
        source = each["source"]
        told = [
            fact.frontier
            for fact in facts
            if fact.partition == source["partition"] and fact.offset <= source["offset"]
        ]
        if max(told, default=0) > each["ts"]:
            closed_ms[each["event_id"]] = max(told)

    assert [] == differences(expected_late(sent, PARTITIONS, left_out=closed_ms), predictions)


@given(st.integers(0, 2**32))
@settings(max_examples=4, deadline=None)
def test_one_partition_that_keeps_the_windows_itself_gives_the_same(seed: int) -> None:
    """On the embedded log, with deaths, the answers are those of brute force too."""
    sent = world_payments(seed)
    with Driver(MARKET, seed=seed) as driver:
        driver.feed(sent[:100])
        driver.declare(MARKET)  # by a restart
        driver.feed([*sent[100:200], CRASH, *sent[200:]])
        driver.silence()
        predictions = driver.read("predictions")

    assert [] == differences(expected_late(sent, 1), predictions)


def test_an_event_waits_until_its_partition_is_past_it_by_delay_and_lateness() -> None:
    """Not before the last moment at which a late event could enter its window; then at once."""
    first, second = payments(1, 2, cards=1, merchants=1)
    # So late an event is taken, and in the window of the first by a millisecond.
    wait_ms = LATENESS_MS - DELAY_MS
    with Driver(MARKET) as driver:
        driver.feed([first])
        driver.feed([{**second, "event_id": "near", "ts": first["ts"] + wait_ms - 1}])
        before = len(driver.read("predictions"))
        driver.feed([{**second, "event_id": "far", "ts": first["ts"] + wait_ms}])
        after = [each["event_id"] for each in driver.read("predictions")]

    assert (0, [first["event_id"]]) == (before, after)


def test_several_partitions_on_a_file_and_other_features_are_refused_with_the_way_out() -> None:
    """Partitions of a file tell each other nothing; a log cannot say when one was silent."""
    with pytest.raises(UsageError, match="an embedded log with one partition"):
        Driver(MARKET, partitions=2).run()
    with Driver(MARKET) as driver:
        driver.feed(payments(1, 5))
        wider = declare(features=[*MARKET.features, sml.field("amount")])
        with pytest.raises(UsageError, match="give the pipeline another name"):
            Preparation.beside(driver.log, wider, KEY)
        driver.declare(wider, apply="more")
        with pytest.raises(UsageError, match="give the pipeline another name"):
            driver.run()


def test_no_other_features_begin_while_events_may_wait_for_a_delay() -> None:
    """They would be asked for windows that nobody holds any more."""
    with Driver(MARKET) as driver:
        driver.feed(payments(1, 5))
        driver.declare(declare(features=[sml.window("1h").count()]), apply="no merchants")
        with pytest.raises(UsageError, match="windows with a `delay`"):
            driver.run()
