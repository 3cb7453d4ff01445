"""What challengers that do the worst cost those who are served: throughput and delays, in turns.

    python -m benchmarks.nasty [--kinds sleep ...] [--rate N] [--seconds N] [--rounds N]
        [--refresh TIME] [--kafka | --inside]

The cards' events, features and lines, and beside them a challenger that behaves for 600 examples
and then does what its kind says. A worker of its own (`stream-ml up`) is offered so many events a
second, with their labels, for so long; then a heap of events at once. Printed are the delays from
sending an event to reading its prediction, and how many events a second of the heap are predicted,
each as a share of the mean of two runs without any such line, one right before it and one right
after; and what has been told of the line.

With `--inside` the worker runs on the embedded log within this process, and a delay leaves out for
how long its thread was ready and had no processor, which the system counts: on a machine that is
busy with something else that is most of it, and another time each time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stream_ml as sml
from stream_ml.client import Publisher, connect
from stream_ml.examples.cards import LABEL_DELAY_EVENTS, cards, transactions
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.processes.isolation import Isolation
from stream_ml.shell.processes.stopwatch import ProcessStopwatch
from tests.kafka_broker import broker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.shell.log.port import Log

__all__ = ["KINDS", "Nasty", "main"]

PATIENCE = 600
HEAP = 2_000
# Of the cards' time: 200 payments. A refresh that counts examples has the embedded log work on a
# record at a time, and so wait for a line's process at each.
REFRESH = "10s"
WAIT_S = 180.0
BATCH_S = 0.04
NONE = "none"


class Nasty(sml.Learner):
    """Counts, until its time has come.

    Args:
        kind: what it does then.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.count = 0
        self.hoard: list[bytes] = []

    def predict_one(self, features: Any) -> float:
        """A half, or what its kind says."""
        amount = int(features["amount"] * 100)
        if self.count > PATIENCE:
            if self.kind == "sleep":
                time.sleep(5)
            if self.kind == "raise" and not amount % 10:
                raise ArithmeticError("not this one")
            if self.kind == "nan":
                return math.nan
        return 1 / (2 + amount % 7)

    def learn_one(self, features: Any, label: Any) -> None:  # noqa: ARG002 - the protocol's
        """Count, or what its kind says."""
        self.count += 1
        while self.kind == "loop" and self.count > PATIENCE:
            pass
        if self.kind == "hoard" and self.count > PATIENCE:
            self.hoard.append(bytes(1 << 24))

    def dump(self) -> bytes:
        """The count."""
        if self.kind == "unwritable" and self.count > PATIENCE:
            raise OSError("no")
        return json.dumps(self.count).encode()

    def load(self, data: bytes) -> None:
        """The count."""
        self.count = int(json.loads(data))


ASKED = ("sleep", "raise", "nan", "hoard", "unwritable")
KINDS = (*ASKED, "loop")


def _declared(kind: str) -> sml.Pipeline:
    refresh = os.environ.get("BENCHMARK_REFRESH", REFRESH)
    models = {} if kind == NONE else {"nasty": Nasty(kind)}
    return dataclasses.replace(
        cards,
        name=f"{kind}-{os.environ.get('BENCHMARK_RUN', 'x')}",
        models={**cards.models, **models},
        promotion=sml.Promotion(refresh=refresh, mode="manual", slots=len(cards.models)),
    )


@dataclasses.dataclass
class Result:
    """Delays in milliseconds, events a second of a heap, and what was told."""

    p50: float
    p99: float
    maximum: float
    per_second: float
    alerts: list[str]


class _Sender:
    """Sends events, and the labels that are due, and notes when each was due."""

    def __init__(self, log: Log, pipeline: sml.Pipeline, count: int) -> None:
        self._publisher = Publisher(log, pipeline)
        self._events, self._labels = transactions(count + LABEL_DELAY_EVENTS, seed=1)
        self.due_s: dict[str, float] = {}
        self._next = 0

    def send(self, count: int, due_s: float, every_s: float = 0.0) -> None:
        """Send the next events, each due so long after the other."""
        first, self._next = self._next, self._next + count
        for number in range(first, first + count):
            event = self._events[number]
            self.due_s[event["event_id"]] = due_s + (number - first) * every_s
        records = [("events", event) for event in self._events[first : self._next]]
        begin = max(0, first - LABEL_DELAY_EVENTS)
        end = max(0, self._next - LABEL_DELAY_EVENTS)
        records += [("labels", label) for label in self._labels[begin:end]]
        check = self._publisher.check
        self._publisher.send([check(topic, json.dumps(m).encode()) for topic, m in records])


def _read(url: str, pipeline: sml.Pipeline, seen: dict[str, float], stop: threading.Event) -> None:
    """Note when each prediction is seen first; by a connection of its own."""
    with connect(url, pipeline, isolation="uncommitted") as log:
        tail = log.tail("predictions", dict.fromkeys(range(log.partitions["predictions"]), 0))
        while not stop.is_set():
            for record in tail.poll(0.05):
                seen.setdefault((record.key or b"").decode(), time.monotonic())


@contextmanager
def _worker(pipeline: str, folder: Path, variables: dict[str, str]) -> Iterator[None]:
    code = "import sys; from stream_ml.cli.main import main; sys.exit(main())"
    words = ["--pipeline", f"benchmarks.nasty:{pipeline}"]
    environment = {**os.environ, **variables, "PYTHONPATH": os.getcwd()}  # noqa: PTH109
    if "kafka" in variables["STREAM_ML_BROKER"]:
        apply = [sys.executable, "-c", code, "topics", "apply", "--partitions", "2", *words]
        subprocess.run(apply, cwd=folder, env=environment, check=True, capture_output=True)  # noqa: S603
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-c", code, "up", *words],
            cwd=folder, env=environment, stdout=said, stderr=said,
        )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def _await(seen: dict[str, float], ids: set[str]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not ids <= seen.keys():
        assert time.monotonic() < deadline_s, f"{len(ids - seen.keys())} predictions did not come"
        time.sleep(0.01)


def measure(kind: str, rate: int, seconds: int, address: str | None) -> Result:
    """One run of a worker.

    Args:
        kind: of the nasty line; `none`: there is none.
        rate: events a second that are offered.
        seconds: for how long.
        address: of a Kafka broker; None: the embedded log.
    """
    run = secrets.token_hex(4)
    os.environ["BENCHMARK_RUN"] = run
    pipeline = _declared(kind)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:{folder / 'log'}" if address is None else f"kafka://{address}"
        variables = {"STREAM_ML_BROKER": url, "STREAM_ML_KEY": "ab" * 32, "BENCHMARK_RUN": run}
        with _worker(kind, folder, variables):
            while True:
                try:
                    log = connect(url, pipeline, isolation="uncommitted")
                    log.end_offset("registry", 0)
                    break
                except Exception:  # noqa: BLE001 - it is not there yet
                    time.sleep(0.2)
            with log:
                return _run(log, url, pipeline, rate, seconds)


def _run(log: Log, url: str, pipeline: sml.Pipeline, rate: int, seconds: int) -> Result:
    warm = 2 * LABEL_DELAY_EVENTS
    sender = _Sender(log, pipeline, warm + rate * seconds + HEAP)
    seen: dict[str, float] = {}
    stop = threading.Event()
    reader = threading.Thread(target=_read, args=(url, pipeline, seen, stop))
    reader.start()
    try:
        sender.send(warm - 500, time.monotonic())
        _await(seen, set(sender.due_s))
        warm_ids = set(sender.due_s)
        start_s, size = time.monotonic(), max(1, round(rate * BATCH_S))
        for number in range(rate * seconds // size):
            due_s = start_s + number * BATCH_S
            time.sleep(max(0.0, due_s - time.monotonic()))
            sender.send(size, due_s)
        _await(seen, set(sender.due_s))
        delays = sorted(1e3 * (seen[i] - sender.due_s[i]) for i in sender.due_s.keys() - warm_ids)
        heap_s = time.monotonic()
        sender.send(HEAP, heap_s)
        _await(seen, set(sender.due_s))
        per_second = HEAP / (time.monotonic() - heap_s)
    finally:
        stop.set()
        reader.join()
    alerts = [json.loads(record.value or b"{}") for record in log.read("alerts", 0, 0, 1_000)]
    told = [a["message"] for a in alerts if "nasty" in a.get("message", "")]
    p50, p99 = (delays[min(len(delays) - 1, int(len(delays) * share))] for share in (0.5, 0.99))
    return Result(p50, p99, delays[-1], per_second, told)


def _ready_s(thread: int) -> float:
    """For how long a thread of ours was ready, and had no processor."""
    fields = Path(f"/proc/self/task/{thread}/schedstat").read_text().split()
    return int(fields[1]) / 1e9


def _inside(kind: str, rate: int, seconds: int) -> Result:
    """One run of a worker in this process, by a clock that stands still while it has to wait."""
    # The lines' processes know the class by the name of this module.
    pipeline = import_module("benchmarks.nasty")._declared(kind)  # noqa: SLF001 - it is this one
    thread = threading.get_native_id()

    def now_s() -> float:
        return time.monotonic() - _ready_s(thread)

    commits: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        path = Path(name) / "log"
        log = stack.enter_context(SqliteLog.create(path))
        isolations = {stage: Isolation(pipeline) for stage in ("learn", "evaluate")}
        for isolation in isolations.values():
            stack.callback(isolation.close)

        def step(done: str) -> None:
            if done == "commit":
                commits.append((now_s(), log.end_offset("predictions", 0)))

        stopwatch = ProcessStopwatch()
        given: dict[str, Any] = {"isolations": isolations, "stopwatch": stopwatch, "step": step}
        runner = Runner(log, pipeline, bytes(32), **given)
        own = stack.enter_context(connect(f"sqlite:{path}", pipeline))
        sender = _Sender(own, pipeline, 2 * LABEL_DELAY_EVENTS + rate * seconds + HEAP)
        sender.send(2 * LABEL_DELAY_EVENTS - 500, 0.0)
        while runner.poll():
            pass
        warm, size = log.end_offset("predictions", 0), max(1, round(rate * BATCH_S))
        done = threading.Event()

        def feed() -> None:
            with connect(f"sqlite:{path}", pipeline) as theirs:
                sender._publisher = Publisher(theirs, pipeline)  # noqa: SLF001 - of this thread
                start_s = time.monotonic()
                for number in range(rate * seconds // size):
                    time.sleep(max(0.0, start_s + number * BATCH_S - time.monotonic()))
                    sender.send(size, now_s())
            done.set()

        feeder = threading.Thread(target=feed)
        feeder.start()
        while runner.poll() or not done.is_set():
            time.sleep(0.001)
        feeder.join()
        sender._publisher = Publisher(own, pipeline)  # noqa: SLF001 - of this one
        places = {
            (record.key or b"").decode(): record.offset
            for record in log.read("predictions", 0, warm, 1_000_000)
        }
        begin_s = now_s()
        sender.send(HEAP, begin_s)
        while runner.poll():
            pass
        per_second = HEAP / (now_s() - begin_s)
        ends = [end for _, end in commits]
        delays = sorted(
            1e3 * max(0.0, commits[bisect_right(ends, offset)][0] - sender.due_s[event])
            for event, offset in places.items()
        )
        alerts = [json.loads(record.value or b"{}") for record in log.read("alerts", 0, 0, 1_000)]
        runner.close()
    told = [a["message"] for a in alerts if "nasty" in a.get("message", "")]
    p50, p99 = (delays[min(len(delays) - 1, int(len(delays) * share))] for share in (0.5, 0.99))
    return Result(p50, p99, delays[-1], per_second, told)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kinds", nargs="+", default=list(ASKED), choices=KINDS)
    parser.add_argument("--rate", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--refresh", default=REFRESH)
    parser.add_argument("--kafka", action="store_true")
    parser.add_argument("--inside", action="store_true")
    options = parser.parse_args()
    os.environ["BENCHMARK_REFRESH"] = options.refresh
    if options.kafka:
        with broker() as address:
            _table(options, address)
    else:
        _table(options, None)


def _table(options: argparse.Namespace, address: str | None) -> None:
    """Run each kind between two runs without any, in turns, so often; print what that gave."""
    ratios: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in options.kinds}
    told: dict[str, list[str]] = {}

    def run(kind: str) -> Result:
        if options.inside:
            result = _inside(kind, options.rate, options.seconds)
        else:
            result = measure(kind, options.rate, options.seconds, address)
        print(
            f"{kind:10} p50 {result.p50:7.1f} ms  p99 {result.p99:7.1f} ms  longest "
            f"{result.maximum:6.0f} ms  {result.per_second:6.0f} events/s  load "
            f"{os.getloadavg()[0]:.1f}",
            flush=True,
        )
        return result

    for number in range(options.rounds):
        before = run(NONE)
        # Who came first comes last then: a machine that grows busier is nobody's fault.
        for kind in options.kinds[:: -1 if number % 2 else 1]:
            result, after = run(kind), run(NONE)
            ratios[kind].append(
                (
                    result.p50 / math.sqrt(before.p50 * after.p50),
                    result.p99 / math.sqrt(before.p99 * after.p99),
                    result.per_second / math.sqrt(before.per_second * after.per_second),
                )
            )
            told[kind], before = result.alerts, after
    print("\nof the runs before and after without any, the median (lowest, highest):")
    print("kind         p50                  p99                  events a second of a heap")
    for kind, found in ratios.items():
        print(f"{kind:10}" + "".join(f"   {_spread(each)}" for each in zip(*found, strict=True)))
        for message in told[kind][:2]:
            print(f"    {message[:160]}")


def _spread(ratios: tuple[float, ...]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})"


if __name__ == "__main__":
    main()
else:
    none, sleep, nan = (_declared(kind) for kind in (NONE, "sleep", "nan"))
    hoard, unwritable, loop = (_declared(kind) for kind in ("hoard", "unwritable", "loop"))
    locals()["raise"] = _declared("raise")
