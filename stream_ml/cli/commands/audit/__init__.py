"""`audit`: what served when and why, whether the record of it is whole, predictions made again."""

from __future__ import annotations

from stream_ml.cli.commands.audit import at, log, model, reproduce, verify
from stream_ml.cli.subcommand import Group

__all__ = ["GROUP"]

GROUP = Group(
    name="audit",
    help="what served when and why; whether the record of it is whole",
    description=(
        "Answers from the registry, where every decision is signed and names the one before it.\n"
        "Only reads, also while a worker runs."
    ),
    commands=(at.COMMAND, model.COMMAND, log.COMMAND, verify.COMMAND, reproduce.COMMAND),
)
