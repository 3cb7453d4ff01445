"""Strays on Apache Kafka: any producer with any partitioner may publish, and nothing is lost."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import confluent_kafka
import orjson
import pytest
from kafka import KafkaProducer

from stream_ml.testing import Driver
from stream_ml.topics import partition_of
from tests.kafka.shop_world import STAGES, Reader, alive, shop_on, started
from tests.shop import patient, stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream_ml.shell.kafka.cluster import Cluster

PARTITIONS = 4
SHOPS = [f"shop {n}" for n in range(12)]


@pytest.fixture
def plain_cluster(tmp_path: Path, kafka_broker: str) -> Iterator[Cluster]:
    """The topics of a shop that declares nothing of time."""
    with shop_on(kafka_broker, tmp_path, PARTITIONS, shop="plain") as cluster:
        yield cluster


@pytest.fixture
def cluster(tmp_path: Path, kafka_broker: str) -> Iterator[Cluster]:
    """The shop's topics on the broker."""
    with shop_on(kafka_broker, tmp_path, PARTITIONS, shop="patient") as cluster:
        yield cluster


def records() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The stream of a dozen shops."""
    rand = random.Random(5)
    events, labels = stream(seed=5, count=400)
    for event in events:
        event["shop"] = rand.choice(SHOPS)
    return events, labels


def publish(cluster: Cluster, topic: str, published: list[dict[str, Any]]) -> int:
    """Send it all by confluent-kafka, which places keys by their CRC; how many went astray."""
    member, astray = ("shop" if topic == "events" else "event_id"), 0
    producer = confluent_kafka.Producer({"bootstrap.servers": cluster.bootstrap})

    def placed(_: object, record: confluent_kafka.Message) -> None:
        nonlocal astray
        astray += record.partition() != partition_of(record.key(), PARTITIONS)

    for each in published:
        name, value = cluster.topic(topic), orjson.dumps(each)
        producer.produce(name, value, each[member].encode(), on_delivery=placed)
    assert producer.flush(60.0) == 0
    return astray


def test_with_another_partitioner_all_comes_out_as_with_ours(
    tmp_path: Path, cluster: Cluster
) -> None:
    """Placed by confluent-kafka most lie wrong: the same features, each served and joined once."""
    events, labels = records()
    with Driver(patient, partitions=PARTITIONS) as quiet:
        quiet.feed(events, labels)
        features = {p["event_id"]: p["features"] for p in quiet.read("predictions")}
        joined = Counter(e["event_id"] for e in quiet.read("examples"))
    reader = Reader(cluster)
    with ExitStack() as stack:
        workers = started(cluster, tmp_path, stack)
        astray = publish(cluster, "events", events)
        labels_astray = publish(cluster, "labels", labels)
        predictions = reader.until("predictions", len(features), workers)
        examples = reader.until("examples", len(joined), workers)
        alive(workers)
        ends = [worker.stopped() for worker in workers]

    assert [(0, "")] * len(STAGES) == [(end.code, end.err) for end in ends]
    assert astray > len(events) // 2
    assert sorted(features) == sorted(p["event_id"] for p in predictions)
    assert features == {p["event_id"]: p["features"] for p in predictions}
    assert joined == Counter(e["event_id"] for e in examples)
    assert [] == reader.read("dead-letters")
    counts = reader.counts("predict"), reader.counts("join")
    assert (astray, labels_astray) == (counts[0]["strays"], counts[1]["strays"])
    assert (len(events), len(joined)) == (counts[0]["events"], counts[1]["joined"])
    forwarded = [r for r in reader.raw("events") if r.headers]
    assert astray == len(forwarded)
    assert {"stream-ml-origin"} == {name for r in forwarded for name, _ in r.headers}
    # Each says where it lay, and lies right now.
    lay = {(r.partition, r.offset): r.value for r in reader.raw("events") if not r.headers}
    for record in forwarded:
        ((_, origin),) = record.headers
        partition, offset = map(int, origin.split(b":")[:2])
        assert lay[partition, offset] == record.value
        assert partition_of(record.key, PARTITIONS) == record.partition
        assert orjson.loads(record.value)["shop"].encode() == record.key


def test_without_keys_all_is_served_once(tmp_path: Path, cluster: Cluster) -> None:
    """As the console's producer sends: no key, any partition; each is predicted and joined once."""
    events, labels = records()
    rand = random.Random(6)
    reader = Reader(cluster)
    with ExitStack() as stack:
        workers = started(cluster, tmp_path, stack)
        with KafkaProducer(bootstrap_servers=cluster.bootstrap) as producer:
            for topic, published in (("events", events), ("labels", labels)):
                for each in published:
                    partition = rand.randrange(PARTITIONS)
                    value = orjson.dumps(each)
                    producer.send(cluster.topic(topic), value, partition=partition)
            producer.flush()
        predictions = reader.until("predictions", len(labels), workers)
        examples = reader.until("examples", len(labels), workers)
        ends = [worker.stopped() for worker in workers]

    assert [(0, "")] * len(STAGES) == [(end.code, end.err) for end in ends]
    wanted = Counter(label["event_id"] for label in labels)
    assert wanted == Counter(p["event_id"] for p in predictions)
    assert wanted == Counter(e["event_id"] for e in examples)
    assert [] == reader.read("dead-letters")


def test_without_keys_nothing_is_lost_under_the_defaults(
    tmp_path: Path, plain_cluster: Cluster
) -> None:
    """Live, with a key on every other record only: strays come a commit later, and in time."""
    cluster, rand, reader = plain_cluster, random.Random(7), Reader(plain_cluster)
    events, ids = records()[0], []
    with ExitStack() as stack:
        workers = started(cluster, tmp_path, stack)
        with KafkaProducer(bootstrap_servers=cluster.bootstrap) as producer:
            for number, event in enumerate(events):
                now_ms = int(time.time() * 1_000)
                live = event | {"ts": now_ms, "kind": "visit"}
                label = {"event_id": event["event_id"], "ts": now_ms + 1, "label": True}
                for topic, value, key in (
                    ("events", live, live["shop"]),
                    ("labels", label, event["event_id"]),
                ):
                    producer.send(
                        cluster.topic(topic),
                        orjson.dumps(value),
                        key.encode() if number % 2 else None,
                        partition=None if number % 2 else rand.randrange(PARTITIONS),
                    ).get(timeout=60)
                ids.append(event["event_id"])
        predictions = reader.until("predictions", len(ids), workers)
        examples = reader.until("examples", len(ids), workers)
        ends = [worker.stopped() for worker in workers]

    assert [(0, "")] * len(STAGES) == [(end.code, end.err) for end in ends]
    assert Counter(ids) == Counter(p["event_id"] for p in predictions)
    assert Counter(ids) == Counter(e["event_id"] for e in examples)
    assert [] == reader.read("dead-letters")
