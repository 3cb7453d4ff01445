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
    "Placed",
    "Replayed",
    "output_of",
    "publish_all",
    "replay",
]

# Called with records that the log has just taken in.
Placed = Callable[[Sequence["Record"]], object]
# Few enough to be nothing in memory, many enough that a transaction costs little for each.
CHUNK_RECORDS = 5_000
# A replay that dies can be run again, so its learners need not be written down in between.
CHECKPOINT_EXAMPLES = 50_000


@dataclass(frozen=True, slots=True)
class Replayed:
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
    log: Log, outputs: Iterable[Output], progress: Progress, placed: Placed | None = None
) -> dict[str, int]:
    """Append all of `outputs`, in their order, and return how many that were by topic.

    Args:
        log: that takes them.
        outputs: in their order.
        progress: is told of each.
        placed: is told where each lies, if it is there.
    """
    published: Counter[str] = Counter({"events": 0, "labels": 0})
    rest = iter(outputs)
    while chunk := list(islice(rest, CHUNK_RECORDS)):
        records = log.append(chunk)
        if placed is not None:
            placed(records)
        published.update(output.topic for output in chunk)
        progress(published.total())
    return dict(published)


def replay(
    log: WorkerLog,
    pipeline: Pipeline,
    key: bytes,
    outputs: Iterable[Output],
    progress: Callable[[str, int | None], Progress] = Progress,
    *,
    placed: Placed | None = None,
) -> Replayed:
    """Publish `outputs` to `log` and work until all are read.

    Args:
        log: where nothing has been published yet.
        pipeline: the declaration.
        key: signs snapshots and decisions.
        outputs: events and labels, each in the order of its stream.
        progress: makes what shows the progress of publishing, then of working.
        placed: called with where some more of `outputs` lie now, in their order.

    Args:
        log: that the registry lies on.
        key: checks signatures; without one all is believed.

    Raises:
        LogLocked: a worker is at work on this log.
        LogError: the log takes no more.
    """
    started = time.perf_counter()
    with progress("publishing", None) as shown:
        published = publish_all(log, outputs, shown, placed)
    worked = time.perf_counter()
    total = sum(published.values())
    with Runner(log, pipeline, key, checkpoint_examples=CHECKPOINT_EXAMPLES) as runner:
        with progress("working", total) as shown:
            runner.run(shown)
        events = _sum(predict.counts for predict in runner.predicts)
        joins = _sum(join.counts for join in runner.joins)
        waiting = _sum(join.pending for join in runner.joins)
        evaluations = runner.evaluate.report()
    ended = time.perf_counter()
    return Replayed(
        published,
        events,
        {**joins, **{f"waiting_{name}": count for name, count in waiting.items()}},
        evaluations,
        {"publish": worked - started, "work": ended - worked},
    )


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
