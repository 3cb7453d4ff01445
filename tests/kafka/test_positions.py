"""Positions that are not of their topics: found when a task takes over, told, never passed over."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from kafka import OffsetAndMetadata, TopicPartition
from kafka.admin import KafkaAdminClient

from stream_ml.errors import UsageError
from stream_ml.records import Output
from stream_ml.sealing import content
from stream_ml.shell.kafka.admin import Demand, apply
from stream_ml.shell.kafka.log import KafkaLog
from stream_ml.shell.kafka.metadata import topic_ids
from stream_ml.shell.kafka.transport import Batch
from stream_ml.stages.predict import Predict
from stream_ml.topics import catalogue
from tests.kafka.world import (
    DEADLINE_S,
    Bench,
    House,
    lying,
    make_anew,
    place,
    publish,
    state_of,
    until_said,
)
from tests.shop import started
from tests.simulation.world import START_MS, pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream_ml.shell.kafka.cluster import Cluster
    from tests.shell.processes import Terminal

# Each test has a partition of its own.
PARTITIONS = 5
SERVING = started(pipeline)[2]
DECLARATION = """
import dataclasses
from tests.shop import shop
declared = dataclasses.replace(shop, name=name)
"""


@pytest.fixture(scope="module")
def cluster(kafka_broker: str) -> Iterator[Cluster]:
    """Topics of predict, wide enough for all its tests."""
    with place(kafka_broker, PARTITIONS, "predict", "events") as cluster:
        apply(cluster, Demand(1), {each: catalogue()[each] for each in ("layout", "predictions")})
        yield cluster


@pytest.fixture(scope="module")
def partitions() -> Iterator[int]:
    """Partitions that no other test has."""
    return iter(range(PARTITIONS))


def visit(number: int) -> Output:
    """An event that a prediction follows from."""
    event = {
        "event_id": f"e{number}",
        "ts": START_MS + 1_000 * number,
        "shop": "a",
        "kind": "visit",
        "amount": 1.0,
        "city": "oslo",
    }
    return Output("events", b"a", orjson.dumps(event))


def bench(cluster: Cluster, **options: Any) -> Bench:
    """Where predict is tried."""

    def make(partition: int) -> Predict:
        del partition
        return Predict(pipeline, SERVING)

    return Bench(cluster, "predict", ("events",), make, sends=True, **options)


async def work(tried: Bench, partition: int, records: list[Any], *, crash: bool = False) -> None:
    """Let a task fold records and write everything down, or die when all is committed."""
    life = tried.task(partition)
    life.go()
    try:
        await life.until_taken_over()
        if life.dead:
            assert life.runner is not None
            life.runner.result()
        if records:
            life.task.enqueue("events", Batch(records, 1, 0))
            await life.until_folded({("events", partition): records[-1].offset + 1})
        await life.until_committed()
        if crash:
            assert life.runner is not None
            life.runner.cancel()
        else:
            assert await life.task.suspend(1, checkpoint=True)
            assert not tried.failures, tried.failures
    finally:
        await life.cut_off()


async def predicted(cluster: Cluster, partition: int) -> list[str]:
    """The ids of the events of a partition that a prediction was written for."""
    read = (await lying(cluster, ("predictions", 0)))["predictions", 0]
    values = [orjson.loads(each.value) for each in read]
    return sorted(v["event_id"] for v in values if v["source"]["partition"] == partition)


async def alerts(cluster: Cluster, kind: str, partition: int) -> list[dict[str, Any]]:
    """The details of the alerts of a kind about a partition."""
    values = [
        orjson.loads(each.value) for each in (await lying(cluster, ("alerts", 0)))["alerts", 0]
    ]
    found = [value["details"] for value in values if value["kind"] == kind]
    return [each for each in found if each.get("partition", partition) == partition]


async def skipped(cluster: Cluster, partition: int) -> int:
    """How many records were passed over, as the state has it."""
    pieces, _ = await state_of(cluster, "predict", partition)
    return int(orjson.loads(pieces[""])["counts"].get("skipped", 0))


def ids(*numbers: int) -> list[str]:
    """The ids of events, sorted."""
    return sorted(f"e{number}" for number in numbers)


def remove(cluster: Cluster, partition: int, before: int) -> None:
    """Have retention remove events."""
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        admin.delete_records({TopicPartition(cluster.topic("events"), partition): before})


def set_by_hand(cluster: Cluster, partition: int, at: int) -> None:
    """Set a group's position, as a person does."""
    place = TopicPartition(cluster.topic("events"), partition)
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        admin.alter_group_offsets(cluster.group("predict"), {place: OffsetAndMetadata(at, "", -1)})


# --- retention --------------------------------------------------------------------------------


def test_what_was_removed_before_it_was_read_is_counted_and_told_once(
    cluster: Cluster, partitions: Iterator[int]
) -> None:
    """The rest is worked on, and a further start has nothing to tell."""
    at = next(partitions)

    async def run() -> None:
        read = await publish(cluster, "events", at, [visit(n) for n in range(60)])
        await work(bench(cluster), at, read[:20])
        await asyncio.to_thread(remove, cluster, at, 50)
        tried = bench(cluster)
        await work(tried, at, read[50:])
        await work(bench(cluster), at, [])

        assert {(cluster.topic("events"), at): 50} == tried.sent_for
        assert ids(*range(20), *range(50, 60)) == await predicted(cluster, at)
        lost = {"topic": "events", "partition": at, "from": 20, "to": 50, "skipped": 30}
        assert [lost] == await alerts(cluster, "records_lost", at)
        assert 30 == await skipped(cluster, at)

    asyncio.run(run())


def test_what_was_removed_before_the_state_held_it_is_told_though_it_was_read(
    cluster: Cluster, partitions: Iterator[int]
) -> None:
    """Nothing of it is written twice: it was read, but what it did to the state is lost."""
    at = next(partitions)

    async def run() -> None:
        read = await publish(cluster, "events", at, [visit(n) for n in range(60)])
        await work(bench(cluster), at, read[:40], crash=True)
        await asyncio.to_thread(remove, cluster, at, 30)
        await work(bench(cluster), at, read[40:])

        assert ids(*range(60)) == await predicted(cluster, at)
        lost = {"topic": "events", "partition": at, "from": 0, "to": 30, "skipped": 0}
        assert [lost] == await alerts(cluster, "records_lost", at)
        assert 0 == await skipped(cluster, at)

    asyncio.run(run())


# --- a group that was reset -------------------------------------------------------------------


@pytest.mark.parametrize("set_to", [0, 5, 60])
def test_a_group_that_was_set_by_hand_is_not_believed(
    cluster: Cluster, partitions: Iterator[int], set_to: int
) -> None:
    """Forwards it would pass over events, backwards predict them again: the state knows better."""
    at = next(partitions)

    async def run() -> None:
        read = await publish(cluster, "events", at, [visit(n) for n in range(60)])
        await work(bench(cluster), at, read[:20])
        await asyncio.to_thread(set_by_hand, cluster, at, set_to)
        tried = bench(cluster)
        await work(tried, at, read[20:])

        assert {(cluster.topic("events"), at): 20} == tried.sent_for
        assert ids(*range(60)) == await predicted(cluster, at)
        told = {"topic": "events", "partition": at, "committed": set_to, "position": 20}
        assert [told] == await alerts(cluster, "group_reset", at)

    asyncio.run(run())


# --- topics that are other ones ---------------------------------------------------------------


@pytest.fixture
def narrow(kafka_broker: str) -> Iterator[Cluster]:
    """Topics of predict with one partition, some of which are made anew."""
    with place(kafka_broker, 1, "predict") as cluster:
        yield cluster


def test_a_topic_made_anew_is_refused_until_it_is_accepted(narrow: Cluster) -> None:
    """Even where it has more records than were read: another id says so."""

    async def run() -> None:
        was = topic_ids(narrow, ["events"])
        old = await publish(narrow, "events", 0, [visit(n) for n in range(20)])
        await work(bench(narrow, topics=was), 0, old)
        await asyncio.to_thread(make_anew, narrow, "events")
        new = await publish(narrow, "events", 0, [visit(n) for n in range(100, 140)])
        is_now = topic_ids(narrow, ["events"])
        with pytest.raises(UsageError) as refused:
            await work(bench(narrow, topics=is_now), 0, [])

        assert str(refused.value).startswith(
            f"predict-0: events-0: expected the partition of the topic {was['events']} that was "
            f"read up to 20, given the topic {is_now['events']}, which begins at 0 and ends at 40."
        )
        assert str(refused.value).endswith("starting once with STREAM_ML_ACCEPT_TOPICS=events")
        assert ids(*range(20)) == await predicted(narrow, 0)

        accepting = bench(narrow, topics=is_now, accepted=frozenset({"events"}))
        await work(accepting, 0, new)
        await work(bench(narrow, topics=is_now), 0, [])

        assert ids(*range(20), *range(100, 140)) == await predicted(narrow, 0)
        (told,) = await alerts(narrow, "topic_made_anew", 0)
        assert (20, 40, is_now["events"]) == (told["position"], told["end"], told["is"])

    asyncio.run(run())


def test_a_changelog_made_anew_is_refused_until_it_is_accepted(narrow: Cluster) -> None:
    """Then the task goes on from what it has read with an empty state, and tells it."""

    async def run() -> None:
        read = await publish(narrow, "events", 0, [visit(n) for n in range(40)])
        await work(bench(narrow), 0, read[:20])
        await asyncio.to_thread(make_anew, narrow, "predict-changelog")
        with pytest.raises(UsageError) as refused:
            await work(bench(narrow), 0, [])

        assert str(refused.value) == (
            f"predict-0: expected its state on {narrow.topic('predict-changelog')}, for it has "
            "read events-0 up to 20, given none: the topic was made anew, or lost its beginning. "
            "Put it back, or have the tasks go on from there with an empty state, by starting "
            "once with STREAM_ML_ACCEPT_TOPICS=predict-changelog"
        )

        await work(bench(narrow, accepted=frozenset({"predict-changelog"})), 0, read[20:])

        assert ids(*range(40)) == await predicted(narrow, 0)
        assert [{"positions": {"events-0": 20}}] == await alerts(narrow, "state_lost", 0)

    asyncio.run(run())


# --- workers ----------------------------------------------------------------------------------


def a_label(number: int) -> Output:
    """A label that waits for its prediction."""
    label = {"event_id": f"e{number}", "ts": START_MS + number, "label": True}
    return Output("labels", b"a", orjson.dumps(label))


def waiting_labels(cluster: Cluster) -> dict[str, int]:
    """What the join's state has: labels that wait, and records that were passed over."""
    with KafkaLog(cluster) as log:
        state = orjson.loads(content(log.piece("join-0", "") or b"{}"))
    return {"labels": state["held"]["labels"], "skipped": state["counts"].get("skipped", 0)}


def worked_off(cluster: Cluster) -> None:
    """Wait until the join has committed all labels."""
    place = TopicPartition(cluster.topic("labels"), 0)
    group, deadline = cluster.group("join"), time.monotonic() + DEADLINE_S
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        while admin.list_group_offsets(group)[group][place].offset < 300:
            assert time.monotonic() < deadline, "labels are left"


async def remove_under(cluster: Cluster, worker: Terminal) -> None:
    """Publish 300 labels while a worker stands still, and remove all but the last 50.

    The group waits six seconds for it before it gives its place away, and a busy machine takes
    longer than that to connect: so all is connected before.
    """
    labels = cluster.topic("labels")
    producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap)
    await producer.start()
    with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
        admin.describe_topics([labels])
        await producer.partitions_for(labels)
        worker.process.send_signal(signal.SIGSTOP)
        # What it has asked for lies before it when it wakes: the first of them, at most.
        for numbers in (range(100), range(100, 300)):
            sent = [
                await producer.send(labels, each.value, each.key, 0)
                for each in map(a_label, numbers)
            ]
            await asyncio.gather(*sent)
        admin.delete_records({TopicPartition(labels, 0): 250})
        worker.process.send_signal(signal.SIGCONT)
    await producer.stop()


def test_what_is_removed_under_a_worker_ends_it_and_its_successor_tells_it(
    kafka_broker: str, tmp_path: Path
) -> None:
    """Its client does not go on elsewhere in silence: every label waits, or is told as lost."""
    with place(kafka_broker, 1, "join") as cluster:
        house = House(tmp_path, cluster, DECLARATION)
        with house.worker("join") as worker:
            until_said(worker, said="recovered")
            asyncio.run(remove_under(cluster, worker))
            ended = worker.ended()
        with house.worker("join") as worker:
            until_said(worker, said="records_lost", partition=0)
            worked_off(cluster)
            worker.stopped()
        found = waiting_labels(cluster)
        (lost,) = asyncio.run(alerts(cluster, "records_lost", 0))

    assert 1 == ended.code
    assert "given a partition that does not reach to there" in ended.err
    # What was read and committed before its end, if anything, lies in no state that was written: it
    # is told as gone with the rest, and not as never read.
    assert 300 == found["labels"] + lost["to"] - lost["from"]
    assert (250, found["skipped"]) == (lost["to"], lost["skipped"])
    assert found["skipped"] >= 150
