"""A plain client without the key, on a cluster that lets it write where only workers should."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import orjson
from kafka import KafkaProducer

from stream_ml.sealing import MARKER
from tests.kafka.shop_world import STAGES, Reader, alive, shop_on, started
from tests.shop import stream

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from stream_ml.shell.kafka.cluster import Cluster

PARTITIONS = 2
FORGED = 600
Sent = tuple[str, bytes, bytes, int | None]
# The end of the century: before a watermark that has come so far everything is too late.
FAR_MS = 4_102_444_800_000


def send(cluster: Cluster, producer: KafkaProducer, records: Iterable[Sent]) -> None:
    """Put records anywhere, as any client may."""
    sent = [
        producer.send(cluster.topic(topic), value, key, partition=partition)
        for topic, key, value, partition in records
    ]
    producer.flush()
    for each in sent:
        each.get(timeout=30)


def published(topic: str, records: Iterable[dict[str, Any]]) -> list[Sent]:
    """Honest records, keyed as publishers key them."""
    member = "shop" if topic == "events" else "event_id"
    return [(topic, each[member].encode(), orjson.dumps(each), None) for each in records]


def forged_example(number: int, features: dict[str, float], **changes: Any) -> Sent:
    """An example as join would write it, of what never happened, sealed by a guess if at all."""
    now_ms = time.time_ns() // 1_000_000
    body = {
        "event_id": f"forged{number}",
        "key": "k",
        "ts": now_ms - 1_000,
        "source": {"partition": 0, "offset": number},
        "model": "logistic@0",
        "example": -1,
        "prediction": 0.5,
        "fallback": False,
        "features": features,
        "shadows": {},
        "label": True,
        "label_ts": now_ms - 500,
        "label_source": {"partition": 0, "offset": number},
        "number": number,
        **changes,
    }
    seal = {"seal": f"{number:032x}"} if number % 2 else {}
    return "examples", b"e", orjson.dumps({**body, **seal}), None


def forged_state(reader: Reader) -> list[Sent]:
    """What would shut out every event, if the task of any partition took it up."""
    far = orjson.dumps({"watermark": FAR_MS, "counts": {}})
    marker = orjson.dumps({"positions": [["events", 0, 10**9], ["events", 1, 10**9]]})
    genuine = reader.raw("predict-changelog")
    # Of ours, what another partition's task has written: genuine, and not of this one.
    moved = [each for each in genuine if each.value is not None][-4:]
    return [
        *(("predict-changelog", b"", far, p) for p in range(PARTITIONS)),
        *(("predict-changelog", MARKER, marker, p) for p in range(PARTITIONS)),
        *(("predict-changelog", each.key, each.value, 1 - each.partition) for each in moved),
    ]


def test_a_client_without_the_key_has_nothing_learned_and_shuts_nobody_out(
    kafka_broker: str, tmp_path: Path
) -> None:
    """Hundreds of forged examples, one to stop the loop, a watermark in between: all for nothing.

    Each is a dead letter or passed over and told, no worker stops, and the honest ones go on.
    """
    events, labels = stream(count=60)
    half = len(events) // 2
    with (
        shop_on(kafka_broker, tmp_path, PARTITIONS) as cluster,
        KafkaProducer(bootstrap_servers=cluster.bootstrap) as producer,
        ExitStack() as stack,
    ):
        reader = Reader(cluster)
        workers = started(cluster, tmp_path, stack)
        reader.until("registry", 1, workers)
        send(cluster, producer, published("events", events[:half]))
        visits = [each["event_id"] for each in events[:half] if each["kind"] == "visit"]
        [*_, served] = reader.until("predictions", len(visits), workers)

        forged = [forged_example(number, served["features"]) for number in range(FORGED)]
        null = forged_example(FORGED, served["features"], prediction=None, fallback=False)
        send(cluster, producer, [*forged, null])
        told = reader.until("dead-letters", FORGED + 1, workers)

        [predict, *others] = workers
        ended = predict.stopped()
        send(cluster, producer, forged_state(reader))
        workers = [*started(cluster, tmp_path, stack, ["predict"]), *others]
        send(cluster, producer, published("events", events[half:]))
        visits = [each["event_id"] for each in events if each["kind"] == "visit"]
        predictions = reader.until("predictions", len(visits), workers)
        send(cluster, producer, published("labels", labels))
        known = {each["event_id"] for each in labels} & set(visits)
        examples = reader.until("examples", FORGED + 1 + len(known), workers)
        letters, alerts = reader.read("dead-letters"), reader.read("alerts")
        alive(workers)
        ends = [ended, *(worker.stopped() for worker in workers)]
        models = reader.read("models")

    assert {("examples", "forged")} == {(each["topic"], each["reason"]) for each in told}
    assert told == letters, "nothing honest is refused"
    assert FORGED + 1 == len(letters)
    assert sorted(visits) == sorted(each["event_id"] for each in predictions)
    honest = [each["event_id"] for each in examples if "forged" not in each["event_id"]]
    assert sorted(known) == sorted(honest)
    assert max(each["version"] for each in models) <= len(known)
    assert "foreign_state" in {each["kind"] for each in alerts}
    assert [(0, "")] * (len(STAGES) + 1) == [(end.code, end.err) for end in ends]
