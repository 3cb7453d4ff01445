"""Features changed in flight while events come at a rate: real processes, on either log.

    $ python -m benchmarks.apply_live                  # half a year at 1,000 events/s: 12 minutes
    $ python -m benchmarks.apply_live --months 1 --rate 2000
    $ python -m benchmarks.apply_live --kafka          # on a broker of its own, two partitions

`stream-ml up` works on the flights under the declaration of before (`benchmarks.apply`). Half way
another `up` stands by under the bundled one, which `stream-ml apply` applies; then the first is
stopped, and the other takes over. Events come all the while, whether or not anything comes back,
and on from the months that follow where those are over before the other has settled.
Among them are some that were planted: they come just after a prediction, and have their time just
before it, so that whoever folds by time alone would let that prediction know them. Then all is
compared with a log on which the bundled declaration ran from the start over the same records. On
Kafka examples come in another order, that
of two partitions: there learners are compared with those that learn the very examples of the
cluster in their order, with the features of that log.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from benchmarks.apply import KEY, NEW_FEATURES, digests, former, vectors, work
from benchmarks.latency import NS_PER_MS, quantile
from stream_ml.client import connect
from stream_ml.examples.flights import flights
from stream_ml.models.envelope import decode
from stream_ml.sealing import strip_seal
from stream_ml.shell import flights_data
from stream_ml.shell.embedded.replay import output_of
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.regeneration import Regeneration
from stream_ml.shell.views.registry import running_pipeline
from stream_ml.stages.learn import Learn
from tools.kafka.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output, Record
    from stream_ml.shell.log.port import Log

before, after = former()

TICK_S = 0.005
POLL_S = 0.002
WARM_UP_S = 20.0
WAIT_S = 1_800.0
QUIET_S = 15.0
# Events come for so long after the change; and of so many months more, should it take so long.
SETTLED_S, SPARE_MONTHS = 20.0, 2
# No refresh is left, at which lines would publish.
NO_REFRESH_S = 60.0
PARTITIONS = 2
# One event in so many is followed by a planted one.
PLANT_EVERY = 1_000
STAGES = ("predict", "join", "learn", "evaluate")
# Of flights that there are.
MONTHS = 12
PLANTED, PLANTED_MS = "planted-", 30_000
HANDOVER = "handing over"
# What happened up to so long after the new workers were at work.
STEPS_NS = 5_000_000_000
STEP_MEMBERS = ("stage", "partition", "worker", "seconds", "changelog_s", "replayed", "pieces")
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


def published(months: int) -> Iterator[Output]:
    """The records of these months, and of those that follow, of which as many are published."""
    return records(min(months + SPARE_MONTHS, MONTHS))


def _planted(event: dict[str, Any]) -> dict[str, Any]:
    """A departure fifteen hours late, older than the event that it comes after."""
    changed = {"kind": "departed", "ts": event["ts"] - PLANTED_MS, "dep_delay": 900.0}
    return {**event, **changed, "event_id": f"{PLANTED}{event['event_id']}"}


# --- who publishes, who reads, who works ------------------------------------------------------


@dataclass
class Publisher:
    """Appends records when they are due, whether or not anything comes back.

    Attributes:
        events_min: so many events are published at least.
        until_ns: and until then, by the monotonic clock, as long as there are any.
    """

    address: str
    rate: int
    events_min: int
    until_ns: int = sys.maxsize
    sent_ns: dict[str, int] = field(default_factory=dict)
    event_count: int = 0
    asked_count: int = 0
    record_count: int = 0
    late_ns: list[int] = field(default_factory=list)

    def run(self, outputs: Iterable[Output]) -> None:
        """Until enough were published."""
        begin_ns = 0
        chunk: list[Output] = []
        with connect(self.address) as log:
            for output in outputs:
                # The first takes seconds to be made.
                begin_ns = begin_ns or time.monotonic_ns()
                chunk.append(output)
                self.event_count += output.topic == "events"
                due_ns = begin_ns + self.event_count * 1_000_000_000 // self.rate
                wait_s = (due_ns - time.monotonic_ns()) / 1e9
                if wait_s >= TICK_S or len(chunk) >= self.rate:
                    self._append(log, chunk, due_ns)
                    chunk = []
                    if self.event_count >= self.events_min and due_ns >= self.until_ns:
                        break
                    time.sleep(max(0.0, wait_s))
            self._append(log, chunk, due_ns)

    def _append(self, log: Log, chunk: list[Output], due_ns: int) -> None:
        now_ns = time.monotonic_ns()
        self.late_ns.append(max(0, now_ns - due_ns))
        for output in chunk:
            if output.topic == "events":
                event = orjson.loads(output.value or b"{}")
                self.sent_ns[event["event_id"]] = now_ns
                self.asked_count += event["kind"] == "scheduled"
        log.append(chunk)
        self.record_count += len(chunk)


@dataclass
class Reader:
    """Notes when predictions come, and when lines first publish."""

    address: str
    received_ns: dict[str, int] = field(default_factory=dict)
    first_ns: dict[str, int] = field(default_factory=dict)
    doubled: int = 0
    newest_ns: int = 0
    is_stopped: bool = False

    def run(self) -> None:
        """Until it is stopped."""
        with connect(self.address, isolation="uncommitted") as log:
            tails = [
                log.tail(topic, dict.fromkeys(range(log.partitions[topic]), 0))
                for topic in ("predictions", "models")
            ]
            while not self.is_stopped:
                found = [tail.poll(POLL_S if n == 0 else 0.0) for n, tail in enumerate(tails)]
                now_ns = time.monotonic_ns()
                if any(found):
                    self.newest_ns = now_ns
                for record in found[0]:
                    event_id = (record.key or b"").decode()
                    self.doubled += event_id in self.received_ns
                    self.received_ns.setdefault(event_id, now_ns)
                for record in found[1]:
                    self.first_ns.setdefault((record.key or b"").decode(), now_ns)


class Command:
    """A process of `stream-ml` on the log, and what it says.

    Args:
        address: of the log.
        declaration: of this module, `before` or `after`.
        words: the command.
    """

    def __init__(self, address: str, declaration: str, *words: str) -> None:
        # When it said what, by the monotonic clock in nanoseconds.
        self.heard: list[tuple[int, dict[str, Any]]] = []
        options = ["--broker", address, "--pipeline", f"benchmarks.apply_live:{declaration}"]
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "stream_ml", *options, *words, "--format", "json"],
            env=os.environ | {"STREAM_ML_KEY": KEY.hex()},
            stdout=subprocess.PIPE,
        )
        self._lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.startswith(b'{"said"'):
                continue  # `topics apply` says one object over many lines
            members: dict[str, Any] = json.loads(line)
            self.heard.append((time.monotonic_ns(), members))
            self._lines.put(members)
        self._lines.put(None)

    def until(self, word: str) -> dict[str, Any]:
        """What it says of this kind."""
        while (members := self._lines.get()) is not None:
            if members.get("said") == word:
                return members
        raise RuntimeError(f"ended with {self._process.wait()} before it said {word}")

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
    commands: dict[str, Command] = field(default_factory=dict)


def run_live(address: str, months: int, rate: int) -> Run:
    """Work on all records as they come, with the change half way."""
    total = sum(output.topic == "events" for output in records(months))
    publisher, reader = Publisher(address, rate, total), Reader(address)
    run = Run(publisher, reader)
    run.commands["before"] = worker = Command(address, "before", "up")
    _until_at_work(worker, address)
    threads = [
        threading.Thread(target=publisher.run, args=(published(months),), daemon=True),
        threading.Thread(target=reader.run, daemon=True),
    ]
    for thread in threads:
        thread.start()
    while publisher.event_count < total // 2:
        time.sleep(TICK_S)
    run.applied_ns = time.monotonic_ns()
    run.commands["after"] = standby = Command(address, "after", "up", "--standby")
    standby.until("level" if address.startswith("kafka:") else "standby")
    words = ("apply", "--reason", "two more features, and a line")
    run.commands["apply"] = change = Command(address, "after", *words)
    run.prepared_events = change.until("prepared")["events"]
    run.prepared_ns = time.monotonic_ns()
    worker.stop()
    change.until("applied")
    change.wait()
    worker = standby
    _until_at_work(worker, address)
    run.restarted_ns = time.monotonic_ns()
    publisher.until_ns = run.restarted_ns + int(SETTLED_S * 1e9)
    threads[0].join()
    _await_quiet(run)
    worker.stop()
    reader.is_stopped = True
    threads[1].join()
    return run


def _until_at_work(worker: Command, address: str) -> None:
    """Wait until a worker has begun; on a cluster those of all stages."""
    for _ in STAGES if address.startswith("kafka:") else STAGES[:1]:
        worker.until("started")


def _await_quiet(run: Run) -> None:
    """Wait until all is predicted on, all lines that began publish, and nothing comes any more."""
    deadline_s = time.monotonic() + WAIT_S
    while time.monotonic() < deadline_s:
        reader = run.reader
        quiet_s = (time.monotonic_ns() - reader.newest_ns) / 1e9
        is_predicted = len(reader.received_ns) >= run.publisher.asked_count
        begun = {model.partition("@")[0] for model in [*reader.first_ns]}
        has_begun = begun >= {f"{each}.2" for each in flights.models} or quiet_s > NO_REFRESH_S
        if is_predicted and has_begun and quiet_s > QUIET_S:
            return
        time.sleep(0.1)


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


def print_steps(run: Run) -> None:
    """When who said what over the handover, and between which predictions nobody predicted."""
    steps = [
        (ns, name, members)
        for name, command in run.commands.items()
        for ns, members in command.heard
        if run.applied_ns <= ns <= run.restarted_ns + STEPS_NS
    ]
    for ns, name, members in sorted(steps, key=lambda step: step[0]):
        details = [f"{each}={members[each]}" for each in STEP_MEMBERS if each in members]
        seconds = (ns - run.prepared_ns) / 1e9
        print(f"{seconds:8.2f} s  {name:<6} {members.get('said')} {' '.join(details)}")
    times = sorted(ns for ns in run.reader.received_ns.values() if ns > run.applied_ns)
    gaps = sorted(((b - a, a) for a, b in pairwise(times)), reverse=True)[:3]
    for gap_ns, begin_ns in gaps:
        begin_s = (begin_ns - run.prepared_ns) / 1e9
        print(f"nothing was predicted for {gap_ns / 1e9:.2f} s from {begin_s:.2f} s on")


def learned(log: Log, expected: Mapping[str, Any]) -> dict[str, dict[int, str]]:
    """The digests, by line and version, of what learns a log's examples in their order.

    Args:
        log: with the examples.
        expected: the features, by event, that they are learned with.
    """
    learn = Learn(flights, KEY)
    found: dict[str, dict[int, str]] = {}
    outputs = learn.start()
    for record in read_all(log, "examples"):
        body = orjson.loads(strip_seal(record.value))
        body["features"] = expected[body["event_id"]]
        outputs += learn.apply([replace(record, value=orjson.dumps(body), memo=None)])
    for output in outputs:
        if output.topic == "models":
            snapshot = decode(output.value or b"")
            found.setdefault(snapshot.name, {})[snapshot.version] = snapshot.digest
    return found


def print_equality(address: str, outputs: Iterable[Output]) -> None:
    """Everything after the change, and what was made again of before, against the other log."""
    with (
        connect(address) as log,
        tempfile.TemporaryDirectory() as folder,
        SqliteLog.create(Path(folder) / "always.sqlite") as always,
    ):
        seconds = work(always, flights, [*outputs])
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
        lines = {line: digests(always, line) for line in flights.models}
        if address.startswith("kafka:"):
            lines = learned(log, expected)
        for line, whole in lines.items():
            late = digests(log, f"{line}.2") or {-1: ""}
            same = sum(whole.get(version) == digest for version, digest in late.items())
            print(f"{line}.2: {same} of {len(late)} snapshots equal by digest, from {min(late)} on")
        print_planted(log, pipeline, expected)


class LookAhead:
    """A log in which each planted event comes before the one that it was planted behind.

    Args:
        log: with them.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self.partitions, self.forwards_strays = log.partitions, log.forwards_strays

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


def print_planted(log: Log, pipeline: Pipeline, expected: Mapping[str, Any]) -> None:
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


@contextmanager
def a_log(folder: Path, *, on_kafka: bool) -> Iterator[str]:
    """The address of a new log."""
    with ExitStack() as stack:
        if on_kafka:
            broker = stack.enter_context(Broker(folder / "broker", heap="1g"))
            address = f"kafka://{broker.address}/{flights.name}"
            words = ("topics", "apply", "--partitions", str(PARTITIONS))
            Command(address, "before", *words).wait()
        else:
            path = folder / "applied.sqlite"
            SqliteLog.create(path).close()
            address = f"sqlite:{path}"
        yield address


def main() -> None:
    """Run it, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--months", type=int, default=6)
    parser.add_argument("--rate", type=int, default=1_000, help="events a second")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--latency", action="store_true", help="compare nothing afterwards")
    parser.add_argument("--kafka", action="store_true", help="on a broker of its own")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as scratch,
        a_log(options.folder or Path(scratch), on_kafka=options.kafka) as address,
    ):
        run = run_live(address, options.months, options.rate)
        sent, received = run.publisher.sent_ns, run.reader.received_ns
        print(
            f"{len(sent):,} events at {options.rate:,}/s, applied after {run.prepared_events:,}; "
            f"{len(received):,} predictions, {run.reader.doubled} doubled"
        )
        print_latency(run)
        print_steps(run)
        if options.latency:
            return
        print_equality(address, islice(published(options.months), run.publisher.record_count))
        words = ["--broker", address, "audit", "log"]
        subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "stream_ml", *words],
            env=os.environ | {"STREAM_ML_KEY": KEY.hex()},
            check=True,
        )


if __name__ == "__main__":
    main()
