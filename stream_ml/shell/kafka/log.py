"""The clients' log on a cluster, kept as `log.port.Log` promises; what is on the wire is plain.

Theory of operation.

**Three clients, each made when it is first needed.** The admin client asks for topics, offsets and
groups; it answers in a millisecond or two, whatever else goes on. The producer is idempotent and
waits for all replicas, so its own retries neither double nor reorder. A consumer reads one
partition at a time, and every tail has one of its own over all partitions of its topic: records
come in batches, as soon as the broker has them.

**A record's partition is chosen here**, by `topics.partition_of`, and not by the client's default,
which may be another in another release.

**Reading knows where to end.** A read asks for the end first, and goes on until it has been
reached: between the last record and the end there may be marks of transactions, and gaps that
compaction left, which a consumer passes over and gives nothing for. Of committed records the end is
the last stable offset: what lies beyond belongs to transactions that are still open.

**What is on its way is bounded.** When so many records or bytes wait for their acknowledgement,
whoever appends waits for them. A record that is not acknowledged within `DELIVERY_S` is given up,
and counted in the error; the producer is given up with it, for its numbering has a hole.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    KafkaTimeoutError,
    NoError,
    RetriableError,
    UnknownTopicOrPartitionError,
)
from kafka.structs import OffsetAndMetadata

from stream_ml.errors import LogError, NotAcknowledged, UnknownTopic
from stream_ml.records import Record
from stream_ml.sealing import MARKER, content, marker_in
from stream_ml.shell.kafka.changelog import fold_changelog, prefix_of
from stream_ml.shell.kafka.clients import admin_client, translated_errors
from stream_ml.shell.kafka.cluster import topic_id
from stream_ml.shell.kafka.metadata import group_names, members_since_ms, stages_with_members
from stream_ml.shell.kafka.records import origin_headers, to_records
from stream_ml.shell.kafka.security import client_options
from stream_ml.shell.log.port import Log, Tail, is_of_clients, not_of_clients, read_between
from stream_ml.stages.topology import parse_task
from stream_ml.topics import catalogue, embedded, partition_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from kafka.producer.future import FutureRecordMetadata

    from stream_ml.records import Output
    from stream_ml.shell.kafka.cluster import Cluster
    from stream_ml.shell.log.port import Isolation, PartitionId

__all__ = ["KafkaLog"]

ISOLATIONS: Mapping[Isolation, str] = MappingProxyType(
    {"committed": "read_committed", "uncommitted": "read_uncommitted"}
)

# A broker that does not answer for so long is not there, as far as a person waits.
TIMEOUT_S = 10.0
# An election takes seconds, a restart of a broker tens of them.
DELIVERY_S = 30.0
# Leaders and coordinators need a moment after a start or a move.
RETRY_S = 0.1
# The library's own is 30 s: a follower would not notice for so long that a broker is back.
RECONNECT_MAX_MS = 1_000
EARLIEST, LATEST = -2, -1
# Records are sent when a batch is full or so old, or at once where somebody waits for them.
LINGER_MS = 5
BATCH_BYTES = 256 * 1024
# An abandoned transaction holds back readers of its partitions for so long.
TRANSACTION_MS = 10_000
# On its way at once; more waits. A record costs about a kilobyte beside its own bytes.
PENDING_MAX = 20_000
PENDING_BYTES_MAX = 16 * 1024 * 1024
# A read stops after so many bytes, as the embedded log's does.
READ_BYTES_MAX = 64 * 1024 * 1024
FETCH_BYTES = 4 * 1024 * 1024
# Reads know that there is something; only a tail waits for what comes.
READ_WAIT_MS, TAIL_WAIT_MS = 5, 500
# A poll that finds marks of transactions and no record goes on until its time is over; so it is
# short, and the position is looked at in between.
POLL_MS = 20
TAIL_RECORDS = 5_000
# A piece of state is looked for so many records back at first, and so much further each time.
PIECE_RECORDS = 1_000
PIECE_FACTOR = 8
APPLY = "make the pipeline's topics with `stream-ml topics apply`"


class KafkaLog(Log):
    """A pipeline's log on a cluster. Close it, or use it as a context manager.

    Use it in the thread that made it; other threads make their own.

    Args:
        cluster: where it is.
        isolation: whether readers see what transactions have committed, or all that is written.
        timeout_s: how long to wait for an answer.

    Raises:
        LogError: no broker answers, none lets us in, or the pipeline has no topics there.
    """

    forwards_strays = True

    def __init__(
        self, cluster: Cluster, *, isolation: Isolation = "committed", timeout_s: float = TIMEOUT_S
    ) -> None:
        self._cluster = cluster
        self._isolation = ISOLATIONS[isolation]
        self._timeout_s = timeout_s
        self._options = {
            "bootstrap_servers": cluster.bootstrap.split(","),
            "client_id": "stream-ml",
            "bootstrap_timeout_ms": int(timeout_s * 1000),
            "request_timeout_ms": int(timeout_s * 1000),
            "reconnect_backoff_max_ms": RECONNECT_MAX_MS,
            **client_options(cluster.security),
        }
        with translated_errors(cluster):
            self._admin = admin_client(**self._options)
        self._producer: KafkaProducer | None = None
        self._consumer: KafkaConsumer | None = None
        # The partition and offset at which the consumer stands: a read from there needs no seek.
        self._next: tuple[TopicPartition, int] | None = None
        self._ends: dict[TopicPartition, int] = {}
        self._pending: list[FutureRecordMetadata] = []
        self._pending_bytes = 0
        self._failures: Counter[str] = Counter()
        # Of each topic, what Kafka knows it by: made anew under its name, it has another.
        self._ids: dict[str, str] = {}
        try:
            self._counts = self._describe_topics()
        except BaseException:
            self.close()
            raise
        self._partitions = _Partitions(
            cluster, {name: self._counts[name] for name in embedded() if name in self._counts}
        )

    @property
    def identity(self) -> str:
        """Which log this is: the id of its registry, without which it would be another."""
        return self._ids.get("registry", "")

    @property
    def partitions(self) -> Mapping[str, int]:
        """The number of partitions by topic; for one that is not there it raises `UnknownTopic`."""
        return self._partitions

    # --- appending ------------------------------------------------------------------------

    def append(self, outputs: Sequence[Output]) -> list[Record]:
        """Appends `outputs` and waits until all are acknowledged; see `log.port.Log.append`."""
        self.flush()
        futures = self._send(outputs)
        self.flush(futures)
        metadata = [future.value for future in futures]
        return [
            Record(
                output.topic,
                position.partition,
                position.offset,
                output.key,
                output.value,
                position.timestamp,
            )
            for output, position in zip(outputs, metadata, strict=True)
        ]

    def append_whole(self, writer: str, prepare: Callable[[], Sequence[Output]]) -> None:
        """Appends in one transaction; see `log.port.Log.append_whole`.

        A new producer of the name ends what an old one has left open, and fences it (KIP-98).
        """
        with self._translated_errors("take records in one transaction"):
            producer = KafkaProducer(
                **self._producer_options(),
                transactional_id=self._cluster.group(writer),
                transaction_timeout_ms=TRANSACTION_MS,
            )
        try:
            with self._translated_errors("begin a transaction"):
                producer.init_transactions()
            outputs = prepare()
            if not outputs:
                return
            with self._translated_errors("take records in one transaction"):
                producer.begin_transaction()
                try:
                    self._send_with(producer, outputs)
                except BaseException:
                    producer.abort_transaction()
                    raise
                producer.commit_transaction()
        finally:
            with suppress(KafkaError):
                producer.close(timeout=self._timeout_s)

    def _send_with(
        self, producer: KafkaProducer, outputs: Sequence[Output]
    ) -> list[FutureRecordMetadata]:
        partitions = [self._partition_of(output) for output in outputs]
        return [
            producer.send(
                self._cluster.topic(output.topic),
                value=output.value,
                key=output.key,
                headers=self._headers(output),
                partition=partition,
            )
            for output, partition in zip(outputs, partitions, strict=True)
        ]

    def post(self, outputs: Sequence[Output]) -> None:
        """Hands `outputs` to the producer; see `log.port.Log.post`."""
        self._send(outputs)
        if self._failures:
            self.flush()

    def flush(self, futures: Sequence[FutureRecordMetadata] = ()) -> None:
        """Waits until all that was posted is acknowledged; see `log.port.Log.flush`.

        Args:
            futures: of the records whose places an error should tell.
        """
        self._settle()
        failures, self._failures = self._failures, Counter()
        if not failures:
            return
        # Its sequence numbers have a hole, which brokers would refuse.
        self._drop_producer()
        reasons = "; ".join(f"{reason} ({count:,})" for reason, count in failures.most_common())
        raise NotAcknowledged(
            f"{self._cluster.bootstrap}: expected every record to be acknowledged, given "
            f"{failures.total():,} that were not: {reasons}",
            [
                (future.value.partition, future.value.offset) if _is_acknowledged(future) else None
                for future in futures
            ],
        )

    def _send(self, outputs: Sequence[Output]) -> list[FutureRecordMetadata]:
        # Of a batch with a record that cannot be one, nothing is sent.
        partitions = [self._partition_of(output) for output in outputs]
        producer = self._producing()
        futures = []
        for output, partition in zip(outputs, partitions, strict=True):
            with self._translated_errors("take a record"):
                future = producer.send(
                    self._cluster.topic(output.topic),
                    value=output.value,
                    key=output.key,
                    headers=self._headers(output),
                    partition=partition,
                )
            futures.append(future)
            self._pending.append(future)
            self._pending_bytes += len(output.value or b"") + len(output.key or b"")
            if len(self._pending) >= PENDING_MAX or self._pending_bytes >= PENDING_BYTES_MAX:
                self._settle()
        return futures

    def _headers(self, output: Output) -> list[tuple[str, bytes]] | None:
        if output.origin is None:
            return None
        return origin_headers(output.origin, self._ids.get(output.topic, ""))

    def _partition_of(self, output: Output) -> int:
        topic, key, value = output.topic, output.key, output.value
        count = self._partitions[topic]
        description = catalogue()[topic]
        if not is_of_clients(description):
            raise not_of_clients(description)
        if value is not None and len(value) > description.record_bytes_max:
            raise LogError(
                f"{topic}: expected a record of at most {description.record_bytes_max} bytes, "
                f"given {len(value)}"
            )
        if key is None and value is None:
            raise LogError(f"{topic}: expected a key or a value, given neither")
        return 0 if key is None else partition_of(key, count)

    def _settle(self) -> None:
        """Wait for all that is on its way, and count what does not arrive."""
        if not self._pending:
            return
        assert self._producer is not None, "nothing is on its way without a producer"
        with suppress(KafkaTimeoutError):  # what is not done by then is counted below
            self._producer.flush(DELIVERY_S + self._timeout_s)
        for future in self._pending:
            if not future.is_done:
                self._failures[f"no answer within {DELIVERY_S + self._timeout_s:g} s"] += 1
            elif not _is_acknowledged(future):
                self._failures[_reason(future.exception)] += 1
        self._pending, self._pending_bytes = [], 0

    def _producing(self) -> KafkaProducer:
        if self._producer is None:
            with self._translated_errors("take records"):
                self._producer = KafkaProducer(**self._producer_options())
        return self._producer

    def _producer_options(self) -> dict[str, Any]:
        # A request may be tried more than once before its records are given up.
        request_s = min(self._timeout_s, DELIVERY_S / 2)
        return {
            **self._options,
            "request_timeout_ms": int(request_s * 1000),
            "acks": "all",
            "enable_idempotence": True,
            "delivery_timeout_ms": int(DELIVERY_S * 1000),
            "max_block_ms": int(self._timeout_s * 1000),
            "linger_ms": LINGER_MS,
            "batch_size": BATCH_BYTES,
            "max_request_size": max(t.record_bytes_max for t in catalogue().values()) * 2,
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }

    def _drop_producer(self) -> None:
        if self._producer is not None:
            with suppress(KafkaError):
                self._producer.close(timeout=0)
            self._producer = None

    # --- reading --------------------------------------------------------------------------

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """Up to `limit` records from `offset` on; see `log.port.Log.read`."""
        tp = self._tp(topic, partition)
        end = self._ends.get(tp, 0)
        if offset >= end:
            end = self._ends[tp] = self._offset(tp, LATEST)
        if offset >= end:
            return []
        consumer = self._consumer_at(tp, offset)
        records: list[Record] = []
        budget = READ_BYTES_MAX
        deadline = time.monotonic() + self._timeout_s
        while offset < end and len(records) < limit and budget > 0:
            with self._translated_errors(f"give the records of {tp.topic}-{partition}"):
                batch = consumer.poll(timeout_ms=POLL_MS, max_records=limit - len(records)).get(
                    tp, []
                )
                position = consumer.position(tp, timeout_ms=int(self._timeout_s * 1000))
            records += to_records(topic, batch, self._ids.get(topic, ""))
            budget -= sum(len(record.value) for record in batch if record.value is not None)
            if position is not None and position > offset:
                offset = position
                deadline = time.monotonic() + self._timeout_s
            elif time.monotonic() > deadline:
                raise self._silent(f"give {tp.topic}-{partition} from offset {offset} on")
        self._next = (tp, offset)
        return records

    def first_offset(self, topic: str, partition: int) -> int:
        """The offset before which retention has removed all; see `log.port.Log.first_offset`."""
        return self._offset(self._tp(topic, partition), EARLIEST)

    def end_offset(self, topic: str, partition: int) -> int:
        """One past the last record; of committed ones, up to where no transaction is open.

        The rest is as `log.port.Log.end_offset` says.
        """
        return self._offset(self._tp(topic, partition), LATEST)

    def held_back(self, topic: str, partition: int) -> tuple[int, int] | None:
        """What open transactions keep from readers; see `log.port.Log.held_back`."""
        if self._isolation != ISOLATIONS["committed"]:
            return None
        tp = self._tp(topic, partition)
        stable = self._offset(tp, LATEST)
        end = self._offset(tp, LATEST, ISOLATIONS["uncommitted"])
        if end <= stable:
            return None
        with self._translated_errors(f"give the records of {tp.topic}-{tp.partition}"):
            consumer = self._new_consumer(READ_WAIT_MS, ISOLATIONS["uncommitted"])
            try:
                consumer.assign([tp])
                consumer.seek(tp, stable)
                batch = consumer.poll(timeout_ms=TAIL_WAIT_MS, max_records=1).get(tp, [])
            finally:
                consumer.close()
        return (end - stable, batch[0].timestamp) if batch else None

    def offset_at(self, topic: str, partition: int, append_ms: int) -> int:
        """The offset of the first record appended then or later; see `log.port.Log.offset_at`."""
        tp = self._tp(topic, partition)
        offset = self._offset(tp, max(0, append_ms))
        return self._offset(tp, LATEST) if offset < 0 else offset

    def tail(self, topic: str, offsets: Mapping[int, int]) -> Tail:
        """Reads on from `offsets`; see `log.port.Log.tail`."""
        for partition in offsets:
            self._tp(topic, partition)
        with self._translated_errors("give records"):
            consumer = self._new_consumer(TAIL_WAIT_MS)
        return KafkaTail(
            consumer, topic, self._cluster.topic(topic), offsets, self._translated_errors
        )

    def version(self) -> tuple[int, ...]:
        """The ends of all partitions; see `log.port.Log.version`."""
        tps = [
            TopicPartition(self._cluster.topic(topic), partition)
            for topic, count in self._partitions.items()
            for partition in range(count)
        ]
        ends = self._offsets(dict.fromkeys(tps, LATEST))
        return tuple(ends[tp] for tp in tps)

    # --- groups and state -----------------------------------------------------------------

    def committed(self, group: str) -> dict[PartitionId, int]:
        """The next offsets of a task, such as `predict-0`, that its stage's group has committed.

        Of the task of one line, those that its newest checkpoint names.
        """
        stage, number, line = parse_task(group)
        if line is not None:
            marker = self.piece(group, MARKER.decode())
            return {} if marker is None else dict(marker_in(content(marker)).positions)
        name = self._cluster.group(stage)
        offsets: Mapping[TopicPartition, Any] = self._answer(
            "name a group's offsets", lambda: self._admin.list_group_offsets(name)
        )[name]
        names = {self._cluster.topic(topic): topic for topic in catalogue()}
        return {
            (names[tp.topic], tp.partition): int(metadata.offset)
            for tp, metadata in offsets.items()
            if tp.partition == number and tp.topic in names and metadata.offset >= 0
        }

    def mark(self, group: str, topic: str) -> tuple[int, str] | None:
        """The offset on a topic's first partition that `set_mark` has kept, with its note.

        Args:
            group: that it is kept for; one without members.
            topic: one of the catalogue.
        """
        name = self._cluster.group(group)
        offsets: Mapping[TopicPartition, Any] = self._answer(
            "name a group's offsets", lambda: self._admin.list_group_offsets(name)
        )[name]
        metadata = offsets.get(self._tp(topic, 0))
        if metadata is None or metadata.offset < 0:
            return None
        return int(metadata.offset), str(metadata.metadata)

    def set_mark(self, group: str, topic: str, offset: int, note: str) -> None:
        """Keep an offset on a topic's first partition, for a group without members.

        Args:
            group: see `mark`.
            topic: see `mark`.
            offset: to keep.
            note: to keep with it.

        Raises:
            LogError: the cluster did not take it.
        """
        name, tp = self._cluster.group(group), self._tp(topic, 0)
        offsets = {tp: OffsetAndMetadata(offset, note, -1)}
        results: Mapping[TopicPartition, Any] = self._answer(
            "keep an offset", lambda: self._admin.alter_group_offsets(name, offsets)
        )
        error = results.get(tp, NoError)
        if error is not NoError:
            raise LogError(
                f"{self._cluster.bootstrap}: expected the group {name} to keep an offset, given "
                f"{error.__name__}"
            )

    def state(self, group: str) -> list[tuple[str, bytes]]:
        """The state pieces of a task, from its partition of the changelog."""
        topic, partition = self._changelog(group)
        pieces: dict[bytes, bytes] = {}
        offset = self.first_offset(topic, partition)
        while records := self.read(topic, partition, offset, TAIL_RECORDS):
            offset = records[-1].offset + 1
            fold_changelog(((record.key, record.value) for record in records), pieces)
        prefix = prefix_of(parse_task(group).line)
        pieces.pop(prefix + MARKER, None)
        return sorted(
            (key.removeprefix(prefix).decode(), piece)
            for key, piece in pieces.items()
            if key.startswith(prefix)
        )

    def piece(self, group: str, key: str) -> bytes | None:
        """One state piece, looked for from the changelog's end back; see `log.port.Log.piece`."""
        record = self._newest(group, key.encode())
        return None if record is None else record.value

    def written_ms(self, group: str) -> int | None:
        """The append time of the task's last checkpoint on its changelog; None if there is none."""
        record = self._newest(group, MARKER)
        return None if record is None else record.append_ms

    def stages_at_work(self) -> frozenset[str] | None:
        """The stages whose groups have members; see `log.port.Log.stages_at_work`."""
        names = group_names(self._cluster)
        groups: Mapping[str, Any] = self._answer(
            "describe groups", lambda: self._admin.describe_groups(names)
        )
        return stages_with_members(self._cluster, groups)

    def worker_since_ms(self, stage: str) -> int | None:
        """When the first of its members joined, as they tell themselves; None: none tells."""
        name = self._cluster.group(stage)
        groups: Mapping[str, Any] = self._answer(
            "describe groups", lambda: self._admin.describe_groups([name])
        )
        return members_since_ms(groups[name], time.time_ns() // 1_000_000)

    def _newest(self, group: str, name: bytes) -> Record | None:
        topic, partition = self._changelog(group)
        name = prefix_of(parse_task(group).line) + name
        first = self.first_offset(topic, partition)
        end = self.end_offset(topic, partition)
        reach = PIECE_RECORDS
        while end > first:
            start = max(first, end - reach)
            records = read_between(self, topic, partition, start, end)
            matches = [record for record in records if (record.key or b"") == name]
            if matches:
                return matches[-1]
            end, reach = start, reach * PIECE_FACTOR
        return None

    def _changelog(self, group: str) -> PartitionId:
        stage, number, _ = parse_task(group)
        topic = f"{stage}-changelog"
        self._tp(topic, number)
        return topic, number

    # --- the end --------------------------------------------------------------------------

    def close(self) -> None:
        """Lets go of all connections; what was posted and not flushed may be lost."""
        self._drop_producer()
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
        self._admin.close()

    # --- requests to brokers --------------------------------------------------------------

    def _describe_topics(self) -> dict[str, int]:
        """The partitions of each of the catalogue's topics that the cluster has."""
        names = {self._cluster.topic(name): name for name in catalogue()}
        with self._translated_errors("name the topics"):
            descriptions = self._admin.describe_topics(list(names))
        counts = {
            names[description["name"]]: len(description["partitions"])
            for description in descriptions
            if not description["error_code"]
        }
        self._ids |= {
            names[description["name"]]: topic_id(str(description["topic_id"]))
            for description in descriptions
            if not description["error_code"] and description.get("topic_id")
        }
        if not counts:
            raise UnknownTopic(
                f"{self._cluster.bootstrap}: expected topics of the pipeline "
                f"{self._cluster.pipeline}, given none that we may see; {APPLY}"
            )
        return counts

    def _tp(self, topic: str, partition: int) -> TopicPartition:
        count = self._counts[topic] if topic in self._counts else self._partitions[topic]
        if not 0 <= partition < count:
            raise UnknownTopic(
                f"{topic}: expected a partition from 0 to {count - 1}, given {partition}"
            )
        return TopicPartition(self._cluster.topic(topic), partition)

    def _offset(self, tp: TopicPartition, timestamp_ms: int, isolation: str | None = None) -> int:
        return self._offsets({tp: timestamp_ms}, isolation)[tp]

    def _offsets(
        self, timestamps_ms: Mapping[TopicPartition, int], isolation: str | None = None
    ) -> dict[TopicPartition, int]:
        answer = self._answer(
            "name offsets",
            lambda: self._admin.list_partition_offsets(
                dict(timestamps_ms),
                isolation_level=isolation or self._isolation,
                timeout_ms=int(self._timeout_s * 1000),
            ),
        )
        return {tp: int(result.offset) for tp, result in answer.items()}

    def _consumer_at(self, tp: TopicPartition, offset: int) -> KafkaConsumer:
        """The consumer, about to read from there."""
        if self._consumer is None:
            with self._translated_errors("give records"):
                self._consumer = self._new_consumer(READ_WAIT_MS)
        if self._next != (tp, offset):
            self._consumer.assign([tp])
            self._consumer.seek(tp, offset)
        self._next = None
        return self._consumer

    def _new_consumer(self, wait_ms: int, isolation: str | None = None) -> KafkaConsumer:
        return KafkaConsumer(
            **self._options,
            isolation_level=isolation or self._isolation,
            enable_auto_commit=False,
            # Offsets that retention has removed are passed over.
            auto_offset_reset="earliest",
            fetch_max_wait_ms=wait_ms,
            max_partition_fetch_bytes=FETCH_BYTES,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def _answer(self, doing: str, ask: Callable[[], Any]) -> Any:
        """Send a request, and again while its leader or coordinator is not there."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            with self._translated_errors(doing):
                try:
                    return ask()
                except (KafkaTimeoutError, UnknownTopicOrPartitionError):
                    raise
                except RetriableError:
                    if time.monotonic() > deadline:
                        raise
            time.sleep(RETRY_S)

    @contextmanager
    def _translated_errors(self, doing: str) -> Iterator[None]:
        """Turns the client library's errors into ours.

        Raises:
            LogError: what was asked for could not be done, and why.
        """
        try:
            yield
        except KafkaTimeoutError as error:
            raise self._silent(doing) from error
        except UnknownTopicOrPartitionError as error:
            raise UnknownTopic(
                f"{self._cluster.bootstrap}: expected the cluster to {doing}, given a topic it "
                f"does not have; {APPLY}"
            ) from error
        except KafkaError as error:
            raise LogError(
                f"{self._cluster.bootstrap}: expected the cluster to {doing}, given "
                f"{_reason(error)}"
            ) from error

    def _silent(self, doing: str) -> LogError:
        return LogError(
            f"{self._cluster.bootstrap}: expected a broker to {doing} within "
            f"{self._timeout_s:g} s, given no answer; is it still running?"
        )


class KafkaTail(Tail):
    """A tail of a `KafkaLog`, got by its `tail`; see `log.port.Tail`."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        topic: str,
        name: str,
        offsets: Mapping[int, int],
        translated_errors: Callable[[str], Any],
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._translated_errors = translated_errors
        self._tps = {partition: TopicPartition(name, partition) for partition in offsets}
        consumer.assign(list(self._tps.values()))
        for partition, offset in offsets.items():
            consumer.seek(self._tps[partition], offset)

    def poll(self, wait_s: float) -> list[Record]:
        """What has come; see `log.port.Tail.poll`."""
        with self._translated_errors("give records"):
            batches = self._consumer.poll(timeout_ms=int(wait_s * 1000), max_records=TAIL_RECORDS)
        by_partition = [to_records(self._topic, records) for records in batches.values()]
        return list(heapq.merge(*by_partition, key=lambda record: record.append_ms))

    def has_reached(self, ends: Mapping[int, int]) -> bool:
        """Whether everything before `ends` was given out; see `log.port.Tail.has_reached`."""
        with self._translated_errors("name a position"):
            return all(self._consumer.position(self._tps[p]) >= end for p, end in ends.items())

    def close(self) -> None:
        """Lets go of its connections."""
        self._consumer.close()


class _Partitions(dict[str, int]):
    """Partitions by topic; asked for a topic that is not there, it says what to do."""

    def __init__(self, cluster: Cluster, counts: Mapping[str, int]) -> None:
        super().__init__(counts)
        self._cluster = cluster

    def __missing__(self, topic: str) -> int:
        if topic not in catalogue():
            raise UnknownTopic(
                f"{topic}: expected one of {', '.join(sorted(self))}, given a topic that there is "
                "none of"
            )
        raise UnknownTopic(
            f"{self._cluster.bootstrap}: expected a topic {self._cluster.topic(topic)}, given none "
            f"that we may see; {APPLY}"
        )


def _is_acknowledged(future: FutureRecordMetadata) -> bool:
    return bool(future.is_done and not future.failed())


def _reason(error: BaseException | None) -> str:
    """The reason that the client library gives, in words that are the same for every record."""
    name = type(error).__name__.removesuffix("Error")
    if isinstance(error, KafkaTimeoutError):
        return f"no answer within {DELIVERY_S:g} s"
    if isinstance(error, AuthorizationError):
        return f"no permission ({name})"
    return name
