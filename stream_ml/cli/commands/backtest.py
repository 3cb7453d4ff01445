"""`backtest`: the very stages that run live, over files, as fast as the machine goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stream_ml.cli.arguments import add_input, add_report, utf8
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings


__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Replay the files and print what came of it."""
    from stream_ml.cli.execution import backtest  # noqa: PLC0415 - loads stages and models

    backtest.run(arguments, settings)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="JSON lines, CSV or Parquet, each row an event, or a label (which has a member "
        "`label`), or both as the pipeline declares; - reads the standard input",
    )
    add_input(parser)
    parser.add_argument(
        "--archive",
        type=utf8,
        metavar="ADDRESS",
        help="in the place of files: the events and labels of an archive of a log",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help="score a learner that predicts live as well, which no renewal can beat for long",
    )
    add_report(parser)
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw plots into this folder")
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE", help="write every prediction, as JSON lines"
    )


COMMAND = Subcommand(
    name="backtest",
    help="run a pipeline over files, and score it",
    description=(
        "Runs the pipeline over events and labels in files, as it would have run live: events\n"
        "and labels keep the order that they have in their files, and meet by their own times.\n"
        "Works in memory; give --broker to keep the log. --archive takes all that a log ever took\n"
        "in, for another declaration, say. Files may be packed (gzip, bzip2, xz, zstd).\n"
        "Of what is refused, the first lines of each reason are named, and the exit code is 1."
    ),
    examples=(
        UsageExample(
            "stream-ml --pipeline shop:fraud backtest events.jsonl labels.jsonl",
            "the pipeline `fraud` of shop.py, on what two files hold",
        ),
        UsageExample(
            "stream-ml --pipeline shop:fraud backtest may.jsonl --report may.html --plots may",
            "with a page for people, and its plots as files",
        ),
        UsageExample(
            "zstdcat june.jsonl.zst | stream-ml --pipeline shop:fraud backtest - --format json",
            "from a pipe, the outcome as JSON",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
)
