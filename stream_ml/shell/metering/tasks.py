"""A task whose batches are measured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stream_ml.stages.task import Task
from stream_ml.stages.topology import parse_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.records import Output, Record
    from stream_ml.shell.metering.meter import Meter
    from stream_ml.stages.task import Stage

__all__ = ["MeasuredTask"]


class MeasuredTask(Task):
    """Counts what it folds, and how long that takes.

    Args:
        meter: of this process.
        name: see `Task`.
        stage: see `Task`.
    """

    __slots__ = ("_id", "_meter")

    def __init__(self, meter: Meter, name: str, stage: Stage) -> None:
        super().__init__(name, stage)
        self._meter, self._id = meter, parse_task(name)
        meter.tasks[self._id] = self

    def apply(self, records: Sequence[Record]) -> list[Output]:
        """Fold in what is new of `records`."""
        records = self._new(records)
        if not records:
            return []
        started_s = time.perf_counter()
        outputs = self.stage.apply(records)
        self._meter.fold(self._id, records, outputs, time.perf_counter() - started_s)
        return outputs
