"""Test a pipeline without a broker: feed records, crash where you like, read what came out.

Everything runs for real: bytes through the codec, every stage, the embedded log (in memory).
Only the broker and the waiting are missing.

>>> from stream_ml.examples.cards import cards, transactions
>>> events, labels = transactions(1_200, seed=1)
>>> with Driver(cards) as quiet, Driver(cards, seed=7) as crashed:
...     quiet.feed(events, labels)
...     crashed.feed([*events[:500], CRASH, *events[500:900], CRASH, *events[900:]], labels)
...     len(quiet.read("predictions")), len(quiet.read("examples"))
...     quiet.read("predictions") == crashed.read("predictions")
(1200, 200)
True
"""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import orjson

from stream_ml.codec import encode_command
from stream_ml.contract import faults, process_faults, trial_of
from stream_ml.errors import Halt
from stream_ml.records import Command, Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.log.reading import read_all
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.signing import LOCAL
from stream_ml.task_names import task_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from stream_ml.models.learner import Model
    from stream_ml.models.target import Target
    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Record
    from stream_ml.signing import Operator

__all__ = ["CRASH", "Crash", "Driver", "check_learner"]


class Crash(Halt):
    """Raised inside the worker where a process would have died; no handler for errors stops it."""


CRASH: Final = "CRASH"
# A worker with a seed that has not died after so many steps dies at the marker.
STEPS_MAX = 200


def check_learner(
    learner: Model,
    target: Target,
    *,
    features: Sequence[str] = ("a", "b", "c"),
    seed: int = 0,
    is_complete: bool = False,
    other_process: bool = True,
) -> None:
    """Try whether a learner keeps its contract (`docs/learners.md`), on examples made up by a seed.

    Equal histories make equal learners, in this process and in another; one that is written and
    read back at any point goes on as if it had not been; batches are as one by one, to the last
    bit; asking teaches nothing; learners share nothing; foreign bytes are refused, and run nothing.
    Of a `Trainer`, alone or within `Retrained`, all of that holds for trainings on a window.

    >>> from stream_ml import Learner, Target
    >>> class Constant(Learner):
    ...     def predict_one(self, features): return 0.5
    ...     def learn_one(self, features, label): pass
    ...     def dump(self): return b"a half"
    ...     def load(self, data):
    ...         if data != b"a half": raise ValueError("expected a half")
    >>> check_learner(Constant(), Target.binary(), other_process=False)

    Args:
        learner: a `Learner`, a `Trainer` or a `Retrained`, untrained; it is copied.
        target: what it predicts, such as `Target.binary()`.
        features: the names of all features.
        seed: of the examples.
        is_complete: features are never missing.
        other_process: whether another process is started, which makes the same learner. It is
            sent there as a pickle, so its class must be found in a module. A script calls this
            under `if __name__ == "__main__":`, for the other process runs the script as well.

    Raises:
        AssertionError: it does not; every fault is listed.
    """
    trial = trial_of(learner, target, features, seed, is_complete=is_complete)
    found = faults(trial)
    if other_process and not found:
        found = process_faults(learner, trial)
    if found:
        name = type(learner).__name__
        raise AssertionError("\n  ".join([f"{name} does not keep the contract:", *found]))


class Driver:
    """A pipeline at work on a log in memory, with a clock that you set; a context manager.

    Args:
        pipeline: what to run.
        partitions: of events, labels and predictions.
        seed: where given, records are worked on in random batches, batches overlap the ones
            before (redelivery), and checkpoints fall at random; what comes out must not change.
        key: signs snapshots and the registry.
        operators: whose commands are obeyed, by name.
        now_ms: the clock that stamps appends.
        identity: of the log; drivers of one identity that are fed alike write the same bytes.
        path: of the log's file, which tasks of one pipeline may share; by default it is in memory.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        partitions: int = 1,
        seed: int | None = None,
        key: bytes = b"testing",
        operators: Mapping[str, Operator] | None = None,
        now_ms: int = 2**42,
        identity: str = "testing",
        path: str | Path = MEMORY,
    ) -> None:
        self.now_ms = now_ms
        self.log = SqliteLog.open_or_create(
            path,
            partitions=partitions,
            now_ms=lambda: self.now_ms,
            identity=identity,
            task=task_in(pipeline.name),
        )
        self._pipeline = pipeline
        self._key = key
        self._operators = operators
        self._random = None if seed is None else random.Random(seed)  # noqa: S311 - not security
        self._dies_at: int | None = None
        self._steps_left = -1
        self._runner: Runner | None = None
        self._apply: str | None = None

    # --- feeding -------------------------------------------------------------------------------

    def feed(
        self, events: Iterable[dict[str, Any] | bytes | str], labels: Iterable[Any] = ()
    ) -> None:
        """Publish labels and events, as JSON objects or bytes, and work until all are read.

        All lie in the log first, so what comes out is a function of what is fed. At a `CRASH`
        among the events the worker dies when it has worked on those before it (with a seed, after
        a random number of steps if that is sooner): what it had not committed is lost, and a new
        one takes over.

        Args:
            events: JSON objects, their bytes, or `CRASH`.
            labels: JSON objects or their bytes.
        """
        dies_at: list[int] = []
        batch: list[dict[str, Any] | bytes] = []
        event_count = len(self.records("events"))
        for event in events:
            if isinstance(event, str):
                assert event == CRASH, f"no record: {event!r}"
                dies_at.append(event_count + len(batch))
            else:
                batch.append(event)
        self.publish("labels", labels)
        self.publish("events", batch)
        for count in dies_at:
            self._die(count)
        self.run()

    def publish(self, topic: str, values: Iterable[dict[str, Any] | bytes]) -> list[Record]:
        """Append records to a topic, keyed as publishers key them, without working on them.

        Args:
            topic: `events`, `labels`, or any other of the catalogue.
            values: JSON objects, or bytes as they are to lie there.
        """
        member = self._pipeline.events.key if topic == "events" else "event_id"
        return self.log.append([_output(topic, value, member) for value in values])

    def command(self, kind: str, *, operator: str = LOCAL, **members: Any) -> Record:
        """Put a command on the log, signed for it, without working on it; `run` has it answered.

        Args:
            kind: such as `promote`: see `records.Command`.
            operator: whose key signs it.
            members: others of `records.Command`, where they are not to be the usual ones.
        """
        arguments = {
            "command_id": f"command-{self.log.end_offset('commands', 0)}",
            "ts": self.now_ms,
            "actor": operator,
            "reason": "a test",
            "pipeline": self._pipeline.name,
            "log": self.log.identity,
            **members,
        }
        key = self._key if operator == LOCAL else (self._operators or {})[operator].key
        value = encode_command(Command(kind=kind, operator=operator, **arguments), key)
        return self.log.append([Output("commands", self._pipeline.name.encode(), value)])[0]

    def run(self) -> None:
        """Work until everything in the log is read."""
        while self.runner.poll(*self._limit()):
            self._redeliver()

    def silence(self) -> None:
        """Let so much time pass without an event that nothing waits for one any more."""
        self.runner.answer_waiting(self.now_ms)

    def crash(self) -> None:
        """Let the worker die when it has worked on every event, or sooner where there is a seed."""
        self._die(len(self.records("events")))

    def declare(self, pipeline: Pipeline, *, apply: str | None = None) -> None:
        """Stop the worker as a restart would; the next one runs this declaration.

        Args:
            pipeline: the declaration.
            apply: why other features are brought about by it, as `stream-ml apply` would; None:
                they are refused.
        """
        self._apply = apply
        if self._runner is not None:
            self._runner.commit(checkpoint=True)
        self._close()
        self._pipeline = pipeline

    # --- reading -------------------------------------------------------------------------------

    def records(self, topic: str) -> list[Record]:
        """The raw records of a topic, by partition and offset: all of them."""
        return list(read_all(self.log, topic))

    def read(self, topic: str) -> list[Any]:
        """The records of a topic, decoded from JSON.

        What shadows said (`answers`) is written with evaluate's state: after
        `runner.commit(checkpoint=True)` all of it is there.
        """
        return [None if r.value is None else orjson.loads(r.value) for r in self.records(topic)]

    @property
    def runner(self) -> Runner:
        """The worker, started where there is none."""
        if self._runner is None:
            options: dict[str, Any] = {"operators": self._operators}
            if self._random is not None:
                options["checkpoint_examples"] = self._random.choice([1, 7, 50, 512])
            options["apply"] = self._apply
            self._runner = Runner(self.log, self._pipeline, self._key, step=self._step, **options)
        return self._runner

    def close(self) -> None:
        """Let go of the log."""
        self._close()
        self.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside --------------------------------------------------------------------------------

    def _die(self, events: int) -> None:
        """Work on so many events, or for some random steps, and die without a commit."""
        self._dies_at = events
        self._steps_left = -1 if self._random is None else self._random.randrange(STEPS_MAX)
        with suppress(Crash):
            self.run()
        self._dies_at = None
        self._steps_left = -1
        self._close()

    def _limit(self) -> Sequence[int]:
        return () if self._random is None else (self._random.choice([1, 2, 10, 100, 5_000]),)

    def _redeliver(self) -> None:
        """Hand a task records that it has had; a log may deliver twice after a take-over."""
        if self._random is None or self._random.random() < 0.5:  # noqa: PLR2004 - a coin
            return
        task = self._random.choice(self.runner.tasks)
        for (topic, partition), position in task.positions.items():
            first = max(0, position - self._random.randrange(1, 20))
            records = self.log.read(topic, partition, first, position - first)
            records = [record for record in records if record.offset < position]
            if records:
                assert not task.apply(records), "a redelivered record was folded in twice"

    def _step(self, _: str) -> None:
        if self._steps_left == 0 or self._events_worked_on() == self._dies_at:
            raise Crash
        self._steps_left -= 1

    def _events_worked_on(self) -> int:
        """By the stage itself, committed or not; -1 where nobody need know."""
        if self._dies_at is None or self._runner is None:
            return -1
        positions = [task.positions for task in self._runner.tasks]
        worked_on = sum(
            n
            for task_positions in positions
            for (topic, _), n in task_positions.items()
            if topic == "events"
        )
        return min(worked_on, self._dies_at)

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
