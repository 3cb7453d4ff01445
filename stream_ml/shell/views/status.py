"""The status of a pipeline on a log: lag, freshness, scores, refusals, alerts, what holds now."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.evaluation.block_scores import block_reports
from stream_ml.shell.log.port import whole_piece
from stream_ml.shell.log.reading import last_records, offset_count
from stream_ml.shell.views.alerts import read_alerts
from stream_ml.shell.views.costs import learn_tasks, read_costs
from stream_ml.shell.views.models import newest_evaluations
from stream_ml.shell.views.registry import Entry, RegistryView, read_registry
from stream_ml.stages.topology import STAGES, input_topics, parse_task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stream_ml.shell.log.port import Log
    from stream_ml.shell.views.alerts import AlertView
    from stream_ml.shell.views.costs import LineCost

__all__ = [
    "AlertCount",
    "HeldBack",
    "StatusView",
    "TaskProgress",
    "Watermarks",
    "held_back",
    "is_empty",
    "labelled_share",
    "read_status",
]

DAY_MS = 86_400_000
# A worker's own transaction is open for a fraction of a second, an abandoned one for 5 s and more.
OPEN_MS_MAX = 5_000
# A cluster puts marks of transactions between records; of a great lag they are a small part.
COUNTED_MAX = 100
# Of dead letters and alerts so many of the last are read, in half a second: there may be millions.
LETTERS_READ = 10_000
# The member that names the kind of a dead letter, or of an alert.
KIND_MEMBER = {"dead-letters": "reason", "alerts": "kind"}


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """How far a task has read one partition: offsets, and what waits for it.

    Attributes:
        task: its name.
        topic: that it reads.
        partition: of that.
        position: the next offset.
        end: before which all lies.
        lag: how many records wait.
        waiting_since_ms: when the log took in the first of them (UTC ms); None where none waits.
    """

    task: str
    topic: str
    partition: int
    position: int
    end: int
    lag: int
    waiting_since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Up to when (UTC ms, time of events; -1: nothing yet) events and labels are known.

    Attributes:
        events: by partition of events.
        labels: by partition of predictions, where labels join.
        examples: up to when models are scored.
    """

    events: tuple[int, ...]
    labels: tuple[int, ...]
    examples: int


@dataclass(frozen=True, slots=True)
class AlertCount:
    """Alerts of a kind: how many, and time and words of the last one."""

    kind: str
    count: int
    ts: int | None
    message: str | None


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Records that a transaction keeps from readers, open since `since_ms` (UTC ms)."""

    topic: str
    partition: int
    records: int
    since_ms: int


@dataclass(frozen=True, slots=True)
class StatusView:
    """How a pipeline is getting on. Counts are of the tasks' last checkpoints.

    Attributes:
        pipeline: its name; None before its first decision.
        champion: the model that serves, `name@version`.
        since: the decision that made it serve.
        paused: the decision since which nothing is renewed or replaced by itself, if so.
        frozen: the rollback since which the champion's line is not renewed, if so.
        suspended: the decision since which promotions or refreshes stand still for a fault, if so.
        proposed: the decision that asks a person for a change, while it stands.
        decisions_last_day: how many of each kind in the last day of events.
        stages: how far each task is.
        watermarks: up to when everything is known.
        checkpoints: when each task's state was written down (UTC ms), by task.
        events: what became of events, by outcome.
        labels: what became of labels, by outcome.
        labelled: the share of predictions that have a label; None before the first prediction.
        held: what waits inside the tasks, by kind.
        idle_partitions: of events, those that hold up no more what waits for the others, as the
            join tasks that have waited for them say.
        models: the newest evaluation of each model, as on the log.
        costs: what each line costs where it learns, if that was measured.
        dead_letters: of the last refusals, how many for each reason.
        dead_letters_read: how many of them were read.
        dead_letters_total: how many there are, at most.
        alerts: by kind.
        open_alerts: how many alerts are open, by severity.
        quarantines: the open alerts about lines that learn no more, or are asked no more.
        blocks: how every model did in the last blocks, behind what is usual: see `block_reports`.
        registry: the registry that this was read from.
    """

    pipeline: str | None
    champion: str | None
    since: Entry | None
    paused: Entry | None
    frozen: Entry | None
    suspended: Entry | None
    proposed: Entry | None
    decisions_last_day: Mapping[str, int]
    stages: tuple[TaskProgress, ...]
    watermarks: Watermarks
    checkpoints: Mapping[str, int | None]
    events: Mapping[str, int]
    labels: Mapping[str, int]
    labelled: float | None
    held: Mapping[str, int]
    idle_partitions: tuple[int, ...]
    models: tuple[Mapping[str, Any], ...]
    costs: Mapping[str, LineCost]
    dead_letters: Mapping[str, int]
    dead_letters_read: int
    dead_letters_total: int
    alerts: tuple[AlertCount, ...]
    open_alerts: Mapping[str, int]
    quarantines: tuple[AlertView, ...]
    blocks: tuple[Mapping[str, Any], ...]
    registry: RegistryView

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the registry."""
        members = {field.name: getattr(self, field.name) for field in fields(self)}
        del members["registry"]
        for name in ("since", "paused", "frozen", "suspended", "proposed"):
            entry: Entry | None = members[name]
            members[name] = None if entry is None else entry.as_dict()
        return {
            **members,
            "watermarks": asdict(self.watermarks),
            "costs": {line: cost.as_dict() for line, cost in self.costs.items()},
            "stages": [asdict(progress) for progress in self.stages],
            "alerts": [asdict(alert) for alert in self.alerts],
            "quarantines": [alert.as_dict() for alert in self.quarantines],
        }


def read_status(log: Log, key: bytes | None) -> StatusView:
    """The status of the pipeline on a log.

    Args:
        log: to look at; a worker may be at work on it.
        key: checks decisions; without one all is believed.
    """
    registry = read_registry(log, key, recent=None)
    predicts = [_task_state(log, f"predict-{p}") for p in _partitions(log, "events")]
    joins = [_task_state(log, f"join-{p}") for p in _partitions(log, "predictions")]
    tasks = [
        *(f"predict-{p}" for p in range(len(predicts))),
        *(f"join-{p}" for p in range(len(joins))),
    ]
    newest = registry.newest
    learn = learn_tasks(log, () if newest is None else newest.serving.lines)
    letters, alerts = _last(log, "dead-letters"), _last(log, "alerts")
    standing_alerts = read_alerts(log, key)
    models = newest_evaluations(log, registry.pipeline, key)
    return StatusView(
        pipeline=registry.pipeline,
        champion=registry.champion,
        since=registry.since,
        paused=registry.paused,
        frozen=registry.frozen,
        suspended=registry.suspended,
        proposed=registry.proposed,
        decisions_last_day=_last_day(registry, predicts),
        stages=tuple(_stages(log, learn)),
        watermarks=Watermarks(
            events=tuple(state.get("watermark", -1) for state in predicts),
            labels=tuple(state.get("labels_watermark", -1) for state in joins),
            examples=max((evaluation["ts"] for evaluation in models), default=-1),
        ),
        checkpoints={task: log.written_ms(task) for task in tasks},
        events=_sum(state.get("counts", {}) for state in predicts),
        labels=_sum(state.get("counts", {}) for state in joins),
        labelled=labelled_share(joins),
        held=_sum(state.get("held", {}) for state in [*predicts, *joins]),
        idle_partitions=tuple(sorted({p for state in joins for p in state.get("idle", ())})),
        models=tuple(models),
        costs=read_costs(log, learn),
        dead_letters=dict(sorted(Counter(letter["reason"] for letter in letters).items())),
        dead_letters_read=len(letters),
        dead_letters_total=_total(log, "dead-letters", len(letters)),
        alerts=tuple(_alerts(alerts)),
        open_alerts=standing_alerts.open_counts,
        quarantines=standing_alerts.quarantines,
        blocks=_blocks(_task_state(log, "evaluate-0")),
        registry=registry,
    )


def is_empty(log: Log) -> bool:
    """Whether nothing was ever published or written."""
    return not any(
        log.end_offset(topic, p) for topic, count in log.partitions.items() for p in range(count)
    )


def held_back(log: Log, now_ms: int) -> Iterator[HeldBack]:
    """What a transaction keeps from the stages that is open for longer than ours are.

    Args:
        log: to look at.
        now_ms: the time (UTC ms).
    """
    for topic in input_topics():
        for number in _partitions(log, topic):
            transaction = log.held_back(topic, number)
            if transaction is not None and now_ms - transaction[1] > OPEN_MS_MAX:
                yield HeldBack(topic, number, *transaction)


def _task_state(log: Log, task: str) -> dict[str, Any]:
    """The state of a task that belongs to no key; empty before its first checkpoint."""
    value = whole_piece(log, task, "")
    return {} if value is None else dict(orjson.loads(value))


def _blocks(state: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    blocks = state.get("blocks")
    return () if blocks is None else tuple(block_reports(blocks))


def _stages(log: Log, learn: Sequence[str]) -> Iterator[TaskProgress]:
    for stage, spec in STAGES.items():
        numbers = range(log.partitions[spec.inputs[0]])
        for task in learn if stage == "learn" else [f"{stage}-{number}" for number in numbers]:
            number = parse_task(task).partition
            # Read before the ends: what a worker does meanwhile must not make a lag negative.
            positions = log.committed(task)
            # A log that a former release made lacks what this one has not yet made there.
            for topic in filter(log.partitions.__contains__, spec.inputs):
                start = log.first_offset(topic, number)
                position = max(start, positions.get((topic, number), 0))
                end = log.end_offset(topic, number)
                yield TaskProgress(
                    task,
                    topic,
                    number,
                    position,
                    end,
                    *_waiting(log, topic, number, position, end),
                )


def _waiting(
    log: Log, topic: str, partition: int, position: int, end: int
) -> tuple[int, int | None]:
    """How many records wait, and since when: a few are counted, for offsets may have none."""
    lag = max(0, end - position)
    if not lag:
        return 0, None
    is_counted = lag <= COUNTED_MAX
    records = log.read(topic, partition, position, COUNTED_MAX if is_counted else 1)
    waiting = [record for record in records if record.offset < end]
    first_ms = waiting[0].append_ms if waiting else None
    return (len(waiting) if is_counted else lag), first_ms


def _last_day(registry: RegistryView, predicts: Iterable[dict[str, Any]]) -> dict[str, int]:
    """How many decisions of each kind the last day of events has seen."""
    since_ms = max(state.get("watermark", -1) for state in predicts) - DAY_MS
    decisions = (entry.decision for entry in registry.decisions)
    return dict(Counter(decision.kind for decision in decisions if decision.ts > since_ms))


def _last(log: Log, topic: str) -> list[dict[str, Any]]:
    """The last records of dead letters or alerts that are some, whatever others have put there."""
    member, matches = KIND_MEMBER[topic], []
    for record in last_records(log, topic, LETTERS_READ):
        with suppress(orjson.JSONDecodeError):
            members = orjson.loads(record.value or b"")
            if isinstance(members, dict) and isinstance(members.get(member), str):
                matches.append(members)
    return matches


def _total(log: Log, topic: str, read: int) -> int:
    """How many there are of a topic: as many as were read, or at most as many as its offsets."""
    if read < LETTERS_READ:
        return read
    return offset_count(log, topic)


def _partitions(log: Log, topic: str) -> range:
    return range(log.partitions.get(topic, 0))


def labelled_share(joins: Iterable[dict[str, Any]]) -> float | None:
    """The share of predictions that have a label, both counted by join, at one checkpoint each.

    Silence that is taken for a label is one.
    """
    joined_count = prediction_count = 0
    for state in joins:
        counts, waiting = state.get("counts", {}), state.get("held", {}).get("predictions", 0)
        joined_count += counts.get("joined", 0) + counts.get("absent", 0)
        # Predictions wait until they are joined, expire, or are dropped as too many wait.
        prediction_count += waiting + sum(
            counts.get(n, 0) for n in ("joined", "absent", "expired", "dropped")
        )
    return joined_count / prediction_count if prediction_count else None


def _alerts(alerts: Iterable[dict[str, Any]]) -> Iterator[AlertCount]:
    """One per kind: how many, and the last one's words."""
    counts: Counter[str] = Counter()
    last: dict[str, dict[str, Any]] = {}
    for alert in alerts:
        counts[alert["kind"]] += 1
        last[alert["kind"]] = alert
    for kind, alert in sorted(last.items()):
        yield AlertCount(kind, counts[kind], alert.get("ts"), alert.get("message"))


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for task_counts in counts:
        total.update(task_counts)
    return dict(total)
