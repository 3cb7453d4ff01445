"""Whether answers come late: an alert when those that came at once come long after their events.

How late an answer is says the log: a prediction's place on it has a time, and the prediction has
its event's. So what is said follows from the log alone, and no clock is asked.

1. Predictions on each partition of events are looked at in blocks of `BLOCK_PREDICTIONS`, by the
   least delay in a block: of late events there are always some.
2. A partition is live once a block had an answer within `LIVE_MS`. Before that nothing is said: a
   history that is read is as late as it is old.
3. An alert opens when even the quickest answer of a block took more than `LATE_MS`, and resolves
   when one took less than half of that. Whether the stages are behind, or events come late, shows
   the lag in `status`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.records import Output
    from stream_ml.stages.alarms import Alarms

__all__ = ["BLOCK_PREDICTIONS", "LATE_MS", "LIVE_MS", "Lag"]

BLOCK_PREDICTIONS = 100
LIVE_MS = 60_000
LATE_MS = 600_000
KIND = "lag"


class Lag:
    """How late the answers on one partition of events are.

    Args:
        alarms: of the stage that reads predictions.
        partition: of the events.
    """

    __slots__ = ("_alarms", "_count", "_is_live", "_least_ms", "_subject")

    def __init__(self, alarms: Alarms, partition: int) -> None:
        self._alarms = alarms
        self._subject = f"events-{partition}"
        self._count = 0
        self._least_ms = 0
        self._is_live = False

    def add(self, delay_ms: int, ts: int) -> Sequence[Output]:
        """Take in a prediction: what is to be said where a block ends with it.

        Args:
            delay_ms: from its event to its place on the log.
            ts: the stage's watermark, UTC milliseconds.
        """
        if not self._count or delay_ms < self._least_ms:
            self._least_ms = delay_ms
        self._count += 1
        if self._count < BLOCK_PREDICTIONS:
            return ()
        self._count = 0
        return self._end_block(self._least_ms, ts)

    def _end_block(self, least_ms: int, ts: int) -> list[Output]:
        self._is_live = self._is_live or least_ms <= LIVE_MS
        figures = {"least_ms": least_ms, "predictions": BLOCK_PREDICTIONS}
        words = (
            f"answers to {self._subject} come {least_ms / 1_000:,.0f} s after their events at the "
            f"quickest, of the last {BLOCK_PREDICTIONS}"
        )
        if self._is_live and least_ms > LATE_MS:
            return self._alarms.open(KIND, self._subject, words, ts, figures)
        if least_ms < LATE_MS // 2:
            return self._alarms.resolve(KIND, self._subject, words, ts, figures)
        return []

    def dump(self) -> list[Any]:
        """The state, beside the stage's alarms."""
        return [self._count, self._least_ms, self._is_live]

    def load(self, state: Sequence[Any]) -> None:
        """Take up a dumped state."""
        self._count, self._least_ms, self._is_live = state
