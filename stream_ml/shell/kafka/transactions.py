"""Transactions on the cluster: what a worker's tasks write and how far they have read, or nothing.

Theory of operation:

1. The tasks of a worker share one producer, so that what they write travels in the same requests
   and transactions (Kafka Streams does so too: KIP-447). What one step of a task has put, and the
   positions that it follows from, are given in one go; a commit takes what all have given so far.
2. A transaction begins with the first record and ends `commit_s` later, so none is open while
   nothing comes. While one ends, nobody may put anything.
3. A worker that was thought dead must not commit for partitions that another has by now. Positions
   are committed as a member of the group in its present generation: the brokers refuse those of a
   former one, and with them the transaction. A worker started again under the same name ends what
   it had left open; else the brokers do when `TIMEOUT_MS` have passed.
4. Whoever takes over asks what is committed and waits until nobody is about to commit there
   (`committed`, a fetch of stable offsets); what is open then will be refused.
5. librdkafka does the work, rather than aiokafka: for the small batches of live traffic it takes a
   third of the CPU time. Its waits block, so each has a thread while it lasts.
"""

from __future__ import annotations

import asyncio
import struct
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from stream_ml.errors import Fenced, LogError
from stream_ml.shell.kafka.security import native_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.log import Place

__all__ = ["NEVER", "Membership", "Message", "Transactions"]

NEVER = float("inf")
# A worker that is started again under its name ends an abandoned transaction; without one, readers
# of committed records wait this long for its partitions (and as long as a transaction gathers).
TIMEOUT_MS = 5_000
# What a task writes to a partition at once shares a request.
LINGER_MS = 0.2
# Above the largest record there is, a snapshot envelope of 16 MiB.
REQUEST_BYTES_MAX = 24 << 20
# What may be on its way before tasks wait; far below what librdkafka itself would refuse.
QUEUED_MAX = 50_000
# By when brokers that have just started answer for groups and transactions; asked in steps, so that
# who waits can be called off between them.
START_S = 30.0
STEP_S = 1.0
# How much longer than it was told to librdkafka may take.
LIMIT_S = 5.0
# What says that we are no longer who may write.
FENCED_CODES = frozenset(
    {
        KafkaError._FENCED,  # noqa: SLF001 - librdkafka's own codes have such names
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
    }
)

# What librdkafka takes for a record: its `key`, `value` and `partition`, and perhaps `headers`.
Message = dict[str, Any]


class Membership(NamedTuple):
    """Who one is in a consumer group: since which generation, by which id, under which name."""

    generation: int
    member: str
    instance: str | None

    def encode(self, group: str) -> bytes:
        r"""As librdkafka wants to be told, which has no other way for who reads without it.

        >>> Membership(3, "m-1", None).encode("shop.join")
        b'CGMDv2:\x03\x00\x00\x00shop.join\x00m-1\x00\x01'
        """
        generation = struct.pack("=i", self.generation)
        instance = b"\1" if self.instance is None else b"\0" + self.instance.encode() + b"\0"
        names = b"".join(name.encode() + b"\0" for name in (group, self.member))
        return b"CGMDv2:" + generation + names + instance


NOBODY = Membership(-1, "", None)


class Transactions:
    """One after the other, of the one who writes under a name.

    Args:
        cluster: where.
        group: the consumer group whose positions are committed.
        name: the transactional id.
        commit_s: how long a transaction gathers, in seconds.
    """

    def __init__(self, cluster: Cluster, group: str, name: str, commit_s: float) -> None:
        self.membership = NOBODY
        # When what was put is to be committed, on the clock.
        self.due = NEVER
        self._group = group
        self._name = name
        self._commit_s = commit_s
        self._timeout_s = TIMEOUT_MS / 1_000 + commit_s
        self._limit_s = self._timeout_s + LIMIT_S
        common = {
            "bootstrap.servers": cluster.bootstrap,
            # What goes wrong is raised where it matters; what is tried again is nobody's concern.
            "log_level": 0,
            "reconnect.backoff.max.ms": 1_000,
            **native_options(cluster.security),
        }
        self._producer = Producer(
            {
                **common,
                "transactional.id": name,
                "transaction.timeout.ms": int(1_000 * self._timeout_s),
                "linger.ms": LINGER_MS,
                "message.max.bytes": REQUEST_BYTES_MAX,
                "queue.buffering.max.messages": 10_000_000,
                "queue.buffering.max.kbytes": 2_000_000,
                "socket.nagle.disable": True,
                "delivery.report.only.error": True,
            }
        )
        # It joins nothing: it is asked what the group has committed.
        self._consumer = Consumer(
            {**common, "group.id": group, "isolation.level": "read_committed"}
        )
        told = self._consumer.consumer_group_metadata()
        assert told == NOBODY.encode(group), f"librdkafka writes down memberships as {told!r}"
        self._open = False
        self._moved: dict[Place, int] = {}
        self._free = asyncio.Event()
        self._free.set()
        self._failure: BaseException | None = None
        self._called_off = False
        self._waiting: asyncio.Future[Any] | None = None

    async def start(self) -> None:
        """Fence whoever had the name, and end what it had left open.

        Raises:
            LogError: the brokers do not answer in time, or refuse.
        """
        try:
            await self._alone(self._init, START_S + LIMIT_S)
        except asyncio.CancelledError:
            self._called_off = True
            raise

    async def committed(self, places: Iterable[Place]) -> dict[Place, int]:
        """What the group has committed for partitions of topics, once nobody is at it any more.

        Raises:
            LogError: the brokers do not answer in time, or refuse.
        """
        asked = [TopicPartition(topic, partition) for topic, partition in places]
        ask = partial(self._consumer.committed, asked, START_S)
        try:
            async with asyncio.timeout(START_S + LIMIT_S):
                found: list[TopicPartition] = await asyncio.to_thread(self._raising, ask)
        except TimeoutError:
            raise self._unheard(START_S + LIMIT_S) from None
        for each in found:
            if each.error is not None:
                raise self._told(each.error)
        return {(each.topic, each.partition): each.offset for each in found if each.offset >= 0}

    async def free(self) -> None:
        """Wait until something may be put: no transaction is ending, and not too much on its way.

        Raises:
            Fenced: another has taken over.
            LogError: nothing gets through.
        """
        while not self._free.is_set():
            await self._free.wait()
        if self._failure is not None:
            raise self._failure
        if len(self._producer) > QUEUED_MAX:
            await self._alone(partial(self._producer.flush, self._timeout_s), self._limit_s)

    def put(self, topic: str, messages: Iterable[Message]) -> None:
        """Put records on their way, in order; only after `free`, and with no wait between.

        Raises:
            Fenced: another has taken over.
            LogError: the transaction has failed otherwise.
        """
        self._raising(partial(self._put, topic, messages))

    def moved(self, positions: Mapping[Place, int]) -> None:
        """What was put follows from its inputs up to here: by topic and partition, the next offset.

        Together with what was put, with no wait between.
        """
        self._moved.update(positions)
        self.due = min(self.due, time.monotonic() + self._commit_s)

    async def commit(self) -> None:
        """End the transaction with all that was put, and how far its writers have moved.

        Raises:
            Fenced: another has taken over; nothing of the transaction will be seen.
            LogError: the transaction has failed otherwise, or nobody knows.
        """
        await self.free()
        if not (self._open or self._moved):
            return
        positions, self._moved = self._moved, {}
        self.due = NEVER
        await self._alone(partial(self._commit, positions), self._limit_s)

    async def close(self) -> None:
        """Let go: nothing more is sent, and what is open ends without being seen."""
        if self._waiting is not None:
            await asyncio.wait([self._waiting])
        await asyncio.to_thread(self._close)

    # --- what librdkafka does ------------------------------------------------------------------

    def _init(self) -> None:
        deadline = time.monotonic() + START_S
        while not self._called_off:
            try:
                self._producer.init_transactions(STEP_S)
                break
            except KafkaException as error:
                if time.monotonic() > deadline or not error.args[0].retriable():
                    raise

    def _begin(self) -> None:
        if not self._open:
            self._producer.begin_transaction()
            self._open = True

    def _put(self, topic: str, messages: Iterable[Message]) -> None:
        self._begin()
        # Not `produce_batch`: it passes over the partition of each (confluent-kafka 2.16).
        for each in messages:
            self._producer.produce(topic, **each)

    def _commit(self, positions: Mapping[Place, int]) -> None:
        self._begin()
        offsets = [TopicPartition(topic, p, at) for (topic, p), at in positions.items()]
        us = self.membership.encode(self._group)
        try:
            self._producer.send_offsets_to_transaction(offsets, us, self._timeout_s)
            self._producer.commit_transaction(self._timeout_s)
        except KafkaException as error:
            if error.args[0].txn_requires_abort():  # or readers would wait for the brokers' clock
                with suppress(KafkaException):
                    self._producer.abort_transaction(self._timeout_s)
            raise
        self._open = False

    def _close(self) -> None:
        self._consumer.close()
        self._producer.purge()
        with suppress(KafkaException):  # fenced, or unheard: the brokers will end what is open
            self._producer.close()

    # --- how it is waited for ------------------------------------------------------------------

    async def _alone(self, work: Callable[[], Any], limit_s: float) -> None:
        """Have a thread do what waits, while nobody else may go on; nor after, should it fail.

        librdkafka has limits of its own, but has been seen to wait for ever for brokers that were
        killed and came back.
        """
        self._free.clear()
        self._waiting = asyncio.ensure_future(asyncio.to_thread(self._raising, work))
        self._waiting.add_done_callback(self._done)
        # Whoever asked may be called off; the transaction is everybody's.
        await asyncio.wait([self._waiting], timeout=limit_s)
        if not self._waiting.done():
            self._failure = self._unheard(limit_s)
            raise self._failure
        await self._waiting

    def _done(self, waiting: asyncio.Future[Any]) -> None:
        self._failure = self._failure or waiting.exception()
        self._free.set()

    def _unheard(self, seconds: float) -> LogError:
        return LogError(
            f"{self._name}: expected the brokers to answer for transactions, given nothing in "
            f"{seconds:g} s"
        )

    def _raising(self, work: Callable[[], Any]) -> Any:
        """Do it, and tell what went wrong in our words."""
        try:
            return work()
        except KafkaException as error:
            raise self._told(error.args[0]) from error

    def _told(self, error: KafkaError) -> LogError:
        if error.code() in FENCED_CODES:
            return Fenced(
                f"{self._name}: expected to be who may write, given another that has taken over: "
                f"{error.name()}: {error.str()}"
            )
        return LogError(f"{self._name}: a transaction failed: {error.name()}: {error.str()}")
