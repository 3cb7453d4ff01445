"""Test a pipeline without a broker: feed records, crash where you like, read what came out.

Everything runs for real: bytes through the codec, every stage, the embedded log (in memory).
Only the broker and the waiting are missing.

>>> from stream_ml.examples.cards import cards, transactions
>>> events, labels = transactions(300, seed=1)
>>> quiet, crashed = Driver(cards), Driver(cards, seed=7)
>>> quiet.feed(events, labels)
>>> half = len(events) // 2
>>> crashed.feed(events[:half], labels)
>>> crashed.feed([CRASH, *events[half:]])
>>> quiet.read("predictions") == crashed.read("predictions")
True
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import orjson

from stream_ml.records import Output
from stream_ml.shell.runner import Runner
from stream_ml.shell.sqlite_log import MEMORY, SqliteLog

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Record

__all__ = ["CRASH", "Crash", "Driver"]


class Crash(BaseException):  # noqa: N818 - like the end of a process, no handler for errors stops it
    """Raised inside the worker where a process would have died."""


CRASH: Final = "CRASH"


class Driver:
    """A pipeline at work on a log in memory, with a clock that you set.

    Args:
        pipeline: what to run.
        partitions: of events, labels and predictions.
        seed: where given, records are worked on in random batches, batches overlap the ones
            before (redelivery), and checkpoints fall at random; what comes out must not change.
        key: signs snapshots and the registry.
        now_ms: the clock that stamps appends.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        partitions: int = 1,
        seed: int | None = None,
        key: bytes = b"testing",
        now_ms: int = 2**42,
    ) -> None:
        self.now_ms = now_ms
        self.log = SqliteLog.create(MEMORY, partitions=partitions, now_ms=lambda: self.now_ms)
        self._pipeline = pipeline
        self._key = key
        self._random = None if seed is None else random.Random(seed)  # noqa: S311 - not security
        self._steps_left = -1
        self._runner: Runner | None = None

    # --- feeding -------------------------------------------------------------------------------

    def feed(
        self, events: Iterable[dict[str, Any] | bytes | str], labels: Iterable[Any] = ()
    ) -> None:
        """Publish labels and events, as JSON objects or bytes, and work until all are read.

        A `CRASH` among the events kills the worker there, after a random number of further steps
        where there is a seed: what it had not committed is lost, and a new one takes over.
        """
        self.publish("labels", labels)
        batch: list[dict[str, Any] | bytes] = []
        for event in events:
            if event == CRASH:
                self.publish("events", batch)
                batch = []
                self.crash()
            else:
                assert not isinstance(event, str), f"no record: {event!r}"
                batch.append(event)
        self.publish("events", batch)
        self.run()

    def publish(self, topic: str, values: Iterable[dict[str, Any] | bytes]) -> list[Record]:
        """Append records to a topic, keyed as publishers key them, without working on them."""
        member = self._pipeline.events.key if topic == "events" else "event_id"
        return self.log.append([_output(topic, value, member) for value in values])

    def run(self) -> None:
        """Work until everything in the log is read."""
        self._work(steps=None)

    def crash(self) -> None:
        """Let the worker die, after some random steps where there is a seed."""
        steps = 0 if self._random is None else self._random.randrange(200)
        try:
            self._work(steps)
        except Crash:
            pass
        self._close()

    # --- reading -------------------------------------------------------------------------------

    def records(self, topic: str) -> list[Record]:
        """The raw records of a topic, by partition and offset."""
        return [
            record
            for partition in range(self.log.partitions[topic])
            for record in self.log.read(topic, partition, 0, 1_000_000_000)
        ]

    def read(self, topic: str) -> list[Any]:
        """What lies in a topic, decoded from JSON."""
        return [None if r.value is None else orjson.loads(r.value) for r in self.records(topic)]

    @property
    def runner(self) -> Runner:
        """The worker, started where there is none."""
        if self._runner is None:
            options: dict[str, Any] = {}
            if self._random is not None:
                options["checkpoint_examples"] = self._random.choice([1, 7, 50, 512])
            self._runner = Runner(
                self.log, self._pipeline, self._key, step=self._step, **options
            )
        return self._runner

    def close(self) -> None:
        """Let go of the log."""
        self._close()
        self.log.close()

    # --- inside --------------------------------------------------------------------------------

    def _work(self, steps: int | None) -> None:
        self._steps_left = -1 if steps is None else steps
        while self.runner.poll(*self._limit()):
            self._redeliver()

    def _limit(self) -> Sequence[int]:
        return () if self._random is None else (self._random.choice([1, 2, 10, 100, 5_000]),)

    def _redeliver(self) -> None:
        """Hand a task records that it has had; a log may deliver twice after a take-over."""
        if self._random is None or self._random.random() < 0.5:  # noqa: PLR2004 - a coin
            return
        task = self._random.choice(self.runner.tasks)
        for (topic, partition), position in task.positions.items():
            first = max(0, position - self._random.randrange(1, 20))
            again = self.log.read(topic, partition, first, position - first)
            again = [record for record in again if record.offset < position]
            if again:
                assert not task.apply(again), "a redelivered record was folded in twice"

    def _step(self, _: str) -> None:
        if self._steps_left == 0:
            raise Crash
        self._steps_left -= 1

    def _close(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._runner = None


def _output(topic: str, value: dict[str, Any] | bytes, member: str) -> Output:
    if isinstance(value, bytes):
        try:
            members = orjson.loads(value)
        except orjson.JSONDecodeError:
            members = None
    else:
        members, value = value, orjson.dumps(value)
    key = members.get(member) if isinstance(members, dict) else None
    return Output(topic, key.encode() if isinstance(key, str) else None, value)
