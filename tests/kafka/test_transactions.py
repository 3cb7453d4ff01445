"""What the tasks of a worker share: one transaction at a time, and all of a step in it, or nothing.

The producer is a stand-in that keeps the order of what is asked of it, and ends a transaction when
it is told to: on a real broker an end takes a millisecond, and nothing meets it there.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from stream_ml.errors import Fenced, LogError
from stream_ml.shell.kafka import transactions as transactions_module
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.shell.kafka.transactions import Membership, Transactions

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

DEADLINE_S = 20.0


class Slow:
    """A producer whose waits last until they are let go."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.members: list[bytes] = []
        self.waits, self.gate = threading.Event(), threading.Event()
        self.queued = 0
        self.fails: set[str] = set()

    def __len__(self) -> int:
        return self.queued

    def _do(self, what: str) -> None:
        self.did.append(what)
        if what in self.fails:
            raise KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN))

    def _wait(self) -> None:
        self.waits.set()
        assert self.gate.wait(DEADLINE_S)

    def begin_transaction(self) -> None:
        """As librdkafka does."""
        self._do("begin")

    def produce(self, topic: str, **message: Any) -> None:
        """As librdkafka does."""
        self._do(f"{topic} {message['key'].decode()}")

    def send_offsets_to_transaction(self, offsets: list[Any], us: bytes, _: float) -> None:
        """As librdkafka does."""
        self.members.append(us)
        self._do(f"positions {sorted((each.topic, each.offset) for each in offsets)}")

    def flush(self, _: float) -> None:
        """Wait until let go, and all has arrived."""
        self._wait()
        self.queued = 0
        self._do("flushed")

    def commit_transaction(self, _: float) -> None:
        """Wait until let go."""
        self._wait()
        self._do("committed")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """The stand-in, in librdkafka's place."""
    slow = Slow()
    monkeypatch.setattr(transactions_module, "Producer", lambda _: slow)
    return slow


def on(work: Callable[[Transactions], Coroutine[Any, Any, None]]) -> None:
    """Do it with transactions of nobody else's."""

    async def run() -> None:
        cluster = Cluster("127.0.0.1:1", "shared")
        async with asyncio.timeout(DEADLINE_S):
            await work(Transactions(cluster, "shared.join", "shared.join.a", 0.1))

    asyncio.run(run())


def step(transactions: Transactions, name: str, at: int) -> None:
    """What a task hands over at once."""
    message = {"key": name.encode(), "value": b"", "partition": 0}
    transactions.write([("out", [message])], {(name, 0): at})


async def steps(transactions: Transactions, name: str, *at: int) -> None:
    """What a task does that commits after each of its steps."""
    for each in at:
        await transactions.wait_until_writable()
        step(transactions, name, each)
        await transactions.commit()


async def waiting(slow: Slow) -> None:
    """Until the producer waits for the brokers."""
    assert await asyncio.to_thread(slow.waits.wait, DEADLINE_S)


def test_a_commit_that_another_task_waited_for_is_not_taken_for_its_own(slow: Slow) -> None:
    """One commits, one waits and commits next: both end well, with what each has written."""

    async def work(ours: Transactions) -> None:
        first = asyncio.create_task(steps(ours, "a", 1))
        await waiting(slow)
        second = asyncio.create_task(steps(ours, "b", 1))
        slow.gate.set()
        await asyncio.gather(first, second)

    on(work)
    assert [
        *("begin", "out a", "positions [('a', 1)]", "committed"),
        *("begin", "out b", "positions [('b', 1)]", "committed"),
    ] == slow.did


def test_whoever_waits_for_room_does_not_write_into_a_transaction_that_ends(slow: Slow) -> None:
    """With much on its way one waits for a flush; another commits right behind it."""
    slow.queued = transactions_module.QUEUED_MAX + 1

    async def work(ours: Transactions) -> None:
        step(ours, "a", 1)
        commits = asyncio.create_task(ours.commit())
        folds = [asyncio.create_task(steps(ours, "b", n)) for n in (2, 3)]
        await waiting(slow)
        slow.gate.set()
        await asyncio.gather(commits, *folds)

    on(work)
    held: list[str] = []
    for did in slow.did:
        if did.startswith("out"):
            held.append(did.split()[1])
        elif did.startswith("positions"):
            assert all(f"('{name}'" in did for name in held), slow.did
        elif did == "committed":
            held = []
    assert [] == held


def test_half_of_a_step_is_not_committed_by_another_task(slow: Slow) -> None:
    """A record is refused amid what a task writes: from then on nobody commits."""
    slow.fails = {"out bad"}

    async def work(ours: Transactions) -> None:
        step(ours, "good", 1)
        with pytest.raises(LogError, match="a transaction failed"):
            step(ours, "bad", 1)
        slow.gate.set()
        with pytest.raises(LogError, match="a transaction failed"):
            await ours.commit()

    on(work)
    assert ["begin", "out good", "out bad"] == slow.did


def test_who_is_called_off_amid_a_commit_leaves_it_to_the_others(slow: Slow) -> None:
    """It goes on to its end, and others write only then."""

    async def work(ours: Transactions) -> None:
        first = asyncio.create_task(steps(ours, "a", 1))
        await waiting(slow)
        first.cancel()
        second = asyncio.create_task(steps(ours, "b", 1))
        slow.gate.set()
        await second

    on(work)
    assert slow.did.index("committed") < slow.did.index("out b")


def test_what_is_never_answered_is_given_up(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever waits for it, and nobody writes any more."""
    monkeypatch.setattr(transactions_module, "TIMEOUT_MS", 10)
    monkeypatch.setattr(transactions_module, "SPARE_S", 0.01)

    async def work(ours: Transactions) -> None:
        step(ours, "a", 1)
        for _ in range(2):
            with pytest.raises(LogError, match="expected the brokers to answer"):
                await ours.commit()
        slow.gate.set()

    on(work)


def test_what_was_written_in_one_generation_is_not_left_for_the_next(slow: Slow) -> None:
    """Brokers see the generation only; who commits late must not be taken for a present owner."""
    slow.gate.set()

    async def work(ours: Transactions) -> None:
        ours.join(Membership(1, "m", None))
        step(ours, "a", 1)
        with pytest.raises(Fenced, match="expected that all was committed before"):
            ours.join(Membership(2, "m", None))
        await ours.commit()
        ours.join(Membership(2, "m", None))
        with pytest.raises(Fenced):
            ours.join(Membership(-1, "", None))

    on(work)
    assert [Membership(1, "m", None).encode("shared.join")] == slow.members


@pytest.mark.parametrize("instance", [None, "predict-1"])
def test_a_membership_is_told_as_librdkafka_tells_it(instance: str | None) -> None:
    """It gives its own away as bytes; ours, of another client's group, must read alike."""
    options = {"bootstrap.servers": "127.0.0.1:1", "group.id": "shop.join", "log_level": 0}
    named = {} if instance is None else {"group.instance.id": instance}
    consumer = Consumer({**options, **named})
    try:
        told = consumer.consumer_group_metadata()
    finally:
        consumer.close()

    assert told == Membership(-1, "", instance).encode("shop.join")
