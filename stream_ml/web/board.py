"""The board: the views of a log, read once for all who look at them.

However many ask, the log is read by one thread, at most once a second, and of its time at most a
part: what is on a large log for long to read is read less often. Where nothing has been written
since, nothing is read. What readers get is one immutable snapshot.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stream_ml.errors import LogError, StreamMLError
from stream_ml.shell.log.reading import last_records
from stream_ml.shell.settings.keys import reading_key
from stream_ml.shell.views.alerts import AlertsView, read_alerts
from stream_ml.shell.views.dead_letters import LetterView, letters_in
from stream_ml.shell.views.drift import DriftView, read_drift
from stream_ml.shell.views.label_sources import LabelSources
from stream_ml.shell.views.models import ModelsView, last_evaluations, read_models
from stream_ml.shell.views.stage_backlogs import StageBacklog, read_backlogs
from stream_ml.shell.views.stalled import StalledTask, read_stalled
from stream_ml.shell.views.status import HeldBack, StatusView, held_back, is_empty, read_status
from stream_ml.web.log_threads import stream_ml_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stream_ml.shell.log.port import Log
    from stream_ml.shell.settings.settings import Settings
    from stream_ml.shell.views.label_sources import Agreement

__all__ = ["Board", "BoardSnapshot"]

REFRESH_S = 1.0
# A refresh that took a second is followed by four without one.
REST_FACTOR = 4
ALERTS_SHOWN = 200
LETTERS_SHOWN = 100
EVALUATIONS_SHOWN = 2_000


@dataclass(frozen=True, slots=True)
class BoardSnapshot:
    """All that the views say of a log at one time. Nobody changes anything in it.

    Attributes:
        number: counts what was read; the same number, the same content.
        taken_ms: up to when this is true (UTC ms).
        took_s: how long it took to read, in seconds.
        log: where the log is, as it is addressed; no secret is in it.
        identity: which log it is.
        mode: how the pipeline promotes, as it is declared.
        is_checked: whether signatures and seals were checked.
        is_empty: whether nothing was ever published or written.
        status: lag, freshness, scores, refusals, what holds now; with the registry, whole.
        models: what answers, its costs and evidence.
        alerts: what is open, and the last changes.
        drift: what has moved.
        evaluations: how models stood each time that was written down, the oldest first.
        letters: the last dead letters, the oldest first.
        transactions: what open transactions hold back, on a cluster.
        at_work: the stages that have a worker; None where that cannot be told.
        stalled: the tasks that do not get on, though records wait: no worker answers, or it is
            stuck.
        sources: how far the sources of labels agree, as the newest labels say.
        backlogs: what waits for stages that are at work and behind.
    """

    number: int
    taken_ms: int
    took_s: float
    log: str
    identity: str
    mode: str
    is_checked: bool
    is_empty: bool
    status: StatusView
    models: ModelsView
    alerts: AlertsView
    drift: DriftView
    evaluations: tuple[Mapping[str, Any], ...]
    letters: tuple[LetterView, ...]
    transactions: tuple[HeldBack, ...]
    at_work: frozenset[str] | None
    stalled: tuple[StalledTask, ...]
    sources: tuple[Agreement, ...]
    backlogs: tuple[StageBacklog, ...]

    @property
    def pipeline(self) -> str | None:
        """The pipeline's name; None before its first decision."""
        return self.status.pipeline


class Board:
    """Reads the views of a log for whoever asks; see the module.

    `start` it within the event loop that asks, and `close` it there.

    Args:
        open_log: opens the log, in the thread that reads it.
        settings: where it is, and which keys are set.
        mode: how the pipeline promotes, as it is declared.
        refresh_s: the least time between two refreshes, in seconds.
        trusted: the source of labels that others are compared with, if one is declared.
    """

    def __init__(
        self,
        open_log: Callable[[], Log],
        settings: Settings,
        mode: str,
        refresh_s: float = REFRESH_S,
        trusted: str | None = None,
    ) -> None:
        self._open_log = open_log
        self._settings = settings
        self._mode, self._trusted = mode, trusted
        self._sources = LabelSources(trusted)
        self._refresh_s = refresh_s
        self._wanted = threading.Event()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: asyncio.Future[BoardSnapshot] | None = None
        self._newest: BoardSnapshot | None = None
        # By the loop's clock: when the newest was published.
        self._published_s = 0.0
        self._version: object = None

    @property
    def newest(self) -> BoardSnapshot | None:
        """The last snapshot, however old; None before the first. Any thread may ask."""
        return self._newest

    def start(self) -> None:
        """Begin; nothing is read before somebody asks."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="board", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; whoever waits still is told so."""
        self._is_closed = True
        self._wanted.set()
        if self._pending is not None and not self._pending.done():
            self._pending.set_exception(LogError("the server is about to end"))

    async def snapshot(self) -> BoardSnapshot:
        """The views as they are, or were a second ago; see `BoardSnapshot`.

        Raises:
            StreamMLError: the log cannot be read; the next one who asks has it tried again.
        """
        newest, loop = self._newest, asyncio.get_running_loop()
        if newest is not None:
            rest_s = max(self._refresh_s, REST_FACTOR * newest.took_s)
            if loop.time() - self._published_s < rest_s:
                return newest
        if self._pending is None:
            self._pending = loop.create_future()
            self._wanted.set()
        # One who leaves must not take it from the others.
        return await asyncio.shield(self._pending)

    def _publish(self, outcome: BoardSnapshot | StreamMLError) -> None:
        """In the event loop: hand a snapshot, or why there is none, to all who wait."""
        pending, self._pending = self._pending, None
        if isinstance(outcome, BoardSnapshot):
            self._newest = outcome
            self._published_s = asyncio.get_running_loop().time()
        if pending is None or pending.done():
            return
        if isinstance(outcome, BoardSnapshot):
            pending.set_result(outcome)
        else:
            pending.set_exception(outcome)

    # --- in the thread --------------------------------------------------------------------

    def _work(self) -> None:
        log: Log | None = None
        try:
            while True:
                self._wanted.wait()
                self._wanted.clear()
                if self._is_closed:
                    return
                outcome: BoardSnapshot | StreamMLError
                try:
                    if log is None:
                        log = self._open_log()
                        self._version = None
                        self._sources = LabelSources(self._trusted)
                    outcome = self._read(log)
                except Exception as error:  # noqa: BLE001 - a view's fault must not end the board
                    outcome = stream_ml_error(error)
                    _close(log)
                    log = None
                loop = self._loop
                assert loop is not None, "the thread was started from a loop"
                with suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(self._publish, outcome)
        finally:
            _close(log)

    def _read(self, log: Log) -> BoardSnapshot:
        newest, version = self._newest, log.version()
        started_s, now_ms = time.monotonic(), time.time_ns() // 1_000_000
        at_work = log.stages_at_work()
        if newest is not None and version == self._version:
            stalled = self._stalled(log, newest.status, at_work, now_ms)
            backlogs = self._backlogs(log, newest.status, stalled, now_ms)
            # Where a worker has died, nothing is written that would tell.
            is_same = (at_work, stalled, bool(backlogs)) == (
                newest.at_work,
                newest.stalled,
                bool(newest.backlogs),
            )
            number = newest.number + (not is_same)
            return replace(
                newest,
                number=number,
                taken_ms=now_ms,
                took_s=0.0,
                at_work=at_work,
                stalled=stalled,
                backlogs=backlogs,
            )
        settings = self._settings
        key = reading_key(settings, log)
        status = read_status(log, key)
        stalled = self._stalled(log, status, at_work, now_ms)
        snapshot = BoardSnapshot(
            number=0 if newest is None else newest.number + 1,
            taken_ms=now_ms,
            took_s=0.0,
            log=settings.path,
            identity=log.identity,
            mode=self._mode,
            is_checked=key is not None,
            is_empty=is_empty(log),
            status=status,
            models=read_models(log, status.registry, key),
            alerts=read_alerts(log, key, ALERTS_SHOWN),
            drift=read_drift(log),
            evaluations=tuple(_evaluations(log, status.registry.pipeline, key)),
            letters=tuple(letters_in(last_records(log, "dead-letters", LETTERS_SHOWN))),
            transactions=tuple(held_back(log, now_ms)),
            at_work=at_work,
            stalled=stalled,
            backlogs=self._backlogs(log, status, stalled, now_ms),
            sources=tuple(self._sources.read(log)),
        )
        self._version = version
        return replace(snapshot, took_s=time.monotonic() - started_s)

    def _stalled(
        self, log: Log, status: StatusView, at_work: frozenset[str] | None, now_ms: int
    ) -> tuple[StalledTask, ...]:
        checkpoint_s = self._settings.checkpoint_seconds
        return read_stalled(log, status.stages, at_work, now_ms, checkpoint_s=checkpoint_s)

    def _backlogs(
        self, log: Log, status: StatusView, stalled: tuple[StalledTask, ...], now_ms: int
    ) -> tuple[StageBacklog, ...]:
        checkpoint_s = self._settings.checkpoint_seconds
        return read_backlogs(log, status.stages, stalled, now_ms, checkpoint_s=checkpoint_s)


def _evaluations(log: Log, pipeline: str | None, key: bytes | None) -> Iterator[Mapping[str, Any]]:
    for members in last_evaluations(log, pipeline, key, EVALUATIONS_SHOWN):
        if isinstance(members.get("model"), str):
            yield members


def _close(log: Log | None) -> None:
    if log is not None:
        with suppress(StreamMLError):
            log.close()
