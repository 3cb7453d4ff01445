"""Whether memory is flat on the embedded log: 1,000,000 events, 100,000 keys, monitors and alerts.

    python -m benchmarks.memory [--events N] [--keys N] [--pace MS]

Cards that pay (fewer features and models than `work` has, for what grows is by key and by block),
with data that is watched and alerts that open and close: for a while in each tenth some of the
events are garbage. Printed is the worker's resident memory
after each tenth, with what lies in the log's file, and whether it has grown from the middle on by
more than pages that come and go. `--pace` is the mean time between events: 50 ms fill the windows
(72,000 payments in the longest of them), 1,200 ms make two weeks of hours to compare with.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

import stream_ml as sml
from stream_ml.examples.cards import LABEL_DELAY_EVENTS, cards, transactions
from stream_ml.records import Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import SqliteLog

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["main"]

pipeline = replace(
    cards,
    features=[
        sml.field("amount"),
        sml.field("distance"),
        sml.window("1h").count(),
        sml.window("1h").mean("amount", fill=0.0),
    ],
    models={name: cards.models[name] for name in ("logistic", "adagrad")},
)
CHUNK = 10_000
TENTHS = 10
# Of `transactions`: a payment each 50 ms on average.
PACE_MS = 50
GARBAGE_EACH = 4
# Pages come and go by some megabytes.
NOISE_MIB = 12.0


def _resident_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(kib) / 1024


def _chunk(number: int, keys: int, pace_ms: int, start_ms: int) -> Iterator[Output]:
    """Some payments and what is known of them, in the order of time, from a start on."""
    events, labels = transactions(CHUNK, seed=number, keys=keys, start_ms=0)
    garbage = random.Random(number)
    # For a while in each tenth a quarter of the payments says nothing of its amount.
    is_bad = number % TENTHS == 0
    for n, event in enumerate(events):
        if is_bad and garbage.randrange(GARBAGE_EACH) == 0:
            del event["amount"]
        yield _output("events", event["card"], _later(event, number, pace_ms, start_ms))
        if n >= LABEL_DELAY_EVENTS:
            label = labels[n - LABEL_DELAY_EVENTS]
            yield _output("labels", label["event_id"], _later(label, number, pace_ms, start_ms))


def _later(record: dict[str, Any], number: int, pace_ms: int, start_ms: int) -> dict[str, Any]:
    record["ts"] = start_ms + record["ts"] * pace_ms // PACE_MS
    record["event_id"] = f"{number}-{record['event_id']}"
    return record


def _output(topic: str, key: str, members: dict[str, Any]) -> Output:
    return Output(topic, key.encode(), bytes(memoryview(orjson.dumps(members))))


def _curve(options: argparse.Namespace, log: SqliteLog, path: Path) -> list[float]:
    """Resident memory after each tenth of the events, in MiB."""
    curve: list[float] = []
    start_ms = 1_700_000_000_000
    with Runner(log, pipeline, b"benchmark") as runner:
        for number in range(options.events // CHUNK):
            log.append(list(_chunk(number, options.keys, options.pace, start_ms)))
            start_ms += CHUNK * options.pace
            runner.run()
            done = (number + 1) * CHUNK
            if done * TENTHS % options.events == 0:
                gc.collect()
                curve.append(_resident_mib())
                size_mib = path.stat().st_size / 2**20
                alerts = sum(1 for _ in read_all(log, "alerts"))
                print(
                    f"{done:>10,} events {curve[-1]:>8.1f} MiB resident, {alerts:>4} alerts, "
                    f"{size_mib:>8.0f} MiB in the file",
                    flush=True,
                )
    return curve


def main() -> int:
    """Print the curve; 1 where it is not flat."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000, help="tens of 10,000")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--pace", type=int, default=PACE_MS, help="ms between events, on average")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cards.sqlite")
        with SqliteLog.create(path) as log:
            curve = _curve(options, log, path)
    half = curve[len(curve) // 2 :]
    growth = half[-1] - half[0]
    is_flat = growth <= NOISE_MIB
    print(
        f"from the middle to the end {growth:+.1f} MiB, peak {max(curve):.1f} MiB: "
        f"{'flat' if is_flat else 'NOT FLAT'}"
    )
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main())
