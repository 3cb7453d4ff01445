"""The meter of a process: plain counts and times of its tasks, kept by whoever runs them.

Theory of operation:

1. A worker that was not asked for metrics has no meter, and runs the very code it always has:
   `MeasuredRunner` and `MeasuredTransactions` take the place of their parents only where it was.
2. The worker's threads write, one at a time: a lock is theirs for some microseconds a batch. Any
   other may read, and copies; a figure may be an instant older than its neighbour. Readers lock
   nothing, so none holds up a worker.
3. Outputs count once they are committed: what a crash undoes was never counted.
4. A batch costs a few dictionary look-ups, a record a fraction of a microsecond.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Any

from stream_ml.stages.topology import TaskName, parse_task, task_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from stream_ml.records import Output, Record
    from stream_ml.stages.task import Task

__all__ = ["PARKED", "RECOVERING", "RUNNING", "STATES", "Histogram", "Meter"]

RECOVERING, RUNNING, PARKED = "recovering", "running", "parked"
STATES = (RECOVERING, RUNNING, PARKED)
# Upper bounds of buckets, in seconds.
ANSWER_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
BATCH_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class Histogram:
    """Counts by size.

    >>> sizes = Histogram((1.0, 2.0))
    >>> sizes.observe(1.0); sizes.observe(5.0, 2)
    >>> sizes.counts, sizes.total
    ([1, 0, 2], 11.0)

    Args:
        bounds: upper bounds of all buckets but the last, which has none.

    Attributes:
        counts: by bucket.
        total: the sum of all that was observed.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count a value, so many times.

        Args:
            value: in the unit of the bounds.
            count: how often.
        """
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count


class Meter:
    """Counts, times and states of the tasks of this process.

    Args:
        clock: seconds, from any start.
        wall_clock: seconds since 1970.

    Attributes:
        clock: seconds, from any start.
        started_s: when it was made, on that clock.
        records_in: folded, by task and topic.
        records_out: written and committed, by topic.
        dead_letters: by stage and reason.
        batch_seconds: of each batch that a stage folded, by stage.
        commit_seconds: of each commit.
        answer_seconds: from the log's taking in an event to the commit of its prediction.
        recoveries: take-overs that have ended, by task.
        recovery_seconds: of the last of them, by task.
        replayed: records that take-overs have folded again, by task.
        states: by task; one of `STATES`.
        restarts: of workers that had died, or were disturbed, by stage.
        tasks: at work here, by name.
        progress_s: when a task has last folded or taken over something, on the clock.
        inbox: gives what waits inside by task: records and bytes.
        is_assigned: whether it is known which tasks are this process's.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock, self._wall_clock = clock, wall_clock
        self.started_s = clock()
        self.records_in: Counter[tuple[TaskName, str]] = Counter()
        self.records_out: Counter[str] = Counter()
        self.dead_letters: Counter[tuple[str, str]] = Counter()
        self.batch_seconds: dict[str, Histogram] = {}
        self.commit_seconds = Histogram(BATCH_S)
        self.answer_seconds = Histogram(ANSWER_S)
        self.recoveries: Counter[TaskName] = Counter()
        self.recovery_seconds: dict[TaskName, float] = {}
        self.replayed: Counter[TaskName] = Counter()
        self.states: dict[TaskName, str] = {}
        self.restarts: Counter[str] = Counter()
        self.tasks: dict[TaskName, Task] = {}
        self.progress_s: dict[TaskName, float] = {}
        self.inbox: Callable[[], Mapping[TaskName, tuple[int, int]]] = dict
        self.is_assigned = False
        self._writing = threading.Lock()
        # What becomes of it is known at the commit.
        self._staged: Counter[str] = Counter()
        self._answered_ms: list[int] = []

    def fold(
        self, task: TaskName, records: Sequence[Record], outputs: Iterable[Output], seconds: float
    ) -> None:
        """Count a batch that a task has folded.

        Args:
            task: that folded it.
            records: of one topic and partition.
            outputs: that it led to.
            seconds: that it took.
        """
        with self._writing:
            self._fold(task, records, outputs, seconds)

    def _fold(
        self, task: TaskName, records: Sequence[Record], outputs: Iterable[Output], seconds: float
    ) -> None:
        self.records_in[task, records[0].topic] += len(records)
        if task.stage not in self.batch_seconds:
            self.batch_seconds[task.stage] = Histogram(BATCH_S)
        self.batch_seconds[task.stage].observe(seconds)
        self.progress_s[task] = self.clock()
        append_ms: dict[int, int] | None = None
        for output in outputs:
            if output.topic == "predictions" and output.memo is not None:
                if append_ms is None:
                    append_ms = {record.offset: record.append_ms for record in records}
                taken_in_ms = append_ms.get(output.memo.source.offset)
                if taken_in_ms is not None:
                    self._answered_ms.append(taken_in_ms)
            elif output.topic == "dead-letters" and output.memo is not None:
                self.dead_letters[output.memo.stage, output.memo.reason] += 1

    def stage(self, topics: Iterable[str]) -> None:
        """Count what waits for the next commit.

        Args:
            topics: that of each record.
        """
        with self._writing:
            self._staged.update(topics)

    def commit(self, seconds: float) -> None:
        """Count what was staged: it is committed now.

        Args:
            seconds: that the commit took.
        """
        with self._writing:
            staged, self._staged = self._staged, Counter()
            answered_ms, self._answered_ms = self._answered_ms, []
            self.records_out.update(staged)
            self.commit_seconds.observe(seconds)
            now_ms = self._wall_clock() * 1_000
            for taken_in_ms, count in Counter(answered_ms).items():
                # Another machine's clock may be ahead.
                self.answer_seconds.observe(max(0.0, now_ms - taken_in_ms) / 1_000, count)

    def assign(self, tasks: Iterable[TaskName]) -> None:
        """Know which tasks are this process's; those that were not are to take over.

        Args:
            tasks: all of them.
        """
        states = {task: self.states.get(task, RECOVERING) for task in tasks}
        self.states = states
        self.tasks = {task: self.tasks[task] for task in states if task in self.tasks}
        self.is_assigned = True

    def begin(self, task: TaskName) -> None:
        """A task begins to take over.

        Args:
            task: that does.
        """
        self.states[task] = RECOVERING
        self.progress_s[task] = self.clock()

    def run(self, task: TaskName, seconds: float, replayed: int = 0) -> None:
        """A task has taken over, and works.

        Args:
            task: that does.
            seconds: that it took.
            replayed: how many records it has folded again.
        """
        self.states[task] = RUNNING
        self.recoveries[task] += 1
        self.recovery_seconds[task] = seconds
        self.replayed[task] += replayed
        self.progress_s[task] = self.clock()

    def observe(self, event: str, members: Mapping[str, Any]) -> None:
        """Take note of what a worker says of its tasks.

        Args:
            event: its kind.
            members: of it; `stage`, `partition` and perhaps `line` name the task.
        """
        if "partition" not in members:
            return
        task = parse_task(task_name(members["stage"], members["partition"], members.get("line")))
        match event:
            case "recovering":
                self.begin(task)
            case "replaying":
                self.progress_s[task] = self.clock()
            case "recovered":
                self.run(task, members["seconds"], members["replayed"])
            case "parked" if task in self.states:
                self.states[task] = PARKED
            case "resumed" if task in self.states:
                self.states[task] = RUNNING
                self.progress_s[task] = self.clock()
            case "released":
                self.states.pop(task, None)
                self.tasks.pop(task, None)
            case _:
                pass
