"""The tasks for which records wait, though nobody works on them: a dead worker is told by its log.

Of a stage that has no worker nothing comes, however long one waits. Where it has one, its silence
tells: it is stuck where it has written nothing for minutes, whatever waits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from stream_ml.shell.log.reading import last_records
from stream_ml.shell.processes.progress import duration
from stream_ml.stages.topology import STAGES, parse_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_ml.shell.log.port import Log
    from stream_ml.shell.views.status import TaskProgress

__all__ = ["ABSENT_MS", "SILENT_MS", "StalledTask", "read_stalled", "stages_list", "stalled_text"]

# A worker that starts, or takes over from another one, is there within that.
ABSENT_MS = 15_000
# Longer than a training, which a retrained line's refresh may wait for.
SILENT_MS = 180_000


@dataclass(frozen=True, slots=True)
class StalledTask:
    """A task that does not get on, though records wait for it.

    Attributes:
        task: its name, such as `predict-0`.
        topic: of the records.
        partition: of them.
        lag: how many wait.
        since_ms: since when nothing was done about them (UTC ms, the log's time).
        has_worker: whether its stage has a worker, which then is stuck.
    """

    task: str
    topic: str
    partition: int
    lag: int
    since_ms: int
    has_worker: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def read_stalled(
    log: Log,
    stages: Iterable[TaskProgress],
    at_work: frozenset[str] | None,
    now_ms: int,
    *,
    checkpoint_s: float = 0.0,
) -> tuple[StalledTask, ...]:
    """The tasks that do not get on.

    Args:
        log: to look at.
        stages: how far each task is, as the status has it, or had it a while ago.
        at_work: the stages that have a worker; None where nobody knows.
        now_ms: the time (UTC ms).
        checkpoint_s: how often learn and evaluate write down where they are, where little comes.
    """
    silent_before_ms = now_ms - max(SILENT_MS, round(2_000 * checkpoint_s))

    @cache
    def silent_since_ms(stage: str) -> int:
        # What waits since before the worker came is none of its doing.
        return max(log.worker_since_ms(stage) or 0, _last_written_ms(log, stage))

    return tuple(
        stalled
        for progress in stages
        if progress.waiting_since_ms is not None
        and now_ms - progress.waiting_since_ms > ABSENT_MS
        and (stalled := _stalled(log, progress, at_work, silent_before_ms, silent_since_ms))
        is not None
    )


def _stalled(
    log: Log,
    progress: TaskProgress,
    at_work: frozenset[str] | None,
    silent_before_ms: int,
    silent_since_ms: Callable[[str], int],
) -> StalledTask | None:
    assert progress.waiting_since_ms is not None, "something waits"
    stage, since_ms = parse_task(progress.task).stage, progress.waiting_since_ms
    has_worker = at_work is None or stage in at_work
    if has_worker:
        since_ms = max(since_ms, silent_since_ms(stage))
        if since_ms >= silent_before_ms:
            return None
    position = log.committed(progress.task).get((progress.topic, progress.partition), 0)
    if position > progress.position:  # it has got on since the status was read
        return None
    return StalledTask(
        progress.task, progress.topic, progress.partition, progress.lag, since_ms, has_worker
    )


def _last_written_ms(log: Log, stage: str) -> int:
    """When the log took in the last record of a stage."""
    return max(
        (
            record.append_ms
            for topic in STAGES[stage].outputs
            if topic in log.partitions
            for record in last_records(log, topic, 1)
        ),
        default=0,
    )


def stages_list(at_work: frozenset[str] | None) -> list[str] | None:
    """Stages in the order in which the data flows, for JSON.

    Args:
        at_work: those that have a worker; None where nobody knows.
    """
    return None if at_work is None else [stage for stage in STAGES if stage in at_work]


def stalled_text(stalled: Sequence[StalledTask], now_ms: int) -> str:
    """In words: which stages, and for how long.

    Args:
        stalled: one at least.
        now_ms: the time (UTC ms).
    """
    parts = []
    for has_worker, words in ((False, "no worker answers"), (True, "a worker is stuck")):
        tasks = [each for each in stalled if each.has_worker == has_worker]
        if tasks:
            stages = dict.fromkeys(parse_task(each.task).stage for each in tasks)
            waiting = ", ".join(_stage_text(stage, tasks, now_ms) for stage in stages)
            parts.append(f"{words}: {waiting}")
    return "; ".join(parts)


def _stage_text(stage: str, tasks: Sequence[StalledTask], now_ms: int) -> str:
    own = [each for each in tasks if parse_task(each.task).stage == stage]
    count = sum(each.lag for each in own)
    waited = duration((now_ms - min(each.since_ms for each in own)) / 1_000)
    verb = "waits" if count == 1 else "wait"
    return f"{count:,} record{'s' * (count != 1)} {verb} for {stage}, for {waited}"
