"""`check`: files read as `backtest` and `publish` read them, and nothing published."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from stream_ml.cli.findings import Findings, label_hints, members_of
from stream_ml.cli.output import write, write_json
from stream_ml.cli.tables import format_counts, format_table, format_time
from stream_ml.errors import BadRecord, StreamMLError
from stream_ml.shell.printable import printable
from stream_ml.shell.processes.progress import Progress, with_progress
from stream_ml.shell.rows.inspection import KNOWN_MAX, Inspection
from stream_ml.shell.rows.layout import RowLayout
from stream_ml.shell.rows.reader import check_files, read_rows
from stream_ml.shell.settings.loader import pipeline_of

if TYPE_CHECKING:
    from argparse import Namespace

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.rows.layout import Row
    from stream_ml.shell.settings.settings import Settings

__all__ = ["inspect", "run", "summary_text"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Read the files, and say what is in them and what would be refused."""
    pipeline = pipeline_of(settings, "check")
    check_files(arguments.files, arguments.input, row_ids=pipeline.files.row_ids)
    findings, inspection = inspect(pipeline, arguments.files, arguments.input)
    if arguments.format == "json":
        write_json(_summary(findings, inspection))
    else:
        write(summary_text(findings, inspection))
    if findings.refused_counts:
        count = findings.refused_counts.total()
        raise StreamMLError(f"check: {count:,} of {findings.lines.total():,} would be refused")
    if not findings.lines:
        raise StreamMLError(f"check: expected rows in {', '.join(arguments.files)}, given none")
    if findings.wrong_unit():
        raise StreamMLError("check: most times are probably of another unit than declared")


def inspect(pipeline: Pipeline, files: list[str], kind: Any) -> tuple[Findings, Inspection]:
    """Read files to their ends.

    Args:
        pipeline: the declaration.
        files: their names.
        kind: what somebody says that they are.
    """
    findings, inspection = Findings(pipeline), Inspection(pipeline)
    with Progress("checking", None) as progress:
        rows = (
            (file, row)
            for file in files
            for row in read_rows(file, RowLayout(pipeline, file), kind)
        )
        for file, row in with_progress(rows, progress):
            _inspect(findings, inspection, file, row)
    return findings, inspection


def _inspect(findings: Findings, inspection: Inspection, file: str, row: Row) -> None:
    position, events = (file, row.number), inspection.events
    members = None if row.value is None else members_of(row.value)
    is_label = isinstance(members, dict) and "label" in members
    topic = row.topic or ("labels" if is_label else "events")
    if row.value is not None:
        findings.members(position, topic, row.value, members)
    try:
        ts = inspection.record(f"{file}:{row.number}", row)
    except BadRecord as error:
        findings.line(position, topic, None)
        findings.refuse(f"{file}:{row.number}", error.reason, error.path, error.message)
    else:
        findings.line(position, "events" if inspection.events > events else "labels", ts)


def _summary(findings: Findings, inspection: Inspection) -> dict[str, Any]:
    return {
        "pipeline": inspection.pipeline.name,
        "events": inspection.events,
        "labels": inspection.labels,
        "times": inspection.times,
        "label_times": inspection.label_times,
        "keys": len(inspection.keys),
        "classes": dict(sorted(inspection.classes.items())),
        "label_quantiles": _quantiles(inspection),
        "labels_without_event": inspection.without_event,
        "missing": dict(sorted(inspection.missing.items())),
        "too_late": inspection.too_late,
        "repeated_ids": inspection.repeated,
        "refused": findings.as_members(),
        "leaks": [leak.as_members() for leak in inspection.leaks.leaks()],
        "hints": [*findings.hints(), *_notes(inspection)],
    }


def summary_text(findings: Findings, inspection: Inspection) -> str:
    """What was seen, for people.

    Args:
        findings: what was refused.
        inspection: what was read.
    """
    rows = [
        ["pipeline", f"{inspection.pipeline.name} ({inspection.pipeline.target.kind})"],
        ["read", format_counts({"events": inspection.events, "labels": inspection.labels})],
        ["times of events", _span_text(inspection.times)],
        ["times of labels", _span_text(inspection.label_times)],
        ["keys", _at_most(len(inspection.keys))],
    ]
    if inspection.classes:
        shares = sorted(inspection.classes.items())
        rows.append(["labels", ", ".join(f"{n:,} {name}" for name, n in shares)])
    if inspection.pipeline.label.absent is not None and inspection.events:
        silent = f"an event without a label counts as {inspection.pipeline.label.absent}"
        rows.append(["silence", silent])
    quantiles = _quantiles(inspection)
    if quantiles is not None:
        names = ("min", "10%", "median", "90%", "max")
        texts = [f"{n} {x:,.10g}" for n, x in zip(names, quantiles.values(), strict=True)]
        rows.append(["labels", ", ".join(texts)])
    if inspection.missing:
        texts = [
            f"{name} {count / inspection.events:.1%}"
            for name, count in sorted(inspection.missing.items())
        ]
        rows.append(["missing", ", ".join(texts)])
    rows.append(["refused", format_counts(dict(sorted(findings.refused_counts.items())))])
    refused = [f"  {line}" for line in findings.refused_lines()]
    return "\n\n".join(
        [
            format_table(rows),
            *(["\n".join(["refused:", *refused])] if refused else []),
            *findings.hints(),
            *_notes(inspection),
            *(printable(leak.message) for leak in inspection.leaks.leaks()),
        ]
    )


def _quantiles(inspection: Inspection) -> dict[str, float] | None:
    """Of labels that are numbers; None where there are none."""
    numbers = sorted(inspection.numbers)
    if not numbers:
        return None
    parts = {"min": 0.0, "p10": 0.1, "p50": 0.5, "p90": 0.9, "max": 1.0}
    return {name: numbers[round(part * (len(numbers) - 1))] for name, part in parts.items()}


def _span_text(span: tuple[int, int] | None) -> str:
    return "-" if span is None else f"{format_time(span[0])} to {format_time(span[1])}"


def _at_most(count: int) -> str:
    return f"{count:,}" if count < KNOWN_MAX else f"{count:,} and more"


def _notes(inspection: Inspection) -> list[str]:
    """What a backtest would refuse or drop, beside what is refused at once."""
    notes = []
    events = inspection.pipeline.events
    if inspection.too_late:
        notes.append(
            f"{inspection.too_late:,} of {inspection.events:,} events lie more than lateness="
            f"{events.lateness!r} behind others before them (first at "
            f"{inspection.too_late_first}), and would be refused as too late: sort the file by "
            f"{events.time!r}, or declare more lateness"
        )
    if inspection.repeated:
        notes.append(
            f"{inspection.repeated:,} of {inspection.events:,} events have an id that another one "
            "had, and would count as the same one"
        )
    if inspection.events and inspection.without_event:
        notes.append(
            f"{inspection.without_event:,} of {inspection.labels:,} labels are of an id that no "
            "event here has, and would be joined with nothing"
        )
    if inspection.events and not inspection.labels:
        notes.append("there are no labels among them: nothing could be scored or learned")
    labels: Counter[Any] = Counter(inspection.numbers)
    labels |= inspection.classes
    notes += map(printable, label_hints(inspection.pipeline, labels))
    return notes
