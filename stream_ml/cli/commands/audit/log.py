"""`audit log`: every decision, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.commands.audit.table import as_members, read_entries, table
from stream_ml.cli.output import write, write_json
from stream_ml.cli.subcommand import Subcommand, UsageExample, no_arguments

if TYPE_CHECKING:
    from argparse import Namespace

    from stream_ml.shell.settings import Settings

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Print all of them, the oldest first."""
    found, notes = read_entries(settings)
    if arguments.format == "json":
        write_json({"decisions": [as_members(each) for each in found], "notes": notes})
        return
    write("\n".join([table(found), *notes]))


COMMAND = Subcommand(
    name="log",
    help="every decision, a line each",
    description="Shows every decision on the registry, the oldest first.",
    examples=(
        UsageExample("stream-ml audit log", "what was ever decided"),
        UsageExample("stream-ml audit log --format json", "with serving sets, inputs and evidence"),
    ),
    add_arguments=no_arguments,
    run=run,
)
