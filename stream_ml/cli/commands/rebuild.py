"""`rebuild`: a version learned again from what is recorded, and compared with what served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.arguments import utf8
from stream_ml.cli.log import add_archive
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings


__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Learn it again, and fail if it is not what was published."""
    from stream_ml.cli.execution import rebuild  # noqa: PLC0415 - loads stages and models

    rebuild.run(arguments, settings)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL@VERSION", type=utf8, help="a snapshot of a declared line"
    )
    add_archive(parser)


COMMAND = Subcommand(
    name="rebuild",
    help="learn a version again from the recorded examples, and prove it the same",
    description=(
        "Teaches a line the examples that one of its snapshots says are inside, from nothing and\n"
        "in their order, and compares: the digests of the two learners, and the golden\n"
        "predictions. A line that is trained anew is trained on the window that the snapshot\n"
        "names. Exit code 1 where they differ, or not all examples are there. Only reads, also\n"
        "while a worker runs. Where the snapshot itself cannot be opened here, as under another\n"
        "release of river, it says so, and compares all the same."
    ),
    examples=(
        UsageExample(
            "stream-ml --pipeline shop:fraud rebuild adagrad@5000",
            "what was learned from the first 5,000 examples, once more",
        ),
        UsageExample(
            "stream-ml --pipeline shop:fraud rebuild adagrad@5000 --format json",
            "the same for machines, with every golden prediction",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
)
