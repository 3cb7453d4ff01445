"""A predict worker on Kafka is killed while predictions are asked for by HTTP.

    python -m benchmarks.http_kills [--rate R] [--seconds S] [--kills N]

Events of the cards work, each a request of its own, at a rate, while one of the workers of predict
dies by SIGKILL now and then, and `up` starts it again. Each request must be answered with the
prediction that lies on the log, or refused (503); nobody who was refused is left without an answer
when asking again; and each event whose answer somebody got lies on the log, and is predicted once.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.http import Connection, first_member, running
from stream_ml.client import connect, predictions
from stream_ml.examples.cards import cards, transactions
from stream_ml.shell.log.reading import read_all
from tools.kafka.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Sequence

CLIENTS = 64
AGAIN_S, ATTEMPTS = 0.2, 500


def _predict_workers(up: int) -> list[int]:
    """The processes of predict that `up` looks after."""
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


class _Load:
    """Requests at a rate, and what came of each.

    Args:
        port: of the server.
        events: to ask about.
    """

    def __init__(self, port: int, events: Sequence[bytes]) -> None:
        self._port = port
        self._events = events
        self.statuses: Counter[int] = Counter()
        self.answers: list[dict[str, Any]] = []
        self.answered_s: list[float] = []

    async def offer(self, rate: float) -> None:
        """Ask about each when it is due."""
        gate = asyncio.Semaphore(CLIENTS * 16)
        started_s = time.perf_counter()
        tasks = []
        for number, event in enumerate(self._events):
            await asyncio.sleep(max(0.0, started_s + number / rate - time.perf_counter()))
            await gate.acquire()
            task = asyncio.create_task(self._ask(event))
            task.add_done_callback(lambda _: gate.release())
            tasks.append(task)
        await asyncio.gather(*tasks)

    async def _ask(self, event: bytes) -> int:
        connection = Connection(self._port)
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

    async def finish(self) -> None:
        """Ask about each again until it is answered."""
        remaining = iter(self._events)

        async def client() -> None:
            for event in remaining:
                for _ in range(ATTEMPTS):
                    if await self._ask(event) != 503:
                        break
                    await asyncio.sleep(AGAIN_S)

        await asyncio.gather(*(client() for _ in range(CLIENTS)))


async def _kill(up: int, count: int, pause_s: float) -> int:
    """Kill a worker of predict so often, with a pause before each; how many it were."""
    killed = 0
    for number in range(count):
        await asyncio.sleep(pause_s)
        workers = _predict_workers(up)
        if workers:
            os.kill(workers[number % len(workers)], signal.SIGKILL)
            killed += 1
    return killed


def run(options: argparse.Namespace) -> None:
    """Ask, kill, ask again, and compare with the log."""
    count = int(options.rate * options.seconds)
    events, _ = transactions(count, seed=1)
    lines = [orjson.dumps(event) for event in events]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(Broker(folder / "broker", heap="1g"))
        address = f"kafka://{broker.address}"
        with running(folder, address, "topics", "apply", "--partitions", "2") as applying:
            applying.wait()
        up = stack.enter_context(running(folder, address, "up", "--predict", "2"))
        first_member(up, "champion", "model")
        words = ("serve", "--port", "0", "--rate", "100000", "--predict-seconds", "2")
        server = stack.enter_context(running(folder, address, *words))
        load = _Load(int(first_member(server, "address").rpartition(":")[2]), lines)

        async def work() -> int:
            pause_s = options.seconds / (options.kills + 1)
            killing = asyncio.create_task(_kill(up.pid, options.kills, pause_s))
            await load.offer(options.rate)
            killed = await killing
            print(f"{killed} killed: {dict(load.statuses)} of {count:,} requests", flush=True)
            gap_s = max((b - a for a, b in itertools.pairwise(load.answered_s)), default=0.0)
            print(f"longest time without an answer: {gap_s:.1f} s", flush=True)
            await load.finish()
            return killed

        started_s = time.perf_counter()
        asyncio.run(work())
        with connect(address, cards) as log:
            logged = [(each.event_id, each.prediction) for each in predictions(log)]
            on_log = {orjson.loads(r.value or b"")["event_id"] for r in read_all(log, "events")}
    by_id = dict(logged)
    ids = {event["event_id"] for event in events}
    result = {
        "answers": len(load.answers),
        "wrong": sum(by_id.get(a["event_id"]) != a["prediction"] for a in load.answers),
        "never answered": len(ids - {a["event_id"] for a in load.answers}),
        "answered, and not on the log": len({a["event_id"] for a in load.answers} - on_log),
        "predicted twice": len(logged) - len(by_id),
        "other statuses": sum(load.statuses.values()) - load.statuses[200] - load.statuses[503],
        "seconds": round(time.perf_counter() - started_s, 1),
    }
    print(json.dumps(result))


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--kills", type=int, default=2)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
