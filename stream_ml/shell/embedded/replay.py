"""Runs a pipeline over records that are all there already, as fast as the machine goes.

Everything is published first and worked on then: the runner picks its inputs by their own times,
so what comes out is what would have come out live. Records are passed on as they come; they are
held once, in the log.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.records import Evaluation, Output
from stream_ml.shell.embedded.runner import Runner
from stream_ml.shell.processes.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Record
    from stream_ml.shell.log.port import Log, WorkerLog

__all__ = [
    "OnAppend",
    "ReplayResult",
    "output_of",
    "publish_all",
    "replay",
]

# Called with records that the log has just taken in.
OnAppend = Callable[[Sequence["Record"]], object]
# Few enough to be nothing in memory, many enough that a transaction costs little for each.
CHUNK_RECORDS = 5_000
# A replay that dies can be run again, so its learners need not be written down in between.
CHECKPOINT_EXAMPLES = 50_000


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a replay did.

    Attributes:
        published: records by topic.
        events: how many events were taken, predicted, refused, and had no answer of the champion.
        joins: how many labels and predictions were joined, and what became of the others.
        evaluations: how each model stands at the end, the served one first.
        seconds: how long publishing and working took.
    """

    published: dict[str, int]
    events: dict[str, int]
    joins: dict[str, int]
    evaluations: list[Evaluation]
    seconds: dict[str, float]


def output_of(pipeline: Pipeline, topic: str, members: Any, value: bytes | None = None) -> Output:
    """The record to publish, keyed as its topic is.

    Args:
        pipeline: says which member of an event is its key.
        topic: `events` or `labels`.
        members: the record's members; anything else is published without a key, to be refused.
        value: its bytes, where they are there already.
    """
    member = pipeline.events.key if topic == "events" else "event_id"
    key = members.get(member) if isinstance(members, dict) else None
    value = orjson.dumps(members) if value is None else value
    return Output(topic, key.encode() if isinstance(key, str) else None, value)


def publish_all(
    log: Log, outputs: Iterable[Output], progress: Progress, on_append: OnAppend | None = None
) -> dict[str, int]:
    """Append all of `outputs`, in their order, and return how many that were by topic.

    Args:
        log: that takes them.
        outputs: in their order.
        progress: is told of each.
        on_append: is told where each lies, if it is there.
    """
    record_counts: Counter[str] = Counter({"events": 0, "labels": 0})
    remaining = iter(outputs)
    while chunk := list(islice(remaining, CHUNK_RECORDS)):
        records = log.append(chunk)
        if on_append is not None:
            on_append(records)
        record_counts.update(output.topic for output in chunk)
        progress(record_counts.total())
    return dict(record_counts)


def replay(
    log: WorkerLog,
    pipeline: Pipeline,
    key: bytes,
    outputs: Iterable[Output],
    progress: Callable[[str, int | None], Progress] = Progress,
    *,
    on_append: OnAppend | None = None,
) -> ReplayResult:
    """Publish `outputs` to `log` and work until all are read.

    Args:
        log: where nothing has been published yet.
        pipeline: the declaration.
        key: signs snapshots and decisions.
        outputs: events and labels, each in the order of its stream.
        progress: makes what shows the progress of publishing, then of working.
        on_append: called with where some more of `outputs` lie now, in their order.

    Raises:
        LogLocked: a worker is at work on this log.
        LogError: the log takes no more.
    """
    started_s = time.perf_counter()
    with progress("publishing", None) as progress_bar:
        record_counts = publish_all(log, outputs, progress_bar, on_append)
    work_started_s = time.perf_counter()
    total = sum(record_counts.values())
    with Runner(log, pipeline, key, checkpoint_examples=CHECKPOINT_EXAMPLES) as runner:
        with progress("working", total) as progress_bar:
            runner.run(progress_bar)
        events = _sum(predict.counts for predict in runner.predicts)
        joins = _sum(join.counts for join in runner.joins)
        waiting = _sum(join.pending for join in runner.joins)
        evaluations = runner.evaluate.report()
    ended_s = time.perf_counter()
    return ReplayResult(
        record_counts,
        events,
        {**joins, **{f"waiting_{name}": count for name, count in waiting.items()}},
        evaluations,
        {"publish": work_started_s - started_s, "work": ended_s - work_started_s},
    )


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in counts:
        total.update(part)
    return dict(total)
