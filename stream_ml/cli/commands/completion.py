"""`completion`: what a shell needs to know to complete command lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.output import write_bytes, write_json
from stream_ml.cli.subcommand import Subcommand, UsageExample

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings

__all__ = ["COMMAND"]

SHELLS = ("bash", "zsh", "fish")


def run(arguments: Namespace, _: Settings) -> None:
    """Print the script."""
    # Nobody else needs it.
    import shtab  # noqa: PLC0415

    script = shtab.complete(arguments.root, arguments.shell)
    if arguments.format == "json":
        write_json({"shell": arguments.shell, "script": script})
    else:
        write_bytes(script.encode() + b"\n")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="whose script to print")


COMMAND = Subcommand(
    name="completion",
    help="a script by which bash, zsh or fish completes commands and options",
    description=(
        "Prints a script by which a shell completes commands, options and their choices. Put it\n"
        "where the shell looks for such, for bash say\n"
        "~/.local/share/bash-completion/completions/stream-ml, for zsh a file _stream-ml in a\n"
        "folder of $fpath, for fish ~/.config/fish/completions/stream-ml.fish; print it anew\n"
        "after an update."
    ),
    examples=(
        UsageExample("stream-ml completion bash", "to source, or to put into a file"),
        UsageExample("stream-ml completion fish", "for fish"),
    ),
    add_arguments=_add_arguments,
    run=run,
)
