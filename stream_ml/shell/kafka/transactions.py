"""Transactions on the cluster: what a task writes, and how far it has read, or nothing of it.

librdkafka does them: for the small batches of live traffic it takes a third of aiokafka's CPU time,
and gathers what lies near in time into one request, which costs the brokers less as well (measured:
31 to 42 µs a record instead of 96, and the broker 71 to 91 instead of 113). Its waits block, so
they have a thread each while they last; what only hands it something does not wait.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from stream_ml.errors import LogError
from stream_ml.shell.kafka.security import native_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_ml.shell.kafka.cluster import Cluster

__all__ = ["Fenced", "Message", "Transactions"]

# Above the largest record there is, a snapshot envelope of 16 MiB.
REQUEST_BYTES_MAX = 24 << 20
# What may be on its way before more is taken in; far below what librdkafka itself would refuse.
MESSAGES_MAX = 50_000
BYTES_MAX = 64 << 20
# By when brokers that have just started answer for transactions; asked in steps, so that who waits
# can be called off between them.
START_S = 30.0
STEP_S = 1.0


FENCED = frozenset(
    {
        KafkaError._FENCED,  # noqa: SLF001 - librdkafka's own codes have such names
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
    }
)


class Fenced(LogError):  # noqa: N818 - says what befell
    """Raised when a successor has taken over, and nothing more may be written."""


# What librdkafka takes for a record: its `key`, `value` and `partition`, and perhaps `headers`.
Message = dict[str, Any]


class Transactions:
    """The one who writes under a name: its start fences whoever had the name before.

    Args:
        cluster: where.
        name: the transactional id.
        group: whose positions are committed with what is written.
        timeout_ms: after how long the brokers end a transaction that nobody ends.
        linger_ms: how long records may wait for others to share a request with.
    """

    def __init__(
        self, cluster: Cluster, name: str, group: str, *, timeout_ms: int, linger_ms: float
    ) -> None:
        self.open = False
        self._name = name
        self._timeout_s = timeout_ms / 1_000
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
                "transaction.timeout.ms": timeout_ms,
                "linger.ms": linger_ms,
                "message.max.bytes": REQUEST_BYTES_MAX,
                "queue.buffering.max.messages": 10_000_000,
                "queue.buffering.max.kbytes": 2_000_000,
                "socket.nagle.disable": True,
                "delivery.report.only.error": True,
            }
        )
        # librdkafka gives a group's name in this form only; it need not connect for it.
        consumer = Consumer({**common, "group.id": group})
        self._group = consumer.consumer_group_metadata()
        consumer.close()
        self._bytes = 0
        self._called_off = False
        self._waiting: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Fence whoever had the name, and end what it had left open.

        Raises:
            LogError: the brokers do not answer in time, or refuse.
        """
        await self._wait_for(self._init)

    async def send(self, topic: str, messages: list[Message]) -> None:
        """Put records on their way, in order; a transaction begins with the first.

        Raises:
            Fenced: a successor has taken over.
            LogError: the transaction has failed otherwise.
        """
        if not self.open:
            self._raising(self._producer.begin_transaction)
            self.open = True
        self._raising(partial(self._put, topic, messages))
        self._bytes += sum(len(each["value"] or b"") for each in messages)
        if self._bytes > BYTES_MAX or len(self._producer) > MESSAGES_MAX:
            await self._wait_for(partial(self._producer.flush, self._timeout_s))
            self._bytes = 0

    async def commit(self, positions: Mapping[tuple[str, int], int]) -> None:
        """End the transaction, with the positions that what was written follows from.

        Args:
            positions: by topic (as the cluster knows it) and partition, the next offset to read.

        Raises:
            Fenced: a successor has taken over; nothing of the transaction will be seen.
            LogError: the transaction has failed otherwise, or nobody knows.
        """
        offsets = [TopicPartition(topic, p, at) for (topic, p), at in positions.items()]

        def commit() -> None:
            if not self.open:
                self._producer.begin_transaction()
            if offsets:
                self._producer.send_offsets_to_transaction(offsets, self._group, self._timeout_s)
            self._producer.commit_transaction(self._timeout_s)

        await self._wait_for(commit)
        self.open, self._bytes = False, 0

    async def close(self) -> None:
        """Let go: nothing more is sent, and what is open ends without being seen."""
        if self._waiting is not None:
            await asyncio.wait([self._waiting])
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._producer.purge()
        with suppress(KafkaException):  # fenced, or unheard: the brokers will end what is open
            self._producer.close()

    def _init(self) -> None:
        deadline = time.monotonic() + START_S
        while not self._called_off:
            try:
                self._producer.init_transactions(STEP_S)
                break
            except KafkaException as error:
                if time.monotonic() > deadline or not error.args[0].retriable():
                    raise

    def _put(self, topic: str, messages: list[Message]) -> None:
        # Not `produce_batch`: it passes the partition of each over (confluent-kafka 2.16).
        for each in messages:
            self._producer.produce(topic, **each)

    async def _wait_for(self, work: Callable[[], Any]) -> None:
        """Have a thread do what waits; called off meanwhile, it leaves none behind."""
        self._waiting = asyncio.ensure_future(asyncio.to_thread(self._raising, work))
        try:
            await asyncio.shield(self._waiting)
        except asyncio.CancelledError:
            self._called_off = True
            await asyncio.wait([self._waiting])
            self._waiting.exception()
            raise

    def _raising(self, work: Callable[[], Any]) -> None:
        """Do it, and tell what went wrong in our words."""
        try:
            work()
        except KafkaException as error:
            raise self._told(error.args[0]) from error

    def _told(self, error: KafkaError) -> LogError:
        if error.code() in FENCED:
            return Fenced(
                f"{self._name}: expected to be the only one of that name, given a successor that "
                f"has taken over: {error.str()}"
            )
        return LogError(f"{self._name}: a transaction failed: {error.name()}: {error.str()}")
