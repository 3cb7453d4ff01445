"""The loop on Kafka makes of the same records what the embedded log makes of them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
from aiokafka import TopicPartition

from stream_ml.codec import record_hash
from stream_ml.examples.cards import cards, transactions
from stream_ml.records import Output, Record
from stream_ml.testing import Driver
from stream_ml.topics import partition_of
from tests.kafka.world import (
    DEADLINE_S,
    House,
    outputs_of,
    place,
    publish,
    reader,
    until_said,
)

if TYPE_CHECKING:
    from pathlib import Path

    from stream_ml.shell.kafka.cluster import Cluster

STAGES = ("learn", "evaluate", "predict", "join")
PARTITIONS = 2
START_MS = 1_700_000_000_000
MINUTE_MS = 60_000
LATENESS = "2s"
EXTRA = ("late-events",)
DECLARATION = f"""
from dataclasses import replace
from stream_ml.examples.cards import cards
events = replace(cards.events, lateness={LATENESS!r}, breadth=1, too_late="topic")
declared = replace(cards, name=name, events=events)
"""

# A record for a topic, with the partition that its publisher chose: None for that of its key.
Sent = tuple[str, bytes | None, bytes, int | None]


# --- a stream with everything that goes wrong ---------------------------------------------------


def _event(event_id: str, ts: int, card: str) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "ts": ts,
        "card": card,
        "amount": 12.5,
        "distance": 3.0,
        "age": 40.0,
    }


def _sent(topic: str, value: dict[str, Any]) -> Sent:
    key = value["card" if topic == "events" else "event_id"]
    return (topic, key.encode(), orjson.dumps(value), None)


def _stray(topic: str, value: dict[str, Any]) -> Sent:
    """Published without a key, to the partition where it does not belong."""
    key = value["card" if topic == "events" else "event_id"]
    return (topic, None, orjson.dumps(value), 1 - partition_of(key.encode(), PARTITIONS))


def strays() -> list[Sent]:
    """Events of cards of their own and their labels, without keys."""
    events = [_event(f"stray{n}", START_MS + n, f"s{n % 5}") for n in range(40)]
    labels = [
        {"event_id": e["event_id"], "ts": e["ts"] + 1_000, "label": n % 3 == 0}
        for n, e in enumerate(events)
    ]
    return [*(_stray("events", e) for e in events), *(_stray("labels", e) for e in labels)]


def stream() -> list[Sent]:
    """Cards paying, with duplicates, late ones and bad ones, and labels that come as they come."""
    rand = random.Random(5)
    events, labels = transactions(2_000, seed=1, start_ms=START_MS + 1_000)
    sent: list[Sent] = []
    for number, event in enumerate(events):
        sent.append(_sent("events", event))
        if rand.random() < 0.05:
            sent.append(_sent("events", event))
        if rand.random() < 0.03:
            ts = event["ts"] - rand.choice([1_500, 10_000])
            sent.append(_sent("events", {**event, "event_id": f"late{number}", "ts": ts}))
        if rand.random() < 0.03:
            wrong = rand.choice([b"{", b"null", b'{"event_id":"b","ts":1}', b"\xff\xfe"])
            sent.append(("events", None, wrong, 0))
    for number, label in enumerate(labels):
        sent.append(_sent("labels", label))
        if rand.random() < 0.05:
            sent.append(_sent("labels", {**label, "label": not label["label"]}))
        if rand.random() < 0.03:
            sent.append(_sent("labels", {**label, "event_id": f"unknown{number}"}))
        if rand.random() < 0.03:
            sent.append(("labels", None, rand.choice([b"[]", b'{"label":true}']), 1))
    return sent + _ending([event["event_id"] for event in events[1_500:1_510]])


def _ending(late: list[str]) -> list[Sent]:
    """Times far ahead everywhere, past which labels are late, and what waits waits in vain."""
    sent = [
        _sent("labels", {"event_id": _of(p, "jump"), "ts": START_MS + 8 * MINUTE_MS, "label": True})
        for p in range(PARTITIONS)
    ]
    ts = START_MS + 9 * MINUTE_MS
    sent += [_sent("labels", {"event_id": id_, "ts": ts, "label": True}) for id_ in late]
    # Of every partition of events a prediction in every partition of these.
    return sent + [
        _sent("events", _event(_of(p, f"end{card}"), START_MS + 40 * MINUTE_MS, _of(card, "c-end")))
        for card in range(PARTITIONS)
        for p in range(PARTITIONS)
    ]


def _of(partition: int, prefix: str) -> str:
    """A key of a partition."""
    names = (f"{prefix}-{n}" for n in range(1_000))
    return next(n for n in names if partition_of(n.encode(), PARTITIONS) == partition)


# --- what comes of it -------------------------------------------------------------------------


def predictions(found: dict[str, list[Record]]) -> dict[str, tuple[Any, ...]]:
    """By event id, what was served but for the model that answered."""
    said = [orjson.loads(each.value or b"") for each in found["predictions"]]
    served = {
        e["event_id"]: (e["ts"], e["key"], e["source"]["partition"], orjson.dumps(e["features"]))
        for e in said
    }
    assert len(said) == len(served), "an event was predicted twice"
    return served


def examples(found: dict[str, list[Record]]) -> Counter[tuple[str, bool, int]]:
    """What is learned from: ids, labels, when they were known."""
    said = [orjson.loads(each.value or b"") for each in found["examples"]]
    return Counter((each["event_id"], each["label"], each["label_ts"]) for each in said)


def letters(
    found: dict[str, list[Record]], topic: str = "dead-letters"
) -> Counter[tuple[str, ...]]:
    """What was refused, or came too late: by whom, why, and its bytes as they came."""
    said = [orjson.loads(each.value or b"") for each in found[topic]]
    return Counter((e["topic"], e["stage"], e["reason"], e["path"], e["value"]) for e in said)


def embedded(name: str) -> dict[str, list[Record]]:
    """What the embedded log makes of it, where nobody can publish a stray."""
    events = replace(cards.events, lateness=LATENESS, breadth=1, too_late="topic")
    with Driver(replace(cards, name=name, events=events), partitions=PARTITIONS) as driver:
        for topic, key, value, _ in strays():
            assert key is None
            members = orjson.loads(value)
            own = members["card" if topic == "events" else "event_id"]
            driver.log.append([Output(topic, own.encode(), value)])
        for topic, key, value, partition in stream():
            if key is not None:
                driver.log.append([Output(topic, key, value)])
            else:
                # The embedded log puts it at 0; who reads it there is another task, which says
                # the same of it.
                assert partition is not None
                driver.log.append([Output(topic, None, value)])
        driver.run()
        topics = ("predictions", "examples", "dead-letters", *EXTRA)
        return {name: driver.records(name) for name in topics}


async def send(cluster: Cluster, sent: list[Sent]) -> None:
    """Publish in order, each to its partition."""
    for topic in ("labels", "events"):
        for partition in range(PARTITIONS):
            ours = [
                Output(topic, key, value)
                for where, key, value, chosen in sent
                if where == topic
                and partition
                == (partition_of(key or b"", PARTITIONS) if chosen is None else chosen)
            ]
            await publish(cluster, topic, partition, ours)


async def until_written(cluster: Cluster, **counts: int) -> None:
    """Wait until so many records of each topic can be read."""
    left = Counter({cluster.topic(name.replace("_", "-")): n for name, n in counts.items()})
    async with asyncio.timeout(DEADLINE_S), reader(cluster) as consumer:
        consumer.assign(
            [
                TopicPartition(topic, p)
                for topic in left
                for p in range(PARTITIONS if topic == cluster.topic("predictions") else 1)
            ]
        )
        while max(left.values()) > 0:
            for tp, records in (await consumer.getmany(timeout_ms=1_000)).items():
                left[tp.topic] -= len(records)


def test_the_loop_on_kafka_makes_what_the_embedded_log_makes(
    kafka_broker: str, tmp_path: Path
) -> None:
    """Four processes: the same predictions, examples and dead letters, and a history in order."""
    with place(kafka_broker, PARTITIONS, "cards", extra=EXTRA) as cluster, ExitStack() as processes:
        expected = embedded(cluster.pipeline)
        wanted = {topic.replace("-", "_"): len(records) for topic, records in expected.items()}
        house = House(tmp_path, cluster, DECLARATION)
        workers = {stage: processes.enter_context(house.worker(stage)) for stage in STAGES}
        asyncio.run(send(cluster, strays()))
        # What is forwarded lies behind what is there already: the others come when it is done.
        asyncio.run(until_written(cluster, predictions=40, examples=40))
        asyncio.run(send(cluster, stream()))
        asyncio.run(until_written(cluster, **wanted))
        promote = ("promote", "tree", "--expect", "logistic", "--reason", "a trial", "--id", "once")
        promoted = processes.enter_context(house.terminal(*promote)).ended()
        until_said(workers["predict"], said="serves", model="tree@1000")
        ended = {stage: worker.stopped() for stage, worker in workers.items()}
        found = asyncio.run(outputs_of(cluster, partitions=PARTITIONS, extra=EXTRA))

    assert dict.fromkeys(STAGES, (0, "")) == {s: (e.code, e.err) for s, e in ended.items()}
    assert predictions(expected) == predictions(found)
    assert examples(expected) == examples(found)
    assert letters(expected) == letters(found)
    late = letters(found, "late-events")
    assert (letters(expected, "late-events"), {"too_late"}) == (late, {each[2] for each in late})
    # The stream holds what it is meant to hold.
    reasons = {letter[2] for letter in letters(found)}
    assert reasons >= {"not_json", "missing_field", "duplicate"}
    assert reasons >= {"duplicate_label", "late", "orphan"}

    history = [orjson.loads(each.value or b"") for each in found["registry"]]
    assert list(range(len(history))) == [each["number"] for each in history]
    assert "bootstrap" == history[0]["kind"]
    chained = ["0" * 64, *(record_hash(each.value or b"") for each in found["registry"])]
    assert chained[:-1] == [each["previous"] for each in history]
    assert (0, "") == (promoted.code, promoted.err)
    answers = [(e["kind"], e["reason"]) for e in history if e["command_id"] == "once"]
    assert [("replaced", "a trial")] == answers
