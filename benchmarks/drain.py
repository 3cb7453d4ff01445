"""How fast the cards work goes on a broker, and what it costs.

A contestant runs and has done some work first, so that neither its start nor the first snapshots
count; then all events and labels are appended at once. Its time ends when the last prediction (and
example) can be read as committed and all labels are learned; its CPU when its processes have
nothing left to do.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from benchmarks import wire
from benchmarks.processes import Running, cpu_seconds, peak_mib
from stream_ml.examples.cards import LABEL_DELAY_EVENTS, transactions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["CONTESTANTS", "Contestant", "DrainResult", "drain", "idle"]

WARM_EVENTS = 3_000
CHUNK = 1_000
# How long the first predictions may take, and all of them.
START_S = 90.0
DRAIN_S = 180.0
# Who learns and judges commits every 512 examples: the last ones stay open, and marks of
# transactions have offsets too.
CHECKPOINT_SLACK = 600
IDLE_S = 0.5
IDLE_TIMES = 3
# The timers of a worker that has nothing to do cost some.
IDLE_SHARE = 0.2


@dataclass(frozen=True)
class Contestant:
    """Somebody who does the cards work on a broker.

    Attributes:
        title: how tables call it.
        command: what runs it, given the broker and the prefix of its topics.
        says_examples: whether what was learned from is a topic too; it prints it otherwise.
    """

    title: str
    command: Callable[[str, str], Sequence[str]]
    says_examples: bool = False

    async def prepare(self, broker: str, prefix: str) -> None:
        """Make its topics."""
        if self.says_examples:
            _stream_ml(broker, prefix, "topics", "apply")
        else:
            names = ("events", "labels", "predictions")
            await wire.create(broker, [f"{prefix}.{name}" for name in names])

    def start(self, broker: str, prefix: str, log: IO[bytes]) -> Running:
        """Start its processes."""
        return Running(self.command(broker, prefix), _environ(broker, prefix), log)


def _environ(broker: str, prefix: str) -> dict[str, str]:
    return {
        "BENCH_BROKER": broker,
        "BENCH_PREFIX": prefix,
        "STREAM_ML_KEY": "be" * 32,
        "STREAM_ML_PIPELINE": "benchmarks.declared:pipeline",
        "STREAM_ML_BROKER": f"kafka://{broker}",
    }


def _stream_ml(broker: str, prefix: str, *words: str) -> None:
    subprocess.run(  # noqa: S603 - our own command
        _cli(*words), env=os.environ | _environ(broker, prefix), check=True, capture_output=True
    )


def _cli(*words: str) -> list[str]:
    return [sys.executable, "-m", "stream_ml.cli.main", *words]


CONTESTANTS = {
    "kafka": Contestant(
        "stream_ml, exactly once",
        lambda _broker, _prefix: _cli("up", "--format", "json"),
        says_examples=True,
    ),
    "by_hand": Contestant(
        "aiokafka by hand, no guarantee",
        lambda broker, prefix: [sys.executable, "-m", "benchmarks.by_hand", broker, prefix],
    ),
    "faust": Contestant(
        "plain Faust",
        lambda _broker, prefix: [
            *(sys.executable, "-m", "faust", "-A", "benchmarks.plain_faust"),
            *("--datadir", f"/tmp/{prefix}", "worker", "--without-web", "-l", "warn"),  # noqa: S108
        ],
    ),
}


@dataclass(frozen=True)
class DrainResult:
    """What a contestant needed for `events` events, each with its label."""

    events: int
    seconds: float
    cpu: dict[str, float]
    broker_cpu: float | None
    peak_mib: float
    report: dict[str, Any]


def workload(count: int) -> tuple[list[tuple[str, list[wire.Pair]]], int]:
    """Chunks of events and labels as they become known, and how many chunks are for warming up."""
    events, labels = transactions(count, seed=1)
    chunks = []
    for first in range(0, count, CHUNK):
        chunks.append(("events", wire.pairs(events[first : first + CHUNK], "card")))
        if first >= LABEL_DELAY_EVENTS:
            start = first - LABEL_DELAY_EVENTS
            chunks.append(("labels", wire.pairs(labels[start : start + CHUNK], "event_id")))
    return chunks, 2 * (WARM_EVENTS // CHUNK) - 1


async def drain(
    contestant: Contestant, broker: str, count: int, log: IO[bytes], broker_pid: int | None
) -> DrainResult:
    """One run of a contestant over `count` events, beside those it warms up with."""
    prefix = f"bench-{secrets.token_hex(4)}"
    chunks, warm = workload(WARM_EVENTS + count)
    batches = [(f"{prefix}.{topic}", records) for topic, records in chunks]
    await contestant.prepare(broker, prefix)
    topics = {f"{prefix}.predictions": wire.PARTITIONS}
    if contestant.says_examples:
        topics[f"{prefix}.examples"] = 1
    counter = wire.Count(broker, topics)
    running = contestant.start(broker, prefix, log)
    try:
        await counter.start()
        await wire.feed(broker, batches[:warm])
        await counter.reach(_target_counts(prefix, topics, WARM_EVENTS), START_S)
        await idle(running)
        cpu_before, broker_before = running.cpu(), _cpu(broker_pid)
        start_s = time.monotonic()
        await wire.feed(broker, batches[warm:])
        end_s = await counter.reach(_target_counts(prefix, topics, WARM_EVENTS + count), DRAIN_S)
        if contestant.says_examples:
            groups = [f"{prefix}.learn", f"{prefix}.evaluate"]
            examples = f"{prefix}.examples"
            processed_s = await wire.wait_until_worked_off(
                broker, examples, groups, CHECKPOINT_SLACK, DRAIN_S
            )
        else:
            processed_s = await _wait_until_learned(
                running, WARM_EVENTS + count - LABEL_DELAY_EVENTS
            )
        end_s = max(end_s, processed_s)
        await idle(running)
        cpu_after, broker_after = running.cpu(), _cpu(broker_pid)
        result = DrainResult(
            count,
            end_s - start_s,
            _cost(running, cpu_before, cpu_after),
            None if broker_before is None else (broker_after or 0.0) - broker_before,
            sum(peak_mib(pid) for pid in cpu_after),
            running.reports[-1][1] if running.reports else {},
        )
        await asyncio.to_thread(running.stop)
    finally:
        running.kill()
        await counter.stop()
        await wire.delete(broker, prefix)
    return result


def _target_counts(prefix: str, topics: dict[str, int], events: int) -> dict[str, int]:
    counts = {f"{prefix}.predictions": events, f"{prefix}.examples": events - LABEL_DELAY_EVENTS}
    return {topic: counts[topic] for topic in topics}


async def _wait_until_learned(running: Running, labels: int) -> float:
    """Wait until it says that it has learned so many; returns when it said so."""
    deadline = time.monotonic() + DRAIN_S
    while time.monotonic() < deadline:
        for time_s, report in running.reports:
            if report["learned"] >= labels:
                return time_s
        await asyncio.sleep(0.05)
        running.cpu()
    raise TimeoutError(f"expected {labels} labels learned, given {running.reports[-1:]}")


def _cpu(pid: int | None) -> float | None:
    return None if pid is None else cpu_seconds(pid)


def _cost(
    running: Running, cpu_before: dict[int, float], cpu_after: dict[int, float]
) -> dict[str, float]:
    """CPU seconds by what a process does; a process that was restarted would spoil them."""
    assert set(cpu_before) == set(cpu_after), (
        f"expected processes {set(cpu_before)}, given {set(cpu_after)}"
    )
    cost: dict[str, float] = {}
    for pid, seconds in cpu_after.items():
        name = running.name(pid)
        cost[name] = cost.get(name, 0.0) + seconds - cpu_before[pid]
    return cost


async def idle(running: Running) -> None:
    """Wait until the processes have had nothing to do for a while: on a busy machine, no turn."""
    deadline = time.monotonic() + DRAIN_S
    former_s, quiet = sum(running.cpu().values()), 0
    while time.monotonic() < deadline:
        await asyncio.sleep(IDLE_S)
        current_s = sum(running.cpu().values())
        quiet = quiet + 1 if current_s - former_s < IDLE_SHARE * IDLE_S else 0
        if quiet == IDLE_TIMES:
            return
        former_s = current_s
    raise TimeoutError(f"expected the contestant to come to rest within {DRAIN_S} s")
