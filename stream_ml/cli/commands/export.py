"""`export`: what lies on a log, as a file of typed columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stream_ml.cli.arguments import instant
from stream_ml.cli.log import add_archive
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings


__all__ = ["COMMAND"]

# As `shell.export.tables.SUBJECTS` has them, without what those load.
SUBJECTS = ("examples", "predictions", "events", "labels", "decisions", "evaluations")


def run(arguments: Namespace, settings: Settings) -> None:
    """Write the file, and say how many rows it has."""
    from stream_ml.cli.execution import export  # noqa: PLC0415 - loads codecs and learners

    export.run(arguments, settings)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("subject", choices=SUBJECTS, help="what is written, a row for each")
    parser.add_argument(
        "--to",
        required=True,
        type=Path,
        metavar="FILE",
        help="where: its ending, .parquet, .csv or .jsonl, says as what; a file that is there is "
        "replaced",
    )
    parser.add_argument(
        "--since", type=instant, metavar="TIME", help="only what is of that time, or later"
    )
    parser.add_argument(
        "--until", type=instant, metavar="TIME", help="only what is of an earlier time"
    )
    add_archive(parser)


COMMAND = Subcommand(
    name="export",
    help="what lies on the log, as Parquet, CSV or JSON lines",
    description=(
        "Writes records of the log as rows with typed columns: a column for each field of an\n"
        "event and each feature of a prediction, as they are declared. TIME is that of the event\n"
        "(of labels and evaluations their own, of decisions when the log took them in). Records\n"
        "that are none, or do not bear our seal, are counted. Only reads, also while a worker\n"
        "runs; the file has its name once it is whole."
    ),
    examples=(
        UsageExample(
            "stream-ml --pipeline shop:fraud export examples --to examples.parquet",
            "what models learn from, with the answers of all of them",
        ),
        UsageExample(
            "stream-ml --pipeline shop:fraud export predictions --since 2026-05 --until 2026-06 "
            "--to may.csv",
            "the predictions of a month, for a spreadsheet",
        ),
        UsageExample(
            "stream-ml --pipeline shop:fraud export events --to events.jsonl --format json",
            "lines that `backtest` and `publish` take (under a declaration without `files=`), and "
            "the counts as JSON",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
    acts=True,
)
