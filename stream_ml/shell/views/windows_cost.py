"""What it takes to fill the windows of other features from the events on a log."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stream_ml.records import Event
from stream_ml.shell.log.reading import last_records, offset_count
from stream_ml.shell.regeneration import event_fold
from stream_ml.stages.state import WINDOWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Record
    from stream_ml.shell.log.port import Log

__all__ = ["WindowsCost", "windows_cost"]

# So many of the newest events of a partition are folded to measure what one takes, a part at a
# time, for so long at most.
SAMPLE_EVENTS, PART_EVENTS = 2_000, 200
SAMPLE_S = 0.5


@dataclass(frozen=True, slots=True)
class WindowsCost:
    """Filling windows again, in time and in space.

    Attributes:
        events: how many are on the log, and will be folded again.
        event_us: microseconds of CPU for each, measured here on the newest ones; None where
            nothing could be measured.
        window_bytes: about how much state the windows will take, by the pace of the newest events.
    """

    events: int
    event_us: float | None
    window_bytes: int | None

    @property
    def seconds(self) -> float | None:
        """Of CPU, for all of them."""
        return None if self.event_us is None else self.events * self.event_us / 1e6

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "seconds": self.seconds}


def windows_cost(log: Log, pipeline: Pipeline) -> WindowsCost:
    """What it takes to fill the windows of a declaration.

    Args:
        log: with the events; it is only read.
        pipeline: the declaration.
    """
    by_partition: dict[int, list[Record]] = {}
    for record in last_records(log, "events", SAMPLE_EVENTS):
        by_partition.setdefault(record.partition, []).append(record)
    folded, seconds, size = 0, 0.0, 0.0
    for partition, records in by_partition.items():
        count = log.end_offset("events", partition) - log.first_offset("events", partition)
        part = _Sample(log, pipeline, records, SAMPLE_S / len(by_partition))
        folded, seconds = folded + part.folded, seconds + part.seconds
        size += part.window_bytes(count)
    events = offset_count(log, "events")
    if not folded:
        return WindowsCost(events, None, None)
    return WindowsCost(events, seconds / folded * 1e6, round(size))


class _Sample:
    """The newest events of a partition, folded.

    Args:
        log: that they lie on.
        pipeline: the declaration.
        records: the newest ones.
        limit_s: how long to fold at most.
    """

    def __init__(
        self, log: Log, pipeline: Pipeline, records: Sequence[Record], limit_s: float
    ) -> None:
        self._pipeline = pipeline
        stage = event_fold(log, pipeline, records[0].partition)
        self.folded = 0
        start_s = time.process_time()
        while self.folded < len(records):
            part = records[self.folded : self.folded + PART_EVENTS]
            stage.replay(part)
            self.folded += len(part)
            if time.process_time() - start_s > limit_s:
                break
        self.seconds = time.process_time() - start_s
        self._bytes = sum(
            len(value or b"") for name, value in stage.dirty() if name.startswith(WINDOWS)
        )
        events = map(stage.parse, records[: self.folded])
        self._times_ms = [event.ts for event in events if isinstance(event, Event)]

    def window_bytes(self, count: int) -> float:
        """About how much state the windows will take.

        Args:
            count: how many events there are in the partition.
        """
        if not self._times_ms:
            return 0.0
        span_ms = max(1, max(self._times_ms) - min(self._times_ms))
        held_ms = self._pipeline.feature_set.horizon_ms + self._pipeline.window_lateness_ms
        held = min(float(count), len(self._times_ms) * max(1.0, held_ms / span_ms))
        return self._bytes * max(1.0, held / len(self._times_ms))
