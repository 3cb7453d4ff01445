"""`backtest`: the very stages that run live, over files, as fast as the machine goes."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson

from stream_ml.codec import RECORD_BYTES_MAX
from stream_ml.errors import UsageError
from stream_ml.shell.commands.command import Command, Example
from stream_ml.shell.commands.output import aligned, counted, write, write_json
from stream_ml.shell.commands.scores import FORMS, scores_table
from stream_ml.shell.live import lived
from stream_ml.shell.loading import pipeline_of
from stream_ml.shell.plots import draw, require_matplotlib
from stream_ml.shell.progress import Progress, duration, watched
from stream_ml.shell.replay import (
    decisions,
    evaluations,
    examples,
    output_of,
    read_all,
    replay,
    tally,
)
from stream_ml.shell.report import Report
from stream_ml.shell.sqlite_log import MEMORY, SqliteLog

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output
    from stream_ml.shell.replay import Replayed
    from stream_ml.shell.settings import Settings

__all__ = ["COMMAND"]

STANDARD_INPUT = "-"


def run(arguments: Namespace, settings: Settings) -> None:
    """Replay the files and print what came of it."""
    pipeline = pipeline_of(settings, "backtest")
    if settings.on_kafka and settings.by_option("broker"):
        raise UsageError(
            f"backtest: expected --broker sqlite:PATH, given {settings.broker}; it replays files "
            "on a log of its own, in memory if none is named"
        )
    _check(arguments, pipeline)
    # A log that the surroundings name is somebody's; only who names it here means it.
    path = settings.path if settings.by_option("broker") else MEMORY
    with SqliteLog.open_or_create(path) as log:
        _refuse_used(log, path)
        key = settings.signing_key(path)
        done = replay(log, pipeline, key, _outputs(pipeline, arguments.files))
        report = _report(arguments, log, pipeline, key)
        summary = _summary(log, pipeline, key, done)
        summary["written"] = _write_files(arguments, log, report)
    if arguments.format == "json":
        write_json({**summary, "report": report.as_dict()})
    else:
        parts = [_text(summary), report.tables() if arguments.live else ""]
        write("\n\n".join(filter(None, [*parts, report.changes(), report.luck()])))


# --- what goes in -----------------------------------------------------------------------------


def _check(arguments: Namespace, pipeline: Pipeline) -> None:
    """Find out now what would else end it after the work is done."""
    if "label" in pipeline.schema:
        raise UsageError(
            f"backtest: expected no event field 'label', by which labels are told from events, "
            f"given one in pipeline {pipeline.name!r}; rename it"
        )
    for file in arguments.files:
        if file != STANDARD_INPUT and not Path(file).is_file():
            raise UsageError(
                f"{file}: expected a file of JSON lines, given "
                f"{'a folder' if Path(file).is_dir() else 'none of that name'}"
            )
    if arguments.predictions is not None and not arguments.predictions.parent.is_dir():
        raise UsageError(
            f"--predictions: expected a folder {arguments.predictions.parent} to write into, "
            "given none; make it first"
        )
    if arguments.plots is not None:
        require_matplotlib()


def _refuse_used(log: SqliteLog, path: str) -> None:
    held = {
        topic: sum(log.end_offset(topic, p) for p in range(log.partitions[topic]))
        for topic in ("events", "labels")
    }
    if any(held.values()):
        raise UsageError(
            f"backtest: expected a log with nothing in it, given {path} with {counted(held)}; "
            "name another, or leave --broker out to work in memory"
        )


def _outputs(pipeline: Pipeline, files: Sequence[str]) -> Iterator[Output]:
    for file in files:
        with _opened(file) as lines:
            for number, line in enumerate(lines, start=1):
                value = line.strip()
                if len(value) > RECORD_BYTES_MAX:
                    raise UsageError(
                        f"{file}:{number}: expected at most {RECORD_BYTES_MAX} bytes in a line, "
                        f"given {len(value)}; is it a file of JSON lines?"
                    )
                if value:
                    yield _output(pipeline, value)


def _opened(file: str) -> AbstractContextManager[IO[bytes]]:
    return nullcontext(sys.stdin.buffer) if file == STANDARD_INPUT else Path(file).open("rb")


def _output(pipeline: Pipeline, value: bytes) -> Output:
    try:
        members = orjson.loads(value)
    except orjson.JSONDecodeError:
        members = None  # published all the same: what is refused is counted where it is refused
    topic = "labels" if isinstance(members, dict) and "label" in members else "events"
    return output_of(pipeline, topic, members, value)


# --- what comes out ---------------------------------------------------------------------------


def _summary(log: SqliteLog, pipeline: Pipeline, key: bytes, done: Replayed) -> dict[str, Any]:
    champion = None
    kinds: dict[str, int] = {}
    for decision in decisions(log, key):
        champion = decision.serving.champion.model
        kinds[decision.kind] = kinds.get(decision.kind, 0) + 1
    return {
        "pipeline": pipeline.name,
        "task": pipeline.task.kind,
        "published": done.published,
        "events": done.events,
        "labels": done.joins,
        "champion": champion,
        "decisions": kinds,
        "models": [asdict(each) for each in done.evaluations],
        "dead_letters": tally(log, "dead-letters", "reason"),
        "alerts": tally(log, "alerts", "kind"),
        "seconds": done.seconds,
    }


def _report(arguments: Namespace, log: SqliteLog, pipeline: Pipeline, key: bytes) -> Report:
    task, decided = pipeline.task, list(decisions(log, key))
    report = Report(task.kind, (), decided, horizon_ms=pipeline.horizon_ms, classes=task.classes)
    with Progress("reporting", log.end_offset("examples", 0)) as shown:
        if arguments.live:
            for example, said in watched(lived(log, pipeline, decided), shown):
                report.add(example, said)
        else:
            for example in watched(examples(log), shown):
                report.add(example)
    for evaluation in evaluations(log):
        report.evaluate(evaluation)
    return report


def _write_files(arguments: Namespace, log: SqliteLog, report: Report) -> list[str]:
    written: list[Path] = []
    if arguments.predictions is not None:
        with arguments.predictions.open("wb") as file:
            for record in read_all(log, "predictions"):
                file.write((record.value or b"") + b"\n")
        written.append(arguments.predictions)
    if arguments.plots is not None:
        written += draw(report, arguments.plots)
    return [str(path) for path in written]


def _text(summary: dict[str, Any]) -> str:
    models, seconds = summary["models"], summary["seconds"]
    total = sum(summary["published"].values())
    facts = aligned(
        [
            ["pipeline", f"{summary['pipeline']} ({summary['task']})"],
            ["published", counted(summary["published"])],
            ["events", counted(summary["events"])],
            ["labels", counted(summary["labels"])],
            ["decisions", counted(summary["decisions"])],
            ["champion", summary["champion"]],
            ["dead letters", counted(summary["dead_letters"])],
            ["alerts", counted(summary["alerts"])],
            ["published in", duration(seconds["publish"])],
            ["worked in", f"{duration(seconds['work'])}, {total / seconds['work']:,.0f} records/s"],
        ]
    )
    tables = [
        f"scores {name}\n{scores_table(models, form)}" for form, name in FORMS.items() if models
    ]
    written = ["\n".join(["written:", *(f"  {path}" for path in summary["written"])])]
    return "\n\n".join(
        [
            facts,
            *(tables or ["no label met its prediction: nothing to score"]),
            *(written if summary["written"] else []),
        ]
    )


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="JSON lines, each an event, or a label (which has a member `label`); - reads the "
        "standard input",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="score a learner that predicts live as well, which no renewal can beat for long",
    )
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw plots into this folder")
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE", help="write every prediction, as JSON lines"
    )


COMMAND = Command(
    name="backtest",
    help="run a pipeline over files, and score it",
    description=(
        "Runs the pipeline over events and labels in files, as it would have run live: events\n"
        "and labels keep the order that they have in their files, and meet by their own times.\n"
        "Works in memory; give --broker to keep the log. What cannot be read is counted as a\n"
        "dead letter, by reason."
    ),
    examples=(
        Example(
            "stream-ml --pipeline shop:fraud backtest events.jsonl labels.jsonl",
            "the pipeline `fraud` of shop.py, on what two files hold",
        ),
        Example(
            "stream-ml --pipeline shop:fraud backtest may.jsonl --plots may --predictions p.jsonl",
            "with plots, and every prediction in a file",
        ),
        Example(
            "zcat june.jsonl.gz | stream-ml --pipeline shop:fraud backtest - --format json",
            "from a pipe, the outcome as JSON",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
)
