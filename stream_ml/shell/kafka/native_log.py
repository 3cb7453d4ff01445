"""A cluster's log for who publishes and follows a few records at a time all day, by librdkafka.

kafka-python's clients do all in Python: what an append of three records costs, or a fetch of ten,
is half a millisecond of CPU and more, under the lock that Python threads share. Where thousands of
such come in a second beside other work, as at a server, librdkafka does it in threads of its own
for a tenth. All else is as `log.KafkaLog` has it.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from stream_ml.errors import LogError, NotAcknowledged
from stream_ml.records import Record
from stream_ml.shell.kafka.log import (
    APPLY,
    BATCH_BYTES,
    DELIVERY_S,
    FETCH_BYTES,
    LINGER_MS,
    RECONNECT_MAX_MS,
    TAIL_RECORDS,
    TAIL_WAIT_MS,
    KafkaLog,
)
from stream_ml.shell.kafka.records import origin_of
from stream_ml.shell.kafka.security import native_options
from stream_ml.shell.log.port import Tail
from stream_ml.topics import catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_ml.records import Output

__all__ = ["NativeLog"]

# A tail belongs to no group; librdkafka wants the name of one all the same.
GROUP = "stream-ml-tail"
# Fetched ahead of who polls; and how soon after that was too much it is fetched again.
AHEAD_KILOBYTES, AHEAD_RECORDS, AHEAD_PAUSE_MS = 16 * 1024, 2 * TAIL_RECORDS, 20
# What no waiting mends; anything else passes, or is told where records are asked for.
LASTING_CODES = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED})

_Position = tuple[int, int, int]


class NativeLog(KafkaLog):
    """A pipeline's log on a cluster; see `log.KafkaLog` for its arguments."""

    _native_producer: Producer | None = None

    def append(self, outputs: Sequence[Output]) -> list[Record]:
        """Appends `outputs` and waits until all are acknowledged; see `log.port.Log.append`."""
        # What was posted before lies before it.
        self.flush()
        # Of a batch with a record that cannot be one, nothing is sent.
        partitions = [self._partition_of(output) for output in outputs]
        producer = self._native()
        found: list[_Position | KafkaError | None] = [None] * len(outputs)
        headers: Any
        try:
            for number, (output, partition) in enumerate(zip(outputs, partitions, strict=True)):
                headers = self._headers(output)
                producer.produce(
                    self._cluster.topic(output.topic),
                    output.value,
                    output.key,
                    partition,
                    partial(_note, found, number),
                    headers=headers,
                )
            producer.flush(DELIVERY_S + self._timeout_s)
        except (KafkaException, BufferError) as error:
            self._drop_native()
            raise self._refused(error) from error
        positions = [position for position in found if isinstance(position, tuple)]
        if len(positions) < len(outputs):
            self._drop_native()
            raise self._not_acknowledged(found)
        return [
            Record(output.topic, partition, offset, output.key, output.value, append_ms)
            for output, (partition, offset, append_ms) in zip(outputs, positions, strict=True)
        ]

    def tail(self, topic: str, offsets: Mapping[int, int]) -> NativeTail:
        """Reads on from `offsets`; see `log.port.Log.tail`."""
        for partition in offsets:
            self._tp(topic, partition)
        consumer = Consumer(
            {
                **self._common(),
                "group.id": GROUP,
                "isolation.level": self._isolation,
                "enable.auto.commit": False,
                # Offsets that retention has removed are passed over.
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": TAIL_WAIT_MS,
                "max.partition.fetch.bytes": FETCH_BYTES,
                "queued.max.messages.kbytes": AHEAD_KILOBYTES,
                "queued.min.messages": AHEAD_RECORDS,
                "fetch.queue.backoff.ms": AHEAD_PAUSE_MS,
                # Behind the last record there may be marks of transactions.
                "enable.partition.eof": True,
                "allow.auto.create.topics": False,
            }
        )
        return NativeTail(consumer, topic, self._cluster.topic(topic), offsets)

    def close(self) -> None:
        """Lets go of all connections."""
        self._drop_native()
        super().close()

    def _common(self) -> dict[str, Any]:
        return {
            "bootstrap.servers": self._cluster.bootstrap,
            "client.id": "stream-ml",
            "reconnect.backoff.max.ms": RECONNECT_MAX_MS,
            "socket.nagle.disable": True,
            # What matters is raised; without a logger it would be written to standard error.
            "log_level": 0,
            "logger": logging.getLogger(__name__),
            **native_options(self._cluster.security),
        }

    def _native(self) -> Producer:
        if self._native_producer is None:
            self._native_producer = Producer(
                {
                    **self._common(),
                    "acks": "all",
                    "enable.idempotence": True,
                    "delivery.timeout.ms": int(DELIVERY_S * 1000),
                    "linger.ms": LINGER_MS,
                    "batch.size": BATCH_BYTES,
                    "message.max.bytes": max(t.record_bytes_max for t in catalogue().values()) * 2,
                    "allow.auto.create.topics": False,
                }
            )
        return self._native_producer

    def _drop_native(self) -> None:
        producer, self._native_producer = self._native_producer, None
        if producer is not None:
            producer.purge()
            with suppress(KafkaException):
                producer.flush(0)

    def _not_acknowledged(self, found: Sequence[_Position | KafkaError | None]) -> NotAcknowledged:
        reasons = Counter(_reason(each) for each in found if not isinstance(each, tuple))
        told = "; ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common())
        return NotAcknowledged(
            f"{self._cluster.bootstrap}: expected every record to be acknowledged, given "
            f"{reasons.total():,} that were not: {told}",
            [each[:2] if isinstance(each, tuple) else None for each in found],
        )

    def _refused(self, error: Exception) -> LogError:
        given = _reason(error.args[0]) if isinstance(error, KafkaException) else str(error)
        return LogError(
            f"{self._cluster.bootstrap}: expected the cluster to take records, given {given}"
        )


class NativeTail(Tail):
    """A tail of a `NativeLog`, got by its `tail`; see `log.port.Tail`."""

    def __init__(
        self, consumer: Consumer, topic: str, name: str, offsets: Mapping[int, int]
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._name = name
        self._next = dict(offsets)
        consumer.assign([TopicPartition(name, p, offset) for p, offset in offsets.items()])

    def poll(self, wait_s: float) -> list[Record]:
        """What has come; see `log.port.Tail.poll`."""
        deadline = time.monotonic() + wait_s
        while True:
            # Asked for many at once it would wait until so many are there.
            first = self._consumer.poll(max(0.0, deadline - time.monotonic()))
            if first is None:
                return []
            records = self._taken([first, *self._consumer.consume(TAIL_RECORDS - 1, 0)])
            if records:
                return records

    def has_reached(self, ends: Mapping[int, int]) -> bool:
        """Whether everything before `ends` was given out; see `log.port.Tail.has_reached`."""
        return all(self._next[partition] >= end for partition, end in ends.items())

    def close(self) -> None:
        """Lets go of its connections."""
        self._consumer.close()

    def _taken(self, messages: Sequence[Any]) -> list[Record]:
        by_partition: dict[int, list[Record]] = {}
        for message in messages:
            partition, offset = message.partition(), message.offset()
            error = message.error()
            if error is None:
                headers = message.headers()
                record = Record(
                    self._topic,
                    partition,
                    offset,
                    message.key(),
                    message.value(),
                    message.timestamp()[1],
                    None,
                    origin_of(headers) if headers else None,
                )
                by_partition.setdefault(partition, []).append(record)
                self._next[partition] = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its own codes have such names
                self._next[partition] = offset
            elif error.code() in LASTING_CODES:
                raise LogError(
                    f"expected the cluster to give records of {self._name}, given "
                    f"{_reason(error)}; {APPLY}"
                )
        if len(by_partition) == 1:
            return next(iter(by_partition.values()))
        return list(heapq.merge(*by_partition.values(), key=lambda record: record.append_ms))


def _note(
    found: list[_Position | KafkaError | None],
    number: int,
    error: KafkaError | None,
    message: Any,
) -> None:
    if error is None:
        found[number] = (message.partition(), message.offset(), message.timestamp()[1])
    else:
        found[number] = error


def _reason(error: object) -> str:
    if isinstance(error, KafkaError):
        return f"{error.name()}: {error.str()}"
    return f"no answer within {DELIVERY_S:g} s"
