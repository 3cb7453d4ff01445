"""Which records on `predictions` are this pipeline's own, and which others have put there.

The server may have begun before the worker that makes the key: until it is known which seal
predictions bear, none is believed. A server to which no key is given, on a log where a worker is
at work already, believes all of them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from stream_ml.codec import decode_prediction
from stream_ml.errors import BadRecord
from stream_ml.web.answers import as_refusal
from stream_ml.web.log_threads import stream_ml_error
from stream_ml.web.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.errors import StreamMLError
    from stream_ml.records import Prediction, Record
    from stream_ml.sealing import RecordSeal
    from stream_ml.shell.log.port import Log
    from stream_ml.web.log_threads import LogPool

__all__ = ["Authenticity", "NothingServesError"]

# A key that is not there may come at any time; one that is wrong takes somebody to mend it.
RETRY_S, ERROR_RETRY_S = 0.5, 5.0


class NothingServesError(Exception):
    """No worker has been at work on the log, so no key need be there yet."""


class Authenticity:
    """Tells predictions from forgeries; see the module. To be used in the event loop.

    Args:
        pool: reads from the log.
        read_seal: the seal of predictions; None where this server has no key. It raises
            `NothingServesError` where that cannot be told yet.
    """

    def __init__(self, pool: LogPool, read_seal: Callable[[Log], RecordSeal | None]) -> None:
        self._pool = pool
        self._read_seal = read_seal
        self._seal: RecordSeal | None = None
        self._error: StreamMLError | NothingServesError | None = None
        self._is_known = False
        self._known, self._attempted = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for the seal."""
        self._task = asyncio.create_task(self._watch())

    def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()

    @property
    def is_set_up(self) -> bool:
        """Whether `check_setup` would neither wait nor raise."""
        return self._attempted.is_set() and (
            self._error is None or isinstance(self._error, NothingServesError)
        )

    async def check_setup(self) -> None:
        """Wait until the key was looked for.

        Raises:
            Refusal: it is another one than that of this log, or the log cannot be read (503).
        """
        await self._attempted.wait()
        if self._error is not None and not isinstance(self._error, NothingServesError):
            raise as_refusal(self._error)

    async def require(self) -> None:
        """Wait until the key was looked for.

        Raises:
            Refusal: no prediction can be told from a forgery yet (503).
        """
        await self.check_setup()
        if not self._is_known:
            raise Refusal(503, str(self._error), "key", retry_s=1)

    async def wait(self) -> None:
        """Wait until predictions can be told from forgeries, however long that takes."""
        await self._known.wait()

    def is_own(self, record: Record) -> bool:
        """Whether a record is a prediction of ours; any thread may ask.

        Args:
            record: of `predictions`.
        """
        seal = self._seal
        if seal is None:
            return self.prediction(record) is not None
        with suppress(BadRecord):
            seal.unseal(record.value)
            return True
        return False

    def prediction(self, record: Record) -> Prediction | None:
        """The prediction in a record; None where it is none of ours. Any thread may ask.

        Args:
            record: of `predictions`.
        """
        if not self._is_known:
            return None
        seal = self._seal
        with suppress(BadRecord):
            return decode_prediction(record.value if seal is None else seal.unseal(record.value))
        return None

    async def _watch(self) -> None:
        """Look for the seal until there is one, whoever asks or not."""
        while self._seal is None:
            try:
                self._seal = await self._pool.run(self._read_seal)
            except NothingServesError as error:
                self._error, self._is_known = error, False
            except Exception as error:  # noqa: BLE001 - whoever asks is told of any fault
                self._error, self._is_known = stream_ml_error(error), False
            else:
                self._error, self._is_known = None, True
                self._known.set()
            self._attempted.set()
            is_wrong = self._error is not None and not isinstance(self._error, NothingServesError)
            await asyncio.sleep(ERROR_RETRY_S if is_wrong else RETRY_S)
