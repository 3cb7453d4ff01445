"""`forget`: let go of all that is of a key, say what remains until when, and prove it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stream_ml.cli.arguments import utf8_up_to
from stream_ml.cli.operator import TEXT_LENGTH_MAX, add_arguments
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Forget, tell what remains, and look for the key where that is asked for."""
    # It loads what stages read, which the help of other commands need not wait for.
    from stream_ml.cli.execution.forget import forget  # noqa: PLC0415

    forget(arguments, settings)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", type=utf8_up_to(TEXT_LENGTH_MAX), help="an entity's")
    parser.add_argument(
        "--records",
        action="store_true",
        help="take its records away, too: in a file; a cluster keeps them until retention ends",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="then look for the key and its ids everywhere; exit code 1 where anything is found",
    )
    parser.add_argument(
        "--ids",
        type=Path,
        metavar="FILE",
        help="the ids of its events, a line each: kept there, to look for them again later",
    )
    parser.add_argument(
        "--only-verify", action="store_true", help="forget nothing, only look for the key"
    )
    add_arguments(parser)


COMMAND = Subcommand(
    name="forget",
    help="let go of all that is of a key, and say what remains",
    description=(
        "Has the stages drop a key's windows and the predictions that wait for a label, at a\n"
        "place on the log, by a signed command that the audit shows, and that does not name the\n"
        "key. With --records the records of the key, and about its events, are taken away as\n"
        "well: on a log in a file in place, byte for byte; on a cluster they lie until retention\n"
        "ends. It says what remains where and until when, and which models learned from it."
    ),
    examples=(
        UsageExample(
            "stream-ml --pipeline shop:fraud forget ada --reason 'asked for on 3 May' --records "
            "--verify",
            "all of it, and the proof",
        ),
        UsageExample(
            "stream-ml --pipeline shop:fraud forget ada --reason 'to see' --only-verify",
            "what there is of a key, and nothing else",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
    acts=True,
)
