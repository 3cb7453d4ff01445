"""Publishing refused records again as the command line asks for it: done and told."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from stream_ml.cli.log import existing_log
from stream_ml.cli.operator import new_command
from stream_ml.cli.output import write, write_json, write_line
from stream_ml.cli.tables import format_counts
from stream_ml.shell.redrive import Redrive, RedriveHistory, check_reasons, refusal_notes
from stream_ml.shell.settings.keys import check_name, reading_key
from stream_ml.shell.settings.loader import pipeline_of
from stream_ml.shell.views.alerts import read_alerts

if TYPE_CHECKING:
    from argparse import Namespace

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.redrive import RedriveReport
    from stream_ml.shell.settings.settings import Settings
    from stream_ml.shell.views.dead_letters import LetterFilter

__all__ = ["redrive"]

UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"))


def redrive(arguments: Namespace, settings: Settings, wanted: LetterFilter, note: str) -> None:
    """Publish again what the declaration can read, or say what would be.

    Args:
        arguments: of the command line.
        settings: which log, and who signs.
        wanted: the dead letters to look at.
        note: why, for whoever reads the audit.

    Raises:
        UsageError: a reason is named of which nothing is published again.
        LogError: the log did not take it.
    """
    pipeline = pipeline_of(settings, "dead-letters redrive")
    check_reasons(wanted.reasons)
    with existing_log(settings) as log:
        checking_key = reading_key(settings, log)
        check_name(settings, log, pipeline.name, checking_key)
        key = None if arguments.dry_run else settings.commanding_key(settings.path)
        history = RedriveHistory(log, pipeline.name, settings.operator, key)
        work = Redrive(log, pipeline, history, lambda: time.time_ns() // 1_000_000)
        if key is None:
            work.preview(wanted)
        else:
            meant = {"pipeline": pipeline.name, "log": log.identity, "reason": note}
            work.publish(
                wanted,
                lambda: new_command(
                    arguments, settings, "redrive", command_id=str(uuid.uuid4()), **meant
                ),
                key,
            )
        notes = refusal_notes(read_alerts(log, checking_key).open)
    _print_report(work.report, arguments, pipeline)
    if arguments.format != "json":
        for note_text in notes:
            write(note_text)


def _duration(ms: int) -> str:
    """A length of time, rounded up, as one declares it."""
    unit_ms, unit = next(each for each in UNITS if ms >= 2 * each[0] or each[1] == "s")
    return f"{-(-ms // unit_ms)}{unit}"


def _print_report(report: RedriveReport, arguments: Namespace, pipeline: Pipeline) -> None:
    kept = [
        {"reason": reason, "why": why, "count": count}
        for (reason, why), count in report.kept.most_common()
    ]
    if arguments.format == "json":
        write_json(
            {
                "dry_run": arguments.dry_run,
                "published": dict(sorted(report.published.items())),
                "published_before": report.former,
                "kept": kept,
                "commands": report.commands,
                "excess_ms": report.excess_ms,
            }
        )
        return
    verb = "would be published" if arguments.dry_run else "published"
    write(f"{verb} again: {format_counts(dict(sorted(report.published.items())))}")
    if report.former:
        write(f"published again before: {report.former:,}")
    for each in kept:
        write_line(f"left alone: {each['count']:,} {each['reason']}: {each['why']}")
    if report.excess_ms:
        write(
            f"those events are up to {_duration(report.excess_ms)} behind what their partitions' "
            "watermarks let in; way out: a pipeline of another name with "
            f'lateness="{_duration(pipeline.lateness_ms + report.excess_ms)}" takes all events of '
            "this log in their place (`stream-ml archive`, then `backtest --archive`), or keep "
            "their bytes: `stream-ml dead-letters --raw`"
        )
    if report.published and not arguments.dry_run:
        write("whether a stage takes them is told as ever: `stream-ml dead-letters`, `status`")
