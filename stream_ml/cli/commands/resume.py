"""`resume`: renew and replace again, after `pause` or a rollback."""

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
    give(arguments, settings, "resume")


COMMAND = Subcommand(
    name="resume",
    help="renew and replace again, after `pause` or a rollback",
    description=(
        "Asks the worker to renew models and to replace the champion on evidence again, after\n"
        "`pause`, or after a rollback that froze a line. Models are renewed at the next instant."
    ),
    examples=(
        UsageExample("stream-ml resume --reason 'labels are right again'", "go on"),
        UsageExample(
            "stream-ml resume --reason 'release is out' --format json", "the answer as JSON"
        ),
    ),
    add_arguments=add_arguments,
    run=run,
    acts=True,
)
