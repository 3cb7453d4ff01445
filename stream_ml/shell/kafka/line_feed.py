"""Feeds the task of one line: a consumer of its own, from where the line's state is valid.

All tasks of learn read the same partitions, each of them from where it is: one that was declared
today from the beginning. So what the group's consumer fetches is of no use to them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stream_ml.shell.kafka.transport import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from stream_ml.stages.task import Positions

__all__ = ["LineFeed"]

POLL_MS = 500
POLL_RECORDS = 2_000
# How often a full inbox is looked at.
ROOM_S = 0.02


class LineFeed:
    """Puts committed records before a task, in order, while there is room.

    Args:
        reader: connects a consumer: of what isolation, and what it does where an offset is gone.
        inputs: the topic of each partition, as the catalogue has it.
        deliver: given an input and a batch of it.
        is_full: whether nothing more should be fetched.
    """

    def __init__(
        self,
        reader: Callable[[str, str], AbstractAsyncContextManager[Any]],
        inputs: Mapping[Any, str],
        deliver: Callable[[str, Batch], None],
        is_full: Callable[[], bool],
    ) -> None:
        self._reader = reader
        self._inputs = inputs
        self._deliver = deliver
        self._is_full = is_full
        self._feeding: asyncio.Task[None] | None = None

    def start(self, positions: Positions, on_failure: Callable[[BaseException], None]) -> None:
        """Begin.

        Args:
            positions: the next offset of each input.
            on_failure: told what ended it.
        """

        def watch(feeding: asyncio.Task[None]) -> None:
            if not feeding.cancelled() and (error := feeding.exception()) is not None:
                on_failure(error)

        self._feeding = asyncio.create_task(self._feed(positions), name="feed")
        self._feeding.add_done_callback(watch)

    async def stop(self) -> None:
        """End, and close the connection; what was delivered stays."""
        feeding, self._feeding = self._feeding, None
        if feeding is not None:
            feeding.cancel()
            with suppress(asyncio.CancelledError):
                await feeding

    async def _feed(self, positions: Positions) -> None:
        # What is not there any more must not be passed over.
        async with self._reader("read_committed", "none") as consumer:
            consumer.assign(list(self._inputs))
            for tp, topic in self._inputs.items():
                consumer.seek(tp, positions.get((topic, tp.partition), 0))
            numbers = dict.fromkeys(self._inputs, 0)
            while True:
                if self._is_full():
                    await asyncio.sleep(ROOM_S)
                    continue
                fetched = await consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
                for tp, records in fetched.items():
                    self._deliver(self._inputs[tp], Batch(records, 0, numbers[tp]))
                    numbers[tp] += 1
