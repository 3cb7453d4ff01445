"""`batch`: change how many examples a line fits at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.arguments import utf8_up_to, whole_number
from stream_ml.cli.operator import TEXT_LENGTH_MAX, add_arguments, give
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Ask for it."""
    give(arguments, settings, "batch", {"batch": arguments.examples})


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="LINE", type=utf8_up_to(TEXT_LENGTH_MAX), help="a declared line"
    )
    parser.add_argument(
        "examples", metavar="N", type=whole_number(1), help="how many examples make a batch"
    )
    add_arguments(parser)


COMMAND = Subcommand(
    name="batch",
    help="change how many examples a line fits at once",
    description=(
        "Asks the worker to let a line that is taught in mini-batches (scikit-learn's, PyTorch's)\n"
        "fit so many examples at once. It holds from the line's next snapshot on, in which what\n"
        "still waits for a batch is fitted, until it is asked otherwise. Workers go on."
    ),
    examples=(
        UsageExample("stream-ml batch sgd 64 --reason 'it cannot keep up'", "once"),
        UsageExample("stream-ml batch sgd 1 --reason drift --format json", "the answer as JSON"),
    ),
    add_arguments=_add_arguments,
    run=run,
    acts=True,
)
