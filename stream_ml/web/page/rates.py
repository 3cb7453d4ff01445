"""How fast each stage works, from what was seen of its positions lately."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from stream_ml.shell.views.stage_backlogs import CHECKPOINTED
from stream_ml.stages.topology import STAGES, parse_task

if TYPE_CHECKING:
    from stream_ml.web.board import BoardSnapshot

__all__ = ["Pace"]

WINDOW_MS = 15_000
# A stage that had something to read for so long and moved nothing does not work. Of those that say
# where they are with a checkpoint only, it is so much longer than the time of two.
STUCK_MS = 10_000
HISTORY = 120


class Pace:
    """Rates of the stages, fed with one snapshot after the other.

    Args:
        checkpoint_s: how often learn and evaluate write down where they are, in seconds.

    Attributes:
        recent: events a second at the last refreshes, the oldest first: time (UTC ms) and rate.
    """

    def __init__(self, checkpoint_s: float = 0.0) -> None:
        self._checkpoint_ms = round(1_000 * checkpoint_s)
        self._seen: deque[tuple[int, dict[str, int]]] = deque()
        self._moved_ms: dict[str, int] = {}
        self._now_ms = 0
        # Since when the first record that waits for a stage lies on the log.
        self._waiting_ms: dict[str, int] = {}
        self.recent: deque[tuple[float, float]] = deque(maxlen=HISTORY)

    def add(self, snapshot: BoardSnapshot) -> None:
        """Take in the next snapshot."""
        positions = dict.fromkeys(STAGES, 0)
        self._waiting_ms = {}
        for task in snapshot.status.stages:
            stage = parse_task(task.task).stage
            if task.topic == STAGES[stage].inputs[0]:
                positions[stage] += task.position
                if task.waiting_since_ms is not None:
                    since_ms = self._waiting_ms.get(stage, task.waiting_since_ms)
                    self._waiting_ms[stage] = min(since_ms, task.waiting_since_ms)
        self._now_ms = snapshot.taken_ms
        former = self._seen[-1][1] if self._seen else {}
        for stage, position in positions.items():
            if position != former.get(stage):
                self._moved_ms[stage] = self._now_ms
        self._seen.append((self._now_ms, positions))
        while len(self._seen) > 2 and self._seen[1][0] <= self._now_ms - WINDOW_MS:  # noqa: PLR2004
            self._seen.popleft()
        rate = self.rate("predict")
        if rate is not None:
            self.recent.append((float(self._now_ms), rate))

    def rate(self, stage: str) -> float | None:
        """Records a second, over the last 15 seconds; None before two looks.

        Args:
            stage: its name.
        """
        if len(self._seen) < 2:  # noqa: PLR2004 - a rate is between two looks
            return None
        (first_ms, first), (last_ms, last) = self._seen[0], self._seen[-1]
        if last_ms <= first_ms:
            return None
        return max(0, last[stage] - first[stage]) * 1_000 / (last_ms - first_ms)

    def is_stuck(self, stage: str) -> bool:
        """Whether records have waited for long, and nothing moves.

        Args:
            stage: its name.
        """
        patience_ms = STUCK_MS + (2 * self._checkpoint_ms if stage in CHECKPOINTED else 0)
        # It may have had nothing to read for long, before what waits now came.
        since_ms = max(self._waiting_ms.get(stage, self._now_ms), self._moved_ms.get(stage, 0))
        return self._now_ms - since_ms > patience_ms
