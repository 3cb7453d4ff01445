"""Poison on Apache Kafka, from a producer that checks nothing: no worker stops, the good go on."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from stream_ml.shell.kafka.admin import Demand, apply
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.testing import Driver
from stream_ml.topics import catalogue, partition_of
from tests.kafka_broker import a_name
from tests.poison import (
    Poison,
    all_different,
    forgeries,
    letters,
    of_stages,
    traffic,
    wandering,
)
from tests.shell.processes import Terminal
from tests.shop import shop

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
PARTITIONS = 2
KEYS = [next(k for k in "abcdefgh" if partition_of(k.encode(), PARTITIONS) == p) for p in (0, 1)]
STAGES = ("predict", "join", "learn", "evaluate")
DECLARATION = """
import dataclasses, sys
sys.path.insert(0, {root!r})
from tests.shop import shop
mine = dataclasses.replace(shop, name={name!r})
"""
# Longer than a record may be, and not too long for the broker, which takes batches of 2 MiB.
LONGEST = 1_500_000
# Far more than it takes, even on a machine that is busy with something else.
DEADLINE_S = 120.0


@pytest.fixture
def cluster(tmp_path: Path, kafka_broker: str) -> Iterator[Cluster]:
    """The shop's topics on the broker, of nobody else's, for a while."""
    cluster = Cluster(kafka_broker, a_name("poison"))
    declared = DECLARATION.format(root=str(ROOT), name=cluster.pipeline)
    (tmp_path / "declared.py").write_text(declared)
    apply(cluster, Demand(partitions=PARTITIONS))
    yield cluster
    with KafkaAdminClient(bootstrap_servers=kafka_broker) as admin:
        admin.delete_topics([cluster.topic(name) for name in catalogue()])


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


class Unreadable(str):
    """The name of a header that is no UTF-8, as a client in C may send it."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:  # noqa: D102 - as of any text
        return b"\xff\xfe"


def send(
    cluster: Cluster,
    producer: KafkaProducer,
    topic: str,
    records: Sequence[Any],
    headers: Sequence[tuple[str, bytes]] = (),
) -> None:
    """Send good and bad alike; whatever the broker itself refuses is an error."""
    member = "shop" if topic == "events" else "event_id"
    sent = []
    for record in records:
        if isinstance(record, Poison):
            sent.append(
                producer.send(
                    cluster.topic(topic),
                    record.value,
                    record.key,
                    headers=list(record.headers),
                    partition=record.partition,
                )
            )
        else:
            key = record[member].encode()
            value = orjson.dumps(record)
            sent.append(producer.send(cluster.topic(topic), value, key, headers=list(headers)))
    producer.flush()
    for each in sent:
        each.get(timeout=30)


def started(cluster: Cluster, folder: Path, stack: ExitStack) -> list[Terminal]:
    """A worker of each stage, at work."""
    variables = {
        "STREAM_ML_PIPELINE": "declared:mine",
        "STREAM_ML_BROKER": f"kafka://{cluster.bootstrap}",
        "STREAM_ML_KEY": "5a" * 32,
    }
    workers = [
        stack.enter_context(
            Terminal("worker", stage, "--format", "json", folder=folder, **variables)
        )
        for stage in STAGES
    ]
    for worker in workers:
        while orjson.loads(worker.line())["said"] != "started":
            pass
    return workers


def undisturbed(now_ms: int) -> tuple[dict[str, Any], set[str]]:
    """By event id, the features without any poison, on the embedded log; and what was joined."""
    with Driver(shop, partitions=PARTITIONS) as quiet:
        stream = traffic(now_ms, KEYS)
        quiet.feed(stream.events, stream.labels)
        quiet.feed(stream.last)
        features = {p["event_id"]: p["features"] for p in quiet.read("predictions")}
        return features, {e["event_id"] for e in quiet.read("examples")}


def test_poison_stops_no_worker_and_costs_no_good_record(tmp_path: Path, cluster: Cluster) -> None:
    """Forty kinds, one in ten: a dead letter each, told apart; every good event is served."""
    now_ms = int(time.time() * 1_000)
    expected, joined = undisturbed(now_ms)
    stream, canary, reader = traffic(now_ms, KEYS, LONGEST), tmp_path / "sings", Reader(cluster)
    producer = KafkaProducer(bootstrap_servers=cluster.bootstrap, max_request_size=2 << 20)
    with ExitStack() as stack, producer:
        workers = started(cluster, tmp_path, stack)
        reader.until("registry", 1, workers)
        model, decision = reader.raw("models")[0].value, reader.raw("registry")[0].value
        inner = [*of_stages(), *forgeries(model, decision, str(canary)), wandering(KEYS[0], 1)]
        for topic in ("models", "registry", "commands", "predictions", "examples"):
            send(cluster, producer, topic, [p for p in inner if p.topic == topic])
        send(cluster, producer, "events", [*stream.mixed_events, inner[-1]])
        send(cluster, producer, "labels", stream.mixed_labels)
        # What was labelled is joined before time goes on.
        reader.until("examples", len(joined), workers)
        send(cluster, producer, "events", stream.last, [(Unreadable("name"), b"value")])
        poisons = stream.poisons + inner
        reader.until("predictions", len(expected) + 6, workers)
        told = letters(reader.until("dead-letters", len(poisons), workers))
        predictions = reader.read("predictions")
        examples = {e["event_id"] for e in reader.read("examples") if "label" in e}
        alive(workers)
        ends = [worker.stopped() for worker in workers]

    wanted = Counter(poison.expected for poison in poisons)
    assert Counter() == wanted - told, "not told"
    assert Counter() == told - wanted, "told besides"
    assert all_different(poisons)
    served = Counter(p["event_id"] for p in predictions if p["event_id"] != "forged")
    assert Counter(expected.keys()) == served
    assert expected == {
        p["event_id"]: p["features"] for p in predictions if p["event_id"] in expected
    }
    assert joined == examples - {"forged"}
    assert [(0, "")] * len(STAGES) == [(end.code, end.err) for end in ends]
    assert not canary.exists()


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_the_broker_refuses_what_is_far_too_long(cluster: Cluster, compression: str | None) -> None:
    """10 MB do not get past the topic, compressed or not: the producer is told."""
    long = b"x" * 10_000_000
    options = {"max_request_size": 32 << 20, "compression_type": compression}
    with (
        KafkaProducer(bootstrap_servers=cluster.bootstrap, **options) as producer,
        pytest.raises(KafkaError, match=r"(?i)size|large"),
    ):
        producer.send(cluster.topic("events"), long).get(timeout=30)
