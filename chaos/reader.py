"""A consumer of predictions that notes how long none came.

    python -m chaos.reader --broker HOST:PORT [--isolation committed]

Until SIGTERM it reads live predictions, then it says as JSON: how many, and per partition of
`predictions` (what a consumer waits for) and of `events` (whose predictions are missing) the
longest times without one, as [seconds, when they began].
"""

from __future__ import annotations

import argparse
import heapq
import json
import signal
import time
from collections import defaultdict

import orjson
from kafka import KafkaConsumer, TopicPartition

from chaos import ground

GAPS_KEPT = 5
POLL_MS = 200


class Gaps:
    """The longest times between arrivals, per name.

    >>> gaps = Gaps()
    >>> for at in (1.0, 1.5, 4.0): gaps.arrived("a", at)
    >>> gaps.longest()
    {'a': [[2.5, 1.5], [0.5, 1.0]]}
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._longest: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def arrived(self, name: str, at: float) -> None:
        """Something came."""
        last = self._last.get(name)
        self._last[name] = at
        if last is None or at <= last:
            return
        heapq.heappush(self._longest[name], (at - last, last))
        if len(self._longest[name]) > GAPS_KEPT:
            heapq.heappop(self._longest[name])

    def end(self, at: float) -> None:
        """Nothing more is waited for, anywhere."""
        for name in list(self._last):
            self.arrived(name, at)

    def longest(self) -> dict[str, list[list[float]]]:
        """Per name [seconds, when it began], the longest first."""
        return {
            name: [[round(gap, 3), round(at, 3)] for gap, at in sorted(gaps, reverse=True)]
            for name, gaps in sorted(self._longest.items())
        }


class Reader:
    """Reads until it is stopped."""

    def __init__(self, broker: str, pipeline: str, isolation: str, partitions: int) -> None:
        self._consumer = KafkaConsumer(
            bootstrap_servers=broker,
            isolation_level=f"read_{isolation}",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_poll_records=5_000,
            fetch_max_wait_ms=50,
        )
        topic = f"{pipeline}.predictions"
        self._consumer.assign([TopicPartition(topic, number) for number in range(partitions)])
        self._stopped = False
        self.read = 0
        self.predictions = Gaps()
        self.events = Gaps()

    def run(self) -> None:
        """Read."""
        while not self._stopped:
            batches = self._consumer.poll(timeout_ms=POLL_MS)
            now = time.time()
            for place, records in batches.items():
                self.read += len(records)
                self.predictions.arrived(str(place.partition), now)
                sources = {orjson.loads(record.value)["source"]["partition"] for record in records}
                for source in sources:
                    self.events.arrived(str(source), now)
        self.predictions.end(time.time())
        self.events.end(time.time())
        self._consumer.close()

    def stop(self, *_: object) -> None:
        """Read no more."""
        self._stopped = True


def main() -> None:
    """Read until SIGTERM."""
    parser = argparse.ArgumentParser(description="Notes how long no prediction came.")
    parser.add_argument("--broker", required=True)
    parser.add_argument("--pipeline", default=ground.NAME)
    parser.add_argument("--isolation", default="committed")
    parser.add_argument("--partitions", type=int, default=4)
    given = parser.parse_args()
    reader = Reader(given.broker, given.pipeline, given.isolation, given.partitions)
    signal.signal(signal.SIGTERM, reader.stop)
    print(json.dumps({"said": "begins"}), flush=True)
    reader.run()
    said = {
        "said": "read",
        "predictions": reader.read,
        "stalls": reader.predictions.longest(),
        "silences": reader.events.longest(),
    }
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
