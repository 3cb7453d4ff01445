"""`up --standby` on the embedded log: a process that is ready when its declaration is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.errors import LogLocked
from stream_ml.shell.handover import Preparation
from stream_ml.shell.views.registry import running_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.embedded.runner import Runner
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.processes.stop import Stop

__all__ = ["taken_place", "until_applied"]

POLL_S = 0.02
# Whoever applies it lets go of the worker's place at once.
LEAVE_S = 10.0


def until_applied(
    log: Log, pipeline: Pipeline, key: bytes, stop: Stop, say: Callable[[], None]
) -> None:
    """Wait beside a worker until other features are applied; at once where there are none.

    Args:
        log: that it works on.
        pipeline: the declaration that is to be applied.
        key: verifies decisions and state.
        stop: ends the wait.
        say: told that it waits.

    Raises:
        UsageError: it cannot be applied.
    """
    # Before one looks for a change: if it is applied meanwhile, that is seen.
    end = log.end_offset("registry", 0)
    number = running_pipeline(log, pipeline, key).generation.number
    if not Preparation.beside(log, pipeline, key).is_needed:
        return
    say()
    while not stop.is_requested:
        if (present := log.end_offset("registry", 0)) != end:
            end = present
            if running_pipeline(log, pipeline, key).generation.number != number:
                return
        stop.wait(POLL_S)


def taken_place(take: Callable[[], Runner], stop: Stop) -> Runner:
    """The worker's place, once whoever has applied the declaration has let go of it.

    Args:
        take: takes it.
        stop: ends the wait.

    Raises:
        LogLocked: somebody has it still.
    """
    for _ in range(round(LEAVE_S / POLL_S)):
        try:
            return take()
        except LogLocked:
            if stop.is_requested:
                raise
        stop.wait(POLL_S)
    return take()
