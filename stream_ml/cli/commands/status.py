"""`status`: how far the stages are, how fresh, how good, and what went wrong."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.cli.decisions import as_members, by, when
from stream_ml.cli.output import write, write_json
from stream_ml.cli.registry import (
    existing_log,
    is_empty,
    last_records,
    newest_evaluations,
    piece,
    read_registry,
)
from stream_ml.cli.scores import FORMS, evidence_table, scores_table
from stream_ml.cli.subcommand import Subcommand, UsageExample, no_arguments
from stream_ml.cli.tables import aligned, counted, moment
from stream_ml.shell.identity import check_name, reading_key
from stream_ml.shell.loading import load_pipeline
from stream_ml.shell.printable import printable
from stream_ml.stages.topology import STAGES, input_topics

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator

    from stream_ml.cli.registry import Registry
    from stream_ml.shell.audit import Entry
    from stream_ml.shell.log import Log
    from stream_ml.shell.settings import Settings

__all__ = ["COMMAND"]

DAY_MS = 86_400_000
# A worker's own transaction is open for a fraction of a second, an abandoned one for 5 s and more.
OPEN_MS_MAX = 5_000
# A cluster puts marks of transactions between records; of a great lag they are a small part.
COUNTED_MAX = 100
CHECKPOINTED = (
    "counts and times are those of each task's last checkpoint, which is due every "
    "STREAM_ML_CHECKPOINT_SECONDS while records come; positions are of now"
)
UNKNOWN = "not known before a worker's first checkpoint"
# Of dead letters and alerts so many of the last are read, in half a second: there may be millions.
LETTERS_READ = 10_000
# What tells that a record is a dead letter, or an alert.
NAMED = {"dead-letters": "reason", "alerts": "kind"}


def run(arguments: Namespace, settings: Settings) -> None:
    """Print how the pipeline on the log is getting on."""
    with existing_log(settings) as log:
        key = reading_key(settings, log)
        mode = None
        if settings.pipeline is not None:
            pipeline = load_pipeline(settings.pipeline)
            check_name(settings, log, pipeline.name, key)
            mode = pipeline.promotion.mode
        shown = {"log": settings.path, "empty": is_empty(log), "mode": mode, **_shown(log, key)}
        unchecked = [] if key is not None else [settings.unchecked(settings.path)]
        noted = _notes(settings, [*unchecked, *shown["notes"]])
        held_back = list(_held_back(log, _now_ms()))
        shown["notes"] = [*noted, *held_back]
    if arguments.format == "json":
        write_json(shown)
    elif shown["empty"]:
        committed = "that is committed " if held_back else ""
        empty = f"an empty log: nothing {committed}was published to it, and no worker has run"
        write("\n\n".join([printable(f"{settings.path}: {empty}"), *held_back]))
    else:
        write("\n\n".join(_blocks(shown)))


def _shown(log: Log, key: bytes | None) -> dict[str, Any]:
    registry = read_registry(log, key, recent=None)
    predicts = [piece(log, f"predict-{p}") for p in range(log.partitions["events"])]
    joins = [piece(log, f"join-{p}") for p in range(log.partitions["predictions"])]
    tasks = [f"predict-{p}" for p in range(len(predicts))] + [
        f"join-{p}" for p in range(len(joins))
    ]
    letters, alerts = _last(log, "dead-letters"), _last(log, "alerts")
    models = newest_evaluations(log)
    return {
        "pipeline": registry.pipeline,
        "champion": None if registry.newest is None else registry.newest.serving.champion.model,
        "since": _decision(registry.since),
        "paused": _decision(registry.paused),
        "frozen": _decision(registry.frozen),
        "decisions_last_day": _last_day(registry, predicts),
        "stages": list(_stages(log)),
        "watermarks": {
            "events": [each.get("watermark", -1) for each in predicts],
            "labels": [each.get("labels_watermark", -1) for each in joins],
            "examples": max((each["ts"] for each in models), default=-1),
        },
        "checkpoints": {task: log.written_ms(task) for task in tasks},
        "events": _sum(each.get("counts", {}) for each in predicts),
        "labels": _sum(each.get("counts", {}) for each in joins),
        "labelled": _labelled(joins),
        "held": _sum(each.get("held", {}) for each in [*predicts, *joins]),
        "models": models,
        "dead_letters": dict(sorted(Counter(each["reason"] for each in letters).items())),
        "dead_letters_read": len(letters),
        "dead_letters_total": _total(log, "dead-letters", len(letters)),
        "alerts": list(_alerts(alerts)),
        "notes": registry.notes(None),
    }


def _notes(settings: Settings, noted: list[str]) -> list[str]:
    return [*noted, CHECKPOINTED] if settings.on_kafka else noted


def _held_back(log: Log, now_ms: int) -> Iterator[str]:
    """What is kept from the stages by a transaction that is open for longer than ours are."""
    for topic in input_topics():
        for number in range(log.partitions[topic]):
            held = log.held_back(topic, number)
            if held is not None and now_ms - held[1] > OPEN_MS_MAX:
                yield (
                    f"{topic}-{number}: up to {held[0]:,} records are held back by an open "
                    f"transaction since {moment(held[1])}: no lag shows them; "
                    "`kafka-transactions.sh find-hanging` names it, and the broker ends it in time"
                )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _stages(log: Log) -> Iterator[dict[str, Any]]:
    for stage, spec in STAGES.items():
        for number in range(log.partitions[spec.inputs[0]]):
            # Read before the ends: what a worker does meanwhile must not make a lag negative.
            committed = log.committed(f"{stage}-{number}")
            for topic in spec.inputs:
                start = log.first_offset(topic, number)
                position = max(start, committed.get((topic, number), 0))
                end = log.end_offset(topic, number)
                yield {
                    "task": f"{stage}-{number}",
                    "topic": topic,
                    "partition": number,
                    "position": position,
                    "end": end,
                    "lag": _lag(log, topic, number, position, end),
                }


def _lag(log: Log, topic: str, partition: int, position: int, end: int) -> int:
    """How many records wait: a few are counted, for between offsets there may be none."""
    lag = max(0, end - position)
    if 0 < lag <= COUNTED_MAX:
        waiting = log.read(topic, partition, position, COUNTED_MAX)
        return sum(record.offset < end for record in waiting)
    return lag


def _decision(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    members = as_members(entry)
    return {"decision": members.pop("number"), **members}


def _last_day(registry: Registry, predicts: Iterable[dict[str, Any]]) -> dict[str, int]:
    """How many decisions of each kind the last day of events has seen."""
    since_ms = max(each.get("watermark", -1) for each in predicts) - DAY_MS
    decided = (each.decision for each in registry.recent)
    return dict(Counter(each.kind for each in decided if each.ts > since_ms))


def _last(log: Log, topic: str) -> list[dict[str, Any]]:
    """The last records of dead letters or alerts that are some, whatever others have put there."""
    member, found = NAMED[topic], []
    for record in last_records(log, topic, LETTERS_READ):
        with suppress(orjson.JSONDecodeError):
            members = orjson.loads(record.value or b"")
            if isinstance(members, dict) and isinstance(members.get(member), str):
                found.append(members)
    return found


def _total(log: Log, topic: str, read: int) -> int:
    """How many there are of a topic: as many as were read, or at most as many as its offsets."""
    if read < LETTERS_READ:
        return read
    ends = ((log.first_offset(topic, p), log.end_offset(topic, p)) for p in _partitions(log, topic))
    return sum(end - first for first, end in ends)


def _partitions(log: Log, topic: str) -> range:
    return range(log.partitions[topic])


def _labelled(joins: Iterable[dict[str, Any]]) -> float | None:
    """The share of predictions that have a label, both counted by join, at one checkpoint each."""
    joined = predictions = 0
    for each in joins:
        counts, waiting = each.get("counts", {}), each.get("held", {}).get("predictions", 0)
        joined += counts.get("joined", 0)
        # What waits no more was joined, has expired, or was dropped where too many waited.
        predictions += waiting + sum(counts.get(n, 0) for n in ("joined", "expired", "dropped"))
    return joined / predictions if predictions else None


def _alerts(alerts: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One per kind: how many, and the last one's words."""
    counts: Counter[str] = Counter()
    last: dict[str, dict[str, Any]] = {}
    for alert in alerts:
        counts[alert["kind"]] += 1
        last[alert["kind"]] = alert
    for kind, alert in sorted(last.items()):
        told = {name: alert.get(name) for name in ("ts", "message")}
        yield {"kind": kind, "count": counts[kind], **told}


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)


# --- as text ----------------------------------------------------------------------------------


def _blocks(shown: dict[str, Any]) -> Iterator[str]:
    yield _facts(shown)
    rows = [
        [
            each["task"],
            f"{each['topic']}-{each['partition']}",
            *(f"{each[name]:,}" for name in ("position", "end", "lag")),
        ]
        for each in shown["stages"]
    ]
    yield aligned([["stage", "reads", "position", "end", "lag"], *rows], right=[2, 3, 4])
    if shown["models"]:
        for form, name in FORMS.items():
            yield f"scores {name}\n{scores_table(shown['models'], form)}"
    else:
        yield "no scores yet: they are written every 1,000 examples"
    evidence = evidence_table(shown["models"])
    if evidence is not None:
        yield f"evidence that a challenger is better than the champion\n{evidence}"
    for alert in shown["alerts"]:
        times = f", {alert['count']:,} times" if alert["count"] > 1 else ""
        at = moment(alert["ts"])
        yield printable(f"alert {alert['kind']}{times}, last at {at}: {alert['message']}")
    yield from shown["notes"]


def _facts(shown: dict[str, Any]) -> str:
    since, watermarks = shown["since"], shown["watermarks"]
    serves = "none yet: the log holds no decision that we can believe"
    if since is not None:
        at = "from the start" if since["ts"] < 0 else f"since {when(since)}"
        serves = f"{shown['champion']}, {at} (decision {since['decision']})"
    return aligned(
        [
            ["log", shown["log"]],
            ["pipeline", shown["pipeline"] or "not known yet"],
            ["champion", serves],
            ["mode", _mode(shown)],
            ["last day", counted(shown["decisions_last_day"])],
            ["events until", ", ".join(map(moment, watermarks["events"]))],
            ["labels until", ", ".join(map(moment, watermarks["labels"]))],
            ["scores until", moment(watermarks["examples"])],
            ["events", _counts(shown, "events", "predict")],
            ["labels", _counts(shown, "labels", "join")],
            ["held", counted(shown["held"]) if shown["held"] else UNKNOWN],
            ["dead letters", _letters(shown)],
        ]
    )


def _mode(shown: dict[str, Any]) -> str:
    said = [shown["mode"] or "not known: no pipeline is set"]
    frozen = "renewed no more after a rollback, until `resume`"
    for state, words in (("paused", "paused"), ("frozen", frozen)):
        since = shown[state]
        if since is not None:
            said.append(
                f"{words} since {when(since)} by {by(since['actor'], since['signed_by'])}: "
                f"{since['reason']} (decision {since['decision']})"
            )
    return "; ".join(said)


def _counts(shown: dict[str, Any], name: str, stage: str) -> str:
    """What became of events or labels, and as of when where that is not now."""
    if not shown[name]:
        return UNKNOWN
    share = (
        ""
        if shown["labelled"] is None or name == "events"
        else (f"; {shown['labelled']:.1%} of predictions have a label")
    )
    times = [ms for task, ms in shown["checkpoints"].items() if task.startswith(stage) and ms]
    as_of = f" (as of the checkpoint at {moment(min(times))})" if times else ""
    return counted(shown[name]) + share + as_of


def _letters(shown: dict[str, Any]) -> str:
    read, total = shown["dead_letters_read"], shown["dead_letters_total"]
    of = "" if read == total else f" (of the last {read:,}; at most {total:,} in all)"
    return counted(shown["dead_letters"]) + of


COMMAND = Subcommand(
    name="status",
    help="lag, freshness, scores, evidence, dead letters, alerts",
    description=(
        "Shows how the pipeline on a log is getting on: how far each stage has read and how much\n"
        "waits (lag), up to when events and labels are known, how the models score and what\n"
        "speaks for each challenger, what became of labels, what was refused and why (of the last\n"
        "10,000 refusals). A day is one of events. Only reads, also while a worker runs."
    ),
    examples=(
        UsageExample("stream-ml status", "of the log that is set"),
        UsageExample("stream-ml --broker sqlite:runs/demo/log.sqlite status", "of the demo's log"),
        UsageExample("stream-ml status --format json", "for a monitor to read"),
    ),
    add_arguments=no_arguments,
    run=run,
)
