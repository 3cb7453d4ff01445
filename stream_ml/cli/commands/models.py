"""`models`: what serves, what challenges it, and how that came to be."""

from __future__ import annotations

from argparse import ArgumentTypeError
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stream_ml.cli.decisions import HEAD, as_members, as_row, by, effects, when
from stream_ml.cli.output import write, write_json
from stream_ml.cli.registry import (
    existing_log,
    last_records,
    newest_evaluations,
    read_registry,
)
from stream_ml.cli.scores import evidence_table
from stream_ml.cli.subcommand import Subcommand, UsageExample
from stream_ml.cli.tables import NOTHING, aligned, moment, span
from stream_ml.codec import decode_prediction
from stream_ml.errors import BadRecord
from stream_ml.models.envelope import decode
from stream_ml.shell.identity import reading_key
from stream_ml.shell.printable import printable

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from stream_ml.cli.registry import Registry
    from stream_ml.records import ModelRef, ServingSet
    from stream_ml.shell.log import Log
    from stream_ml.shell.settings import Settings

__all__ = ["COMMAND"]

DECISIONS = 10


def run(arguments: Namespace, settings: Settings) -> None:
    """Print the serving set and the last decisions."""
    with existing_log(settings) as log:
        key = reading_key(settings, log)
        registry = read_registry(log, key, arguments.decisions)
        shown = _shown(log, registry)
    shown["notes"] = registry.notes(settings.unchecked(settings.path) if key is None else None)
    if arguments.format == "json":
        write_json({"log": settings.path, **shown})
    else:
        write("\n\n".join(_blocks(settings.path, shown)))


def _shown(log: Log, registry: Registry) -> dict[str, Any]:
    newest = registry.newest
    return {
        "pipeline": registry.pipeline,
        "since": None if registry.since is None else as_members(registry.since),
        "effect": effects(registry),
        "models": [] if newest is None else list(_models(log, newest.serving)),
        "evidence": {
            each["model"]: each["evidence"]
            for each in newest_evaluations(log)
            # What was said of the champion while it challenged is history.
            if each.get("evidence") and newest is not None
            if each["model"] in newest.serving.challengers
        },
        "decisions": [as_members(entry) for entry in registry.recent],
    }


def _models(log: Log, serving: ServingSet) -> Iterator[dict[str, Any]]:
    now_ms = _newest_prediction_ms(log)
    for role, ref in _roles(serving):
        examples, taken_ms = _taken(log, ref)
        age_ms = None
        if now_ms is not None and taken_ms is not None and taken_ms >= 0:
            age_ms = max(0, now_ms - taken_ms)
        yield {
            "role": role,
            "model": ref.model,
            "examples": examples,
            "taken_ts": taken_ms,
            "age_ms": age_ms,
            "digest": ref.digest,
        }


def _roles(serving: ServingSet) -> Iterator[tuple[str, ModelRef]]:
    yield "champion", serving.champion
    for ref in serving.challengers.values():
        yield "challenger", ref
    if serving.predecessor is not None:
        yield "predecessor", serving.predecessor
    if serving.first is not None:
        yield "first", serving.first


def _taken(log: Log, ref: ModelRef) -> tuple[int | None, int | None]:
    """How many examples are in a snapshot, and the time of events it was taken at."""
    for record in log.read("models", 0, ref.offset, 1):
        # What compaction has left in its place is another.
        if record.offset == ref.offset and record.value is not None:
            with suppress(BadRecord):
                snapshot = decode(record.value)
                return snapshot.examples["count"], snapshot.epoch.get("watermark")
    return None, None


def _newest_prediction_ms(log: Log) -> int | None:
    times = []
    for record in last_records(log, "predictions", 1):
        with suppress(BadRecord):  # not one of ours
            times.append(decode_prediction(record.value).ts)
    return max(times, default=None)


def _blocks(path: str, shown: dict[str, Any]) -> Iterator[str]:
    since = shown["since"]
    if since is None:
        path = printable(path)
        yield f"{path}: nothing serves yet: the log holds no decision that we can believe"
    else:
        serves = "from the start" if since["ts"] < 0 else f"since {when(since)}"
        served = printable(
            f"pipeline {shown['pipeline']}: {since['champion']} serves {serves} "
            f"(decision {since['number']}, {since['kind']} by "
            f"{by(since['actor'], since['signed_by'])})"
        )
        yield f"{served}\n{shown['effect']}"
        rows = [
            [
                each["role"],
                each["model"],
                NOTHING if each["examples"] is None else f"{each['examples']:,}",
                moment(each["taken_ts"]),
                span(each["age_ms"]),
            ]
            for each in shown["models"]
        ]
        head = ["role", "model", "examples", "taken at", "age"]
        yield aligned([head, *rows], right=[2])
    evidence = evidence_table(
        [{"model": model, "evidence": each} for model, each in shown["evidence"].items()]
    )
    if evidence is not None:
        yield evidence
    if shown["decisions"]:
        yield aligned([HEAD, *map(as_row, shown["decisions"])], right=[0])
    yield from shown["notes"]


def _count(text: str) -> int:
    with suppress(ValueError):
        if int(text) >= 0:
            return int(text)
    raise ArgumentTypeError(f"expected a whole number from 0, given {text!r}")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--decisions",
        type=_count,
        default=DECISIONS,
        metavar="N",
        help=f"how many of the last decisions to show (default {DECISIONS})",
    )


COMMAND = Subcommand(
    name="models",
    help="what serves, what challenges it, evidence, decisions",
    description=(
        "Shows the models that answer: the champion, which serves; its challengers, which are\n"
        "asked as well and scored; its predecessor, and the first one, never updated; and what\n"
        "speaks for each challenger. Times and ages are those of events, but for when decisions\n"
        "were made. Only reads, also while a worker runs."
    ),
    examples=(
        UsageExample("stream-ml models", "those on the log that is set"),
        UsageExample("stream-ml --broker sqlite:runs/demo/log.sqlite models", "those of the demo"),
        UsageExample(
            "stream-ml models --decisions 100 --format json", "with more history, as JSON"
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
)
