"""A worker that goes on: the runner on a log that others publish to, until it is asked to stop.

Between polls it asks the log's version, which costs microseconds: soon after there was work, then
less and less often, so that a busy stream is answered within milliseconds and an idle one costs
next to nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stream_ml.codec import decode_decision
from stream_ml.errors import BadRecord
from stream_ml.shell.log.reading import read_partition
from stream_ml.shell.log.tail import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from stream_ml.records import Decision
    from stream_ml.shell.embedded.runner import Runner
    from stream_ml.shell.log.sqlite import SqliteLog
    from stream_ml.shell.processes.stop import Stop

__all__ = ["work_on"]

# What a retention of hours removes a minute later is nobody's loss.
EXPIRE_S = 60.0
# Where others are kept from writing during each batch, they get in between for so long: as long as
# SQLite waits at most before it asks for the lock again.
GAP_S = 0.1


def work_on(
    runner: Runner,
    log: SqliteLog,
    stop: Stop,
    *,
    commit_s: float,
    on_decision: Callable[[Decision], None],
    tasks: Collection[str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Work on what is on the log and on what comes, until asked to stop.

    Args:
        runner: the worker, on `log`.
        log: looked at for news, and rid of what need be kept no longer.
        stop: ends it between two batches.
        commit_s: how often an idle worker lets the runner see whether a checkpoint is due.
        on_decision: called with each decision that was made meanwhile, in order.
        tasks: that are declared, for which events are kept; see `SqliteLog.expire`.
        clock: seconds, from any start.

    Returns:
        How many inputs were worked on.
    """
    processed = 0
    registry_offset = log.end_offset("registry", 0)
    committed_s = expired_s = clock()
    silence = _Silence(runner, committed_s)
    backoff = Backoff()
    while not stop.is_requested:
        version = log.version()
        count = runner.poll()
        if count:
            processed += count
            registry_offset = _tell(log, registry_offset, runner.key, on_decision)
            backoff.reset()
        now_s = clock()
        silence.see(count, now_s)
        # While something goes there is more of it, but what comes in is not kept waiting.
        if now_s - expired_s >= EXPIRE_S and not log.expire(
            time.time_ns() // 1_000_000, tasks=tasks
        ):
            expired_s = now_s
        is_behind = not count and runner.catch_up()
        if count:
            committed_s = now_s
        elif runner.has_news or now_s - committed_s >= commit_s:
            # Also what a line that is behind was taught: nobody teaches it again after a death.
            committed_s = now_s
            runner.commit()
        elif is_behind:
            pass  # nothing else is to be done
        elif not runner.exclusive and log.version() == version:
            stop.wait(backoff.next())
        if runner.exclusive:
            stop.wait(GAP_S)
    return processed


class _Silence:
    """When nothing has come for so long that nothing is waited for any more."""

    def __init__(self, runner: Runner, now_s: float) -> None:
        self._runner, self._heard_s = runner, now_s

    def see(self, count: int, now_s: float) -> None:
        """Note how many inputs have come, and act where there were none for long."""
        if count:
            self._heard_s = now_s
        elif now_s - self._heard_s >= self._runner.predicts[0].idle_ms / 1_000:
            self._runner.answer_waiting(time.time_ns() // 1_000_000)


def _tell(log: SqliteLog, offset: int, key: bytes, on_decision: Callable[[Decision], None]) -> int:
    for record in read_partition(log, "registry", 0, offset):
        offset = record.offset + 1
        try:
            decision = decode_decision(record.value, key)
        except BadRecord:
            continue  # somebody else put it there: evaluate refuses it at the next start
        on_decision(decision)
    return offset
