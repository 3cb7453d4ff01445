"""`demo`: half a year of real flights through the whole loop, and what it was worth."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import orjson

from stream_ml.cli.execution import second_act
from stream_ml.cli.output import write, write_json
from stream_ml.errors import LogError, LogLocked, UsageError
from stream_ml.shell import flights_data
from stream_ml.shell.embedded.replay import ReplayResult, output_of, replay
from stream_ml.shell.log.reading import decisions, evaluations
from stream_ml.shell.log.sqlite import SqliteLog
from stream_ml.shell.processes.progress import Progress, duration, with_progress
from stream_ml.shell.report.bound import bound_answers
from stream_ml.shell.report.page import report_page
from stream_ml.shell.report.plots import draw, require_matplotlib
from stream_ml.shell.report.run import Report
from stream_ml.shell.report.text import report_text
from stream_ml.shell.settings.loader import load_pipeline
from stream_ml.shell.whole_files import output_file

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Output
    from stream_ml.shell.settings.settings import Settings

__all__ = ["FLIGHTS", "run"]

FLIGHTS = "stream_ml.examples.flights:flights"
MONTHS_ALL = 12
# Its presence says that the log beside it is a demo's own, to be made anew.
MARK = "this-is-a-demo"
MARK_TEXT = "`stream-ml demo` made this folder and replaces the log in it each time.\n"
LOG, CHANGED = "log.sqlite", "changed.sqlite"


def run(arguments: argparse.Namespace, settings: Settings) -> None:
    """Replay, report, and say where everything is."""
    for name in ("broker", "pipeline"):
        if settings.by_option(name):
            raise UsageError(
                f"demo: expected no --{name}, for it runs the flights on a log of its own in "
                "--folder; to run anything else, see `stream-ml backtest --help`"
            )
    pipeline = load_pipeline(FLIGHTS)
    months = MONTHS_ALL if arguments.all else arguments.months
    # Errors that would end it after minutes of work are found before anything is replaced.
    flights_data.data_file("flights.csv.zip")
    require_matplotlib()
    path = _fresh_log(arguments.folder)
    key = settings.signing_key(str(path))
    outputs = (output_of(pipeline, topic, body) for topic, body in flights_data.records(1, months))
    first: list[Output] = []
    with SqliteLog.create(path) as log:
        result = replay(log, pipeline, key, _keeping(outputs, first))
        report = _report(log, pipeline, key, result)
        del first[sum(result.published.values()) // second_act.SHARE :]
        started_s = time.perf_counter()
        changed = second_act.act(path.with_name(CHANGED), pipeline, key, log, first)
        seconds = time.perf_counter() - started_s
    paths = _write_report(report, arguments.folder)
    if arguments.format == "json":
        took = {**result.seconds, "second_act": seconds}
        members = {"second_act": changed.as_dict(), "seconds": took, "written": paths}
        write_json({**report.as_dict(), **members})
    else:
        act = second_act.text(changed, seconds)
        write(f"{report_text(report)}\n{act}\n{_ending(result, paths, path)}")


def _keeping(outputs: Iterable[Output], first: list[Output]) -> Iterator[Output]:
    """Keep the first of them for the second act."""
    for output in outputs:
        if len(first) < second_act.RECORDS_MAX:
            first.append(output)
        yield output


def _fresh_log(folder: Path) -> Path:
    """The path of a log that is not there, in a folder that is.

    Raises:
        UsageError: the folder holds something that no demo has put there.
        LogLocked: another demo is at work in it.
    """
    path, mark = folder / LOG, folder / MARK
    if folder.exists() and not mark.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder}: expected an empty folder or a former demo's, given something else; "
            "nothing was touched; name another with --folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(MARK_TEXT, encoding="utf-8")
    if path.exists():
        _refuse_locked(path)
    for name in (LOG, CHANGED):
        for end in ("", "-wal", "-shm"):
            path.with_name(name + end).unlink(missing_ok=True)
    return path


def _refuse_locked(path: Path) -> None:
    try:
        with SqliteLog.open(path) as log, log.session():
            pass
    except LogLocked:
        raise
    except LogError:
        pass  # of another format, or damaged: a former demo's all the same


def _report(log: SqliteLog, pipeline: Pipeline, key: bytes, result: ReplayResult) -> Report:
    accounting = {
        **result.published,
        "predictions": result.events["predictions"],
        **{name.replace("_", " "): count for name, count in result.joins.items() if count},
    }
    serving_decisions = list(decisions(log, key))
    report = Report(
        pipeline.target.kind,
        (),
        serving_decisions,
        accounting,
        horizon_ms=pipeline.horizon_ms,
        breadth=pipeline.events.breadth,
        classes=pipeline.target.classes,
        positive="late",
        pipeline=pipeline.name,
        zone=flights_data.ZONE,
    )
    with Progress("reporting", result.joins["joined"]) as progress:
        for example, live_answers in with_progress(
            bound_answers(log, pipeline, serving_decisions), progress
        ):
            report.add(example, live_answers)
    for evaluation in evaluations(log):
        report.evaluate(evaluation)
    return report


def _write_report(report: Report, folder: Path) -> list[str]:
    text, data = folder / "report.txt", folder / "report.json"
    page = folder / "report.html"
    for path, content in (
        (text, report_text(report).encode()),
        (data, orjson.dumps(report.as_dict(), option=orjson.OPT_INDENT_2)),
        (page, report_page(report, "demo").encode()),
    ):
        with output_file(path) as file:
            file.write(content)
    return [str(path) for path in (text, data, page, *draw(report, folder / "plots"))]


def _ending(result: ReplayResult, paths: list[str], path: Path) -> str:
    total, seconds = sum(result.published.values()), sum(result.seconds.values())
    return "\n".join(
        [
            f"replayed {total:,} records in {duration(seconds)}",
            "written:",
            *(f"  {path}" for path in paths),
            "look around:",
            f"  stream-ml --broker sqlite:{path} models",
            f"  stream-ml --broker sqlite:{path} status",
            f"  stream-ml --broker sqlite:{path} audit log",
            f"  stream-ml --broker sqlite:{path} audit at 2013-04-30T12:00Z",
            f"  stream-ml --broker sqlite:{path} audit verify",
            f"  stream-ml --broker sqlite:{path} --pipeline {FLIGHTS} audit reproduce --sample 9",
            f"  stream-ml --broker sqlite:{path.with_name(CHANGED)} audit log",
        ]
    )
