"""What the live page costs the worker: its CPU per event without a server, and with 100 viewers.

    python -m benchmarks.viewers --turns 3

In turns, each on a log of its own: `up` works on card payments that are published at a steady rate;
then the same with `serve` beside it, and so many viewers who take all, and one who takes nothing.
What is measured is the CPU time of `up` for each event, so it may run beside other work. On Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from stream_ml.client import Publisher, connect
from stream_ml.examples.cards import cards, transactions
from stream_ml.shell.views.status import read_status

if TYPE_CHECKING:
    from collections.abc import Iterator

STREAM_ML = [sys.executable, "-P", "-m", "stream_ml.cli.main"]
REQUEST = b"GET /v1/stream/page HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
TICKS = os.sysconf("SC_CLK_TCK")
PACE_S = 0.05


def cpu_s(pid: int) -> float:
    """The CPU time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


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


def publish(rate: float, count: int) -> Iterator[float]:
    """Publish so many events a second, with their labels; gives the seconds to wait."""
    events, labels = transactions(count, seed=1)
    later = {label["event_id"]: label for label in labels}
    with connect(None, cards) as log, Publisher(log, cards) as publisher:
        began_s = time.monotonic()
        for number, event in enumerate(events, start=1):
            publisher.post_event(event)
            if (label := later.get(event["event_id"])) is not None:
                publisher.post_label(label)
            ahead_s = number / rate - (time.monotonic() - began_s)
            if ahead_s > PACE_S:
                publisher.flush()
                yield ahead_s


async def caught_up() -> None:
    """Wait until no record waits before any stage."""
    with connect(None, cards) as log:
        while any(each.lag for each in read_status(log, None).stages):  # noqa: ASYNC110 - a log
            await asyncio.sleep(0.5)


async def measure(rate: float, count: int, viewers: int) -> dict[str, float]:
    """One turn; without viewers there is no server."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.environ["STREAM_ML_BROKER"] = f"sqlite:{folder}/log.sqlite"
        os.environ["STREAM_ML_PIPELINE"] = "stream_ml.examples.cards:cards"
        environment = dict(os.environ)
        worker, _ = started(stack, environment, "up")
        server, tasks, received = None, [], list[int]()
        if viewers:
            server, said = started(stack, environment, "serve", "--port", "0")
            port = int(orjson.loads(said)["address"].rpartition(":")[2])
            tasks = [
                asyncio.create_task(view(port, received, reads=number > 0))
                for number in range(viewers + 1)
            ]
            await asyncio.sleep(3)
        before_s = cpu_s(worker)
        served_before_s = cpu_s(server) if server else 0.0
        for wait_s in publish(rate, count):
            await asyncio.sleep(wait_s)
        await caught_up()
        figures = {"up_us": (cpu_s(worker) - before_s) / count * 1e6}
        if server:
            figures["serve_share"] = (cpu_s(server) - served_before_s) / (count / rate)
            figures["viewer_kb_s"] = statistics.mean(received[1:]) / 1e3 / (count / rate)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return figures


def main() -> None:
    """Measure in turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--viewers", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1_000.0)
    parser.add_argument("--events", type=int, default=15_000)
    arguments = parser.parse_args()
    found: dict[int, list[dict[str, float]]] = {0: [], arguments.viewers: []}
    for turn in range(arguments.turns):
        for viewers in found if turn % 2 == 0 else reversed(found):
            figures = asyncio.run(measure(arguments.rate, arguments.events, viewers))
            found[viewers].append(figures)
            print(viewers, {name: round(value, 3) for name, value in figures.items()}, flush=True)
    without, with_them = (
        statistics.median(each["up_us"] for each in figures) for figures in found.values()
    )
    print(f"up: {without:.1f} us an event alone, {with_them:.1f} with {arguments.viewers} viewers")
    print(f"difference: {with_them / without - 1:+.1%}")


if __name__ == "__main__":
    main()
