"""What waits for stages that are at work and do not keep up, as a log tells of it in one look.

A stage is behind where the oldest record that it has not read was taken in a while ago. What comes
a second is known by the records that wait: all of them came since. What is done a second is known
of predict, whose records name the offset of their events.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.shell.log.reading import last_records
from stream_ml.shell.processes.progress import duration
from stream_ml.shell.views.stalled import ABSENT_MS
from stream_ml.stages.topology import STAGES, parse_task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream_ml.records import Record
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.views.stalled import StalledTask
    from stream_ml.shell.views.status import TaskProgress

__all__ = ["CHECKPOINTED", "StageBacklog", "backlogs_text", "read_backlogs"]

# What a stage does is measured by so many of the records that it wrote last.
MEASURED_MAX = 1_000
# Stages that say where they are when they write down their state, and not before.
CHECKPOINTED = frozenset({"learn", "evaluate"})
# A wait is called growing where what comes exceeds what is done by a twentieth.
MARGIN = 1.05


@dataclass(frozen=True, slots=True)
class StageBacklog:
    """What waits for a stage whose worker is behind.

    Attributes:
        stage: its name.
        lag: how many records wait.
        since_ms: when the log took in the first of them (UTC ms).
        arrival_rate: how many came a second since then.
        rate: how many are done a second; None where that cannot be told.
    """

    stage: str
    lag: int
    since_ms: int
    arrival_rate: float
    rate: float | None

    @property
    def is_growing(self) -> bool | None:
        """Whether the wait grows; None where that cannot be told."""
        return None if self.rate is None else self.arrival_rate > MARGIN * self.rate

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "is_growing": self.is_growing}


def read_backlogs(
    log: Log,
    stages: Sequence[TaskProgress],
    stalled: Sequence[StalledTask],
    now_ms: int,
    *,
    checkpoint_s: float = 0.0,
) -> tuple[StageBacklog, ...]:
    """The stages that are behind, in the order in which the data flows.

    Args:
        log: to look at.
        stages: how far each task is.
        stalled: the tasks that do not get on at all, which are told of as such.
        now_ms: the time (UTC ms).
        checkpoint_s: how often learn and evaluate write down where they are.
    """
    standing = {parse_task(each.task).stage for each in stalled}
    waiting: dict[str, list[TaskProgress]] = {}
    for each in stages:
        # A stage has read the newest decision, often its own, before it says so on the log.
        if each.lag and each.waiting_since_ms is not None and each.topic != "registry":
            waiting.setdefault(parse_task(each.task).stage, []).append(each)
    positions = {each.partition: each.position for each in stages if each.topic == "events"}
    found = []
    for stage in STAGES:
        tasks = waiting.get(stage, [])
        since_ms = min((each.waiting_since_ms or 0 for each in tasks), default=now_ms)
        patience_ms = ABSENT_MS + (round(2_000 * checkpoint_s) if stage in CHECKPOINTED else 0)
        if stage in standing or now_ms - since_ms <= patience_ms:
            continue
        lag = sum(each.lag for each in tasks)
        inflow = lag * 1_000 / (now_ms - since_ms)
        rate = _rate(log, positions, since_ms, now_ms) if stage == "predict" else None
        found.append(StageBacklog(stage, lag, since_ms, inflow, rate))
    return tuple(found)


def _rate(log: Log, positions: Mapping[int, int], since_ms: int, now_ms: int) -> float:
    """How many events predict does a second: since what waits came, or in its last records."""
    rate = 0.0
    earliest: dict[int, Record] = {}
    begins_ms: dict[int, int] = {}
    for record in last_records(log, "predictions", MEASURED_MAX):
        # What was done before says nothing of now: between the two there may have been a quiet day.
        if record.append_ms < since_ms:
            begins_ms[record.partition] = since_ms
        elif record.partition not in earliest:
            earliest[record.partition] = record
            begins_ms.setdefault(record.partition, record.append_ms)
    for partition, record in earliest.items():
        offset = _event_offset(record, partition)
        if offset is not None:
            done = positions.get(partition, 0) - offset - 1
            rate += max(0, done) * 1_000 / max(now_ms - begins_ms[partition], 1)
    return rate


def _event_offset(record: Record, partition: int) -> int | None:
    """Of the event that a prediction is about, where it came from that partition."""
    try:
        source = orjson.loads(record.value or b"")["source"]
        return int(source["offset"]) if source["partition"] == partition else None
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError):
        return None  # somebody else's: nothing is measured by it


def backlogs_text(backlogs: Iterable[StageBacklog], now_ms: int) -> str:
    """In words: which stages, what waits, for how long, and whether that grows.

    Args:
        backlogs: of the stages that are behind.
        now_ms: the time (UTC ms).
    """
    return "; ".join(_text(each, now_ms) for each in backlogs)


def _text(backlog: StageBacklog, now_ms: int) -> str:
    waited = duration((now_ms - backlog.since_ms) / 1_000)
    verb = {True: "falls behind", False: "catches up", None: "is behind"}[backlog.is_growing]
    verb_waiting = "record waits" if backlog.lag == 1 else "records wait"
    text = f"{backlog.stage} {verb}: {backlog.lag:,} {verb_waiting}, the first for {waited}"
    if backlog.rate is None:
        return text
    return (
        f"{text}; {_figure(backlog.arrival_rate)} came a second, {_figure(backlog.rate)} are done"
    )


def _figure(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"  # noqa: PLR2004 - three digits are enough
