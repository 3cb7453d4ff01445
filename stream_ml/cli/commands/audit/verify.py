"""`audit verify`: whether the registry is as it was written."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from stream_ml.cli.log import existing_log
from stream_ml.cli.output import write, write_json
from stream_ml.cli.subcommand import Subcommand, UsageExample, no_arguments
from stream_ml.errors import StreamMLError
from stream_ml.shell.settings.keys import reading_key
from stream_ml.shell.views.audit import verify

if TYPE_CHECKING:
    from argparse import Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Go through the registry, and fail at the first record that is not as it was written."""
    with existing_log(settings) as log:
        verdict = verify(log, reading_key(settings, log))
    if arguments.format == "json":
        write_json(asdict(verdict))
    else:
        checks = "signature, number and chain" if verdict.signatures else "number and chain"
        write(f"{verdict.sound:,} decisions are as they were written, by {checks}")
        if not verdict.signatures:
            write(settings.unverified_reason(settings.path))
    if verdict.flaw is not None:
        raise StreamMLError(f"the registry is not as it was written: {verdict.flaw}")


COMMAND = Subcommand(
    name="verify",
    help="whether the registry is as it was written",
    description=(
        "Goes through the registry: is each record signed with our key, are they numbered without\n"
        "a gap, does each name the one before it by its hash, is the last one the one that the\n"
        "worker remembers. Names the first that is wrong, and how, and exits with 1."
    ),
    examples=(
        UsageExample("stream-ml audit verify", "of the log that is set, with the key beside it"),
        UsageExample("stream-ml audit verify --format json", "for a machine"),
    ),
    add_arguments=no_arguments,
    run=run,
)
