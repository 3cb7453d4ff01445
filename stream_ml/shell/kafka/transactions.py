"""Transactions on the cluster: what a worker's tasks write and how far they have read, or nothing.

Theory of operation:

1. The tasks of a worker share one producer, so that what they write travels in the same requests
   and transactions (Kafka Streams does so too: KIP-447). What one step of a task writes, and the
   positions that it follows from, are given in one call; a commit takes what all have given so far.
2. A transaction begins with the first record and ends `commit_s` later, so none is open while
   nothing comes. While one ends, nobody may write.
3. A worker that was thought dead must not commit for partitions that another has by now. Positions
   are committed as a member of the group in its present generation: the brokers refuse those of a
   former one, and with them the transaction. They do not look at who has which partition: what was
   written in one generation is committed in it, or never (`join`).
4. A worker started again under the same name ends what it had left open; else the brokers do, at
   their next look after `TIMEOUT_MS`.
5. Whoever takes over asks what is committed and waits until nobody is about to commit there
   (`committed_offsets`, a fetch of stable offsets); what is open then will be refused.
6. librdkafka does the work, rather than aiokafka: for the small batches of live traffic it takes a
   third of the CPU time. Its waits block, so it has threads of its own.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from stream_ml.errors import Fenced, LogError
from stream_ml.shell.kafka.security import native_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.log.port import PartitionId

__all__ = ["NEVER", "CommittedOffset", "Membership", "Message", "Transactions"]

NEVER = float("inf")
# Metadata committed with each position: offsets that tools set by hand come without it.
OURS = "stream-ml"
# A worker that is started again under its name ends an abandoned transaction; without one, readers
# of committed records wait this long for its partitions (and as long as a transaction gathers, and
# until the broker looks).
TIMEOUT_MS = 5_000
# So short that nobody notices, long enough that records of one step share a request.
LINGER_MS = 0.2
# Above the largest record there is, a snapshot envelope of 16 MiB.
REQUEST_BYTES_MAX = 24 << 20
# With so many records on their way tasks wait; far below what librdkafka itself would refuse.
QUEUED_MAX = 50_000
# By when brokers that have just started answer for groups and transactions; asked in steps, so that
# who waits can be called off between them.
START_S = 30.0
STEP_S = 1.0
AGAIN_S = 0.1
# librdkafka may take so much longer than it was told to. Where a coordinator is lost at the wrong
# moment it would wait for ever (confluentinc/librdkafka issue 5456).
SPARE_S = 2.0
# Threads in which requests for committed offsets wait: a few take-overs at a time.
OFFSET_THREADS = 2
# Error codes that mean this producer or member was fenced: another may write by now. A producer is
# fenced by its epoch (KIP-98), a member by its generation or its instance (KIP-447, KIP-345).
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
# Error codes that pass by themselves: brokers that start, a coordinator that moves, and
# (UNSTABLE_OFFSET_COMMIT, KIP-447) another's transaction that is about to commit these offsets.
PASSING_CODES = frozenset(
    {
        KafkaError._TIMED_OUT,  # noqa: SLF001 - as above
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._WAIT_COORD,  # noqa: SLF001
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)

# A record as librdkafka takes it: its `key`, `value` and `partition`, and perhaps `headers`.
Message = dict[str, Any]


class CommittedOffset(NamedTuple):
    """A committed position, and whether a worker has committed it, rather than somebody by hand."""

    offset: int
    is_ours: bool


class Membership(NamedTuple):
    """A member's identity in a consumer group: its generation, its id, and its lasting name."""

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


NO_MEMBER = Membership(-1, "", None)


class Transactions:
    """One after the other, of the one who writes under a name.

    Args:
        cluster: where.
        group: the consumer group whose positions are committed.
        name: the transactional id.
        commit_s: how long a transaction gathers, in seconds.
    """

    def __init__(self, cluster: Cluster, group: str, name: str, commit_s: float) -> None:
        self.commit_s = commit_s
        # The time (monotonic) by which the open transaction is to be committed.
        self.due = NEVER
        self._membership = NO_MEMBER
        self._group = group
        self._name = name
        self._timeout_s = TIMEOUT_MS / 1_000 + commit_s
        common = {
            "bootstrap.servers": cluster.bootstrap,
            "reconnect.backoff.max.ms": 1_000,
            # Errors are raised where they matter. With a logger, log lines wait to be polled for,
            # and nobody polls: without one they would be written to standard error.
            "log_level": 0,
            "logger": logging.getLogger(__name__),
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
        encoding = self._consumer.consumer_group_metadata()
        assert encoding == NO_MEMBER.encode(group), (
            f"librdkafka writes down memberships as {encoding!r}"
        )
        # A transaction is begun with the first record, and with none it is never begun.
        self._is_open = False
        self._positions: dict[PartitionId, int] = {}
        self._failure: BaseException | None = None
        self._closing = False
        self._thread = ThreadPoolExecutor(1, "transactions")
        self._offset_threads = ThreadPoolExecutor(OFFSET_THREADS, "committed")
        # The call that the thread is busy with, and its deadline on the loop's clock.
        self._busy: asyncio.Future[None] | None = None
        self._deadline = NEVER
        self._requests: set[asyncio.Future[Any]] = set()

    async def start(self) -> None:
        """Fence whoever had the name, and end what it had left open.

        Raises:
            LogError: the brokers do not answer in time, or refuse.
        """
        try:
            await self._wait_for(self._run_exclusively(self._init, START_S + SPARE_S))
        except asyncio.CancelledError:
            self._closing = True
            raise

    def join(self, membership: Membership) -> None:
        """Be this member of the group from now on; nothing written before may be left.

        Raises:
            Fenced: something is, and must not be committed any more.
        """
        if self._is_open or self._busy is not None or membership.generation < 0:
            raise Fenced(
                f"{self._name}: expected that all was committed before the group went on to "
                f"{membership}, given what is still open"
            )
        self._membership = membership

    async def committed_offsets(
        self, partitions: Iterable[PartitionId]
    ) -> dict[PartitionId, CommittedOffset]:
        """The group's committed offsets, once no transaction is about to change them.

        Raises:
            LogError: the brokers do not answer in time, or refuse.
        """
        tps = [TopicPartition(topic, partition) for topic, partition in partitions]
        future = asyncio.get_running_loop().run_in_executor(
            self._offset_threads, self._fetch_committed, tps
        )
        self._requests.add(future)
        future.add_done_callback(self._requests.discard)
        await asyncio.wait([future], timeout=START_S + SPARE_S)
        if not future.done():
            raise self._no_answer()
        answer = future.result()
        return {
            (tp.topic, tp.partition): CommittedOffset(tp.offset, tp.metadata == OURS)
            for tp in answer
            if tp.offset >= 0
        }

    async def wait_until_writable(self) -> None:
        """Wait until one may write: no transaction is ending, and not too much is on its way.

        Raises:
            Fenced: another has taken over.
            LogError: a transaction has failed otherwise, or nobody knows.
        """
        while True:
            if self._failure is not None:
                raise self._failure
            if self._busy is not None:
                await self._wait_for(self._busy)
            elif len(self._producer) > QUEUED_MAX:
                flush = partial(self._producer.flush, self._timeout_s)
                await self._wait_for(self._run_exclusively(flush, self._timeout_s + SPARE_S))
            else:
                return

    def write(
        self, records: Iterable[tuple[str, Iterable[Message]]], positions: Mapping[PartitionId, int]
    ) -> None:
        """Put records on their way, in order; after `wait_until_writable`, with no wait between.

        Args:
            records: by topic.
            positions: what they follow from: by topic and partition, the next offset.

        Raises:
            Fenced: another has taken over.
            LogError: the transaction has failed otherwise.
        """
        assert self._busy is None, "nobody writes while a transaction ends"
        try:
            self._translate_errors(partial(self._produce, records))
        except BaseException as error:
            self._failure = error  # half of it must not be committed by another
            raise
        self._positions.update(positions)
        self.due = min(self.due, time.monotonic() + self.commit_s)

    async def commit(self) -> None:
        """End the transaction with all that was written, and how far its writers have moved.

        Raises:
            Fenced: another has taken over; nothing of the transaction will be seen.
            LogError: the transaction has failed otherwise, or nobody knows.
        """
        await self.wait_until_writable()
        if not self._is_open:
            return
        positions, self._positions = self._positions, {}
        self.due = NEVER
        member = self._membership.encode(self._group)
        # It may have to wait twice: for the offsets, and for the end.
        limit_s = 2 * self._timeout_s + SPARE_S
        await self._wait_for(
            self._run_exclusively(partial(self._commit, positions, member), limit_s)
        )

    async def close(self) -> None:
        """Let go, once what is under way has ended; what is open then will never be seen."""
        self._closing = True
        if self._busy is not None or self._requests:
            await asyncio.wait([*self._requests, *([] if self._busy is None else [self._busy])])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)
        self._offset_threads.shutdown(wait=False)

    # --- what librdkafka does ------------------------------------------------------------------

    def _init(self) -> None:
        deadline = time.monotonic() + START_S
        while not self._closing:
            try:
                self._producer.init_transactions(STEP_S)
                break
            except KafkaException as error:
                if time.monotonic() > deadline or not error.args[0].retriable():
                    raise

    def _fetch_committed(self, tps: list[TopicPartition]) -> list[TopicPartition]:
        deadline = time.monotonic() + START_S
        while True:
            try:
                answer: list[TopicPartition] = self._consumer.committed(tps, STEP_S)
                error = next((tp.error for tp in answer if tp.error is not None), None)
            except KafkaException as raised:
                error = raised.args[0]
            if error is None:
                return answer
            is_over = self._closing or time.monotonic() > deadline
            if is_over or error.code() not in PASSING_CODES:
                raise self._as_log_error(error)
            time.sleep(AGAIN_S)

    def _produce(self, records: Iterable[tuple[str, Iterable[Message]]]) -> None:
        if not self._is_open:
            self._producer.begin_transaction()
            self._is_open = True
        # Not `produce_batch`: it passes over the partition of each (confluent-kafka 2.16).
        for topic, messages in records:
            for message in messages:
                self._producer.produce(topic, **message)

    def _commit(self, positions: Mapping[PartitionId, int], member: bytes) -> None:
        offsets = [
            TopicPartition(topic, p, offset, OURS) for (topic, p), offset in positions.items()
        ]
        try:
            self._producer.send_offsets_to_transaction(offsets, member, self._timeout_s)
            self._producer.commit_transaction(self._timeout_s)
        except KafkaException as error:
            # An abortable error leaves the transaction open: aborted here, for readers of
            # committed records would else wait until `transaction.timeout.ms` is over.
            if error.args[0].txn_requires_abort():
                with suppress(KafkaException):
                    self._producer.abort_transaction(self._timeout_s)
            raise
        self._is_open = False

    def _close(self) -> None:
        self._consumer.close()
        self._producer.purge()
        with suppress(KafkaException):  # fenced, or unheard: the brokers will end what is open
            self._producer.close()

    # --- how it is waited for ------------------------------------------------------------------

    def _run_exclusively(self, work: Callable[[], Any], limit_s: float) -> asyncio.Future[None]:
        """Have the thread do what waits, while nobody may write; nor after, should it fail."""
        loop = asyncio.get_running_loop()
        busy = loop.run_in_executor(self._thread, self._translate_errors, work)
        self._busy, self._deadline = busy, loop.time() + limit_s
        busy.add_done_callback(self._finish)
        return busy

    def _finish(self, busy: asyncio.Future[None]) -> None:
        self._failure = self._failure or busy.exception()
        self._busy = None

    async def _wait_for(self, busy: asyncio.Future[None]) -> None:
        """Wait for what the thread is at, whoever wanted it; called off, leave it to others."""
        left = self._deadline - asyncio.get_running_loop().time()
        await asyncio.wait([busy], timeout=max(0.0, left))
        if not busy.done():
            self._failure = self._no_answer()
        if self._failure is not None:
            raise self._failure

    def _no_answer(self) -> LogError:
        return LogError(
            f"{self._name}: expected the brokers to answer for groups and transactions, given "
            "nothing for longer than their clients wait"
        )

    def _translate_errors(self, work: Callable[[], Any]) -> None:
        """Do it, and tell what went wrong in our words."""
        try:
            work()
        except KafkaException as error:
            raise self._as_log_error(error.args[0]) from error

    def _as_log_error(self, error: KafkaError) -> LogError:
        if error.code() in FENCED_CODES:
            return Fenced(
                f"{self._name}: expected to be who may write, given another that has taken over: "
                f"{error.name()}: {error.str()}"
            )
        return LogError(f"{self._name}: a transaction failed: {error.name()}: {error.str()}")
