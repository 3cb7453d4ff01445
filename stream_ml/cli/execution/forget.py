"""Forgetting a key as the command line asks for it: done, told and proved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml import client
from stream_ml.cli.log import existing_log
from stream_ml.cli.operator import new_command
from stream_ml.cli.output import write, write_json, write_line
from stream_ml.cli.tables import format_counts, format_table, format_time
from stream_ml.errors import CommandRefused, StreamMLError, UsageError
from stream_ml.records import line_of
from stream_ml.shell.forget import (
    append_markers,
    await_stages,
    erasures_of,
    find_traces,
    unwritten_tasks,
    verify,
)
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.keys import check_name, reading_key
from stream_ml.shell.settings.loader import pipeline_of
from stream_ml.shell.views.registry import read_registry

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.forget import Traces
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.settings.settings import Settings

__all__ = ["forget"]


def forget(arguments: Namespace, settings: Settings) -> None:
    """Forget, tell what remains, and look for the key where that is asked for.

    Args:
        arguments: of the command line.
        settings: which log, and who signs.

    Raises:
        UsageError: the key of the pipeline, or the file of ids to look for, is not there.
        CommandRefused: the command was refused.
        NoAnswer: it was not answered, or not obeyed, in time.
        StreamMLError: something was found that should be gone.
    """
    if arguments.only_verify and arguments.ids is not None and not arguments.ids.exists():
        raise UsageError(
            f"forget --only-verify: expected in --ids the file that a run of `forget` has written, "
            f"given {arguments.ids}, which is not there; name that file, or leave --ids out"
        )
    pipeline = pipeline_of(settings, "forget")
    with existing_log(settings) as log:
        key = reading_key(settings, log)
        if key is None:
            raise UsageError(
                "forget: expected the pipeline's key, by which a key that is forgotten gets "
                "another name, given none; set STREAM_ML_KEY as the workers have it"
            )
        check_name(settings, log, pipeline.name, key)
        traces = find_traces(log, pipeline, arguments.key, _known_ids(arguments.ids))
        if arguments.ids is not None:
            arguments.ids.write_text("".join(f"{each}\n" for each in sorted(traces.ids)))
        left, report = traces, dict[str, Any]({"erased": 0})
        if not arguments.only_verify:
            report |= _forget(arguments, settings, log, pipeline, key)
            if arguments.records and isinstance(log, SqliteLog):
                report["erased"] = log.erase(traces.offsets, report["subject"])
                log.scrub()
                left = find_traces(log, pipeline, arguments.key, traces.ids)
        report |= _remains(log, traces, left)
        if arguments.verify or arguments.only_verify:
            report["found"] = verify(log, pipeline, arguments.key, traces.ids)
            report["unwritten"] = []
            if not isinstance(log, SqliteLog):
                erasures = erasures_of(log, pipeline, key)
                report["unwritten"] = unwritten_tasks(log, erasures, arguments.key)
    _print(report, arguments)
    if report.get("found"):
        raise StreamMLError(
            f"forget: expected nothing of the key, or of {len(traces.ids):,} ids of its events, "
            f"given {format_counts(report['found'])}; ids that refuse repeats go once "
            "time has passed them: run it again then, with --ids"
        )
    if report.get("unwritten"):
        raise StreamMLError(
            "forget: expected the state of all tasks as it was when they had forgotten, given an "
            f"older one of {', '.join(report['unwritten'])}: workers write it down every "
            "STREAM_ML_CHECKPOINT_SECONDS; run it again then, with --only-verify"
        )


def _known_ids(file: Path | None) -> list[str]:
    """The ids that a former run has written down."""
    return file.read_text().splitlines() if file is not None and file.exists() else []


def _forget(
    arguments: Namespace, settings: Settings, log: Log, pipeline: Pipeline, key: bytes
) -> dict[str, Any]:
    """Have the stages forget; the command is asked for first, for it may be refused."""
    erasures = erasures_of(log, pipeline, key)
    subject = erasures.subjects(arguments.key)[0]
    command = new_command(
        arguments,
        settings,
        "forget",
        details={"subject": subject, "records": arguments.records},
    )
    decision = client.command(
        log,
        command,
        settings.commanding_key(settings.path),
        verifying_key=key,
        timeout_s=arguments.timeout,
    )
    if decision.kind == "refused":
        raise CommandRefused(decision.reason)
    markers = append_markers(log, pipeline, erasures, arguments.key, command)
    await_stages(log, markers, arguments.timeout)
    places = [f"{topic}-{partition}:{offset}" for (topic, partition), offset in markers.items()]
    return {"subject": subject, "decision": decision.number, "markers": places}


def _remains(log: Log, traces: Traces, left: Traces) -> dict[str, Any]:
    """What the log still has of it, until when, and who learned from it."""
    remains = [
        {"topic": topic, "records": count, "until_ms": left.until_ms(topic)}
        for topic, count in sorted(left.counts.items())
    ]
    learned = traces.counts.get("examples", 0)
    lines = _lines(log) if learned else []
    return {"ids": len(traces.ids), "remains": remains, "learned": learned, "lines": lines}


def _lines(log: Log) -> list[str]:
    newest = read_registry(log, None, recent=0).newest
    if newest is None:
        return []
    refs = (newest.serving.champion, *newest.serving.challengers.values())
    return sorted({line_of(ref.model) for ref in refs})


def _print(report: dict[str, Any], arguments: Namespace) -> None:
    if arguments.format == "json":
        write_json(report)
        return
    if "decision" in report:
        write_line(
            f"forgotten: windows and waiting predictions are gone (decision {report['decision']}; "
            f"markers on {', '.join(report['markers'])}); the audit calls the key "
            f"{report['subject'][:16]}..."
        )
    if report["erased"]:
        write(
            f"erased: {report['erased']:,} records, in place, and their bytes from the file; "
            "archives, exports and backups that were made before keep them"
        )
    elif arguments.records and report["remains"] and "decision" in report:
        write("a cluster's records cannot be taken away: they lie until retention ends")
    rows = [
        [each["topic"], f"{each['records']:,}", _until(each["until_ms"])]
        for each in report["remains"]
    ]
    head = ["remains on", "records", "until"]
    write(format_table(rows, head=head, right=[1]) if rows else "no records of it remain")
    if report["ids"]:
        write(
            f"ids of its {report['ids']:,} events are known, to refuse repeats, until time has "
            "passed them by `lateness` (predict) and twice the horizon (join)"
        )
    if report["learned"]:
        write(
            f"models learned from {report['learned']:,} examples of it, and cannot unlearn them: "
            f"the lines {', '.join(report['lines'])}; way out: `stream-ml restart "
            "LINE`, or a line declared anew, which learns what lies on the log then"
        )
    if "found" in report:
        found = format_counts(report["found"])
        is_proof = not report["unwritten"]
        nothing = "verified: nothing found" if is_proof else "nothing found so far"
        write(nothing if not report["found"] else f"found: {found}")


def _until(until_ms: int | None) -> str:
    return "it is deleted by hand" if until_ms is None else format_time(until_ms)
