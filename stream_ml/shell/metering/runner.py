"""The runner of the embedded log, measured."""

from __future__ import annotations

import time
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.metering.tasks import MeasuredTask
from stream_ml.stages.topology import parse_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output
    from stream_ml.shell.log.port import WorkerLog
    from stream_ml.shell.metering.meter import Meter
    from stream_ml.stages.task import Task

__all__ = ["MeasuredRunner"]

_TOPIC = attrgetter("topic")


class MeasuredRunner(Runner):
    """A runner that tells a meter what it does; it does the same as one that does not.

    Args:
        meter: of this process.
        log: see `Runner`.
        pipeline: see `Runner`.
        key: see `Runner`.
        options: see `Runner`.
    """

    def __init__(
        self, meter: Meter, log: WorkerLog, pipeline: Pipeline, key: bytes, **options: Any
    ) -> None:
        self._meter, self._started_s = meter, time.monotonic()
        super().__init__(log, pipeline, key, **options)

    def _make_tasks(self) -> list[Task]:
        tasks = [MeasuredTask(self._meter, task.name, task.stage) for task in super()._make_tasks()]
        names = [parse_task(task.name) for task in tasks]
        for name in names:
            self._meter.begin(name)
        self._meter.assign(names)
        return list(tasks)

    def _restore(self) -> None:
        super()._restore()
        seconds = time.monotonic() - self._started_s
        for task in self.tasks:
            self._meter.run(parse_task(task.name), seconds)

    def _deliver(self, outputs: Sequence[Output]) -> None:
        super()._deliver(outputs)
        self._meter.stage(map(_TOPIC, outputs))

    def commit(self, *, checkpoint: bool = False, tasks: Sequence[Task] | None = None) -> None:
        """Write what was staged; see `Runner`."""
        started_s = time.perf_counter()
        super().commit(checkpoint=checkpoint, tasks=tasks)
        self._meter.commit(time.perf_counter() - started_s)

    def close(self) -> None:
        """Give up the worker's place; nothing is this process's any more."""
        self._meter.assign(())
        self._meter.is_assigned = False
        super().close()
