"""Whether a process is healthy, and ready.

A process is *ready* when each of its tasks has taken over and works. It is *healthy* unless records
wait for one of its tasks and it has not got on for a while: a task that waits for records, or
recovers, is well. What waits is asked of the log, for a worker that is stuck says nothing.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import orjson

from stream_ml.shell.metering.meter import RUNNING
from stream_ml.stages.topology import STAGES, TaskName, task_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from stream_ml.metrics.reader import LogReader
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.metering.meter import Meter
    from stream_ml.shell.settings.listening import ListenAddress

__all__ = [
    "Backlog",
    "ProbeAnswer",
    "Probes",
    "WorkerProbes",
    "WorkersProbes",
    "stuck",
]

T = TypeVar("T")

# Who has not got on for so long, while something waits, is stuck. Longer than a training, which a
# retrained line's refresh may wait for.
STALLED_S = 180.0
# How long the log is waited for.
ANSWER_S = 5.0
# How long a worker is, which may wait for the log itself.
WORKER_S = 7.0


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What a probe says; `problems` is empty where all is well."""

    problems: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"ok": not self.problems, "problems": list(self.problems)}


@dataclass(frozen=True, slots=True)
class Backlog:
    """Records that wait for a task: of which topic, and since when the first lies there (UTC s)."""

    task: TaskName
    topic: str
    since_s: float


def stuck(
    backlogs: Iterable[Backlog], idle_s: Callable[[TaskName], float], now_s: float
) -> ProbeAnswer:
    """Who has not got on, though something waits.

    Args:
        backlogs: what waits.
        idle_s: for how long a task has not got on.
        now_s: the time, UTC seconds.
    """
    return ProbeAnswer(
        tuple(
            f"{task_name(*each.task)}: records of {each.topic} wait for {now_s - each.since_s:.0f} "
            f"s, and none was worked on for {idle_s(each.task):.0f} s"
            for each in backlogs
            if min(idle_s(each.task), now_s - each.since_s) > STALLED_S
        )
    )


class Probes(Protocol):
    """What tells whether a process is healthy and ready."""

    def ready(self) -> ProbeAnswer:
        """Whether it is ready."""

    def healthy(self) -> ProbeAnswer:
        """Whether it is healthy."""


class WorkerProbes:
    """The probes of a process that has tasks.

    Args:
        meter: of the process.
        reader: reads the log.
        wall_clock: UTC seconds.
    """

    def __init__(self, meter: Meter, reader: LogReader, wall_clock: Callable[[], float]) -> None:
        self._meter, self._reader, self._wall_clock = meter, reader, wall_clock

    def ready(self) -> ProbeAnswer:
        """Whether every task has taken over."""
        meter = self._meter
        if not meter.is_assigned:
            return ProbeAnswer(("it starts: it is not known yet which tasks are its own",))
        return ProbeAnswer(
            tuple(
                f"{task_name(*task)} is {state}"
                for task, state in sorted(meter.states.copy().items(), key=str)
                if state != RUNNING
            )
        )

    def healthy(self) -> ProbeAnswer:
        """Whether every task gets on."""
        backlogs = _read(self._reader, self._backlogs)
        if isinstance(backlogs, ProbeAnswer):
            return backlogs
        return stuck(backlogs, self._idle_s, self._wall_clock())

    def _idle_s(self, task: TaskName) -> float:
        meter = self._meter
        return meter.clock() - meter.progress_s.get(task, meter.started_s)

    def _backlogs(self, log: Log) -> list[Backlog]:
        return list(self._waiting(log))

    def _waiting(self, log: Log) -> Iterator[Backlog]:
        for name, task in self._meter.tasks.copy().items():
            # A recovery gets on by other means than these positions.
            if self._meter.states.get(name) != RUNNING:
                continue
            for topic in STAGES[name.stage].inputs:
                position = task.positions.get((topic, name.partition), 0)
                if topic in log.partitions and log.end_offset(topic, name.partition) > position:
                    for record in log.read(topic, name.partition, position, 1):
                        yield Backlog(name, topic, record.append_ms / 1_000)


def _read(reader: LogReader, read: Callable[[Log], T]) -> T | ProbeAnswer:
    """What is read, or why it cannot be."""
    future = reader.ask(read)
    try:
        answer: T = future.result(ANSWER_S)
    except TimeoutError:
        future.cancel()
        return ProbeAnswer((f"the log has not answered for {ANSWER_S:g} s",))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        return ProbeAnswer((f"the log cannot be read: {error}",))
    return answer


class WorkersProbes:
    """The probes of who looks after workers: those of the workers, asked by HTTP.

    Args:
        workers: where each listens, by name.
    """

    def __init__(self, workers: Mapping[str, ListenAddress]) -> None:
        self._workers = workers

    def ready(self) -> ProbeAnswer:
        """Whether every worker is."""
        return self._ask("/readyz")

    def healthy(self) -> ProbeAnswer:
        """Whether every worker is."""
        return self._ask("/healthz")

    def _ask(self, path: str) -> ProbeAnswer:
        with ThreadPoolExecutor(len(self._workers)) as threads:
            answers = threads.map(partial(_problems, path), self._workers.values())
        return ProbeAnswer(
            tuple(
                f"{name}: {problem}"
                for name, problems in zip(self._workers, answers, strict=True)
                for problem in problems
            )
        )


def _problems(path: str, address: ListenAddress) -> list[str]:
    try:
        with closing(HTTPConnection(*address, timeout=WORKER_S)) as connection:
            connection.request("GET", path)
            return list(map(str, orjson.loads(connection.getresponse().read())["problems"]))
    except (OSError, HTTPException, orjson.JSONDecodeError, KeyError) as error:
        return [f"it does not answer on {address}: {error}"]
