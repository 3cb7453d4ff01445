"""When predict answers what has waited for other partitions, and tells that nothing comes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stream_ml.stages.delayed import DelayedPredict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stream_ml.records import Output
    from stream_ml.stages.task import Stage

__all__ = ["EntityTurn", "turn_of"]

# How often a silent partition tells how far others have come.
SILENT_S = 0.5


class EntityTurn:
    """The turns of a task whose windows are over all partitions.

    Args:
        stage: its stage.
        idle_s: after how long without an event a partition is silent.
        has_more: tells whether the partition has records from an offset on.
    """

    def __init__(
        self, stage: DelayedPredict, idle_s: float, has_more: Callable[[int], Awaitable[bool]]
    ) -> None:
        self._stage, self._idle_s, self._has_more = stage, idle_s, has_more
        # When to look whether the partition is silent (monotonic).
        self._due_s = time.monotonic() + idle_s
        self._offset = stage.offset

    def begin(self) -> None:
        """Take up what of the state only the facts of all partitions say."""
        self._stage.settle()

    @property
    def holds_back(self) -> bool:
        """Whether nothing more should be folded for now."""
        return self._stage.is_full

    @property
    def due_s(self) -> float:
        """When to look again (monotonic)."""
        return self._due_s

    async def outputs(self, is_empty: Callable[[], bool]) -> list[Output]:
        """What is to be written now.

        Args:
            is_empty: tells whether nothing was fetched that is still to be folded.
        """
        if self._stage.offset != self._offset:
            self._offset, self._due_s = self._stage.offset, time.monotonic() + self._idle_s
        if self._stage.is_due:
            return self._stage.release()
        if time.monotonic() < self._due_s:
            return []
        self._due_s = time.monotonic() + min(self._idle_s, SILENT_S)
        if not is_empty() or self._stage.closing_ms(_now_ms()) is None:
            return []
        if await self._has_more(self._stage.offset) or not is_empty():
            return []
        return self._stage.close(_now_ms())


def turn_of(
    stage: Stage, idle_s: float, has_more: Callable[[int], Awaitable[bool]]
) -> EntityTurn | None:
    """The turns of a stage, where its windows are over all partitions.

    Args:
        stage: any.
        idle_s: see `EntityTurn`.
        has_more: see `EntityTurn`.
    """
    return EntityTurn(stage, idle_s, has_more) if isinstance(stage, DelayedPredict) else None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
