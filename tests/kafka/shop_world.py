"""The shop at work on Apache Kafka: its topics, a worker of each stage, and who looks on."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from stream_ml.sealing import content
from stream_ml.shell.kafka.admin import Demand, apply
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.topics import catalogue, needed
from tests.kafka_broker import a_name
from tests.shell.processes import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import ExitStack

    from tests.shell.processes import Ended

ROOT = Path(__file__).parents[2]
STAGES = ("predict", "join", "learn", "evaluate")
DECLARATION = """
import dataclasses, sys
sys.path.insert(0, {root!r})
from tests.shop import {shop}
mine = dataclasses.replace({shop}, name={name!r})
"""
# Far more than it takes, even on a machine that is busy with something else.
DEADLINE_S = 120.0


@contextmanager
def shop_on(broker: str, folder: Path, partitions: int, shop: str = "shop") -> Iterator[Cluster]:
    """A shop's topics on the broker, of nobody else's, for a while; its declaration in `folder`."""
    cluster = Cluster(broker, a_name("shop"))
    declared = DECLARATION.format(root=str(ROOT), name=cluster.pipeline, shop=shop)
    (folder / "declared.py").write_text(declared)
    apply(cluster, Demand(partitions=partitions))
    yield cluster
    with KafkaAdminClient(bootstrap_servers=broker) as admin:
        admin.delete_topics([cluster.topic(name) for name in needed(catalogue())])


class Reader:
    """Reads whole topics, over and over, as a consumer of committed records."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def raw(self, topic: str) -> list[Any]:
        """The records of a topic, as it is now."""
        name = self._cluster.topic(topic)
        consumer = KafkaConsumer(
            bootstrap_servers=self._cluster.bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        try:
            tps = [TopicPartition(name, p) for p in consumer.partitions_for_topic(name) or ()]
            consumer.assign(tps)
            ends = consumer.end_offsets(tps)
            found = []
            while any(consumer.position(tp) < ends[tp] for tp in tps):
                for batch in consumer.poll(timeout_ms=200).values():
                    found += batch
            return found
        finally:
            consumer.close()

    def read(self, topic: str) -> list[dict[str, Any]]:
        """The topic's records as JSON, tombstones and what is none left out."""
        values = []
        for record in self.raw(topic):
            try:
                values.append(orjson.loads(record.value or b""))
            except orjson.JSONDecodeError:
                continue
        return [value for value in values if isinstance(value, dict)]

    def counts(self, stage: str) -> dict[str, int]:
        """What the tasks of a stage had counted when they last wrote their state."""
        total: dict[str, int] = {}
        newest: dict[int, bytes] = {}
        for record in self.raw(f"{stage}-changelog"):
            if record.key == b"":
                newest[record.partition] = record.value
        for value in newest.values():
            for name, count in orjson.loads(content(value))["counts"].items():
                total[name] = total.get(name, 0) + count
        return total

    def until(self, topic: str, count: int, workers: Sequence[Terminal]) -> list[dict[str, Any]]:
        """The topic once it has so many records, while all workers live."""
        deadline = time.monotonic() + DEADLINE_S
        while len(found := self.read(topic)) < count:
            assert time.monotonic() < deadline, f"{topic}: {len(found)} of {count}: {found[-3:]}"
            alive(workers)
        return found


def alive(workers: Sequence[Terminal]) -> None:
    """Make sure that none has ended."""
    for worker in workers:
        if worker.process.poll() is not None:
            raise AssertionError(worker.ended())


def stopped(workers: Sequence[Terminal]) -> list[Ended]:
    """How workers end that are asked to, all at once."""
    for worker in workers:
        worker.process.terminate()
    return [worker.ended() for worker in workers]


def started(
    cluster: Cluster,
    folder: Path,
    stack: ExitStack,
    stages: Sequence[str] = STAGES,
    **variables: str,
) -> list[Terminal]:
    """A worker of each stage, at work."""
    variables |= {
        "STREAM_ML_PIPELINE": "declared:mine",
        "STREAM_ML_BROKER": f"kafka://{cluster.bootstrap}",
        "STREAM_ML_KEY": "5a" * 32,
    }
    workers = [
        stack.enter_context(
            Terminal("worker", stage, "--format", "json", folder=folder, **variables)
        )
        for stage in stages
    ]
    for worker in workers:
        while orjson.loads(worker.line())["said"] != "started":
            pass
    return workers
