"""The cards work in a bare in-memory loop and in the whole system, in turns.

    python -m benchmarks.cards [--events N] [--rounds N]

The work, per event: 12 windowed features over 1 min, 10 min, 1 h (count, sum, mean, max of the
amount), 5 plain ones, the champion (scaled logistic regression) and two shadows (another one and
a Hoeffding tree) predict; 1,000 events later the label comes, all three are scored by ROC AUC,
log loss, Brier and accuracy, and learn.

- *bare*: that, in one loop over Python objects; nothing parsed, written, checked or recoverable.
- *system*: bytes published to the embedded log (a file), validated, predicted, joined, learned
  from, scored, checkpointed and committed; plus two more shadows, a baseline, and snapshots.

Each contestant runs in a process of its own. Times are CPU seconds of that process (user and
system), so that a noisy neighbour costs both alike; memory is the process's peak. The inputs are
made beforehand and are not a contestant's: `gc.freeze` keeps the collector from looking through
them again and again (worth 12 µs per event to the system, nothing to the loop).
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import orjson
from river import metrics

from stream_ml.examples.cards import LABEL_DELAY_EVENTS, cards, transactions
from stream_ml.records import Output
from stream_ml.shell.runner import Runner
from stream_ml.shell.sqlite_log import SqliteLog

WINDOWS_MS = (60_000, 600_000, 3_600_000)
DAY_MS = 86_400_000


class _Card:
    """One card's payments: a buffer, and per window a tail pointer with running sums."""

    __slots__ = ("amounts", "base", "counts", "maxima", "sums", "tails", "times")

    def __init__(self) -> None:
        self.times: list[int] = []
        self.amounts: list[float] = []
        self.tails = [0, 0, 0]
        self.sums = [0.0, 0.0, 0.0]
        self.maxima: list[deque[tuple[int, float]]] = [deque(), deque(), deque()]

    def features(self, t: int, into: dict[str, float]) -> None:
        times, amounts = self.times, self.amounts
        for w, width in enumerate(WINDOWS_MS):
            tail, bound = self.tails[w], t - width
            while tail < len(times) and times[tail] < bound:
                self.sums[w] -= amounts[tail]
                tail += 1
            self.tails[w] = tail
            maxima = self.maxima[w]
            while maxima and maxima[0][0] < bound:
                maxima.popleft()
            count = len(times) - tail
            into[f"count {w}"] = count
            into[f"sum {w}"] = self.sums[w]
            into[f"mean {w}"] = self.sums[w] / count if count else 0.0
            into[f"max {w}"] = maxima[0][1] if maxima else 0.0

    def insert(self, t: int, amount: float) -> None:
        self.times.append(t)
        self.amounts.append(amount)
        for w in range(3):
            self.sums[w] += amount
            maxima = self.maxima[w]
            while maxima and maxima[-1][1] <= amount:
                maxima.pop()
            maxima.append((t, amount))


def bare(events: list[dict[str, Any]], labels: list[dict[str, Any]]) -> float:
    """The work and nothing else; returns its CPU seconds."""
    models = [recipe.fresh() for recipe in cards.recipes.values()]
    scores = [
        (metrics.ROCAUC(), metrics.LogLoss(), metrics.MSE(), metrics.Accuracy()) for _ in models
    ]
    states: dict[str, _Card] = {}
    waiting: deque[tuple[dict[str, float], list[float]]] = deque()
    gc.freeze()
    started = time.process_time()
    for number, event in enumerate(events):
        if number >= LABEL_DELAY_EVENTS:
            features, said = waiting.popleft()
            label = labels[number - LABEL_DELAY_EVENTS]["label"]
            for model, p, (auc, log_loss, brier, accuracy) in zip(
                models, said, scores, strict=True
            ):
                auc.update(label, p)
                log_loss.update(label, p)
                brier.update(float(label), p)
                accuracy.update(label, p > 0.5)
                model.learn_one(features, label)
        t, amount = event["ts"], event["amount"]
        features = {
            "amount": amount,
            "distance": event["distance"],
            "age": event["age"],
            "hour": t // 3_600_000 % 24,
            "weekday": (t // DAY_MS + 3) % 7,
        }
        state = states.get(event["card"])
        if state is None:
            state = states[event["card"]] = _Card()
        state.features(t, features)
        state.insert(t, amount)
        waiting.append((features, [m.predict_proba_one(features).get(True, 0.0) for m in models]))
    return time.process_time() - started


def system(events: list[dict[str, Any]], labels: list[dict[str, Any]], folder: Path) -> float:
    """The whole system on the embedded log; returns its CPU seconds, publishing included."""
    raw = (
        [_published("events", event["card"], event) for event in events],
        [_published("labels", label["event_id"], label) for label in labels],
    )
    gc.freeze()
    started = time.process_time()
    with SqliteLog.create(folder / "cards.sqlite") as log:
        for outputs in raw:
            for first in range(0, len(outputs), 5_000):
                log.append(outputs[first : first + 5_000])
        with Runner(log, cards, b"benchmark") as runner:
            runner.run()
        assert runner.predicts[0].counts["predictions"] == len(events)
        assert runner.joins[0].counts["joined"] == len(labels)
    return time.process_time() - started


def _published(topic: str, key: str, members: dict[str, Any]) -> Output:
    # orjson keeps 4 kB for a short value; what comes from a producer is as long as it is.
    return Output(topic, key.encode(), bytes(memoryview(orjson.dumps(members))))


def _run_one(contestant: str, count: int) -> None:
    events, labels = transactions(count, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        seconds = (
            bare(events, labels) if contestant == "bare" else system(events, labels, Path(folder))
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))


def main() -> None:
    """Run the contestants in turns and print what they cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", choices=["bare", "system"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _run_one(options.one, options.events)
        return
    runs: dict[str, list[dict[str, float]]] = {"bare": [], "system": []}
    for number in range(options.rounds):
        for contestant, results in runs.items():
            print(
                f"\rround {number + 1} of {options.rounds}: {contestant}   ",
                end="",
                file=sys.stderr,
            )
            command = [sys.executable, "-m", "benchmarks.cards", "--one", contestant]
            done = subprocess.run(  # noqa: S603 - our own module
                [*command, "--events", str(options.events)], check=True, capture_output=True
            )
            results.append(json.loads(done.stdout))
    print(file=sys.stderr)
    print(f"cards: {options.events} events, {options.rounds} rounds in turns, medians of CPU time")
    print(f"{'':8}{'events/s':>10}{'µs/event':>10}{'peak MiB':>10}")
    for contestant, results in runs.items():
        seconds = statistics.median(r["seconds"] for r in results)
        peak = statistics.median(r["peak_mib"] for r in results)
        rate = options.events / seconds
        print(f"{contestant:8}{rate:>10,.0f}{1e6 / rate:>10.1f}{peak:>10.0f}")
    ratios = [b["seconds"] / s["seconds"] for b, s in zip(*runs.values(), strict=True)]
    print(
        f"system's speed as a share of the bare loop's, pair by pair: "
        f"median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}"
    )
    assert not math.isnan(statistics.median(ratios))


if __name__ == "__main__":
    main()
