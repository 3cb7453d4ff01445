"""Forgetting a key as the command line asks for it: done, told and proved."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from stream_ml import client
from stream_ml.cli.log import existing_log
from stream_ml.cli.operator import new_command
from stream_ml.cli.output import write, write_json, write_line
from stream_ml.cli.tables import format_counts, format_table, format_time
from stream_ml.errors import CommandRefused, StreamMLError, UsageError
from stream_ml.records import line_of
from stream_ml.shell.forget import (
    Traces,
    append_markers,
    await_stages,
    erasures_of,
    find_on_log,
    find_traces,
    unwritten_tasks,
    verify,
)
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.settings.keys import check_name, reading_key
from stream_ml.shell.settings.loader import pipeline_of
from stream_ml.shell.views.registry import read_registry
from stream_ml.task_names import PipelineName

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from stream_ml.pipeline import Pipeline
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.settings.settings import Settings

__all__ = ["forget"]

# A worker has read soon what lies before it; what it has not remains, and is told.
CALM_S = 2.0
POLL_S = 0.1


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
    with ExitStack() as stack:
        works = _works(stack, settings, arguments)
        known = _known_ids(arguments.ids)
        for work in works:  # the first reads the ids off the events, which may be gone then
            work.find(known)
            known = sorted(work.traces.ids)
        _write_ids(arguments.ids, known)
        left = _left_behind(works[0], known)
        if not arguments.only_verify:
            if left:
                raise UsageError(_left_text(left))
            for work in works:
                work.forget(arguments)
            if arguments.records:
                _erase(works, arguments.timeout)
                _write_ids(arguments.ids, sorted(works[0].traces.ids.union(known)))
        for work in works:
            work.finish(arguments)
    _print_all(works, arguments)
    if left:
        raise StreamMLError(_left_text(left))
    for work in works:
        _judge(work)


def _erase(works: Sequence[_Work], timeout_s: float) -> None:
    """Take all records from an embedded log, as soon as everybody has read them.

    Stages were at work while the key was being forgotten, and what they wrote is of it as well.
    """
    deadline_s = time.monotonic() + min(timeout_s, CALM_S)
    known: set[str] = set()
    while True:
        is_over = time.monotonic() >= deadline_s
        is_clean = True
        for work in works:  # ids are read off the events, which the first takes away
            is_clean &= work.look_again(known)
            known |= work.traces.ids
        for work in works:
            work.erase()
        if is_clean or is_over:
            return
        time.sleep(POLL_S)


def _write_ids(file: Path | None, ids: Sequence[str]) -> None:
    if file is not None:
        file.write_text("".join(f"{each}\n" for each in ids))


def _pipelines(settings: Settings) -> list[tuple[Settings, Pipeline]]:
    """The pipeline and its tasks, each with the settings that mean it.

    Raises:
        UsageError: only one of them is named.
    """
    pipeline = pipeline_of(settings, "forget")
    if settings.task is not None:
        raise UsageError(
            f"forget: expected no --task, given {settings.task!r}: a key is forgotten by all tasks "
            "of a pipeline; leave it out, and STREAM_ML_TASK unset"
        )
    tasks = pipeline.task_pipelines
    return [
        (settings, pipeline),
        *((replace(settings, task=name), each) for name, each in tasks.items()),
    ]


def _works(stack: ExitStack, settings: Settings, arguments: Namespace) -> list[_Work]:
    """The pipeline's own task and the others; one never worked on has nothing to forget."""
    main, *tasks = [(*each, arguments) for each in _pipelines(settings)]
    works = [_open(stack, *main)]
    present = _present_tasks(works[0])
    works += [_open(stack, *task) for task in tasks if task[0].task in present]
    for work in works:
        work.declared = tuple(works[0].pipeline.task_pipelines)
    return works


def _present_tasks(main: _Work) -> list[str]:
    """The tasks that have topics, declared or not, beside the pipeline's own."""
    if isinstance(main.log, SqliteLog):
        return main.log.tasks()
    # A user of the embedded log need not wait for its clients to be loaded.
    from stream_ml.shell.kafka.metadata import tasks_with_topics  # noqa: PLC0415

    return tasks_with_topics(main.settings.cluster(main.pipeline.name))


def _left_behind(main: _Work, ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """What tasks have of the key that are declared no more: how often, by task and where."""
    left = {}
    for task in _present_tasks(main):
        if task in main.pipeline.task_pipelines:
            continue
        with client.open_log(main.settings, PipelineName.of(main.pipeline.name, task)) as log:
            found = find_on_log(log, main.pipeline, main.traces.key, ids)
        found.pop("events", None)  # which are of all tasks
        if found:
            left[task] = found
    return left


def _left_text(left: dict[str, dict[str, int]]) -> str:
    given = "; ".join(f"of {task}, {format_counts(found)}" for task, found in left.items())
    return (
        "forget: expected of tasks that are declared no more nothing of the key, or of its "
        f"events, given {given}: nobody is at work there who could forget it. Declare "
        f"{', '.join(left)} again as before, let `stream-ml up` work on them, forget, and take "
        "them out then"
    )


def _open(stack: ExitStack, settings: Settings, pipeline: Pipeline, arguments: Namespace) -> _Work:
    log = stack.enter_context(existing_log(settings))
    key = reading_key(settings, log)
    if key is None:
        raise UsageError(
            "forget: expected the pipeline's key, by which a key that is forgotten gets "
            "another name, given none; set STREAM_ML_KEY as the workers have it"
        )
    check_name(settings, log, pipeline.name, key)
    return _Work(settings, pipeline, log, key, Traces(arguments.key, set()))


@dataclass(slots=True)
class _Work:
    """What is forgotten by one task."""

    settings: Settings
    pipeline: Pipeline
    log: Log
    key: bytes
    traces: Traces
    declared: Collection[str] = ()
    _lying: Traces = field(default_factory=lambda: Traces(""))
    report: dict[str, Any] = field(default_factory=lambda: {"erased": 0})

    def find(self, known: Iterable[str]) -> None:
        """Look for what there is of the key."""
        self.traces = find_traces(self.log, self.pipeline, self.traces.key, known)

    def forget(self, arguments: Namespace) -> None:
        """Have the stages forget."""
        self.report |= _forget(arguments, self.settings, self.log, self.pipeline, self.key)

    def look_again(self, known: Iterable[str]) -> bool:
        """Look for records of the key on an embedded log; whether there are none."""
        if not isinstance(self.log, SqliteLog):
            return True
        self._lying = find_traces(
            self.log, self.pipeline, self.traces.key, self.traces.ids.union(known)
        )
        self.traces.take(self._lying)
        return not self._lying.offsets

    def erase(self) -> None:
        """Take them away, as far as everybody has read them."""
        if isinstance(self.log, SqliteLog):
            subject = self.report["subject"]
            self.report["erased"] += self.log.erase(self._lying.offsets, subject, self.declared)

    def finish(self, arguments: Namespace) -> None:
        """Say what remains, and look for the key where that is asked for."""
        log, pipeline, traces, left = self.log, self.pipeline, self.traces, self.traces
        if not arguments.only_verify and arguments.records and isinstance(log, SqliteLog):
            log.scrub()
            left = find_traces(log, pipeline, arguments.key, traces.ids)
        self.report |= _remains(log, traces, left)
        if arguments.verify or arguments.only_verify:
            self.report["found"] = verify(log, pipeline, arguments.key, traces.ids)
            self.report["unwritten"] = []
            if not isinstance(log, SqliteLog):
                erasures = erasures_of(log, pipeline, self.key)
                self.report["unwritten"] = unwritten_tasks(log, erasures, arguments.key)


def _judge(work: _Work) -> None:
    """Fail where something is left.

    Raises:
        StreamMLError: it is.
    """
    report = work.report
    if report.get("found"):
        raise StreamMLError(
            f"forget: expected nothing of the key, or of {len(work.traces.ids):,} ids of its "
            f"events, given {format_counts(report['found'])}; ids that refuse repeats go once "
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


def _print_all(works: Sequence[_Work], arguments: Namespace) -> None:
    first, *others = works
    if arguments.format == "json":
        tasks = {str(work.settings.task): work.report for work in others}
        write_json(first.report | ({"tasks": tasks} if tasks else {}))
        return
    _print(first.report, arguments)
    for work in others:
        write_line(f"task {work.settings.task}:")
        _print(work.report, arguments)


def _print(report: dict[str, Any], arguments: Namespace) -> None:
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
