"""How long from an event sent to its prediction received, while 1,000 events/s are offered.

    python -m benchmarks.latency offer BROKER PREFIX RATE COUNT
    python -m benchmarks.latency read BROKER PREFIX ISOLATION FIRST COUNT

The loop is open: events are sent when they are due, whether or not anything comes back. Labels
follow 1,000 events later, so that all the work goes on meanwhile. The moment of sending stands in
the event's id, which is the prediction's key; both ends read the same monotonic clock. Sender and
readers are processes of their own and nobody's cost.
"""

from __future__ import annotations

import asyncio
import gc
import json
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks import wire
from benchmarks.drain import START_S, idle
from stream_ml.examples.cards import LABEL_DELAY_EVENTS, transactions

if TYPE_CHECKING:
    from benchmarks.drain import Contestant

__all__ = ["ISOLATIONS", "Latency", "OfferResult", "measure"]

ISOLATIONS = ("uncommitted", "committed")
NS_PER_MS = 1_000_000
# A prediction that comes later than this after the last event was sent is lost to its reader.
WAIT_S = 15.0
FETCH_WAIT_MS = 50


@dataclass(frozen=True)
class Latency:
    """Milliseconds as a reader saw them, and how many predictions came."""

    p50: float
    p99: float
    maximum: float
    received_count: int
    sent_count: int


@dataclass(frozen=True)
class OfferResult:
    """What each kind of reader saw, what an event cost meanwhile (CPU, µs), and the sender's p99.

    The sender is late (milliseconds) where the machine is too busy to measure on.
    """

    latencies: dict[str, Latency]
    cost: float
    late: float


def quantile(values: list[float], share: float) -> float:
    """The least value that at least this share of all does not exceed.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.0
    """
    return values[max(0, -(-len(values) * round(share * 1_000) // 1_000) - 1)]


# --- the sender and the reader ----------------------------------------------------------------


async def _offer(broker: str, prefix: str, rate: int, count: int) -> None:
    """Send `count` events when each is due, and the label of the one 1,000 before."""
    events, labels = transactions(count + LABEL_DELAY_EVENTS, seed=2)
    ids: list[str] = []
    lateness_ms: list[float] = []
    gc.freeze()
    gc.disable()
    async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
        print("{}", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        start = time.monotonic_ns() + NS_PER_MS
        for number in range(count):
            due_ns = start + number * 1_000_000_000 // rate
            await asyncio.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
            now_ns = time.monotonic_ns()
            lateness_ms.append((now_ns - due_ns) / NS_PER_MS)
            event = events[number]
            ids.append(f"{number}-{now_ns}")
            await producer.send(
                f"{prefix}.events",
                orjson.dumps({**event, "event_id": ids[number]}),
                key=event["card"].encode(),
            )
            if number >= LABEL_DELAY_EVENTS:
                earlier = number - LABEL_DELAY_EVENTS
                await producer.send(
                    f"{prefix}.labels",
                    orjson.dumps({**labels[earlier], "event_id": ids[earlier]}),
                    key=ids[earlier].encode(),
                )
    print(json.dumps({"late_p99": quantile(sorted(lateness_ms), 0.99)}))


async def _read(broker: str, prefix: str, isolation: str, first: int, count: int) -> None:
    """Time the predictions from event number `first` on, until the last one."""
    delays: list[float] = []
    quiet_since = float("inf")
    gc.freeze()
    async with AIOKafkaConsumer(
        bootstrap_servers=broker,
        isolation_level=f"read_{isolation}",
        fetch_max_wait_ms=FETCH_WAIT_MS,
    ) as consumer:
        tps = [TopicPartition(f"{prefix}.predictions", p) for p in range(wire.PARTITIONS)]
        consumer.assign(tps)
        await consumer.seek_to_end()
        for tp in tps:
            await consumer.position(tp)
        print("{}", flush=True)
        while len(delays) < count - first and time.monotonic() < quiet_since + WAIT_S:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                now_ns = time.monotonic_ns()
                quiet_since = now_ns / 1e9
                for record in records:
                    number, sent_ns = map(int, record.key.split(b"-"))
                    if number >= first:
                        delays.append((now_ns - sent_ns) / NS_PER_MS)
    delays.sort()
    counts = {"received_count": len(delays), "sent_count": count - first}
    figures = {"p50": quantile(delays, 0.5), "p99": quantile(delays, 0.99), "maximum": delays[-1]}
    print(json.dumps({**counts, **figures}))


# --- a round ----------------------------------------------------------------------------------


async def measure(
    contestant: Contestant, broker: str, rate: int, seconds: int, log: IO[bytes]
) -> OfferResult:
    """One run of a contestant under `rate` events/s.

    The first `seconds` / 2 are for warming up, and are not timed.
    """
    prefix = f"bench-{secrets.token_hex(4)}"
    first, count = rate * seconds // 2, rate * seconds * 3 // 2
    await contestant.prepare(broker, prefix)
    running = contestant.start(broker, prefix, log)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        await _serves(broker, prefix)
        processes.append(_start("offer", broker, prefix, str(rate), str(count)))
        processes += [
            _start("read", broker, prefix, isolation, str(first), str(count))
            for isolation in ISOLATIONS
        ]
        for process in processes:
            await _line(process)
        await idle(running)
        cpu_before_s = sum(running.cpu().values())
        offer, *readers = processes
        assert offer.stdin is not None
        offer.stdin.write(b"go\n")
        offer.stdin.flush()
        late = (await _line(offer))["late_p99"]
        latencies = [Latency(**await _line(reader)) for reader in readers]
        await idle(running)
        cost = (sum(running.cpu().values()) - cpu_before_s) / count
        await asyncio.to_thread(running.stop)
    finally:
        running.kill()
        for process in processes:
            process.kill()
            process.wait()
        await wire.delete(broker, prefix)
    return OfferResult(dict(zip(ISOLATIONS, latencies, strict=True)), cost * 1e6, late)


async def _serves(broker: str, prefix: str) -> None:
    """Wait until the contestant answers: some events, long before those that are timed."""
    counter = wire.Count(broker, {f"{prefix}.predictions": wire.PARTITIONS})
    await counter.start()
    events, _ = transactions(wire.PARTITIONS * 10, seed=3, start_ms=1_600_000_000_000)
    await wire.feed(broker, [(f"{prefix}.events", wire.pairs(events, "card"))])
    await counter.reach({f"{prefix}.predictions": len(events)}, START_S)
    await counter.stop()


def _start(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "benchmarks.latency", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


async def _line(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    return json.loads(await asyncio.to_thread(process.stdout.readline))


def main() -> None:
    """Be a sender or a reader."""
    role, broker, prefix, *numbers = sys.argv[1:]
    if role == "offer":
        asyncio.run(_offer(broker, prefix, *map(int, numbers)))
    else:
        isolation, first, count = numbers
        asyncio.run(_read(broker, prefix, isolation, int(first), int(count)))


if __name__ == "__main__":
    main()
