"""Poison on Apache Kafka, from a producer that checks nothing: no worker stops, the good go on."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from kafka import KafkaProducer
from kafka.errors import KafkaError

from stream_ml.sealing import Seals
from stream_ml.shell.kafka.metadata import topic_ids
from stream_ml.testing import Driver
from stream_ml.topics import partition_of
from tests.kafka.shop_world import STAGES, Reader, alive, shop_on, started
from tests.poison import (
    Poison,
    all_different,
    forgeries,
    letters,
    of_stages,
    traffic,
    unsealed,
    wandering,
)
from tests.shop import shop

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stream_ml.shell.kafka.cluster import Cluster

PARTITIONS = 2
KEYS = [next(k for k in "abcdefgh" if partition_of(k.encode(), PARTITIONS) == p) for p in (0, 1)]
# Longer than a record may be, and not too long for the broker, which takes batches of 2 MiB.
LONGEST = 1_500_000


@pytest.fixture
def cluster(tmp_path: Path, kafka_broker: str) -> Iterator[Cluster]:
    """The shop's topics on the broker."""
    with shop_on(kafka_broker, tmp_path, PARTITIONS) as cluster:
        yield cluster


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
        ids = topic_ids(cluster, ["events", "registry"])
        here = ids["events"]
        seals = Seals(bytes.fromhex("5a" * 32), cluster.pipeline, ids["registry"])
        wanderer = wandering(KEYS[0], 1, here)
        inner = [*of_stages(seals), *unsealed(), *forgeries(model, decision, str(canary)), wanderer]
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
