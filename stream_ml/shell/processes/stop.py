"""Stopping when asked to: the first SIGINT or SIGTERM asks, the second one does what it always did.

A process that is asked finishes what it has begun, commits and says so; whoever cannot wait for
that asks again.
"""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Self

__all__ = ["SIGNALS", "Stop"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether this process was asked to stop; a context manager, of the main thread.

    Waiting is done here as well, so that the signal ends it at once: a pipe that the handler
    writes to wakes whoever waits. (`time.sleep` would sleep on, and an `Event` may not be set by
    a handler that interrupts its waiter.)

    >>> with Stop() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop.is_requested
    True
    """

    def __init__(self) -> None:
        self.is_requested = False
        self._wake_reader, self._wake_writer = os.pipe()
        self._former: dict[int, Any] = {}

    def ask(self) -> None:
        """Ask, as a signal would."""
        if not self.is_requested:
            self.is_requested = True
            os.write(self._wake_writer, b".")

    def wait(self, seconds: float | None, handle: int | None = None) -> bool:
        """Wait until asked to stop, or for so long, or until there is something to read.

        Args:
            seconds: how long at most; None waits for the others.
            handle: of what may be read from.

        Returns:
            Whether `handle` can be read from without waiting.
        """
        handles = [self._wake_reader] if handle is None else [self._wake_reader, handle]
        ready, _, _ = select.select(handles, [], [], None if seconds is None else max(0.0, seconds))
        return handle in ready

    def __enter__(self) -> Self:
        self._former = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self._restore()
        self.ask()

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
