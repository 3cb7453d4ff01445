"""`audit log`: every decision, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.arguments import add_limit
from stream_ml.cli.commands.audit.history import history_of
from stream_ml.cli.decisions import decisions_table
from stream_ml.cli.output import write, write_json
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Print all of them, the oldest first."""
    entries, notes = history_of(settings)
    if arguments.limit is not None:
        entries = entries[-arguments.limit :]
    if arguments.format == "json":
        write_json({"decisions": [entry.as_dict() for entry in entries], "notes": notes})
        return
    write("\n".join([decisions_table(entries), *notes]))


def _add_arguments(parser: ArgumentParser) -> None:
    add_limit(parser, "only so many of the last ones")


COMMAND = Subcommand(
    name="log",
    help="every decision, a line each",
    description="Shows every decision on the registry, the oldest first.",
    examples=(
        UsageExample("stream-ml audit log", "what was ever decided"),
        UsageExample("stream-ml audit log --format json", "with serving sets, inputs and evidence"),
    ),
    add_arguments=_add_arguments,
    run=run,
    is_view=True,
)
