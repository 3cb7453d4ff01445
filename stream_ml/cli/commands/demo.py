"""`demo`: half a year of real flights through the whole loop, and what it was worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream_ml.cli.arguments import whole_number
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import Namespace

    from stream_ml.shell.settings.settings import Settings


__all__ = ["COMMAND"]

MONTHS = 6
MONTHS_MAX = 12


def run(arguments: Namespace, settings: Settings) -> None:
    """Replay, report, and say where everything is."""
    from stream_ml.cli.execution import demo  # noqa: PLC0415 - loads stages and models

    demo.run(arguments, settings)


def _add_arguments(parser: Any) -> None:
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--all", action="store_true", help="the whole year")
    length.add_argument(
        "--months",
        type=whole_number(1, MONTHS_MAX),
        default=MONTHS,
        metavar="N",
        help=f"January to month N of 2013 (default {MONTHS})",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/demo"),
        help="where the log, the report and the plots go (default runs/demo)",
    )


COMMAND = Subcommand(
    name="demo",
    help="replay real flights through the whole loop",
    description=(
        "Replays the flights out of New York in 2013 as the stream that they were: predicts an\n"
        "hour ahead whether each will be late, learns from every arrival, renews its models day\n"
        "by day, and reports what that was worth. In a second act two features and a line come in\n"
        "flight, and all is compared. Needs no broker; six months take minutes."
    ),
    examples=(
        UsageExample("stream-ml demo", "January to June, into runs/demo"),
        UsageExample("stream-ml demo --months 1 --folder /tmp/january", "a short one, elsewhere"),
        UsageExample("stream-ml demo --all --format json", "the whole year, the report as JSON"),
    ),
    add_arguments=_add_arguments,
    run=run,
)
