"""Waits that all take the same time at most: one timer for thousands of them.

A timer a wait costs a tenth of a request's CPU. Where all wait equally long, those that began first
end first, so a queue is enough, and it is looked at a few times a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

__all__ = ["Deadlines"]

TICK_S = 0.05


class Deadlines:
    """Futures of one event loop that raise `TimeoutError` when nothing has come for a while.

    Args:
        limit_s: how long each waits; it may be `TICK_S` longer.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._queue: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def future(self) -> asyncio.Future[Any]:
        """One that ends by itself, should nobody end it before."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.append((loop.time() + self.limit_s, future))
        if self._timer is None:
            self._timer = loop.call_later(TICK_S, self._end_due)
        return future

    def close(self) -> None:
        """End no more of them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_due(self) -> None:
        loop = asyncio.get_running_loop()
        now_s, queue = loop.time(), self._queue
        while queue and (queue[0][1].done() or queue[0][0] <= now_s):
            future = queue.popleft()[1]
            if not future.done():
                future.set_exception(TimeoutError())
        self._timer = loop.call_later(TICK_S, self._end_due) if queue else None
