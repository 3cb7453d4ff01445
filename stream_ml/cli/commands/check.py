"""`check`: whether files hold what a pipeline is declared to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.arguments import add_input
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Read the files, and say what is in them and what would be refused."""
    from stream_ml.cli.execution import check  # noqa: PLC0415 - loads features and models

    check.run(arguments, settings)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="JSON lines, CSV or Parquet, in the order in which a backtest would read them; - "
        "reads the standard input",
    )
    add_input(parser)


COMMAND = Subcommand(
    name="check",
    help="say whether files hold what a pipeline reads",
    description=(
        "Reads files as `backtest` and `publish` do, and publishes nothing. Says how many events\n"
        "and labels there are, of what time, and what is missing. Of what would be refused the\n"
        "first rows of each reason are named, with file, line, field, what was expected and what\n"
        "was given; the exit code is then 1. Events that come too late, and ids that come twice,\n"
        "are counted. Fields and features that tell the label too well to have been known when\n"
        "the event came are named, with the figure. However large a file is, a line is held,\n"
        "a million ids, and 20,000 events."
    ),
    examples=(
        UsageExample(
            "stream-ml --pipeline shop:fraud check may.csv", "one file of events and labels"
        ),
        UsageExample(
            "zcat june.csv.gz | stream-ml --pipeline shop:fraud check - --input csv --format json",
            "from a pipe, the outcome as JSON",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
)
