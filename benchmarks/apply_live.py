"""Features changed in flight while events come at a rate: real processes on the embedded log.

    $ python -m benchmarks.apply_live                  # half a year at 1,000 events/s: 12 minutes
    $ python -m benchmarks.apply_live --months 1 --rate 2000

`stream-ml up` works on the flights under the declaration of before (`benchmarks.apply`). Half way
the bundled one is applied by `stream-ml apply`, and `up` started again under it; events come all
the while, whether or not anything comes back. Among them are some that were planted: they come
just after a prediction, and have their time just before it, so that whoever folds by time alone
would let that prediction know them. Then all is compared with a log on which the bundled
declaration ran from the start over the same records.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from benchmarks.apply import KEY, NEW_FEATURES, digests, former, vectors, work
from benchmarks.latency import NS_PER_MS, quantile
from stream_ml.examples.flights import flights
from stream_ml.shell import flights_data
from stream_ml.shell.embedded.replay import output_of
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.regeneration import Regeneration
from stream_ml.shell.views.registry import running_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output, Record

before, after = former()

TICK_S = 0.005
POLL_S = 0.002
WARM_UP_S = 20.0
WAIT_S = 1_800.0
# One event in so many is followed by a planted one.
PLANT_EVERY = 1_000
PLANTED, PLANTED_MS = "planted-", 30_000
HANDOVER = "handing over"
TEACHING = "teaching"


# --- records, some of them planted ------------------------------------------------------------


def records(months: int) -> Iterator[Output]:
    """Events and labels by time, with planted events behind some that are predicted on."""
    asked = 0
    for topic, body in flights_data.records(1, months):
        yield output_of(flights, topic, body)
        if topic == "events" and body["kind"] == "scheduled":
            asked += 1
            if asked % PLANT_EVERY == 0:
                yield output_of(flights, topic, _planted(body))


def _planted(event: dict[str, Any]) -> dict[str, Any]:
    """A departure fifteen hours late, older than the event that it comes after."""
    changed = {"kind": "departed", "ts": event["ts"] - PLANTED_MS, "dep_delay": 900.0}
    return {**event, **changed, "event_id": f"{PLANTED}{event['event_id']}"}


# --- who publishes, who reads, who works ------------------------------------------------------


@dataclass
class Publisher:
    """Appends records when they are due, whether or not anything comes back."""

    path: Path
    rate: int
    sent_ns: dict[str, int] = field(default_factory=dict)
    event_count: int = 0
    late_ns: list[int] = field(default_factory=list)
    is_done: bool = False

    def run(self, outputs: Iterable[Output]) -> None:
        """Until all were published."""
        begin_ns = time.monotonic_ns()
        chunk: list[Output] = []
        with SqliteLog.open(self.path) as log:
            for output in outputs:
                chunk.append(output)
                self.event_count += output.topic == "events"
                due_ns = begin_ns + self.event_count * 1_000_000_000 // self.rate
                wait_s = (due_ns - time.monotonic_ns()) / 1e9
                if wait_s >= TICK_S or len(chunk) >= self.rate:
                    self._append(log, chunk, due_ns)
                    chunk = []
                    time.sleep(max(0.0, wait_s))
            self._append(log, chunk, due_ns)
        self.is_done = True

    def _append(self, log: SqliteLog, chunk: list[Output], due_ns: int) -> None:
        now_ns = time.monotonic_ns()
        self.late_ns.append(max(0, now_ns - due_ns))
        for output in chunk:
            if output.topic == "events":
                self.sent_ns[orjson.loads(output.value or b"{}")["event_id"]] = now_ns
        log.append(chunk)


@dataclass
class Reader:
    """Notes when predictions come, and when lines first publish."""

    path: Path
    received_ns: dict[str, int] = field(default_factory=dict)
    first_ns: dict[str, int] = field(default_factory=dict)
    doubled: int = 0
    is_stopped: bool = False

    def run(self) -> None:
        """Until it is stopped."""
        with SqliteLog.open(self.path) as log:
            tails = [
                log.tail(topic, dict.fromkeys(range(log.partitions[topic]), 0))
                for topic in ("predictions", "models")
            ]
            while not self.is_stopped:
                found = [tail.poll(POLL_S if n == 0 else 0.0) for n, tail in enumerate(tails)]
                now_ns = time.monotonic_ns()
                for record in found[0]:
                    event_id = (record.key or b"").decode()
                    self.doubled += event_id in self.received_ns
                    self.received_ns.setdefault(event_id, now_ns)
                for record in found[1]:
                    self.first_ns.setdefault((record.key or b"").decode(), now_ns)


class Command:
    """A process of `stream-ml` on the log, and what it says.

    Args:
        path: of the log.
        declaration: of this module, `before` or `after`.
        words: the command.
    """

    def __init__(self, path: Path, declaration: str, *words: str) -> None:
        options = [
            "--broker",
            f"sqlite:{path}",
            "--pipeline",
            f"benchmarks.apply_live:{declaration}",
        ]
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "stream_ml", *options, *words, "--format", "json"],
            env=os.environ | {"STREAM_ML_KEY": KEY.hex()},
            stdout=subprocess.PIPE,
        )

    def until(self, word: str) -> dict[str, Any]:
        """What it says of this kind."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            members: dict[str, Any] = json.loads(line)
            if members.get("said") == word:
                return members
        raise RuntimeError(f"ended with {self._process.wait()} before it said {word}")

    def drain(self) -> None:
        """Read what it says beside others, so that it never waits."""
        assert self._process.stdout is not None
        threading.Thread(target=list, args=(self._process.stdout,), daemon=True).start()

    def stop(self) -> None:
        """Ask it to stop, as by Ctrl-C, and wait for that."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(WAIT_S)

    def wait(self) -> None:
        """Wait for its end.

        Raises:
            RuntimeError: it failed.
        """
        if code := self._process.wait(WAIT_S):
            raise RuntimeError(f"ended with {code}")


# --- the run ----------------------------------------------------------------------------------


@dataclass
class Run:
    """What happened, by the monotonic clock in nanoseconds."""

    publisher: Publisher
    reader: Reader
    applied_ns: int = 0
    prepared_ns: int = 0
    restarted_ns: int = 0
    prepared_events: int = 0


def run_live(path: Path, months: int, rate: int) -> Run:
    """Work on all records as they come, with the change half way."""
    total = sum(output.topic == "events" for output in records(months))
    publisher, reader = Publisher(path, rate), Reader(path)
    run = Run(publisher, reader)
    worker = Command(path, "before", "up")
    worker.until("started")
    worker.drain()
    threads = [
        threading.Thread(target=publisher.run, args=(records(months),), daemon=True),
        threading.Thread(target=reader.run, daemon=True),
    ]
    for thread in threads:
        thread.start()
    while publisher.event_count < total // 2:
        time.sleep(TICK_S)
    run.applied_ns = time.monotonic_ns()
    change = Command(path, "after", "apply", "--reason", "two more features, and a line")
    run.prepared_events = change.until("prepared")["events"]
    run.prepared_ns = time.monotonic_ns()
    worker.stop()
    change.until("applied")
    change.wait()
    worker = Command(path, "after", "up")
    worker.until("started")
    run.restarted_ns = time.monotonic_ns()
    worker.drain()
    threads[0].join()
    _await_quiet(path, reader)
    worker.stop()
    reader.is_stopped = True
    threads[1].join()
    return run


def _await_quiet(path: Path, reader: Reader) -> None:
    """Wait until all that was published has been worked on."""
    with SqliteLog.open(path) as log:
        ends = {p: log.end_offset("events", p) for p in range(log.partitions["events"])}
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            done = {p: log.committed(f"predict-{p}").get(("events", p), 0) for p in ends}
            if done == ends and len(reader.received_ns) == log_size(log, "predictions"):
                return
            time.sleep(0.1)


def log_size(log: SqliteLog, topic: str) -> int:
    """How many records a topic has had."""
    return sum(log.end_offset(topic, p) for p in range(log.partitions[topic]))


# --- the comparison ---------------------------------------------------------------------------


def print_latency(run: Run) -> None:
    """From an event published to its prediction read, before the change and during it."""
    sent, received = run.publisher.sent_ns, run.reader.received_ns
    begin_ns = min(sent.values()) + int(WARM_UP_S * 1e9)
    taught_ns = max(
        (ns for name, ns in run.reader.first_ns.items() if name.partition("@")[0].endswith(".2")),
        default=run.restarted_ns,
    )
    phases = {
        "before": (begin_ns, run.applied_ns),
        "preparing": (run.applied_ns, run.prepared_ns),
        HANDOVER: (run.prepared_ns, run.restarted_ns),
        TEACHING: (run.restarted_ns, max(taught_ns, run.restarted_ns)),
        "after": (max(taught_ns, run.restarted_ns), sys.maxsize),
        "from `apply` to the end": (run.applied_ns, sys.maxsize),
    }
    for name, (first_ns, last_ns) in phases.items():
        delays = sorted(
            (received[each] - ns) / NS_PER_MS
            for each, ns in sent.items()
            if first_ns <= ns < last_ns and each in received
        )
        if delays:
            seconds = (min(last_ns, max(sent.values())) - first_ns) / 1e9
            print(
                f"{name} ({seconds:.1f} s): {len(delays):,} predictions, p50 "
                f"{quantile(delays, 0.5):.1f} ms, p99 {quantile(delays, 0.99):.1f} ms, "
                f"longest {delays[-1]:.0f} ms"
            )
    late = sorted(ns / NS_PER_MS for ns in run.publisher.late_ns)
    print(f"the publisher was late by {quantile(late, 0.99):.1f} ms (p99), {late[-1]:.0f} at most")


def print_equality(path: Path, months: int) -> None:
    """Everything after the change, and what was made again of before, against the other log."""
    with (
        SqliteLog.open(path) as log,
        tempfile.TemporaryDirectory() as folder,
        SqliteLog.create(Path(folder) / "always.sqlite") as always,
    ):
        seconds = work(always, flights, [*records(months)])
        print(f"all of it from the start: {seconds:.0f} s of CPU")
        actual, expected = vectors(log), vectors(always)
        names = flights.feature_set.names
        later = [event_id for event_id, each in actual.items() if {*NEW_FEATURES} <= each.keys()]
        equal = sum(
            expected[each] == {n: actual[each][n] for n in names if n in actual[each]}
            for each in later
        )
        missing, more = len(expected.keys() - actual.keys()), len(actual.keys() - expected.keys())
        print(
            f"predictions: {len(actual):,} of {len(expected):,}, {missing} missing, {more} more; "
            f"vectors after the change equal: {equal:,} of {len(later):,}"
        )
        pipeline = running_pipeline(log, flights, KEY)
        for line in flights.models:
            late, whole = digests(log, f"{line}.2") or {-1: ""}, digests(always, line)
            same = sum(whole.get(version) == digest for version, digest in late.items())
            print(f"{line}.2: {same} of {len(late)} snapshots equal by digest, from {min(late)} on")
        print_planted(log, pipeline, expected)


class LookAhead:
    """A log in which each planted event comes before the one that it was planted behind.

    Args:
        log: with them.
    """

    def __init__(self, log: SqliteLog) -> None:
        self._log = log

    def first_offset(self, topic: str, partition: int) -> int:
        """As `Log.first_offset`."""
        return self._log.first_offset(topic, partition)

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """As `Log.read`."""
        records = self._log.read(topic, partition, offset, limit)
        for number, (record, other) in enumerate(pairwise(records)):
            if _event_id(other).startswith(PLANTED):
                records[number] = replace(other, offset=record.offset)
                records[number + 1] = replace(record, offset=other.offset)
        return records


def _event_id(record: Record) -> str:
    event_id: str = orjson.loads(record.value or b"{}")["event_id"]
    return event_id


def print_planted(log: SqliteLog, pipeline: Pipeline, expected: Mapping[str, Any]) -> None:
    """Whether vectors made again know an event that came after, planted before in time."""
    places: dict[str, tuple[int, int]] = {}
    planted: dict[str, tuple[int, int]] = {}
    for record in read_all(log, "events"):
        event_id = _event_id(record)
        if event_id.startswith(PLANTED):
            planted[event_id.removeprefix(PLANTED)] = record.partition, record.offset
        elif event_id in expected:
            places[event_id] = record.partition, record.offset
    made = Regeneration(log, pipeline).vectors(places.values(), 0)
    equal = sum(_select(made[place]) == expected[event_id] for event_id, place in places.items())
    print(f"vectors made again, as they would have been served: {equal:,} of {len(places):,} equal")
    leaking = Regeneration(cast("Any", LookAhead(log)), pipeline).vectors(planted.values(), 0)
    caught = sum(_select(leaking[place]) != expected[each] for each, place in planted.items())
    print(f"of {len(planted):,} with a planted future, {caught:,} would not be if it was known")


def _select(vector: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the declaration of today knows, of what was made."""
    return {
        name: (vector or {})[name] for name in flights.feature_set.names if name in (vector or {})
    }


def main() -> None:
    """Run it, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--months", type=int, default=6)
    parser.add_argument("--rate", type=int, default=1_000, help="events a second")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = (options.folder or Path(scratch)) / "applied.sqlite"
        SqliteLog.create(path).close()
        run = run_live(path, options.months, options.rate)
        sent, received = run.publisher.sent_ns, run.reader.received_ns
        print(
            f"{len(sent):,} events at {options.rate:,}/s, applied after {run.prepared_events:,}; "
            f"{len(received):,} predictions, {run.reader.doubled} doubled"
        )
        print_latency(run)
        print_equality(path, options.months)
        words = ["--broker", f"sqlite:{path}", "audit", "log"]
        subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "stream_ml", *words],
            env=os.environ | {"STREAM_ML_KEY": KEY.hex()},
            check=True,
        )


if __name__ == "__main__":
    main()
