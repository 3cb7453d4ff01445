"""Reads a log for whoever asks over HTTP: in a thread of its own, which the worker never waits for.

The log is opened when first asked, and again after an error. Clients of a log belong to the thread
that opened them, and who asks may come from any.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.shell.log.port import Log

__all__ = ["LogReader"]

CLOSE_S = 2.0


class LogReader:
    """Reads of a log what it is asked for, one after the other.

    Args:
        open_log: opens it.
    """

    def __init__(self, open_log: Callable[[], Log]) -> None:
        self._open_log = open_log
        self._jobs: SimpleQueue[tuple[Callable[[Log], Any], Future[Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def ask(self, read: Callable[[Log], Any]) -> Future[Any]:
        """Have something read.

        Args:
            read: gets the log.

        Returns:
            What comes of it: the answer, or an error.
        """
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log-reader", daemon=True)
                self._thread.start()
        future: Future[Any] = Future()
        self._jobs.put((read, future))
        return future

    def close(self) -> None:
        """Let go of the log, once it has answered; it is not waited for long."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        log: Log | None = None
        while (job := self._jobs.get()) is not None:
            read, future = job
            try:
                if log is None:
                    log = self._open_log()
                future.set_result(read(log))
            except Exception as error:  # noqa: BLE001 - told to who asked; the next may fare better
                if log is not None:
                    with suppress(Exception):
                        log.close()
                    log = None
                future.set_exception(error)
        if log is not None:
            log.close()
