"""The raw topics of a run as they lie on the broker, read committed, by kafka-python alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["OUTPUTS", "Raw", "RecordPosition", "Topics", "read", "wait_until_settled"]

OUTPUTS = (
    "predictions",
    "examples",
    "answers",
    "models",
    "registry",
    "evaluations",
    "alerts",
    "dead-letters",
    "summaries",
)
INPUTS = {
    "predict": ("events",),
    "join": ("predictions", "labels"),
    "learn": ("examples",),
    "evaluate": ("examples", "models", "commands", "summaries"),
}
# Commits of transactions take up offsets of their own at the end of a partition, some from each
# task that writes there; whether there is a record left among so few is the judge's to see.
MARKERS_MAX = 20
SETTLED_S = 4.0
POLL_MS = 500
READ_TIMEOUT_S = 120.0


class RecordPosition(NamedTuple):
    """Where a record lies."""

    topic: str
    partition: int
    offset: int


@dataclass(slots=True)
class Raw:
    """A record as a consumer gets it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    append_ms: int = 2**42
    headers: dict[str, bytes] = field(default_factory=dict)


# Per topic, per partition, the records in the order of the log.
Topics = dict[str, list[list[Raw]]]


def _consumer(broker: str) -> KafkaConsumer:
    return KafkaConsumer(
        bootstrap_servers=broker,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=10_000,
        max_partition_fetch_bytes=8 * 1024 * 1024,
    )


def _partitions(consumer: KafkaConsumer, names: list[str]) -> list[TopicPartition]:
    return [
        TopicPartition(name, number)
        for name in names
        for number in sorted(consumer.partitions_for_topic(name) or ())
    ]


def read(
    broker: str, pipeline: str, names: tuple[str, ...] = ("events", "labels", *OUTPUTS)
) -> Topics:
    """Everything committed in these topics.

    Raises:
        TimeoutError: the broker did not give it all in time.
    """
    consumer = _consumer(broker)
    try:
        tps = _partitions(consumer, [f"{pipeline}.{name}" for name in names])
        consumer.assign(tps)
        consumer.seek_to_beginning(*tps)
        ends = consumer.end_offsets(tps)
        topics: Topics = {name: [] for name in names}
        for tp in tps:
            topics[tp.topic.removeprefix(f"{pipeline}.")].append([])
        deadline = time.monotonic() + READ_TIMEOUT_S
        while any(consumer.position(tp) < ends[tp] for tp in tps):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the topics were not read within {READ_TIMEOUT_S} s")
            for tp, records in consumer.poll(timeout_ms=POLL_MS).items():
                partition = topics[tp.topic.removeprefix(f"{pipeline}.")][tp.partition]
                partition += [
                    Raw(r.partition, r.offset, r.key, r.value, r.timestamp, dict(r.headers))
                    for r in records
                ]
        return topics
    finally:
        consumer.close()


def wait_until_settled(
    broker: str, pipeline: str, timeout_s: float, stages: Iterable[str] = INPUTS
) -> str | None:
    """Wait until the workers have worked everything off; what is left where they do not."""
    consumer, admin = _consumer(broker), KafkaAdminClient(bootstrap_servers=broker)
    deadline = time.monotonic() + timeout_s
    last, since_s = -1, time.monotonic()
    try:
        while True:
            total, lag = _standing(consumer, admin, pipeline, stages)
            now_s = time.monotonic()
            if total != last or lag:
                last, since_s = total, now_s
            if now_s - since_s >= SETTLED_S:
                return None
            if now_s > deadline:
                return lag or f"the topics still grow after {timeout_s:.0f} s"
            time.sleep(0.5)
    finally:
        consumer.close()
        admin.close()


def _standing(
    consumer: KafkaConsumer, admin: KafkaAdminClient, pipeline: str, stages: Iterable[str]
) -> tuple[int, str | None]:
    """How much lies in the topics, and which stage is behind."""
    total, lag = 0, None
    for stage in stages:
        group, inputs = f"{pipeline}.{stage}", INPUTS[stage]
        tps = _partitions(consumer, [f"{pipeline}.{name}" for name in inputs])
        ends = consumer.end_offsets(tps)
        offsets = admin.list_group_offsets({group: None}).get(group, {})
        committed_offsets = {tp: metadata.offset for tp, metadata in offsets.items()}
        total += sum(ends.values())
        for tp, end in ends.items():
            remaining = end - max(0, committed_offsets.get(tp, 0))
            if remaining > MARKERS_MAX:
                lag = f"{stage} has {remaining} records of {tp.topic} {tp.partition} to read"
    return total, lag
