"""The cards work in one process: a bare loop, and the whole system on the embedded log.

    python -m benchmarks.in_memory bare|system EVENTS

- *bare*: the work in one loop over Python objects; nothing parsed, written, checked or recoverable.
- *system*: bytes published to the embedded log (a file), validated, predicted, joined, learned
  from, scored, checkpointed and committed; plus two more shadows, a baseline, and snapshots.

Times are CPU seconds of that process (user and system), so that a noisy neighbour costs both
alike; memory is the process's peak. The inputs are made beforehand and are not a contestant's:
`gc.freeze` keeps the collector from looking through them again and again (worth 12 µs per event
to the system, nothing to the loop).
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import orjson

from benchmarks.work import Models, Windows
from stream_ml.examples.cards import LABEL_DELAY_EVENTS, cards, transactions
from stream_ml.records import Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog

__all__ = ["bare", "encoded", "publish", "system"]


def bare(events: list[dict[str, Any]], labels: list[dict[str, Any]]) -> float:
    """The work and nothing else; returns its CPU seconds."""
    windows, models = Windows(), Models()
    waiting: deque[tuple[dict[str, float], list[float]]] = deque()
    gc.freeze()
    start_s = time.process_time()
    for number, event in enumerate(events):
        if number >= LABEL_DELAY_EVENTS:
            models.learn(*waiting.popleft(), labels[number - LABEL_DELAY_EVENTS]["label"])
        features = windows.features(event)
        waiting.append((features, models.predict(features)))
    return time.process_time() - start_s


def system(events: list[dict[str, Any]], labels: list[dict[str, Any]], folder: Path) -> float:
    """The whole system on the embedded log; returns its CPU seconds, publishing included."""
    outputs = encoded(events, labels)
    gc.freeze()
    start_s = time.process_time()
    with SqliteLog.create(folder / "cards.sqlite") as log:
        publish(log, outputs)
        with Runner(log, cards, b"benchmark") as runner:
            runner.run()
        assert runner.predicts[0].counts["predictions"] == len(events)
        assert runner.joins[0].counts["joined"] == len(labels)
    return time.process_time() - start_s


def encoded(events: list[dict[str, Any]], labels: list[dict[str, Any]]) -> list[Output]:
    """Payments and their labels as a producer would publish them, the payments first."""
    return [
        *(_output("events", event["card"], event) for event in events),
        *(_output("labels", label["event_id"], label) for label in labels),
    ]


def publish(log: SqliteLog, outputs: list[Output]) -> None:
    """Write all of them to the log."""
    for first in range(0, len(outputs), 5_000):
        log.append(outputs[first : first + 5_000])


def _output(topic: str, key: str, members: dict[str, Any]) -> Output:
    # orjson keeps 4 kB for a short value; what comes from a producer is as long as it is.
    return Output(topic, key.encode(), bytes(memoryview(orjson.dumps(members))))


def main() -> None:
    """Run one contestant and print what it cost."""
    contestant, count = sys.argv[1:]
    events, labels = transactions(int(count), seed=1)
    with tempfile.TemporaryDirectory() as folder:
        seconds = (
            bare(events, labels) if contestant == "bare" else system(events, labels, Path(folder))
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))


if __name__ == "__main__":
    main()
