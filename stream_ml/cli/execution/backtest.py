"""`backtest`: the very stages that run live, over files, as fast as the machine goes."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict, deque
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.cli.execution.report_file import check_report, write_report
from stream_ml.cli.findings import Findings, members_of
from stream_ml.cli.output import write, write_json
from stream_ml.cli.scores import FORMS, scores_table
from stream_ml.cli.tables import format_counts, format_table
from stream_ml.codec import RECORD_BYTES_MAX
from stream_ml.errors import StreamMLError, UsageError
from stream_ml.records import is_forgotten
from stream_ml.shell.embedded.replay import output_of, replay
from stream_ml.shell.forget import is_marker
from stream_ml.shell.log.reading import decisions, evaluations, examples, read_all, tally
from stream_ml.shell.log.sqlite import MEMORY, SqliteLog
from stream_ml.shell.printable import printable
from stream_ml.shell.processes.progress import Progress, duration, with_progress
from stream_ml.shell.report.bound import bound_answers
from stream_ml.shell.report.page import report_page
from stream_ml.shell.report.plots import draw, require_matplotlib
from stream_ml.shell.report.run import Report
from stream_ml.shell.report.text import (
    NOTHING_TO_SCORE,
    changes_text,
    luck_text,
    slices_text,
    tables_text,
)
from stream_ml.shell.rows.layout import RowLayout
from stream_ml.shell.rows.reader import check_files, kind_of, read_rows
from stream_ml.shell.settings.loader import pipeline_of
from stream_ml.shell.views.dead_letters import LATE_EVENTS
from stream_ml.shell.whole_files import output_file
from stream_ml.task_names import MAIN_TASK, task_in

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output, Record
    from stream_ml.shell.embedded.replay import ReplayResult
    from stream_ml.shell.input_files import Kind
    from stream_ml.shell.rows.layout import Row
    from stream_ml.shell.settings.settings import Settings

__all__ = ["run"]

# So many lines has no file; a place is one number.
LINES_MAX = 1 << 40


def run(arguments: Namespace, settings: Settings) -> None:
    """Replay the files and print what came of it."""
    pipelines = _pipelines(arguments, settings)
    if settings.on_kafka and settings.by_option("broker"):
        raise UsageError(
            f"backtest: expected --broker sqlite:PATH, given {settings.broker}; it replays files "
            "on a log of its own, in memory if none is named"
        )
    for pipeline in pipelines:
        _check(arguments, pipeline)
    outcomes = [_backtest(arguments, settings, pipeline) for pipeline in pipelines]
    if arguments.format == "json":
        (_, first), *others = [(each.pipeline, each.members) for each in outcomes]
        tasks = {str(task_in(name)): members for name, members in others}
        write_json(first | ({"tasks": tasks} if tasks else {}))
    else:
        write("\n\n".join(each.text for each in outcomes))
    for each in outcomes:
        _judge(each.lines.findings, each.lines.files)


def _pipelines(arguments: Namespace, settings: Settings) -> list[Pipeline]:
    """The pipelines to replay: that of one task, or of all.

    Raises:
        UsageError: what is asked for is one task's.
    """
    pipeline = pipeline_of(settings, "backtest")
    if settings.task is not None or not pipeline.tasks:
        return [pipeline]
    for option in ("archive", "predictions", "plots", "report"):
        if getattr(arguments, option) is not None:
            names = ", ".join([MAIN_TASK, *pipeline.task_pipelines])
            raise UsageError(
                f"--{option}: expected --task with it, one of {names}, given none: each task has "
                "its own"
            )
    return [pipeline, *pipeline.task_pipelines.values()]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of one task."""

    pipeline: str
    lines: _Lines
    members: dict[str, Any]
    text: str


def _backtest(arguments: Namespace, settings: Settings, pipeline: Pipeline) -> _Outcome:
    # A log that the surroundings name is somebody's; only who names it here means it.
    path = settings.path if settings.by_option("broker") else MEMORY
    lines: _Lines = _Lines(pipeline, arguments.files, arguments.input)
    if arguments.archive is not None:
        lines = _ArchivedLines(pipeline, arguments.archive)
    task = task_in(pipeline.name)
    with SqliteLog.open_or_create(path, partitions=lines.partitions, task=task) as log:
        # A task finds the events there, where its pipeline's own was replayed on the same log.
        has_events = task is not None and settings.task is None and path != MEMORY
        _refuse_used(log, path, ("labels",) if has_events else ("events", "labels"))
        key = settings.signing_key(path)
        outputs = lines.outputs(labels_only=has_events)
        result = replay(log, pipeline, key, outputs, on_append=lines.note_positions)
        lines.collect_refusals(log)
        report = _report(arguments, log, pipeline, key)
        # As they stand at the end, which is later than they were last written.
        report.slices = {each.model: each.slices for each in result.evaluations if each.slices}
        summary = _summary(log, pipeline, key, result, lines.findings)
        summary["left_out"] = dict(lines.left_out)
        summary["written"] = _write_files(arguments, log, report)
    parts = [_text(summary, lines.findings)]
    parts.append(tables_text(report) if arguments.live and report.table.times else "")
    parts += [changes_text(report), slices_text(report), luck_text(report)]
    members = {**summary, "report": report.as_dict()}
    return _Outcome(pipeline.name, lines, members, "\n\n".join(filter(None, parts)))


def _judge(findings: Findings, files: Sequence[str]) -> None:
    """Fail where something, or most of it, is not what it should be.

    Raises:
        StreamMLError: it is not.
    """
    if findings.refused_counts:
        refused_count = findings.refused_counts.total()
        raise StreamMLError(
            f"backtest: {refused_count:,} of {findings.lines.total():,} were refused"
        )
    if not findings.lines:
        raise StreamMLError(f"backtest: expected lines in {', '.join(files)}, given none")
    if not findings.lines["events"]:
        raise StreamMLError("backtest: expected events, given labels only: nothing was predicted")
    if findings.wrong_unit():
        raise StreamMLError("backtest: most times are probably no milliseconds")


# --- input -------------------------------------------------------------------------------------


def _check(arguments: Namespace, pipeline: Pipeline) -> None:
    """Find out now what would else end it after the work is done."""
    if "label" in pipeline.schema:
        raise UsageError(
            f"backtest: expected no event field 'label', by which labels are told from events, "
            f"given one in pipeline {pipeline.name!r}; rename it"
        )
    if (arguments.archive is None) == (not arguments.files):
        raise UsageError(
            "backtest: expected files, or an archive (--archive ADDRESS), given "
            f"{'both' if arguments.files else 'neither'}"
        )
    check_files(arguments.files, arguments.input, row_ids=pipeline.files.row_ids)
    if arguments.predictions is not None and not arguments.predictions.parent.is_dir():
        raise UsageError(
            f"--predictions: expected a folder {arguments.predictions.parent} to write into, "
            "given none; make it first"
        )
    if arguments.plots is not None:
        if arguments.plots.exists() and not arguments.plots.is_dir():
            raise UsageError(f"--plots: expected a folder, given the file {arguments.plots}")
        require_matplotlib()
    check_report(arguments.report)


def _refuse_used(log: SqliteLog, path: str, topics: Sequence[str]) -> None:
    counts = {
        topic: sum(log.end_offset(topic, p) for p in range(log.partitions[topic]))
        for topic in topics
    }
    if any(counts.values()):
        raise UsageError(
            f"backtest: expected a log with nothing in it, given {path} with "
            f"{format_counts(counts)}; name another, or leave --broker out to work in memory"
        )


class _Lines:
    """The lines of some files, as records to publish, and where each of them came from.

    Attributes:
        partitions: how many the log gets that takes them.
    """

    partitions = 1

    def __init__(self, pipeline: Pipeline, files: Sequence[str], kind: Kind | None) -> None:
        self._pipeline = pipeline
        self.files = files
        self._kind = kind
        self._pending_lines: deque[int] = deque()
        # By partition, and there by offset: which line of which file.
        self._origins: dict[tuple[str, int], array[int]] = defaultdict(lambda: array("Q"))
        self.findings = Findings(pipeline)
        # What is no line, though it lies among them: by what it is, how many.
        self.left_out: Counter[str] = Counter()

    def outputs(self, *, labels_only: bool = False) -> Iterator[Output]:
        """A record for each line.

        Args:
            labels_only: the log has the events already.
        """
        for file_index, file in enumerate(self.files):
            is_json = kind_of(file, self._kind) == "jsonl"
            for row in read_rows(file, RowLayout(self._pipeline, file), self._kind):
                if row.value is None:
                    self._refuse(file, row, is_json=is_json)
                    continue
                output = self._output((file, row.number), row.value)
                if labels_only and output.topic == "events":
                    continue
                self._pending_lines.append(file_index * LINES_MAX + row.number)
                yield output

    def _refuse(self, file: str, row: Row, *, is_json: bool) -> None:
        """Count a row of which no record can be made.

        Raises:
            UsageError: it is hardly a file of what it should be.
        """
        assert row.error is not None, "a row is a record, or there is a reason why not"
        if is_json and row.error.reason == "too_large":
            raise UsageError(
                f"{file}:{row.number}: expected at most {RECORD_BYTES_MAX} bytes in a line, given "
                "more; is it a file of JSON lines?"
            )
        self.findings.line((file, row.number), row.topic or "events", None)
        self.findings.refuse(
            f"{file}:{row.number}", row.error.reason, row.error.path, row.error.message
        )

    def note_positions(self, records: Sequence[Record]) -> None:
        """Note where lines lie now; they come in the order in which they were read."""
        for record in records:
            self._origins[record.topic, record.partition].append(self._pending_lines.popleft())

    def collect_refusals(self, log: SqliteLog) -> None:
        """Find out which lines were refused."""
        late = read_all(log, LATE_EVENTS) if LATE_EVENTS in log.partitions else ()
        for record in chain(read_all(log, "dead-letters"), late):
            letter = orjson.loads(record.value or b"{}")
            position = f"{letter['topic']}-{letter['partition']}, offset {letter['offset']}"
            origins = self._origins.get((letter["topic"], letter["partition"]))
            if origins is not None:
                file, number = divmod(origins[letter["offset"]], LINES_MAX)
                position = f"{self.files[file]}:{number}"
            self.findings.refuse(position, letter["reason"], letter["path"], letter["message"])

    def _output(self, position: tuple[str, int], value: bytes) -> Output:
        # A line that is no JSON is published all the same: it is refused where everything is.
        members = members_of(value)
        topic, time = "events", self._pipeline.events.time
        if isinstance(members, dict) and "label" in members:
            topic, time = "labels", "ts"
        ts = members.get(time) if isinstance(members, dict) else None
        self.findings.line(position, topic, ts if type(ts) is int else None)
        self.findings.members(position, topic, value, members)
        return output_of(self._pipeline, topic, members, value)


class _ArchivedLines(_Lines):
    """The events and labels of an archive, each in the order in which the log took them in."""

    def __init__(self, pipeline: Pipeline, address: str) -> None:
        # Extras, which whoever replays files need not have.
        from stream_ml.shell.archive.reading import Archive  # noqa: PLC0415
        from stream_ml.shell.archive.storage import Storage  # noqa: PLC0415

        storage = Storage(address)
        self._archive = Archive(storage)
        topics = self._archive.root.topics
        # Those of the archived log: what was loaded there partition by partition is too late in
        # one alone.
        self.partitions = max(1, topics.get("events", 1))
        parts = [(topic, n) for topic in ("events", "labels") for n in range(topics.get(topic, 0))]
        self._indexes = {part: index for index, part in enumerate(parts)}
        super().__init__(pipeline, [f"{storage.address}/{topic}-{n}" for topic, n in parts], None)

    def outputs(self, *, labels_only: bool = False) -> Iterator[Output]:
        """A record for each that is archived."""
        del labels_only  # an archive is one task's, which is replayed alone
        times = {"events": self._pipeline.events.time, "labels": "ts"}
        for topic, time in times.items():
            for record in self._archive.in_order(topic):
                if is_forgotten(record):
                    self.left_out["forgotten"] += 1
                    continue
                if is_marker(self._pipeline, record):
                    self.left_out["markers"] += 1
                    continue
                if self._is_copy(record):
                    continue
                index, value = self._indexes[topic, record.partition], record.value or b""
                self._pending_lines.append(index * LINES_MAX + record.offset)
                members = members_of(value)
                ts = members.get(time) if isinstance(members, dict) else None
                position = self.files[index], record.offset
                self.findings.line(position, topic, ts if type(ts) is int else None)
                yield output_of(self._pipeline, topic, members, value)

    def _is_copy(self, record: Record) -> bool:
        """Whether a record was moved to its key's partition, and lies where it came as well."""
        if record.origin is None:
            return False
        bounds = self._archive.bounds(record.topic, record.origin.partition)
        return bounds is not None and bounds[0] <= record.origin.offset


# --- outcome ----------------------------------------------------------------------------------


def _summary(
    log: SqliteLog, pipeline: Pipeline, key: bytes, result: ReplayResult, findings: Findings
) -> dict[str, Any]:
    champion = None
    kinds: dict[str, int] = {}
    for decision in decisions(log, key):
        champion = decision.serving.champion.model
        kinds[decision.kind] = kinds.get(decision.kind, 0) + 1
    return {
        "pipeline": pipeline.name,
        "task": pipeline.target.kind,
        "published": result.published,
        "events": result.events,
        "labels": result.joins,
        "champion": champion,
        "decisions": kinds,
        "models": [asdict(evaluation) for evaluation in result.evaluations],
        "dead_letters": dict(sorted(findings.refused_counts.items())),
        "refused": findings.as_members(),
        "hints": [*findings.hints(), *findings.label_hints()],
        "alerts": tally(log, "alerts", "kind"),
        "seconds": result.seconds,
    }


def _report(arguments: Namespace, log: SqliteLog, pipeline: Pipeline, key: bytes) -> Report:
    task, serving_decisions = pipeline.target, list(decisions(log, key))
    report = Report(
        task.kind,
        (),
        serving_decisions,
        horizon_ms=pipeline.horizon_ms,
        breadth=pipeline.events.breadth,
        classes=task.classes,
        pipeline=pipeline.name,
    )
    with Progress("reporting", log.end_offset("examples", 0)) as progress:
        if arguments.live:
            for example, live_answers in with_progress(
                bound_answers(log, pipeline, serving_decisions), progress
            ):
                report.add(example, live_answers)
        else:
            for example in with_progress(examples(log, pipeline.label), progress):
                report.add(example)
    for evaluation in evaluations(log):
        report.evaluate(evaluation)
    return report


def _write_files(arguments: Namespace, log: SqliteLog, report: Report) -> list[str]:
    paths: list[Path] = []
    if arguments.predictions is not None:
        with output_file(arguments.predictions) as file:
            for record in read_all(log, "predictions"):
                file.write((record.value or b"") + b"\n")
        paths.append(arguments.predictions)
    if arguments.plots is not None:
        paths += draw(report, arguments.plots)
    if arguments.report is not None:
        write_report(arguments.report, report_page(report, "backtest"))
        paths.append(arguments.report)
    return [str(path) for path in paths]


def _text(summary: dict[str, Any], findings: Findings) -> str:
    models, seconds = summary["models"], summary["seconds"]
    left_out = summary["left_out"]
    total = sum(summary["published"].values())
    facts = format_table(
        [
            ["pipeline", f"{summary['pipeline']} ({summary['task']})"],
            ["published", format_counts(summary["published"])],
            *([["left out", format_counts(left_out)]] if left_out else []),
            ["events", format_counts(summary["events"])],
            ["labels", format_counts(summary["labels"])],
            ["decisions", format_counts(summary["decisions"])],
            ["champion", summary["champion"]],
            ["dead letters", format_counts(summary["dead_letters"])],
            ["alerts", format_counts(summary["alerts"])],
            ["published in", duration(seconds["publish"])],
            ["worked in", f"{duration(seconds['work'])}, {total / seconds['work']:,.0f} records/s"],
        ]
    )
    tables = [
        f"scores {name}\n{scores_table(models, form)}" for form, name in FORMS.items() if models
    ]
    refused_lines = [f"  {line}" for line in findings.refused_lines()]
    paths = map(printable, summary["written"])
    written_text = ["\n".join(["written:", *(f"  {path}" for path in paths)])]
    return "\n\n".join(
        [
            facts,
            *(["\n".join(["refused:", *refused_lines])] if refused_lines else []),
            *summary["hints"],
            *(tables or [NOTHING_TO_SCORE]),
            *(written_text if summary["written"] else []),
        ]
    )
