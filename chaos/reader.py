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

from chaos import parameters

GAPS_KEPT = 5
POLL_MS = 200


class Gaps:
    """The longest times between arrivals, per name.

    >>> gaps = Gaps()
    >>> for at in (1.0, 1.5, 4.0): gaps.note_arrival("a", at)
    >>> gaps.longest()
    {'a': [[2.5, 1.5], [0.5, 1.0]]}
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._longest: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def note_arrival(self, name: str, at_s: float) -> None:
        """Something came."""
        last_s = self._last.get(name)
        self._last[name] = at_s
        if last_s is None or at_s <= last_s:
            return
        heapq.heappush(self._longest[name], (at_s - last_s, last_s))
        if len(self._longest[name]) > GAPS_KEPT:
            heapq.heappop(self._longest[name])

    def end(self, at_s: float) -> None:
        """Nothing more is waited for, anywhere."""
        for name in list(self._last):
            self.note_arrival(name, at_s)

    def longest(self) -> dict[str, list[list[float]]]:
        """Per name [seconds, when it began], the longest first."""
        return {
            name: [
                [round(gap_s, 3), round(start_s, 3)]
                for gap_s, start_s in sorted(gaps, reverse=True)
            ]
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
        self._is_stopped = False
        self.read = 0
        self.predictions = Gaps()
        self.events = Gaps()

    def run(self) -> None:
        """Read."""
        while not self._is_stopped:
            batches = self._consumer.poll(timeout_ms=POLL_MS)
            now_s = time.time()
            for tp, records in batches.items():
                self.read += len(records)
                self.predictions.note_arrival(str(tp.partition), now_s)
                sources = {orjson.loads(record.value)["source"]["partition"] for record in records}
                for source in sources:
                    self.events.note_arrival(str(source), now_s)
        self.predictions.end(time.time())
        self.events.end(time.time())
        self._consumer.close()

    def stop(self, *_: object) -> None:
        """Read no more."""
        self._is_stopped = True


def main() -> None:
    """Read until SIGTERM."""
    parser = argparse.ArgumentParser(description="Notes how long no prediction came.")
    parser.add_argument("--broker", required=True)
    parser.add_argument("--pipeline", default=parameters.NAME)
    parser.add_argument("--isolation", default="committed")
    parser.add_argument("--partitions", type=int, default=4)
    arguments = parser.parse_args()
    reader = Reader(arguments.broker, arguments.pipeline, arguments.isolation, arguments.partitions)
    signal.signal(signal.SIGTERM, reader.stop)
    print(json.dumps({"said": "begins"}), flush=True)
    reader.run()
    message = {
        "said": "read",
        "predictions": reader.read,
        "stalls": reader.predictions.longest(),
        "silences": reader.events.longest(),
    }
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
