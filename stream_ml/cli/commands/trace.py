"""`trace`: one event's way, from what is on the log: how far it has come, and why no further."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml import __version__
from stream_ml.cli.arguments import instant, utf8
from stream_ml.cli.log import add_archive, existing_log
from stream_ml.cli.output import write, write_json
from stream_ml.cli.subcommand import Subcommand, UsageExample
from stream_ml.cli.tables import format_duration, format_table, format_time
from stream_ml.errors import StreamMLError
from stream_ml.shell.printable import printable
from stream_ml.shell.processes.progress import Progress, with_progress
from stream_ml.shell.settings.keys import reading_key
from stream_ml.shell.settings.loader import declared_pipeline
from stream_ml.shell.views.registry import read_registry
from stream_ml.shell.views.spans import otlp_spans
from stream_ml.shell.views.trace import trace

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterable, Iterator
    from typing import Any

    from stream_ml.records import Record
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.settings.settings import Settings
    from stream_ml.shell.views.trace import PredictedStep, PublishedStep, Trace

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Print an event's way."""
    pipeline = declared_pipeline(settings)
    declared = None if pipeline is None else pipeline.events
    with existing_log(settings, archive=arguments.archive) as log:
        key = reading_key(settings, log)
        found = trace(
            log,
            key,
            arguments.event_id,
            since_ms=arguments.since,
            watch=_watched,
            declared=declared,
        )
        spans = _spans(log, key, found) if arguments.spans else None
    if not found.is_found:
        scope = "" if arguments.since is None else f" since {format_time(arguments.since)}"
        raise StreamMLError(
            f"trace: nothing with the id {arguments.event_id!r} is on the log{scope}: it was never "
            "published there, or retention has removed it"
        )
    if spans is not None:
        write_json(spans)
    elif arguments.format == "json":
        unverified = settings.unverified_reason(settings.path) if key is None else None
        write_json({**found.as_dict(), "notes": [unverified] if unverified else []})
    else:
        write("\n".join(_lines(found)))


def _spans(log: Log, key: bytes | None, found: Trace) -> dict[str, Any]:
    pipeline = read_registry(log, key, recent=0).pipeline or ""
    return otlp_spans(found, pipeline, log.identity, __version__)


def _watched(topic: str, records: Iterable[Record]) -> Iterator[Record]:
    with Progress(f"reading {topic}") as progress:
        yield from with_progress(records, progress)


def _lines(found: Trace) -> Iterator[str]:
    yield format_table([["taken in", "step", "lies at", ""], *_rows(found)])
    if found.predicted is not None and found.predicted.shadows:
        yield ""
        rows = [
            [
                slot,
                shadow.model,
                "not asked yet" if shadow.offset is not None else _text(shadow.prediction),
            ]
            for slot, shadow in sorted(found.predicted.shadows.items())
        ]
        yield format_table([["in its shadow", "model", "said"], *rows])
    if found.ended is not None:
        yield ""
        yield printable(f"so far: {found.ended}")


def _rows(found: Trace) -> Iterator[list[str]]:
    for event in found.events:
        yield _published("published", event)
    if found.predicted is not None:
        yield _predicted(found.predicted)
    for label in found.labels:
        yield _published(f"label {_text(label.label)}", label)
    joined = found.joined
    if joined is not None:
        text = f"{_text(joined.label)}, {format_duration(joined.delay_ms)} after the event"
        if joined.implicit:
            text = f"silence, taken for {text}"
        if joined.last_label is not None:
            text += f"; corrected since: {_text(joined.last_label)}"
        yield [format_time(joined.append_ms), "joined", f"examples-0 {joined.offset}", text]
    for step in found.learned:
        place = f"models-0 {step.offset}"
        yield [format_time(step.append_ms), "learned", place, f"first in {step.model}"]
    for decision in found.decisions:
        text = f"{decision.kind}: {decision.champion} serves ({decision.reason})"
        part = "counted in" if decision.part == "counted" else "serves by"
        yield [format_time(decision.append_ms), part, f"decision {decision.number}", text]
    for view in found.letters:
        letter = view.letter
        place = f"{letter.topic}-{letter.partition} {letter.offset}"
        text = f"{letter.reason} at {letter.path}: {letter.message}"
        yield [format_time(view.append_ms), f"refused by {letter.stage}", place, text]


def _published(step: str, record: PublishedStep) -> list[str]:
    place = f"{record.topic}-{record.partition} {record.offset}"
    text = f"of {format_time(record.ts)}" + ("" if record.is_read else ", not read yet")
    return [format_time(record.append_ms), step, place, text]


def _predicted(step: PredictedStep) -> list[str]:
    place = "gone" if step.offset is None else f"predictions-{step.partition} {step.offset}"
    answer = f"{_text(step.prediction)}{' (a fallback)' if step.fallback else ''} by {step.model}"
    decision = "" if step.decision is None else f" of decision {step.decision}"
    latency = "" if step.latency_ms is None else f", {step.latency_ms:,} ms after the event"
    text = f"{answer}{decision}{latency}, features {step.features_hash[:12]}"
    return [format_time(step.append_ms), "predicted", place, text]


def _text(value: object) -> str:
    return "no answer" if value is None else f"{value}"


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("event_id", metavar="EVENT_ID", type=utf8, help="the event to follow")
    parser.add_argument(
        "--since",
        metavar="TIME",
        type=instant,
        help="read nothing that the log took in before: of a long log that is quicker",
    )
    parser.add_argument(
        "--spans",
        action="store_true",
        help="as OpenTelemetry has it: the JSON that a collector takes at /v1/traces (OTLP)",
    )
    add_archive(parser)


COMMAND = Subcommand(
    name="trace",
    help="one event's way: published, predicted, labelled, joined, learned, decided",
    description=(
        "Shows one event's way, from what is on the log: when it was published and where it lies,\n"
        "what was predicted by which version from which features and how soon, its label, the\n"
        "example that they became, the first snapshot of each line that has learned it, and the\n"
        "decisions that it had a part in; or why it came no further, as its dead letter says.\n"
        "Exit code 1 where nothing of it is on the log. Only reads, also while a worker runs."
    ),
    examples=(
        UsageExample("stream-ml trace e17", "of the log that is set"),
        UsageExample("stream-ml trace e17 --since 2013-01-06 --format json", "for a machine"),
        UsageExample(
            "stream-ml trace e17 --spans | curl -H 'Content-Type: application/json' --data @- "
            "http://127.0.0.1:4318/v1/traces",
            "to a collector of OpenTelemetry",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
)
