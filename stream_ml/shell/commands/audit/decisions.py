"""`audit log`: every decision, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.shell.commands.audit.showing import as_members, read_entries, table
from stream_ml.shell.commands.command import Command, Example, no_arguments
from stream_ml.shell.printing import write, write_json

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


COMMAND = Command(
    name="log",
    help="every decision, a line each",
    description="Shows every decision on the registry, the oldest first.",
    examples=(
        Example("stream-ml audit log", "what was ever decided"),
        Example("stream-ml audit log --format json", "with serving sets, inputs and evidence"),
    ),
    add_arguments=no_arguments,
    run=run,
)
