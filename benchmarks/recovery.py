"""How long it takes to take over a partition, and how many events a second are replayed.

    python -m benchmarks.recovery [--keys 100000] [--seconds 30] [--rate 2000]

One partition of events, with windows of so many live keys, on a real broker. The worker that
predicts is stopped, which writes its whole state down, and started again: that is a take-over with
nothing to replay. Then events of so many seconds come, no checkpoint is written meanwhile, the
worker is killed, and started again: a take-over with all of them to replay. What the second took
longer than the first is the replay. Times are the worker's own, from the assignment on; what a
process takes to start (Python, imports) is given beside it, and processor time beside the clock's,
for on a machine that has other things to do the clock says little.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from kafka import KafkaProducer

from chaos import parameters, topics
from chaos.fleet import Fleet, Worker
from tools.kafka.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT_S = 300.0
POLL_S = 0.05
SEED = 1
# Never, as far as this is concerned.
NO_CHECKPOINT_S = "100000"


class Events:
    """Events of many keys, in the order of time.

    Args:
        keys: how many keys there are.
        rate: how many events a second of event time.
    """

    def __init__(self, keys: int, rate: int) -> None:
        self._rand = random.Random(SEED)
        self._keys = keys
        self._rate = rate
        self._ts = float(parameters.START_MS)
        self._number = 0

    def each_key(self, seconds: float) -> Iterator[dict[str, Any]]:
        """One event of every key, within so much event time: all are live then."""
        for key in range(self._keys):
            yield self._event(key, seconds * 1_000 / self._keys)

    def random_events(self, count: int) -> Iterator[dict[str, Any]]:
        """Events of keys at random."""
        for _ in range(count):
            yield self._event(self._rand.randrange(self._keys), 1_000 / self._rate)

    def _event(self, key: int, step_ms: float) -> dict[str, Any]:
        self._ts += step_ms
        self._number += 1
        return {
            "event_id": f"e{self._number}",
            "ts": int(self._ts),
            "shop": f"shop {key}",
            "kind": self._rand.choice(parameters.KINDS),
            "amount": round(self._rand.expovariate(0.05) + 0.01, 2),
            "city": self._rand.choice(parameters.CITIES),
        }


class Bench:
    """A broker with one partition of everything, and a worker that predicts."""

    def __init__(self, broker: str, fleet: Fleet) -> None:
        self._broker = broker
        self._fleet = fleet

    def publish(self, events: Iterator[dict[str, Any]]) -> None:
        """Publish events, and wait until all are predicted on and committed."""
        producer = KafkaProducer(bootstrap_servers=self._broker, acks="all", linger_ms=20)
        for event in events:
            producer.send(f"{parameters.NAME}.events", orjson.dumps(event), event["shop"].encode())
        producer.flush(WAIT_S)
        producer.close()
        left = topics.wait_until_settled(self._broker, parameters.NAME, WAIT_S, ["predict"])
        assert left is None, left

    def wait_for_recovery(self, worker: Worker) -> dict[str, Any]:
        """What a worker says once it has recovered."""
        deadline = time.monotonic() + WAIT_S
        while not (messages := worker.sayings("recovered")):
            assert worker.lives, worker.last_words()
            assert time.monotonic() < deadline, f"not recovered within {WAIT_S:.0f} s"
            time.sleep(POLL_S)
        worker.sample()
        elapsed_s = round(time.time() - worker.start_s, 1)
        return {**messages[0], "since start": elapsed_s, "cpu": worker.cpu_s}

    def restart(self, worker: Worker, number: signal.Signals) -> tuple[Worker, dict[str, Any]]:
        """End a worker, and start it again."""
        worker.ending = "ended"
        worker.end(number)
        worker = self._fleet.start(worker.stage, worker.number, worker.life + 1)
        return worker, self.wait_for_recovery(worker)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=30, help="of events since the checkpoint")
    parser.add_argument("--rate", type=int, default=2_000, help="events a second, on one partition")
    arguments = parser.parse_args()
    events = Events(arguments.keys, arguments.rate)
    with (
        tempfile.TemporaryDirectory(prefix="recovery-") as folder,
        Broker(Path(folder) / "broker") as broker,
        Fleet(broker.address, Path(folder), STREAM_ML_CHECKPOINT_SECONDS=NO_CHECKPOINT_S) as fleet,
    ):
        fleet.run("topics", "apply", "--partitions", "1")
        bench = Bench(broker.address, fleet)
        fleet.add("learn")
        fleet.add("evaluate")
        worker = fleet.add("predict")
        bench.wait_for_recovery(worker)
        bench.publish(events.each_key(parameters.SHORT_MS / 1_000))
        print(f"{arguments.keys} keys are live", flush=True)
        worker, quiet = bench.restart(worker, signal.SIGTERM)
        report("stopped, nothing to replay", quiet)
        bench.publish(events.random_events(arguments.seconds * arguments.rate))
        worker, busy = bench.restart(worker, signal.SIGKILL)
        report(f"killed, {arguments.seconds} s of events since the checkpoint", busy)
        replay_s = busy["seconds"] - quiet["seconds"]
        if busy["replayed"] and replay_s > 0:
            cpu_s = busy["cpu"] - quiet["cpu"]
            print(
                f"replay: {busy['replayed'] / replay_s:,.0f} events/s ({replay_s:.2f} s), "
                f"{busy['replayed'] / cpu_s:,.0f} a second of processor time"
            )
        worker.sample()
        memory = max(mb for _, mb in worker.memory)
        print(f"memory of the worker: {memory:.0f} MB")


def report(title: str, message: dict[str, Any]) -> None:
    """Print one take-over."""
    print(
        f"{title}: taken over in {message['seconds']:.2f} s, {message['changelog_s']:.2f} s of it "
        f"until the changelog's {message['pieces']} pieces were read; "
        f"{message['replayed']} events replayed; {message['since start']} s after the process was "
        "started",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
