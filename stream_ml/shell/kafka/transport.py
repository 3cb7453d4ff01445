"""Faust's Kafka transport, handing over whole fetches instead of records one by one.

Theory of operation:

1. Faust keeps what it does well: the consumer group, rebalances, a consumer in a thread of its own
   (so that heartbeats go on while stages work). What costs 65 µs a record in plain Faust, its
   streams, channels and acknowledgements, is passed by: the fetch loop (`_drain_messages`) gives a
   partition's fetched records to the `TaskHost` as one batch.
2. Faust commits nothing: offsets travel only in our transactions.
3. A batch must not be lost between the thread that fetches and the task that folds: nobody would
   miss it. So the thread numbers the batches of each partition, in epochs: a new one begins when
   the consumer is assigned anew or seeks, both of which take it back to what was committed. A task
   accepts number 0 of a new epoch or the next number of its own, and anything else is an error.
   What is asked for in one epoch and fetched in the next is put back: nobody waits for it.
   A position that the partition does not have (retention has passed it, say) is told, and nothing
   is passed over; where nothing is committed the beginning is asked for.
4. Groups share out partition numbers (see `assignor`), so that a task's inputs come to one worker;
   and readers see committed records only.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import aiokafka
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError
from faust.transport import drivers
from faust.transport.drivers import aiokafka as faust_aiokafka
from faust.types import TP

from stream_ml.shell.kafka.security import async_options
from stream_ml.shell.kafka.transactions import Membership

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from stream_ml.shell.kafka.assignor import TaskAssignor
    from stream_ml.shell.kafka.cluster import Cluster

__all__ = ["SCHEME", "Batch", "TaskHost", "Transport"]

# The URL that an application names this transport by.
SCHEME = "stream-ml-kafka"
FETCH_TIMEOUT_S = 0.5
# A killed worker's partitions wait this long for another (Faust's default is a minute).
SESSION_TIMEOUT_MS = 6_000
# A quarter of it: three heartbeats may be lost. The consumer's thread
# sends them, however long a stage works (the idea is KIP-62's).
HEARTBEAT_MS = 1_500
# A rebalance waits so long for a worker that is folding or committing. (Rebalances are eager: all
# members give up all partitions, and the assignor gives most of them back.)
REBALANCE_TIMEOUT_MS = 30_000
MAX_POLL_INTERVAL_MS = 300_000
FETCH_WAIT_MS = 500
# A worker that joined while the broker came back may know of no topic yet, and who shares out
# knowing none gives nobody anything: by then it asks again (aiokafka's default is five minutes).
METADATA_AGE_MS = 5_000
PARTITION_FETCH_BYTES = 1 << 20
POLL_RECORDS = 2_000


class Batch(NamedTuple):
    """The records of one partition that one fetch brought, in order."""

    records: Sequence[Any]
    epoch: int
    number: int


class TaskHost(Protocol):
    """Takes batches in; what an application of this transport has as its `task_host`."""

    cluster: Cluster
    instance: str | None
    # Records may gather so long between two fetches, in seconds.
    gather_s: float
    assignor: TaskAssignor

    def partitions_with_capacity(self, assignment: Iterable[TP]) -> set[TP]:
        """The partitions there is room for."""

    def deliver(self, batches: Mapping[TP, Batch]) -> None:
        """Take what was fetched."""

    def out_of_range(self, offsets: Mapping[TP, int]) -> None:
        """Told of offsets that a partition does not have; they are asked for again."""

    async def wait_for_capacity(self) -> None:
        """Wait until there may be room for some partition; may return early."""

    def fail(self, error: BaseException) -> None:
        """Told what ended our place in the group."""

    async def on_eviction(self, member: str) -> None:
        """Told that the group knows us no more as `member`, before we join anew."""


class _Thread(faust_aiokafka.AIOKafkaConsumerThread):
    """The thread that fetches."""

    _assignment_numbered: Any = None
    epoch: int = 0
    # As whom the group knew us last.
    member: str = ""
    _numbers: dict[TP, int]

    def _create_worker_consumer(self, _: Any) -> aiokafka.AIOKafkaConsumer:
        self._numbers = {}
        host: TaskHost = self.app.task_host  # type: ignore[attr-defined]  # see TaskHost
        return aiokafka.AIOKafkaConsumer(
            bootstrap_servers=host.cluster.bootstrap,
            client_id=self.app.conf.id,
            group_id=self.app.conf.id,
            group_instance_id=host.instance,
            partition_assignment_strategy=[host.assignor],
            enable_auto_commit=False,
            # An offset that was committed and is not there must not be passed over: `out_of_range`.
            auto_offset_reset="none",
            isolation_level="read_committed",
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            max_poll_records=POLL_RECORDS,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            metadata_max_age_ms=METADATA_AGE_MS,
            **async_options(host.cluster.security),
        )

    async def on_start(self) -> None:
        await super().on_start()
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001 - as Faust does
        coordinator._coordination_task.add_done_callback(self._on_coordination_end)  # noqa: SLF001
        coordinator._do_rejoin_group = self._rejoining(coordinator)  # noqa: SLF001

    def _rejoining(self, coordinator: Any) -> Callable[[Any], Awaitable[Any]]:
        """Wrap joining anew: not where another has our name, or each would throw the other out.

        Heartbeats of aiokafka leave out `group.instance.id` (KIP-345), so a broker answers with
        UNKNOWN_MEMBER_ID, and not with FENCED_INSTANCE_ID, where our name is taken.
        """
        rejoin = coordinator._do_rejoin_group  # noqa: SLF001 - all joining goes through it

        async def rejoin_unless_evicted(subscription: Any) -> Any:
            if self.member and not coordinator.member_id:
                await self.app.task_host.on_eviction(self.member)  # type: ignore[attr-defined]  # see TaskHost
            response = await rejoin(subscription)
            self.member = coordinator.member_id or self.member
            return response

        return rejoin_unless_evicted

    def _on_coordination_end(self, coordinating: Any) -> None:
        """End with the error that ended the coordination: without it we would idle for ever."""
        if not coordinating.cancelled() and (error := coordinating.exception()) is not None:
            self.app.task_host.fail(error)  # type: ignore[attr-defined]  # see TaskHost

    async def fetch(self, tps: set[TP]) -> dict[TP, Batch]:
        """Fetch from the partitions `tps`; waits a while for the first record."""
        request = self._fetch_batches, tps, self.epoch
        return await self.call_thread(*request)  # type: ignore[no-any-return]

    async def _fetch_batches(self, tps: set[TP], epoch: int) -> dict[TP, Batch]:
        consumer = self._ensure_consumer()
        try:
            records_by_tp = await self._fetch_records(consumer, tps, FETCH_TIMEOUT_S, POLL_RECORDS)
        except NoOffsetForPartitionError as error:
            self._seek(dict.fromkeys(error.args, 0))
            return {}
        # From here to the end nothing is awaited, so what was fetched is of this assignment.
        subscription = consumer._subscription.subscription  # noqa: SLF001 - nobody else knows it
        assignment = None if subscription is None else subscription.assignment
        if assignment is not self._assignment_numbered:
            self._assignment_numbered = assignment
            self._next_epoch()
        if epoch != self.epoch:
            # The tasks that asked may be gone, and those of now may want other partitions.
            self._put_back(assignment, records_by_tp)
            return {}
        return {_tp(tp): self._to_batch(_tp(tp), records) for tp, records in records_by_tp.items()}

    def _put_back(self, assignment: Any, records_by_tp: Mapping[Any, Sequence[Any]]) -> None:
        """Have records fetched again, by going back to them where they have been passed."""
        consumer = self._ensure_consumer()
        for tp, records in records_by_tp.items():
            if assignment is None or tp not in assignment.tps:
                continue
            state = assignment.state_value(tp)
            if state.has_valid_position and state.position > records[0].offset:
                consumer.seek(tp, records[0].offset)

    async def seek_in_new_epoch(self, offsets: Mapping[TP, int]) -> int:
        """Fetch from these offsets on, in a new epoch, which is returned."""
        return await self.call_thread(self._seek_in_new_epoch, offsets)  # type: ignore[no-any-return]

    async def _seek_in_new_epoch(self, offsets: Mapping[TP, int]) -> int:
        self._seek(offsets)
        self._next_epoch()
        return self.epoch

    def _seek(self, offsets: Mapping[Any, int]) -> None:
        consumer = self._ensure_consumer()
        for (topic, partition), offset in offsets.items():
            tp = aiokafka.TopicPartition(topic, partition)
            if tp in consumer.assignment():
                consumer.seek(tp, offset)

    def _to_batch(self, tp: TP, records: Sequence[Any]) -> Batch:
        number = self._numbers.get(tp, 0)
        self._numbers[tp] = number + 1
        return Batch(records, self.epoch, number)

    def _next_epoch(self) -> None:
        self.epoch += 1
        self._numbers = {}

    async def seek_to_committed(self) -> Mapping[TP, int]:
        return await self.call_thread(self._seek_to_committed)  # type: ignore[no-any-return]

    async def _seek_to_committed(self) -> Mapping[TP, int]:
        sought = await self._ensure_consumer().seek_to_committed()
        self._next_epoch()
        return sought  # type: ignore[no-any-return]


def _tp(tp: Any) -> TP:
    return TP(tp.topic, tp.partition)


class _Consumer(faust_aiokafka.Consumer):
    """Fetches for the host."""

    _thread: _Thread

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    @property
    def epoch(self) -> int:
        """The present epoch of batches."""
        return self._thread.epoch

    @property
    def member(self) -> str:
        """As whom the group knew us last."""
        return self._thread.member

    @property
    def membership(self) -> Membership:
        """Our identity in the group as of now: to be asked when assigned."""
        coordinator = self._thread._ensure_consumer()._coordinator  # noqa: SLF001 - nobody else knows
        host: TaskHost = self.app.task_host  # type: ignore[attr-defined]  # see TaskHost
        return Membership(coordinator.generation, coordinator.member_id, host.instance)

    async def seek_in_new_epoch(self, offsets: Mapping[TP, int]) -> int:
        """Fetch from these offsets on, in a new epoch, which is returned."""
        return await self._thread.seek_in_new_epoch(offsets)

    async def _drain_messages(self, fetcher: Any) -> None:
        host: TaskHost = self.app.task_host  # type: ignore[attr-defined]  # see TaskHost
        while not (self.should_stop or fetcher.should_stop):
            if not self.flow_active:
                await self.wait(self.can_resume_flow)  # type: ignore[arg-type]  # as Faust does
                continue
            tps = host.partitions_with_capacity(self.assignment())
            if not tps:
                await host.wait_for_capacity()
                continue
            try:
                host.deliver(await self._thread.fetch(tps))
            except OffsetOutOfRangeError as error:
                host.out_of_range({_tp(tp): offset for tp, offset in error.args[0].items()})
                await host.wait_for_capacity()
            # Records that come meanwhile cost little more than one by itself.
            await asyncio.sleep(host.gather_s)

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust would miss the events of its streams; ours pass them by."""


class _Producer(faust_aiokafka.Producer):
    """Faust's own producer, which has nothing to send."""

    async def on_start(self) -> None:
        """No connection."""

    async def on_stop(self) -> None:
        """None to close."""

    async def flush(self) -> None:
        """Nothing to wait for."""


class Transport(faust_aiokafka.Transport):
    """The transport that `SCHEME` names."""

    Consumer: ClassVar[type] = _Consumer
    Producer: ClassVar[type] = _Producer


drivers.TRANSPORTS.aliases[SCHEME] = f"{__name__}:Transport"
