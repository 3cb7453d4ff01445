"""The producer: events and labels drawn from a seed, good and bad, at a steady rate.

    python -m chaos.traffic --broker HOST:PORT --seed N [--seconds 60] [--rate 2000]

Event time runs `SPEED` times as fast as the clock, so that a minute fills windows of minutes and
closes horizons. What is drawn is a function of the arguments alone; when it is sent is not.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from kafka import KafkaProducer
from kafka.partitioner.default import murmur2

from chaos import parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEED = 10
# Of a thousand events (or labels) so many are of each kind; the rest are as they should be.
LATE, TOO_LATE, REPEATS, BAD, FUTURE, STRAY = 80, 5, 5, 5, 1, 3
NO_LABEL, TWO_LABELS, EARLY_LABEL, SLOW_LABEL, UNKNOWN_LABEL, BAD_LABEL = 40, 10, 3, 10, 10, 3
NO_AMOUNT = 0.1
# How long after the event a label is known, in event time.
DELAY_MS = (5_000, 50_000)
# A slow one is late, or so late that nobody knows the event any more.
SLOW_MS = (50_000, 200_000)
FUTURE_MS = 2**42
TIMEOUT_MS = 120_000


class Send(NamedTuple):
    """A record to publish `due_s` after the start; without a partition its key says where."""

    due_s: float
    topic: str
    key: bytes
    value: bytes
    partition: int | None = None


def partition_of(key: bytes, partitions: int) -> int:
    """Where Kafka's own partitioner puts a key."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


@dataclass
class Traffic:
    """What is published: see the module's head.

    Args:
        seed: of everything that is drawn.
        seconds: how long it takes.
        rate: events a second; labels come on top.
        partitions: of events, labels and predictions.
        shops: how many keys there are.
    """

    seed: int
    seconds: float
    rate: int
    partitions: int
    shops: int = parameters.SHOPS

    def __iter__(self) -> Iterator[Send]:
        rand = random.Random(self.seed)
        waiting: list[tuple[float, int, Send]] = []
        ts, count = parameters.START_MS, int(self.seconds * self.rate)
        step_ms = 2 * SPEED * 1_000 / self.rate
        due_s = 0.0
        for number in range(count):
            due_s = number / self.rate
            ts += math.floor(rand.random() * (step_ms + 1))
            while waiting and waiting[0][0] <= due_s:
                yield heapq.heappop(waiting)[2]
            event = self._event(rand, number, ts)
            yield from self._events(rand, due_s, event)
            for send in self._labels(rand, due_s, event):
                heapq.heappush(waiting, (send.due_s, number, send))
        while waiting:
            yield heapq.heappop(waiting)[2]
        yield from self._end(due_s + 1.0, ts)

    def _event(self, rand: random.Random, number: int, ts: int) -> dict[str, Any]:
        draw = rand.randrange(1_000)
        if draw < LATE:
            ts -= rand.randrange(parameters.LATENESS_MS)
        elif draw < LATE + TOO_LATE:
            ts -= parameters.LATENESS_MS + rand.randrange(parameters.LATENESS_MS)
        elif draw < LATE + TOO_LATE + FUTURE:
            ts = FUTURE_MS
        amount = round(rand.expovariate(0.05) + 0.01, 2)
        return {
            "event_id": f"e{self.seed}-{number}",
            "ts": ts,
            "shop": f"shop {rand.randrange(self.shops)}",
            "kind": rand.choice((parameters.ASKING, parameters.ASKING, "order")),
            "amount": None if rand.random() < NO_AMOUNT else amount,
            "city": rand.choice(parameters.CITIES),
        }

    def _events(self, rand: random.Random, due_s: float, event: dict[str, Any]) -> Iterator[Send]:
        key, value = event["shop"].encode(), orjson.dumps(event)
        draw = rand.randrange(1_000)
        partition = partition_of(key, self.partitions)
        if draw < STRAY:
            partition = (partition + 1) % self.partitions
        yield Send(due_s, "events", key, value, partition)
        if draw >= 1_000 - REPEATS:
            yield Send(due_s, "events", key, value)
        elif draw >= 1_000 - REPEATS - BAD:
            bad = rand.choice(
                (
                    value[:-1],
                    b"[]",
                    orjson.dumps(event | {"event_id": None}),
                    orjson.dumps(event | {"ts": "soon", "event_id": f"x{event['event_id']}"}),
                    orjson.dumps(event | {"city": "ys", "event_id": f"x{event['event_id']}"}),
                    orjson.dumps(event | {"amount": "1", "event_id": f"x{event['event_id']}"}),
                )
            )
            yield Send(due_s, "events", key, bad)

    def _labels(self, rand: random.Random, due_s: float, event: dict[str, Any]) -> Iterator[Send]:
        if event["kind"] != parameters.ASKING:
            return
        draw = rand.randrange(1_000)
        span = SLOW_MS if draw < SLOW_LABEL else DELAY_MS
        delay_ms = rand.randrange(*span)
        odds = 0.8 if (event["amount"] or 0.0) > 12 and event["city"] != "lima" else 0.25  # noqa: PLR2004 - what there is to learn
        label = {
            "event_id": event["event_id"],
            "ts": event["ts"] + delay_ms,
            "label": rand.random() < odds,
        }
        if draw >= 1_000 - NO_LABEL:
            return
        draw = rand.randrange(1_000)
        if draw < EARLY_LABEL:
            label["ts"] = event["ts"] - 1 - rand.randrange(1_000)
        elif draw < EARLY_LABEL + UNKNOWN_LABEL:
            label["event_id"] = f"nobody-{event['event_id']}"
        at_s = due_s + delay_ms / 1_000 / SPEED
        yield self._label(at_s, label)
        if draw >= 1_000 - TWO_LABELS:
            again_s = at_s + rand.random() * 4
            yield self._label(again_s, label | {"label": not label["label"]})
        elif draw >= 1_000 - TWO_LABELS - BAD_LABEL:
            bad = rand.choice((b"null", b'{"event_id":', orjson.dumps(label | {"label": "yes"})))
            yield Send(at_s, "labels", event["event_id"].encode(), bad)

    @staticmethod
    def _label(due_s: float, label: dict[str, Any]) -> Send:
        return Send(due_s, "labels", label["event_id"].encode(), orjson.dumps(label))

    def _end(self, due_s: float, ts: int) -> Iterator[Send]:
        """As many events, much later, as it takes for each way from events to predictions.

        Every label that waits for a prediction is then known to wait in vain.
        """
        ts += 10 * max(parameters.HORIZON_MS, parameters.LONG_MS)
        ways = [(e, p) for e in range(self.partitions) for p in range(self.partitions)]
        ways *= parameters.BREADTH
        number = 0
        while ways:
            shop, event_id = f"shop {number}", f"end{self.seed}-{number}"
            way = (
                partition_of(shop.encode(), self.partitions),
                partition_of(event_id.encode(), self.partitions),
            )
            number += 1
            if way in ways:
                ways.remove(way)
                event = {"kind": parameters.ASKING, "amount": None, "city": parameters.CITIES[0]}
                value = {"event_id": event_id, "ts": ts, "shop": shop} | event
                yield Send(due_s, "events", shop.encode(), orjson.dumps(value))


class Publishing:
    """Sends what is due; `failures` lists what the broker did not take."""

    def __init__(self, broker: str, pipeline: str) -> None:
        self._producer = KafkaProducer(
            bootstrap_servers=broker,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            # A broker that is started anew is waited for.
            delivery_timeout_ms=TIMEOUT_MS,
            max_block_ms=TIMEOUT_MS,
        )
        self._pipeline = pipeline
        self.is_stopped = False
        self.sent_count = self.acknowledged_count = 0
        self.failures: list[str] = []

    def run(self, traffic: Traffic) -> None:
        """Publish it all, each record when it is due."""
        start = time.monotonic()
        for send in traffic:
            wait_s = send.due_s - (time.monotonic() - start)
            if wait_s > 0:
                time.sleep(wait_s)
            if self.is_stopped:
                break
            future = self._producer.send(
                f"{self._pipeline}.{send.topic}", send.value, send.key, partition=send.partition
            )
            self.sent_count += 1
            future.add_callback(self._on_acknowledgement).add_errback(self._on_refusal)
        self._producer.flush(timeout=TIMEOUT_MS / 1_000)
        self._producer.close()

    def _on_acknowledgement(self, _: object) -> None:
        self.acknowledged_count += 1

    def _on_refusal(self, error: BaseException) -> None:
        self.failures.append(repr(error))

    def stop(self, *_: object) -> None:
        """Send no more, and wait for what was sent."""
        self.is_stopped = True


def main() -> None:
    """Publish, and say as JSON how it went."""
    parser = argparse.ArgumentParser(description="Publishes the traffic of a chaos run.")
    parser.add_argument("--broker", required=True)
    parser.add_argument("--pipeline", default=parameters.NAME)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=2_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--shops", type=int, default=parameters.SHOPS)
    arguments = parser.parse_args()
    publishing = Publishing(arguments.broker, arguments.pipeline)
    signal.signal(signal.SIGTERM, publishing.stop)
    print(json.dumps({"said": "begins"}), flush=True)
    began = time.monotonic()
    publishing.run(
        Traffic(
            arguments.seed, arguments.seconds, arguments.rate, arguments.partitions, arguments.shops
        )
    )
    answer = {
        "said": "published",
        "sent": publishing.sent_count,
        "acknowledged": publishing.acknowledged_count,
        "failed": publishing.failures[:5],
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
