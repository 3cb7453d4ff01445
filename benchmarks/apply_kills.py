"""`kill -9` of real processes at random instants while features and a recipe are changed in flight.

    $ python -m benchmarks.apply_kills --seeds 50

Payments come in three parts. Between the first two, two features are applied beside a worker that
serves, and between the last two another recipe of a line, by command. `plan`, `apply`, `up` and
`rebuild` are processes of their own (forked, so that they start at once); each is killed at
instants that the seed draws, and run again until it has done its work. What lies on the log in the
end has to be what lies there when nobody dies, to the last byte but for clocks, and every version
is learned again by `rebuild`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from river import linear_model, preprocessing, tree

import stream_ml as sml
from stream_ml.cli.main import main as stream_ml_main
from stream_ml.examples.cards import transactions
from stream_ml.models.envelope import decode
from stream_ml.shell.embedded.replay import output_of
from stream_ml.shell.log.reading import decisions, read_all
from stream_ml.shell.log.sqlite import SqliteLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import ForkProcess

__all__ = ["Result", "run"]

KEY = b"k" * 32
EVENTS, DELAY_EVENTS, LARGE = 2_400, 100, 60.0
IDENTITY = "the log of a benchmark"
WAIT_S = 120.0
POLL_S = 0.02
KILLED = -signal.SIGKILL
STARTED, PREPARED = "Ctrl-C stops it", "waiting up to"
# Written by the clock, or of a process: they say nothing of what was worked on.
CLOCKS = ("given_ms", "received_ms", "previous", "seal", "signature", "payload")
TOPICS = ("predictions", "examples", "answers", "registry", "models", "alerts", "dead-letters")
# A version that the last declaration has no more; those of lines of before have no declaration.
LEARNED_UNDER = {"tree.2": "wider"}
GONE = "tree"

_window = sml.window("10m")
before = sml.Pipeline(
    "payments",
    events=sml.Events(key="card", fields={"amount": float, "distance": float}, breadth=1),
    features=[sml.field("amount"), sml.field("distance"), _window.count()],
    label=sml.Label(bool, horizon="5m"),
    champion="logistic",
    models={
        "logistic": preprocessing.StandardScaler() | linear_model.LogisticRegression(),
        "tree": tree.HoeffdingTreeClassifier(grace_period=50, max_depth=3),
    },
    promotion=sml.Promotion(refresh="10s", first=100, mode="manual"),
)
wider = replace(
    before,
    features=[*before.features, _window.mean("amount", fill=0.0), sml.hour_of_day()],
)
deeper = replace(
    wider,
    models={**wider.models, "tree": tree.HoeffdingTreeClassifier(grace_period=50, max_depth=5)},
)


@dataclass
class Result:
    """What a run has come to.

    Attributes:
        content: by topic, what lies there.
        codes: how commands ended that were not killed.
        kills: how many processes were.
        seconds: by step, how long it took.
    """

    content: dict[str, Any] = field(default_factory=dict)
    codes: list[tuple[str, int]] = field(default_factory=list)
    kills: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


def _command(path: Path, declaration: str, words: tuple[str, ...], out: Path) -> None:
    """A command in a process of its own."""
    os.environ |= {"STREAM_ML_KEY": KEY.hex(), "STREAM_ML_LEARN_BUDGET_SECONDS": "60"}
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    name = f"benchmarks.apply_kills:{declaration}"
    options = ["--broker", f"sqlite:{path}", "--pipeline", name]
    sys.exit(stream_ml_main([*options, *words]))


class World:
    """A log with the commands that work on it, and who kills them.

    Args:
        folder: where the log goes.
        draw: of the instants; None: nobody dies.
        seconds: by step, how long it takes when nobody does.
        count: how many payments there are.
    """

    def __init__(
        self, folder: Path, draw: random.Random | None, seconds: dict[str, float], count: int
    ) -> None:
        self.path, self.out = folder / "log.sqlite", folder / "out.txt"
        self.result = Result()
        self._draw, self._seconds, self._count = draw, seconds, count
        self._context = multiprocessing.get_context("fork")
        SqliteLog.create(self.path, identity=IDENTITY).close()

    # --- one process ---------------------------------------------------------------------------

    def start(self, declaration: str, *words: str) -> ForkProcess:
        """Start a command."""
        arguments = self.path, declaration, words, self.out
        process = self._context.Process(target=_command, args=arguments, daemon=True)
        process.start()
        return process

    def kill(self, process: ForkProcess, step: str) -> bool:
        """Kill a command at some instant; whether it was still at work then."""
        assert self._draw is not None, "nobody is killed"
        process.join(self._draw.uniform(0.0, self._seconds[step]))
        is_alive = process.is_alive()
        if is_alive:
            assert process.pid is not None, "it was started"
            os.kill(process.pid, signal.SIGKILL)
        process.join(WAIT_S)
        self.result.kills += process.exitcode == KILLED
        return process.exitcode == KILLED

    # --- steps ---------------------------------------------------------------------------------

    def finish(self, step: str, declaration: str, *words: str, kills: int = 1) -> int:
        """Run a command, killed some times before, until it ends by itself; its code."""
        for _ in range(kills if self._draw else 0):
            self.kill(self.start(declaration, *words), step)
        begin_s = time.perf_counter()
        process = self.start(declaration, *words)
        process.join(WAIT_S)
        self.result.seconds[step] = time.perf_counter() - begin_s
        assert process.exitcode is not None, f"{step} does not end"
        self.result.codes.append((step, process.exitcode))
        return process.exitcode

    def work(self, step: str, declaration: str, kills: int = 2) -> None:
        """Have a worker work on all that is there, killed some times before."""
        for _ in range(kills if self._draw else 0):
            self.kill(self.start(declaration, "up"), step)
        begin_s = time.perf_counter()
        marks = self.said(STARTED)
        worker = self.start(declaration, "up")
        self.until(lambda: self.said(STARTED) > marks and self.is_worked_on, worker)
        self.result.seconds[step] = time.perf_counter() - begin_s
        self.stop(worker, step)

    def until(self, holds: Callable[[], bool], process: ForkProcess) -> None:
        """Wait until something holds on the log, or a process has ended."""
        deadline_s = time.monotonic() + WAIT_S
        while not holds() and process.is_alive():
            assert time.monotonic() < deadline_s, self.out.read_text(encoding="utf-8")[-2_000:]
            time.sleep(POLL_S)

    def stop(self, worker: ForkProcess, step: str) -> None:
        """Ask a worker to stop, as by Ctrl-C."""
        if worker.is_alive():
            assert worker.pid is not None, "it was started"
            os.kill(worker.pid, signal.SIGINT)
        worker.join(WAIT_S)
        self.result.codes.append((step, worker.exitcode if worker.exitcode is not None else -1))

    def said(self, words: str) -> int:
        """How often a command has said something."""
        return self.out.read_text(encoding="utf-8").count(words) if self.out.exists() else 0

    @property
    def is_worked_on(self) -> bool:
        """Whether all events and labels have been."""
        with SqliteLog.open(self.path) as log:
            return all(
                log.committed(f"{stage}-{p}").get((topic, p), 0) == log.end_offset(topic, p)
                for stage, topic in (("predict", "events"), ("join", "labels"))
                for p in range(log.partitions[topic])
            )

    def is_decided(self, count: int) -> bool:
        """Whether so many plans were applied."""
        with SqliteLog.open(self.path) as log:
            return sum(each.kind == "applied" for each in decisions(log, KEY)) >= count

    def append(self, begin: int, end: int) -> None:
        """Publish a part of the payments, and what is known of them by then."""
        events, _ = transactions(self._count, seed=5, keys=40)
        members = ("event_id", "ts", "card", "amount", "distance")
        kept = [{name: event[name] for name in members} for event in events[begin:end]]
        known = [
            {"event_id": event["event_id"], "ts": later["ts"], "label": event["amount"] > LARGE}
            for event, later in zip(events, events[DELAY_EVENTS:], strict=False)
            if begin <= int(later["event_id"][1:]) < end
        ]
        with SqliteLog.open(self.path) as log:
            log.append([output_of(before, "events", each) for each in kept])
            log.append([output_of(before, "labels", each) for each in known])

    def apply_beside(self) -> None:
        """Apply two features beside a worker, either of which may die, until it is done."""
        for _ in range(2 if self._draw else 0):
            worker = self.start("before", "up")
            change = self.start("wider", "apply", "--reason", "two more")
            first, second = (worker, change)
            if self._draw is not None and self._draw.random() < 0.5:
                first, second = change, worker
            self.kill(first, "apply")
            self.kill(second, "apply")
        begin_s = time.perf_counter()
        marks = self.said(STARTED)
        worker = self.start("before", "up")
        self.until(lambda: self.said(STARTED) > marks, worker)
        marks = self.said(PREPARED)
        change = self.start("wider", "apply", "--reason", "two more")
        self.until(lambda: self.said(PREPARED) > marks, change)
        if worker.is_alive():
            assert worker.pid is not None, "it was started"
            os.kill(worker.pid, signal.SIGINT)
        worker.join(WAIT_S)  # refused where what was killed had applied it
        change.join(WAIT_S)
        self.result.seconds["apply"] = time.perf_counter() - begin_s
        self.result.codes.append(("apply", change.exitcode if change.exitcode is not None else -1))

    def apply_recipe(self) -> None:
        """Have a worker decide on another recipe, either of which may die, until it is done."""
        words = ("apply", "--reason", "deeper", "--id", "the-recipe")
        for _ in range(2 if self._draw else 0):
            worker = self.start("wider", "up")
            change = self.start("deeper", *words)
            self.kill(change, "recipe")
            self.kill(worker, "recipe")
        begin_s = time.perf_counter()
        marks = self.said(STARTED)
        worker = self.start("wider", "up")
        self.until(lambda: self.said(STARTED) > marks, worker)
        change = self.start("deeper", *words)
        change.join(WAIT_S)
        self.result.seconds["recipe"] = time.perf_counter() - begin_s
        self.until(lambda: self.is_decided(2), worker)
        self.stop(worker, "recipe")


def _canonical(value: bytes | None) -> Any:
    body = orjson.loads(value or b"null")
    if isinstance(body, dict):
        body = {name: each for name, each in body.items() if name not in CLOCKS}
    return body


def _content(path: Path) -> dict[str, Any]:
    """What lies on the log, by topic."""
    with SqliteLog.open(path) as log:
        return {
            topic: [
                (record.partition, record.key, _canonical(record.value))
                for record in read_all(log, topic)
            ]
            for topic in TOPICS
        }


def _versions(path: Path) -> list[str]:
    """The newest version of each line, and its first one."""
    with SqliteLog.open(path) as log:
        found = [decode(record.value) for record in read_all(log, "models") if record.value]
    newest = {each.name: f"{each.name}@{each.version}" for each in found}
    return sorted(newest.values())


def run(
    folder: Path, seed: int | None, seconds: dict[str, float] | None = None, count: int = EVENTS
) -> Result:
    """The whole of it.

    Args:
        folder: where the log goes.
        seed: of the kills; None: nobody dies.
        seconds: by step, how long it takes when nobody does.
        count: how many payments there are.
    """
    draw = None if seed is None else random.Random(seed)
    world = World(folder, draw, seconds or {}, count)
    third = count // 3
    world.append(0, third)
    world.work("first", "before")
    world.finish("plan", "wider", "plan")
    world.apply_beside()
    world.append(third, 2 * third)
    world.work("second", "wider")
    world.finish("plan again", "deeper", "plan")
    world.apply_recipe()
    world.append(2 * third, count)
    world.work("third", "deeper")
    for version in _versions(world.path):
        line = version.partition("@")[0]
        if line != GONE:
            declaration = LEARNED_UNDER.get(line, "deeper")
            world.finish("rebuild", declaration, "rebuild", version)
    world.result.content = _content(world.path)
    return world.result


def _print_first(topic: str, expected: list[Any], actual: list[Any]) -> None:
    """The first record of a topic that differs, or how many there are."""
    for number, (one, other) in enumerate(zip(expected, actual, strict=False)):
        if one != other:
            print(f"  {topic}, record {number}: expected {one}, given {other}")
            return
    print(f"  {topic}: expected {len(expected)} records, given {len(actual)}")


def main() -> None:
    """Compare each seed with a run in which nobody dies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--events", type=int, default=EVENTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        quiet = run(Path(folder), None, count=options.events)
    print(f"nobody dies: {quiet.codes}", flush=True)
    print({step: round(s, 2) for step, s in quiet.seconds.items()}, flush=True)
    equal = kills = 0
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            result = run(Path(folder), seed, quiet.seconds, options.events)
        kills += result.kills
        different = [
            topic for topic, each in quiet.content.items() if each != result.content[topic]
        ]
        codes = sorted(set(result.codes) - set(quiet.codes))
        equal += not different and not codes
        for topic in different:
            _print_first(topic, quiet.content[topic], result.content[topic])
        print(
            f"seed {seed}: {result.kills} killed, differ: {different or codes or 'none'}",
            flush=True,
        )
    print(f"{equal} of {options.seeds} seeds equal, {kills} processes killed")
    sys.exit(equal < options.seeds)


if __name__ == "__main__":
    main()
