"""Predictions by HTTP beside the console's clients: requests a second, and how long they take.

    python -m benchmarks.http [--rate R] [--seconds S] [--turns N] [--kafka [--only-predict]]

One worker (on Kafka those of `up`), one server, and events of the cards work at a rate, each a
request of its own over as many connections as are needed. The console's clients, in turns with it,
publish the same at the same rate, and follow the predictions. Times are from when an event was due
until its prediction is there, so that a client which falls behind is not spared. With `--rate 0`
requests come as fast as 64 connections are answered: what the server can do. With `--only-predict`
the cluster's other workers are stopped once a model serves, as if they were on other machines.

CPU is that of the server's process alone; the server takes httptools and uvloop where they are
installed (here with `PYTHONPATH=.venv/extras`, after `make .venv/extras`), which it needs. The
client is a bare one, over sockets: a library would take more than the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.client import Publisher, connect, read_batches
from stream_ml.examples.cards import cards, transactions
from tools.kafka.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONNECTIONS = 64
PIPELINE = "stream_ml.examples.cards:cards"
KEY = "5a" * 32
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """What an offer came to: seconds from due to answer, statuses, and how long all of it took."""

    times_s: list[float]
    statuses: Counter[int]
    took_s: float
    server_cpu_s: float

    def __str__(self) -> str:
        ordered = sorted(self.times_s)
        p50, p99 = (1_000 * ordered[int(len(ordered) * share)] for share in (0.5, 0.99))
        rate = len(ordered) / self.took_s
        cpu_us = 1e6 * self.server_cpu_s / len(ordered)
        statuses = ", ".join(f"{n:,} x {status}" for status, n in sorted(self.statuses.items()))
        return (
            f"{rate:,.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, server {cpu_us:.0f} us; {statuses}"
        )


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Connection:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Ask for a prediction; the status and the body of the answer."""
        self._writer.write(
            b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
        return int(head[9:12]), await self._reader.readexactly(length)

    def close(self) -> None:
        """Let go of it."""
        self._writer.close()


async def _offer_by_http(port: int, pid: int, events: Sequence[bytes], rate: float) -> Result:
    """Each event when it is due, on a connection that is free, or a new one."""
    free: list[Connection] = []
    opened: list[Connection] = []
    times: list[float] = []
    statuses: Counter[int] = Counter()
    started_s, cpu_s = time.perf_counter(), _cpu_s(pid)

    async def connection() -> Connection:
        if free:
            return free.pop()
        one = Connection(port)
        await one.open()
        opened.append(one)
        return one

    async def ask(event: bytes, due_s: float) -> None:
        one = await connection()
        status, _ = await one.post(event)
        statuses[status] += 1
        times.append(time.perf_counter() - due_s)
        free.append(one)

    async def go_on(events: Iterator[bytes]) -> None:
        for event in events:
            await ask(event, time.perf_counter())

    if rate:
        tasks = []
        for number, event in enumerate(events):
            due_s = started_s + number / rate
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            tasks.append(asyncio.create_task(ask(event, due_s)))
        await asyncio.gather(*tasks)
    else:
        remaining = iter(events)
        await asyncio.gather(*(go_on(remaining) for _ in range(CONNECTIONS)))
    took_s = time.perf_counter() - started_s
    for one in opened:
        one.close()
    return Result(times, statuses, took_s, _cpu_s(pid) - cpu_s)


def _offer_by_console(address: str, events: Sequence[bytes], rate: float) -> Result:
    """As `stream-ml publish` and `stream-ml predictions --follow` do it, in a thread each."""
    due: dict[bytes, float] = {}
    times: list[float] = []
    is_ready, is_done = threading.Event(), threading.Event()

    def follow() -> None:
        with connect(address, cards) as log:
            batches = read_batches(log, "predictions", from_end=True, follow=True)
            is_ready.set()
            while len(times) < len(events):
                records = next(batches)
                now_s = time.perf_counter()
                times.extend(now_s - due[r.key] for r in records if r.key in due)
            batches.close()
        is_done.set()

    with connect(address, cards) as log:
        publisher = Publisher(log, cards)
        threading.Thread(target=follow, daemon=True).start()
        is_ready.wait(PATIENCE_S)
        time.sleep(1)  # the follower has begun to wait
        started_s = time.perf_counter()
        for number, event in enumerate(events):
            due_s = started_s + (number / rate if rate else 0.0)
            time.sleep(max(0.0, due_s - time.perf_counter()))
            members = orjson.loads(event)
            due[members["event_id"].encode()] = due_s
            publisher.post_event(members)
        publisher.flush()
        is_done.wait(PATIENCE_S)
    return Result(times, Counter({200: len(times)}), time.perf_counter() - started_s, 0.0)


@contextmanager
def running(
    folder: Path, address: str, *words: str, pipeline: str = PIPELINE
) -> Iterator[subprocess.Popen[bytes]]:
    """A command of `stream-ml` on a log, until it is left."""
    environ = {**os.environ, "STREAM_ML_BROKER": address, "STREAM_ML_KEY": KEY}
    # Extras beside this package, wherever the process is at work: the server is faster with them.
    environ["PYTHONPATH"] = os.pathsep.join(str(Path(each).resolve()) for each in sys.path)
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and words
        [sys.executable, "-m", "stream_ml", *words, "--pipeline", pipeline, "--format", "json"],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def first_member(process: subprocess.Popen[bytes], *names: str) -> Any:
    """The first of these members that it prints."""
    assert process.stdout is not None
    while True:
        members = json.loads(process.stdout.readline())
        for name in names:
            if name in members:
                return members[name]


def _begin(stack: ExitStack, folder: Path, address: str, *, is_alone: bool) -> None:
    """Have workers at work until the stack ends: all of them, or predict alone."""
    if is_alone:
        with running(folder, address, "up") as former:
            first_member(former, "champion", "model")
        stack.enter_context(running(folder, address, "worker", "predict"))
        return
    worker = stack.enter_context(running(folder, address, "up"))
    first_member(worker, "champion", "model")


def run(options: argparse.Namespace) -> None:
    """Offer events by both ways in turns, and print what came of it."""
    count = int((options.rate or options.most) * options.seconds)
    events, _ = transactions(count * 2 * options.turns + 1_100, seed=1)
    lines = [orjson.dumps(event) for event in events]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = f"sqlite:{folder / 'log.sqlite'}"
        if options.kafka:
            broker = stack.enter_context(Broker(folder / "broker", heap="1g"))
            address = f"kafka://{broker.address}"
            with running(folder, address, "topics", "apply", "--partitions", "1") as applying:
                applying.wait()
        missing = [name for name in ("httptools", "uvloop") if find_spec(name) is None]
        print(f"the server goes without {', '.join(missing)}" if missing else "the server has all")
        _begin(stack, folder, address, is_alone=options.only_predict)
        server = stack.enter_context(
            running(folder, address, "serve", "--port", "0", "--rate", "100000")
        )
        port = int(first_member(server, "address").rpartition(":")[2])
        asyncio.run(_offer_by_http(port, server.pid, lines[:1_000], 200))
        lines = lines[1_000:]
        results: dict[str, list[Result]] = {"http": [], "console": []}
        for turn in range(options.turns):
            for name, found in results.items():
                part, lines = lines[:count], lines[count:]
                if name == "http":
                    offer = _offer_by_http(port, server.pid, part, options.rate)
                    found.append(asyncio.run(offer))
                else:
                    found.append(_offer_by_console(address, part, options.rate))
                load = os.getloadavg()[0]
                print(f"turn {turn + 1}, {name}: {found[-1]} (load {load:.1f})", flush=True)
    for name, found in results.items():
        rate = statistics.median(len(each.times_s) / each.took_s for each in found)
        print(f"{name}: median of {len(found)} turns {rate:,.0f}/s")


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=500.0, help="events a second; 0: no bound")
    parser.add_argument("--most", type=int, default=1_000, help="with --rate 0: how many a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--kafka", action="store_true", help="on a broker of its own")
    parser.add_argument("--only-predict", action="store_true", help="with --kafka: no other worker")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
