"""The raw topics of a run as they lie on the broker, read committed, by kafka-python alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["OUTPUTS", "Place", "Raw", "Topics", "read", "settled"]

OUTPUTS = ("predictions", "examples", "models", "registry", "evaluations", "alerts", "dead-letters")
INPUTS = {
    "predict": ("events",),
    "join": ("predictions", "labels"),
    "learn": ("examples",),
    "evaluate": ("examples", "models", "commands"),
}
# Commits of transactions take up offsets of their own at the end of a partition, some from each
# task that writes there; whether there is a record left among so few is the judge's to see.
MARKERS_MAX = 20
SETTLED_S = 4.0
POLL_MS = 500
READ_TIMEOUT_S = 120.0


class Place(NamedTuple):
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


def _places(consumer: KafkaConsumer, names: list[str]) -> list[TopicPartition]:
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
        places = _places(consumer, [f"{pipeline}.{name}" for name in names])
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        topics: Topics = {name: [] for name in names}
        for place in places:
            topics[place.topic.removeprefix(f"{pipeline}.")].append([])
        deadline = time.monotonic() + READ_TIMEOUT_S
        while any(consumer.position(place) < ends[place] for place in places):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the topics were not read within {READ_TIMEOUT_S} s")
            for place, records in consumer.poll(timeout_ms=POLL_MS).items():
                kept = topics[place.topic.removeprefix(f"{pipeline}.")][place.partition]
                kept += [
                    Raw(r.partition, r.offset, r.key, r.value, r.timestamp, dict(r.headers))
                    for r in records
                ]
        return topics
    finally:
        consumer.close()


def settled(
    broker: str, pipeline: str, timeout_s: float, stages: Iterable[str] = INPUTS
) -> str | None:
    """Wait until the workers have worked everything off; what is left where they do not."""
    consumer, admin = _consumer(broker), KafkaAdminClient(bootstrap_servers=broker)
    deadline = time.monotonic() + timeout_s
    last, since = -1, time.monotonic()
    try:
        while True:
            total, behind = _standing(consumer, admin, pipeline, stages)
            now = time.monotonic()
            if total != last or behind:
                last, since = total, now
            if now - since >= SETTLED_S:
                return None
            if now > deadline:
                return behind or f"the topics still grow after {timeout_s:.0f} s"
            time.sleep(0.5)
    finally:
        consumer.close()
        admin.close()


def _standing(
    consumer: KafkaConsumer, admin: KafkaAdminClient, pipeline: str, stages: Iterable[str]
) -> tuple[int, str | None]:
    """How much lies in the topics, and which stage is behind."""
    total, behind = 0, None
    for stage in stages:
        group, inputs = f"{pipeline}.{stage}", INPUTS[stage]
        places = _places(consumer, [f"{pipeline}.{name}" for name in inputs])
        ends = consumer.end_offsets(places)
        offsets = admin.list_group_offsets({group: None}).get(group, {})
        committed = {place: known.offset for place, known in offsets.items()}
        total += sum(ends.values())
        for place, end in ends.items():
            left = end - max(0, committed.get(place, 0))
            if left > MARKERS_MAX:
                behind = f"{stage} has {left} records of {place.topic} {place.partition} to read"
    return total, behind
