"""`restart`: let a line learn anew, from nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.arguments import utf8_up_to
from stream_ml.cli.operator import TEXT_LENGTH_MAX, add_arguments, give
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Ask for it."""
    give(arguments, settings, "restart")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="LINE", type=utf8_up_to(TEXT_LENGTH_MAX), help="a declared line"
    )
    add_arguments(parser)


COMMAND = Subcommand(
    name="restart",
    help="let a line learn anew, from nothing",
    description=(
        "Asks the worker to let a line learn anew, from nothing: one that has failed and is\n"
        "quarantined, or whose learner has diverged. The worker and the other lines go on. What\n"
        "the line has in the serving set answers until its next snapshot; of the line that\n"
        "serves, until the new learner has learned `first` examples."
    ),
    examples=(
        UsageExample("stream-ml restart tree --reason 'out of memory; bound now'", "once"),
        UsageExample(
            "stream-ml restart tree --reason 'it has diverged' --format json", "the answer as JSON"
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
    acts=True,
)
