"""How learning scales on Apache Kafka: examples per second with 1, 2 and 4 lines, 1 and 2 workers.

    python -m benchmarks.learning [--examples N] [--lines 1,2,4] [--workers 1,2] [--broker ADDRESS]

The cards' examples, made once and laid on `examples`; every line is a tree of the same recipe, so
that each has the same work, and is a task of its own (`learn_tasks="line"`). Workers of learn are
processes as `stream-ml worker learn` runs them. The clock runs from when all lines have learned the
first thousand until all have learned the rest, which lies there already. Broker and workers share
the machine: with two cores two workers cannot have one each.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import logging
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from aiokafka import AIOKafkaProducer
from kafka.admin import KafkaAdminClient

from stream_ml.client import connect
from stream_ml.examples.cards import LABEL_DELAY_EVENTS, cards, transactions
from stream_ml.records import Output
from stream_ml.sealing import Seals, strip_seal
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.kafka.admin import Demand, apply
from stream_ml.shell.kafka.cluster import Cluster
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.stages.topology import task_name
from stream_ml.topics import catalogue, needed
from tools.kafka.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_ml.records import Record
    from stream_ml.shell.log.port import Log

    Worker = subprocess.Popen[bytes]

__all__ = ["main"]

KEY = "5a" * 32
FIRST = 1_000
# Looking where a task is reads the end of its changelog, and that takes time of the same cores.
POLL_S = 1.0
TICKS = os.sysconf("SC_CLK_TCK")
DEADLINE_S = 600.0
DECLARATION = """
import dataclasses
from river import tree
from stream_ml.examples.cards import cards

models = {{f"tree{{n}}": tree.HoeffdingTreeClassifier(max_depth=6) for n in range({lines})}}
learning = dataclasses.replace(
    cards,
    name={name!r},
    models=models,
    champion="tree0",
    promotion=dataclasses.replace(cards.promotion, slots=max(1, {lines} - 1)),
    learn_tasks="line",
)
"""


def _examples(count: int, folder: Path) -> list[Record]:
    """So many examples of the cards, without seals."""
    events, labels = transactions(count + LABEL_DELAY_EVENTS, seed=1)
    stamp = events[-1]["ts"]
    with SqliteLog.create(folder / "examples", now_ms=lambda: stamp) as log:
        log.append([Output("labels", b"l", orjson.dumps(label)) for label in labels])
        log.append([Output("events", b"e", orjson.dumps(event)) for event in events])
        with Runner(log, cards, bytes.fromhex(KEY)) as runner:
            while runner.poll():
                pass
        records = log.read("examples", 0, 0, count)
    return [dataclasses.replace(each, value=strip_seal(each.value)) for each in records]


async def _publish(cluster: Cluster, records: Sequence[Record]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, linger_ms=20)
    await producer.start()
    try:
        topic = cluster.topic("examples")
        for each in [await producer.send(topic, record.value, record.key, 0) for record in records]:
            await each
    finally:
        await producer.stop()


@contextmanager
def _workers(cluster: Cluster, folder: Path, count: int) -> Iterator[list[Worker]]:
    """Workers of learn, at work."""
    variables = {
        **os.environ,
        "STREAM_ML_PIPELINE": "declared:learning",
        "STREAM_ML_BROKER": f"kafka://{cluster.bootstrap}",
        "STREAM_ML_KEY": KEY,
    }
    command = [sys.executable, "-m", "stream_ml.cli.main", "worker", "learn"]
    with ExitStack() as stack:
        said = stack.enter_context((folder / "said").open("wb"))
        workers = [
            subprocess.Popen(command, cwd=folder, env=variables, stdout=said, stderr=said)  # noqa: S603
            for _ in range(count)
        ]
        try:
            yield workers
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()


def _until(log: Log, tasks: Sequence[str], end: int, workers: Sequence[Worker]) -> float:
    """When all tasks had learned up to an offset, by the clock."""
    deadline_s = time.monotonic() + DEADLINE_S
    while _learned(log, tasks) < end:
        if any(worker.poll() is not None for worker in workers):
            raise RuntimeError("a worker has ended")
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"not learned within {DEADLINE_S:.0f} s")
        time.sleep(POLL_S)
    return time.monotonic()


def _learned(log: Log, tasks: Sequence[str]) -> int:
    return min(log.committed(task).get(("examples", 0), 0) for task in tasks)


def _cpu_s(workers: Sequence[Worker]) -> float:
    """Seconds of the processor that they have taken, of all their threads."""
    ticks = 0
    for worker in workers:
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def _measure(
    broker: str, lines: int, workers: int, examples: Sequence[Record]
) -> tuple[float, float]:
    """Examples per second that all lines have learned, and the workers' CPU seconds for one."""
    cluster = Cluster(broker, f"learning-{os.getpid()}-{lines}-{workers}")
    apply(cluster, Demand(partitions=1))
    tasks = [task_name("learn", line=f"tree{n}") for n in range(lines)]
    with (
        tempfile.TemporaryDirectory() as name,
        connect(f"kafka://{broker}/{cluster.pipeline}") as log,
    ):
        folder = Path(name)
        (folder / "declared.py").write_text(DECLARATION.format(lines=lines, name=cluster.pipeline))
        seal = Seals(bytes.fromhex(KEY), cluster.pipeline, log.identity).records("examples").seal
        sealed = [dataclasses.replace(each, value=seal(each.value or b"")) for each in examples]
        asyncio.run(_publish(cluster, sealed[:FIRST]))
        with _workers(cluster, folder, workers) as running:
            _until(log, tasks, FIRST, running)
            asyncio.run(_publish(cluster, sealed[FIRST:]))
            # What was learned while the rest was laid there does not count.
            start_s, cpu_s, learned = time.monotonic(), _cpu_s(running), _learned(log, tasks)
            seconds = _until(log, tasks, len(sealed), running) - start_s
            cpu_s = _cpu_s(running) - cpu_s
    with KafkaAdminClient(bootstrap_servers=broker) as admin:
        admin.delete_topics([cluster.topic(topic) for topic in needed(catalogue())])
    count = len(sealed) - learned
    return count / seconds, cpu_s / count


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=30_000)
    parser.add_argument("--lines", type=_numbers, default=[1, 2, 4])
    parser.add_argument("--workers", type=_numbers, default=[1, 2])
    parser.add_argument("--broker", help="HOST:PORT; one is started where none is named")
    arguments = parser.parse_args()
    # What the clients say of topics that were made, or deleted, a moment ago.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="learning-") as name, ExitStack() as stack:
        folder = Path(name)
        examples = _examples(arguments.examples, folder)
        broker = arguments.broker
        if broker is None:
            broker = stack.enter_context(Broker(folder / "broker")).address
        print("lines  workers  examples/s  CPU of the workers, us an example and line")
        for lines in arguments.lines:
            for workers in arguments.workers:
                rate, cpu_s = _measure(broker, lines, workers, examples)
                cpu_us = 1e6 * cpu_s / lines
                print(f"{lines:>5}  {workers:>7}  {rate:>10,.0f}  {cpu_us:>6,.0f}", flush=True)


if __name__ == "__main__":
    main()
