"""How far predict is behind, how fast it is, and whether it answers: is it worth asking?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stream_ml.stages.topology import task_name
from stream_ml.web.problems import Refusal

if TYPE_CHECKING:
    from stream_ml.shell.log.port import Log

__all__ = ["RETRY_MAX_S", "PredictPace", "read_progress"]

PROBE_S = 1.0
RETRY_MAX_S = 60.0
# Offsets that a worker may have before it and yet be at the end: marks of transactions.
LAG_MIN = 100


@dataclass(slots=True)
class PredictPace:
    """Of a partition's predict task.

    Attributes:
        lag: offsets before it.
        rate: offsets a second.
        done: where it was last.
        read_s: when that was.
        silent_s: when a request ran out of time since which none was answered; None: none has.
        unanswered: the offset of the last event whose request ran out of time.
        probe_s: when the last one was let through since, or ran out of time.
    """

    lag: int = 0
    rate: float = 0.0
    done: int | None = None
    read_s: float = 0.0
    silent_s: float | None = None
    unanswered: int = -1
    probe_s: float = 0.0

    def update(self, done: int, lag: int, now_s: float) -> None:
        """Take in where the task is at a time."""
        if self.done is not None and now_s > self.read_s:
            rate = max(0, done - self.done) / (now_s - self.read_s)
            self.rate = rate if rate == 0 or self.rate == 0 else (self.rate + rate) / 2
        self.done, self.lag, self.read_s = done, lag, now_s
        # Of one that never came to lie on the log there is nothing to wait for.
        if done > self.unanswered or not lag:
            self.silent_s = None

    def note_silence(self, offset: int | None, now_s: float) -> None:
        """Take note of a request that ran out of time.

        Args:
            offset: of its event; None where nobody knows whether it lies on the log.
            now_s: the time.
        """
        self.silent_s = self.silent_s or now_s
        # It was a probe itself: the next is let through a while from now.
        self.probe_s = now_s
        last = self.done if offset is None else offset
        self.unanswered = max(self.unanswered, -1 if last is None else last)

    @property
    def delay_s(self) -> float:
        """How long a new event has to wait, as far as that can be told."""
        return self.lag / self.rate if self.lag > LAG_MIN and self.rate else 0.0

    def check(self, limit_s: float, now_s: float, *, is_attended: bool) -> None:
        """Refuse a request whose prediction would come too late; let a probe through now and then.

        Args:
            limit_s: how long a prediction is waited for.
            now_s: the time.
            is_attended: False where the log says that predict has no worker.

        Raises:
            Refusal: it would (503); nothing is to be published.
        """
        delay_s = self.delay_s
        if delay_s > limit_s:
            raise Refusal(
                503,
                f"{self.lag:,} events wait before this one, for about {delay_s:.0f} s; it "
                "was not published",
                "overloaded",
                retry_s=min(delay_s - limit_s, RETRY_MAX_S),
            )
        if self.silent_s is None:
            return
        if not is_attended:
            raise Refusal(
                503,
                "no worker of predict is at work; it was not published",
                "recovering",
                retry_s=PROBE_S,
            )
        if now_s - self.probe_s < PROBE_S:
            raise Refusal(
                503,
                "no prediction has come since a request ran out of time: no worker runs, or it "
                "recovers; it was not published",
                "recovering",
                retry_s=PROBE_S,
            )
        self.probe_s = now_s


def read_progress(log: Log) -> list[tuple[int, int]]:
    """By partition, how far the predict task has read, and how many offsets lie before it.

    Args:
        log: of the pipeline.
    """
    progress = []
    for partition in range(log.partitions["events"]):
        position = log.committed(task_name("predict", partition)).get(("events", partition), 0)
        progress.append((position, max(0, log.end_offset("events", partition) - position)))
    return progress
