"""`pause`: change nothing of what serves until `resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.operator import add_arguments, give
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Ask for it."""
    give(arguments, settings, "pause")


COMMAND = Subcommand(
    name="pause",
    help="keep what serves, until `resume`",
    description=(
        "Asks the worker to keep what serves: nothing is renewed and nothing replaced by itself\n"
        "until `resume`. Learning and scoring go on; operators may still promote and roll back,\n"
        "and so may the guard."
    ),
    examples=(
        UsageExample("stream-ml pause --reason 'labels look wrong'", "hold everything"),
        UsageExample("stream-ml pause --reason 'release day' --timeout 5", "and wait five seconds"),
    ),
    add_arguments=add_arguments,
    run=run,
    acts=True,
)
