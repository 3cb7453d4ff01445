"""`publish`: the rows of files to the log, checked before they are sent."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson

from stream_ml.cli.arguments import add_input, rate, seconds
from stream_ml.cli.findings import Findings, members_of
from stream_ml.cli.log import awaited_log
from stream_ml.cli.output import complain, write_json
from stream_ml.cli.subcommand import Subcommand, UsageExample
from stream_ml.cli.tables import format_counts
from stream_ml.client import Publisher
from stream_ml.errors import BadRecord, NotAcknowledged, StreamMLError
from stream_ml.shell.processes.line_batches import pace
from stream_ml.shell.processes.progress import duration
from stream_ml.shell.processes.stop import Stop
from stream_ml.shell.settings.keys import check_name
from stream_ml.shell.settings.loader import pipeline_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from stream_ml.records import Output
    from stream_ml.shell.rows.layout import Row
    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]

TOPICS = ("events", "labels")


def run(arguments: argparse.Namespace, settings: Settings) -> None:
    """Publish the lines, report on each, and fail if any was refused."""
    from stream_ml.shell.rows.layout import RowLayout  # noqa: PLC0415 - loads features
    from stream_ml.shell.rows.reader import check_files, row_batches  # noqa: PLC0415 - as above

    pipeline = pipeline_of(settings, "publish")
    check_files(arguments.files, arguments.input, row_ids=pipeline.files.row_ids)
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        log = stack.enter_context(awaited_log(settings, stop, arguments.wait))
        check_name(settings, log, pipeline.name)
        publisher = Publisher(log, pipeline)
        report = None
        if arguments.report is not None:
            report = stack.enter_context(arguments.report.open("wb", buffering=0))
        findings = Findings(pipeline)
        delivery = _Delivery(publisher, arguments.topic, findings, report, strict=arguments.strict)
        try:
            for file in arguments.files:
                layout = RowLayout(pipeline, file, arguments.topic)
                rows = row_batches(file, layout, stop, arguments.input)
                if arguments.rate is not None:
                    rows = pace(rows, arguments.rate, stop)
                for batch in rows:
                    delivery.deliver(file, batch)
                if stop.is_requested:
                    raise KeyboardInterrupt
        finally:
            delivery.summarize(as_json=arguments.format == "json")
    if findings.refused_counts:
        raise StreamMLError(f"publish: {findings.refused_counts.total():,} lines were refused")
    if findings.wrong_unit():
        raise StreamMLError("publish: most times are probably no milliseconds; all were published")
    if delivery.report_error is not None:
        raise StreamMLError(f"publish: the report is not whole: {delivery.report_error}")


@dataclass(slots=True)
class _Delivery:
    """Sends lines, and says of each what became of it."""

    publisher: Publisher
    topic: str
    findings: Findings
    report: IO[bytes] | None
    strict: bool
    acknowledged_count: int = 0
    unacknowledged_count: int = 0
    report_error: str | None = None
    lines: list[bytes] = field(default_factory=list)
    started_s: float = field(default_factory=time.monotonic)

    def deliver(self, file: str, batch: list[Row]) -> None:
        """Send what can be sent of a batch, all at once; what is reported as taken is taken."""
        good: list[tuple[int, Output]] = []
        for row in batch:
            number = row.number
            try:
                output, ts = self._examine(row)
            except BadRecord as error:
                self._refuse(file, number, row.value, error)
                if self.strict:
                    self._send(file, good)
                    raise StreamMLError(
                        f"publish: stopped at {file}:{number}, as --strict asks; what came before "
                        "it was published"
                    ) from None
            else:
                self.findings.line((file, number), self.topic, ts)
                good.append((number, output))
        self._send(file, good)

    def summarize(self, *, as_json: bool) -> None:
        """Say what was done, however it ended."""
        seconds = time.monotonic() - self.started_s
        refused_counts, hints = self.findings.refused_counts, self.findings.hints()
        if as_json:
            by_reason = dict(sorted(refused_counts.items()))
            write_json(
                {
                    self.topic: self.acknowledged_count,
                    "refused": by_reason,
                    "unacknowledged": self.unacknowledged_count,
                    "seconds": seconds,
                    "hints": hints,
                }
            )
            return
        for hint in hints:
            complain(hint)
        refusals = f"; refused: {format_counts(refused_counts)}" if refused_counts else ""
        if self.unacknowledged_count:
            refusals += f"; not acknowledged: {self.unacknowledged_count:,}"
        rate = f"{self.acknowledged_count / seconds:,.0f}/s" if seconds else "at once"
        complain(
            f"published {self.acknowledged_count:,} {self.topic} in {duration(seconds)}, "
            f"{rate}{refusals}"
        )

    def _examine(self, row: Row) -> tuple[Output, int]:
        if row.error is not None or row.value is None:
            raise row.error or BadRecord("empty", "$", "expected a record, given none")
        return self.publisher.examine(self.topic, row.value)

    def _refuse(self, file: str, number: int, text: bytes | None, error: BadRecord) -> None:
        position = (file, number)
        self.findings.line(position, self.topic, None)
        if text is not None:
            self.findings.members(position, self.topic, text, members_of(text))
        refusal = self.findings.refuse(f"{file}:{number}", error.reason, error.path, error.message)
        complain(str(refusal))
        self._report(file, number, {"refused": error.reason, "path": error.path})

    def _send(self, file: str, outputs: list[tuple[int, Output]]) -> None:
        try:
            records = self.publisher.send([output for _, output in outputs])
        except NotAcknowledged as error:
            self._note_outcomes(file, outputs, error.positions)
            raise
        self._note_outcomes(
            file, outputs, [(record.partition, record.offset) for record in records]
        )

    def _note_outcomes(
        self,
        file: str,
        outputs: list[tuple[int, Output]],
        positions: Sequence[tuple[int, int] | None],
    ) -> None:
        for (number, _), position in zip(outputs, positions, strict=True):
            if position is None:
                self.unacknowledged_count += 1
                self._report(file, number, {"unacknowledged": True})
            else:
                self.acknowledged_count += 1
                self._report(file, number, {"partition": position[0], "offset": position[1]})
        self._write_report()

    def _report(self, file: str, number: int, outcome: dict[str, Any]) -> None:
        if self.report is not None:
            name = file.encode(errors="backslashreplace").decode()
            self.lines.append(orjson.dumps({"file": name, "line": number, **outcome}) + b"\n")

    def _write_report(self) -> None:
        """Write what there is of the report."""
        remaining, self.lines = memoryview(b"".join(self.lines)), []
        try:
            while self.report is not None and remaining:
                remaining = remaining[self.report.write(remaining) :]
        except OSError as error:
            # The reader of the report has left, or the disk is full: publishing goes on.
            self.report_error, self.report = error.strerror or str(error), None


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic", choices=TOPICS, help="what the lines are")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="JSON lines, CSV or Parquet; - reads the standard input",
    )
    add_input(parser)
    parser.add_argument(
        "--rate", type=rate, metavar="N", help="so many lines a second; as fast as can be, else"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write where each line lies, or why it was refused, as JSON lines",
    )
    parser.add_argument(
        "--wait",
        type=seconds,
        metavar="SECONDS",
        default=0.0,
        help="wait so long for the log to be there, as while a worker that makes it starts",
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first bad line")


COMMAND = Subcommand(
    name="publish",
    help="publish events or labels from files or a pipe",
    description=(
        "Publishes JSON lines, or the rows of CSV and Parquet files. Each is checked as the\n"
        "pipeline declares it before it is sent; a bad one is named on standard error with its\n"
        "line, reason and path, and the rest goes on (exit code 1 at the end). From a pipe lines\n"
        "are published within 50 ms. Stopped by Ctrl-C or SIGTERM it sends what it has read; what\n"
        "the report says was taken was taken. On Kafka all replicas have it then; what they do\n"
        "not acknowledge within 30 s ends it with exit code 3, and how many records that were."
    ),
    examples=(
        UsageExample(
            "stream-ml --pipeline shop:fraud publish events may.jsonl --report taken.jsonl",
            "a file, with a report on every line",
        ),
        UsageExample(
            "tail -f paid.jsonl | stream-ml --pipeline shop:fraud --broker kafka://10.0.0.1:9092 "
            "publish labels -",
            "labels as they become known, to a cluster",
        ),
        UsageExample(
            "stream-ml --pipeline shop:fraud publish events may.jsonl --rate 200 --strict",
            "200 a second, up to the first bad line",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
    acts=True,
)
