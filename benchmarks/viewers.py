"""What the live page costs the worker: its CPU per event with 100 viewers, and without.

    python -m benchmarks.viewers --turns 10

One `up` works on card payments that are published at a steady rate. In turns of a few seconds
`serve` and so many viewers who take all, and one who takes nothing, are at work beside it, or the
server is held still (SIGSTOP): so what else disturbs the machine meets both alike. What is measured
is the CPU time of `up` for each event, and what of a core the server takes. On Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import orjson

from stream_ml.client import Publisher, connect
from stream_ml.examples.cards import cards, transactions
from stream_ml.shell.views.status import read_status
from stream_ml.stages.topology import parse_task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.shell.log.port import Log

STREAM_ML = [sys.executable, "-P", "-m", "stream_ml.cli.main"]
REQUEST = b"GET /v1/stream/page HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
PACE_S = 0.05


class Turn(NamedTuple):
    """A turn: CPU of `up` for an event, of the server for a second, and what a viewer took."""

    is_shown: bool
    up_us: float
    serve_share: float
    viewer_kb_s: float


def cpu_s(pid: int) -> float:
    """The CPU time of all threads of a process that live, in seconds."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in files) / 1e9


def started(stack: ExitStack, environment: dict[str, str], *words: str) -> tuple[int, bytes]:
    """A process of ours, once it has said its first line; ended with the stack."""
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and words
        [*STREAM_ML, *words, "--format", "json"], env=environment, stdout=subprocess.PIPE
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    assert process.stdout is not None
    return process.pid, process.stdout.readline()


async def view(port: int, received: list[int], *, reads: bool) -> None:
    """Look at the page until cancelled, counting the bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(REQUEST)
        await writer.drain()
        received.append(0)
        place = len(received) - 1
        while reads and (chunk := await reader.read(65_536)):
            received[place] += len(chunk)
        await asyncio.Event().wait()
    finally:
        writer.close()


def lagging(log: Log) -> Iterator[int]:
    """How many records wait before each stage that says at once how far it is."""
    for each in read_status(log, None).stages:
        if parse_task(each.task).stage in {"predict", "join"}:
            yield each.lag


class Payments:
    """Card payments with their labels, published at a steady rate, some at a time."""

    def __init__(self, count: int, rate: float) -> None:
        events, labels = transactions(count, seed=1)
        self._events = iter(events)
        self._labels = {label["event_id"]: label for label in labels}
        self._rate = rate

    async def publish(self, count: int) -> None:
        """Publish so many, and wait until all are predicted on and joined."""
        with connect(None, cards) as log, Publisher(log, cards) as publisher:
            began_s = time.monotonic()
            for number, event in enumerate(islice(self._events, count), start=1):
                publisher.post_event(event)
                if (label := self._labels.get(event["event_id"])) is not None:
                    publisher.post_label(label)
                ahead_s = number / self._rate - (time.monotonic() - began_s)
                if ahead_s > PACE_S:
                    publisher.flush()
                    await asyncio.sleep(ahead_s)
            publisher.flush()
            while any(lagging(log)):  # noqa: ASYNC110 - a log
                await asyncio.sleep(0.2)


async def measure(rate: float, events: int, viewers: int, turns: int) -> list[Turn]:
    """So many turns with the page, and as many without; begun by either."""
    found: list[Turn] = []
    payments = Payments((2 * turns + 1) * events, rate)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ["STREAM_ML_BROKER"] = f"sqlite:{folder}/log.sqlite"
        os.environ["STREAM_ML_PIPELINE"] = "stream_ml.examples.cards:cards"
        environment = dict(os.environ)
        worker, _ = started(stack, environment, "up")
        server, said = started(stack, environment, "serve", "--port", "0")
        # Whatever happens, it must hear that it is to end.
        stack.callback(os.kill, server, signal.SIGCONT)
        port, received = int(orjson.loads(said)["address"].rpartition(":")[2]), list[int]()
        tasks = [
            asyncio.create_task(view(port, received, reads=number > 0))
            for number in range(viewers + 1)
        ]
        await payments.publish(events)
        for number in range(2 * turns):
            is_shown = number % 4 in {0, 3}
            os.kill(server, signal.SIGCONT if is_shown else signal.SIGSTOP)
            before = cpu_s(worker), cpu_s(server), sum(received[1:]), time.monotonic()
            await payments.publish(events)
            seconds = time.monotonic() - before[3]
            turn = Turn(
                is_shown,
                (cpu_s(worker) - before[0]) / events * 1e6,
                (cpu_s(server) - before[1]) / seconds,
                (sum(received[1:]) - before[2]) / viewers / seconds / 1e3,
            )
            print(turn, flush=True)
            found.append(turn)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return found


def main() -> None:
    """Measure in turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--viewers", type=int, default=100)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--events", type=int, default=1_500, help="of a turn (1,500)")
    arguments = parser.parse_args()
    found = asyncio.run(
        measure(arguments.rate, arguments.events, arguments.viewers, arguments.turns)
    )
    shown, held = ([each for each in found if each.is_shown == is_shown] for is_shown in (1, 0))
    with_us, without_us = (statistics.fmean(each.up_us for each in of) for of in (shown, held))
    shares = [a.up_us / b.up_us - 1 for a, b in zip(shown, held, strict=True)]
    error = statistics.stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else float("nan")
    print(f"up: {without_us:.1f} us an event alone, {with_us:.1f} with {arguments.viewers} viewers")
    print(f"difference: {with_us / without_us - 1:+.1%}, standard error {error:.1%}")
    print(f"server: {statistics.fmean(each.serve_share for each in shown):.1%} of a core")


if __name__ == "__main__":
    main()
