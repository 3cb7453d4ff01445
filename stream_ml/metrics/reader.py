"""Reads a log for whoever asks over HTTP: in a thread of its own, which the worker never waits for.

The log is opened when first asked, and again after an error. Clients of a log belong to the thread
that opened them, and who asks may come from any.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import suppress
from queue import Full, Queue
from typing import TYPE_CHECKING, Any

from stream_ml.errors import LogError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.shell.log.port import Log

__all__ = ["LogReader"]

CLOSE_S = 2.0
# Asked, and not read yet: a log that does not answer must not gather what nobody waits for.
WAITING_MAX = 16


class LogReader:
    """Reads of a log what it is asked for, one after the other.

    Args:
        open_log: opens it.
    """

    def __init__(self, open_log: Callable[[], Log]) -> None:
        self._open_log = open_log
        self._jobs: Queue[tuple[Callable[[Log], Any], Future[Any]] | None] = Queue(WAITING_MAX)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def ask(self, read: Callable[[Log], Any]) -> Future[Any]:
        """Have something read.

        Args:
            read: gets the log.

        Returns:
            What comes of it: the answer, or an error; once cancelled it is not read any more.
        """
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log-reader", daemon=True)
                self._thread.start()
        future: Future[Any] = Future()
        try:
            self._jobs.put_nowait((read, future))
        except Full:
            future.set_exception(
                LogError(f"it does not answer: {WAITING_MAX} others have asked before; try later")
            )
        return future

    def close(self) -> None:
        """Let go of the log, once it has answered; it is not waited for long."""
        if self._thread is not None:
            self._closing.set()
            with suppress(Full):  # it ends at the next one
                self._jobs.put_nowait(None)
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        log: Log | None = None
        while (job := self._jobs.get()) is not None and not self._closing.is_set():
            read, future = job
            if not future.set_running_or_notify_cancel():
                continue  # who asked waits no more
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
