"""What the fetching thread does with records that were asked for before a rebalance."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from faust.types import TP

from stream_ml.shell.kafka.transport import Batch, _Thread

PLACE = TopicPartition("events", 0)
RECORDS = [SimpleNamespace(offset=offset) for offset in (500, 501)]


class Consumer:
    """A consumer with one assignment, that remembers where it was told to go."""

    def __init__(self, position: int | None, *assigned: TopicPartition) -> None:
        state = SimpleNamespace(has_valid_position=position is not None, position=position)
        assignment = SimpleNamespace(tps=set(assigned), state_value=lambda _: state)
        subscription = SimpleNamespace(assignment=assignment)
        self._subscription = SimpleNamespace(subscription=subscription)
        self.sought: list[tuple[TopicPartition, int]] = []

    def seek(self, place: TopicPartition, offset: int) -> None:
        """Go there."""
        self.sought.append((place, offset))


def fetched(consumer: Consumer, *, former: bool) -> dict[TP, Batch]:
    """What a fetch gives that was asked for in the present epoch, or in a `former` one."""
    thread: Any = object.__new__(_Thread)
    thread._numbers = {}
    thread._ensure_consumer = lambda: consumer
    thread._assignment_numbered = consumer._subscription.subscription.assignment
    thread.epoch = 3

    async def records(*_: Any) -> dict[TopicPartition, list[Any]]:
        return {PLACE: RECORDS}

    thread._fetch_records = records
    batches = asyncio.run(thread._fetch_batches({TP("events", 0)}, 2 if former else 3))
    assert isinstance(batches, dict)
    return batches


def test_what_was_asked_for_in_this_assignment_is_handed_over() -> None:
    """The first batch of an epoch has the number 0, and the consumer stays where it is."""
    consumer = Consumer(502, PLACE)

    assert {TP("events", 0): Batch(RECORDS, 3, 0)} == fetched(consumer, former=False)
    assert [] == consumer.sought


def test_what_was_asked_for_in_a_former_assignment_is_fetched_again() -> None:
    """Nobody waits for it: the consumer goes back, and no number is missed."""
    consumer = Consumer(502, PLACE)

    assert {} == fetched(consumer, former=True)
    assert [(PLACE, 500)] == consumer.sought


def test_going_back_never_goes_forward() -> None:
    """A consumer that was sent back to what is committed, or waits to be told, is left alone."""
    for position in (480, None):
        consumer = Consumer(position, PLACE)

        assert {} == fetched(consumer, former=True)
        assert [] == consumer.sought


def test_a_partition_that_is_another_workers_now_is_left_alone() -> None:
    """There is nowhere to go back to."""
    consumer = Consumer(502)

    assert {} == fetched(consumer, former=True)
    assert [] == consumer.sought
