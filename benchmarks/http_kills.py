"""Workers that predict on Kafka are killed while predictions are asked for by HTTP.

    python -m benchmarks.http_kills [--rate R] [--seconds S] [--kills N]

A broker of its own, two workers that predict, which `up` looks after, and a server. Events of the
cards work come at a rate, each a request of its own, while one worker or the other dies by SIGKILL
now and then. Each request must be answered with the prediction that lies on the log, or be refused
(503); who was refused is answered when asking again under the same id. On the log lies each event
whose answer somebody got, predicted once, with features that a plain count over the log says too.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

import stream_ml as sml
from benchmarks.http import Connection, first_member, running
from stream_ml.client import Publisher, connect, predictions
from stream_ml.examples.cards import cards, transactions
from stream_ml.shell.log.reading import read_all
from tools.kafka.broker import Broker

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

__all__ = ["payments"]

CLIENTS, CONNECTIONS_MAX = 64, 1_024
AGAIN_S, ATTEMPTS = 0.2, 500
LEARNED = 2_000
PATIENCE_S = 60.0
HOUR_MS = 3_600_000
PIPELINE = "benchmarks.http_kills:payments"
# Requests overtake each other, and some are sent again: none is late for that.
payments = dataclasses.replace(
    cards,
    name="payments",
    events=sml.Events(key=cards.events.key, fields=dict(cards.events.fields), lateness="1h"),
)


@dataclasses.dataclass(slots=True)
class Load:
    """Requests, and what came of each.

    Attributes:
        port: of the server.
        events: to ask about.
        statuses: how often each was answered.
        answers: predictions, as they were answered.
        answered_s: when each came (monotonic).
    """

    port: int
    events: Sequence[bytes]
    statuses: Counter[int] = dataclasses.field(default_factory=Counter)
    answers: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    answered_s: list[float] = dataclasses.field(default_factory=list)

    async def offer(self, rate: float) -> None:
        """Ask about each when it is due."""
        gate = asyncio.Semaphore(CONNECTIONS_MAX)
        started_s = time.perf_counter()

        async def ask(event: bytes) -> None:
            async with gate:
                await self._ask(event)

        async with asyncio.TaskGroup() as requests:
            for number, event in enumerate(self.events):
                await asyncio.sleep(max(0.0, started_s + number / rate - time.perf_counter()))
                requests.create_task(ask(event))

    async def repeat(self) -> None:
        """Ask about each again, until it is answered."""
        remaining = iter(self.events)

        async def client() -> None:
            for event in remaining:
                for _ in range(ATTEMPTS):
                    if await self._ask(event) != 503:
                        break
                    await asyncio.sleep(AGAIN_S)

        await asyncio.gather(*(client() for _ in range(CLIENTS)))

    async def _ask(self, event: bytes) -> int:
        connection = Connection(self.port)
        await connection.open()
        try:
            status, body = await connection.post(event)
        finally:
            connection.close()
        self.statuses[status] += 1
        if status == 200:
            self.answers.append(orjson.loads(body))
            self.answered_s.append(time.perf_counter())
        return status


def _predict_workers(up: int) -> list[int]:
    """The processes that predict, of those that `up` looks after."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text(encoding="ascii").rpartition(")")[2].split()[1])
            words = (path.parent / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == up and b"predict" in words:
            found.append(int(path.parent.name))
    return sorted(found)


async def _kill(up: int, count: int, pause_s: float) -> int:
    """Kill a worker that predicts so often, with a pause before each; how many it were."""
    killed = 0
    for number in range(count):
        await asyncio.sleep(pause_s)
        workers = _predict_workers(up)
        if workers:
            os.kill(workers[number % len(workers)], signal.SIGKILL)
            killed += 1
    return killed


async def _work(load: Load, up: int, options: argparse.Namespace) -> dict[str, Any]:
    pause_s = options.seconds / (options.kills + 1)
    killing = asyncio.create_task(_kill(up, options.kills, pause_s))
    await load.offer(options.rate)
    killed, first = await killing, dict(load.statuses)
    gaps = itertools.pairwise(load.answered_s)
    await load.repeat()
    return {
        "killed": killed,
        "requests": first,
        "longest time without an answer": round(max((b - a for a, b in gaps), default=0.0), 1),
    }


def _drain(process: subprocess.Popen[bytes]) -> None:
    """Read what it says, so that it is never held up."""
    assert process.stdout is not None
    threading.Thread(target=process.stdout.read, daemon=True).start()


def _learned(address: str, events: list[dict[str, Any]], labels: list[dict[str, Any]]) -> None:
    """Have something learned, and wait until it serves: answers differ from one another then."""
    with connect(address, payments) as log:
        publisher = Publisher(log, payments)
        for event in events:
            publisher.post_event(event)
        for label in labels:
            publisher.post_label(label)
        publisher.flush()
        deadline_s, last = time.monotonic() + PATIENCE_S, 0
        while True:
            last += 1
            probe = {**events[-1], "event_id": f"probe {last}"}
            publisher.post_event(probe)
            publisher.flush()
            time.sleep(1)
            if any(not each.model.endswith("@0") for each in predictions(log)):
                return
            assert time.monotonic() < deadline_s, "expected a model that has learned, given none"


def _differences(address: str, load: Load, ids: set[str]) -> dict[str, int]:
    """Whatever is not as it is promised."""
    with connect(address, payments) as log:
        logged = list(predictions(log))
        events = [orjson.loads(record.value or b"") for record in read_all(log, "events")]
    by_id = {each.event_id: each for each in logged}
    answered = {each["event_id"] for each in load.answers}
    counts = _counts(events)
    return {
        "answered otherwise than the log says": sum(
            by_id[each["event_id"]].prediction != each["prediction"]
            for each in load.answers
            if each["event_id"] in by_id
        ),
        "answered, and not on the log": len(answered - by_id.keys()),
        "never answered": len(ids - answered),
        "predicted twice": len(logged) - len(by_id),
        "of other features": sum(
            each.features["count 1h"] != counts[each.event_id] for each in logged
        ),
        "other statuses": sum(load.statuses.values()) - load.statuses[200] - load.statuses[503],
    }


def _counts(events: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How many payments of its card each has in the hour before it, in the order of the log."""
    found: dict[str, float] = {}
    times: dict[str, list[int]] = defaultdict(list)
    for event in events:
        if event["event_id"] not in found:
            ts, before = event["ts"], times[event["card"]]
            found[event["event_id"]] = float(sum(ts - HOUR_MS <= each < ts for each in before))
            before.append(ts)
    return found


def run(options: argparse.Namespace) -> bool:
    """Ask, kill, ask again, and compare with the log; whether all is as promised."""
    events, labels = transactions(LEARNED + int(options.rate * options.seconds), seed=1)
    before, asked = events[:LEARNED], events[LEARNED:]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(Broker(folder / "broker", heap="1g"))
        address = f"kafka://{broker.address}"

        def start(*words: str) -> subprocess.Popen[bytes]:
            return stack.enter_context(running(folder, address, *words, pipeline=PIPELINE))

        start("topics", "apply", "--partitions", "2").wait()
        up = start("up", "--predict", "2")
        first_member(up, "champion", "model")
        _drain(up)
        _learned(address, before, labels[: LEARNED // 2])
        server = start("serve", "--port", "0", "--rate", "100000", "--predict-seconds", "2")
        port = int(first_member(server, "address").rpartition(":")[2])
        _drain(server)
        load = Load(port, [orjson.dumps(event) for event in asked])
        result = asyncio.run(_work(load, up.pid, options))
        found = _differences(address, load, {event["event_id"] for event in asked})
    print(json.dumps({**result, "answers": len(load.answers), **found}, indent=2))
    return not any(found.values())


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--kills", type=int, default=5)
    sys.exit(0 if run(parser.parse_args()) else 1)


if __name__ == "__main__":
    main()
