"""`init`: a declaration drafted from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stream_ml.cli.arguments import add_input, utf8
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]

# What somebody may say that a column is; see `drafts.roles`.
ROLES = {
    "time": "of the time of each event",
    "id": "that names each event",
    "key": "that names what events are about: windows are per key",
    "label": "to be predicted",
    "label_time": "of the time at which the label was known",
}


def run(arguments: Namespace, settings: Settings) -> None:
    """Draft a declaration, and say what was guessed."""
    from stream_ml.cli.execution import init  # noqa: PLC0415 - loads features and models

    init.run(arguments, settings)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "file",
        metavar="FILE",
        help="JSON lines, CSV or Parquet, with events and, unless --labels is given, their labels",
    )
    add_input(parser)
    parser.add_argument(
        "--labels", metavar="FILE", help="the file of labels, where they are in one of their own"
    )
    for role, words in ROLES.items():
        parser.add_argument(
            f"--{role.replace('_', '-')}", type=utf8, metavar="COLUMN", help=f"the column {words}"
        )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the Python file to write; by default NAME_pipeline.py, in the folder where you "
        "stand; it is never written over",
    )


COMMAND = Subcommand(
    name="init",
    help="draft a pipeline from a file of yours",
    description=(
        "Looks at the first 20,000 rows of a file, guesses what its columns are for, and writes a\n"
        "declaration: a Python file with types, key, times, label, features, windows and two\n"
        "models, ready for `check` and `backtest`. Says what it guessed and why; name columns to\n"
        "correct it. Nothing that is there is written over."
    ),
    examples=(
        UsageExample("stream-ml init payments.csv", "writes payments_pipeline.py"),
        UsageExample(
            "stream-ml init trips.parquet --key driver --label minutes --label-time arrived",
            "with the columns that somebody knows",
        ),
    ),
    add_arguments=_add_arguments,
    run=run,
)
