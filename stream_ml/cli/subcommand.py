"""The form of every subcommand: its name, its help with usage examples, its arguments, its act."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    from stream_ml.shell.settings.settings import Settings

__all__ = ["Group", "Subcommand", "UsageExample", "no_arguments"]


@dataclass(frozen=True, slots=True)
class UsageExample:
    """A command line as one types it, and what it does."""

    line: str
    does: str

    def __str__(self) -> str:
        return f"  {self.line}\n      {self.does}"


@dataclass(frozen=True, slots=True)
class Subcommand:
    """A command. `run` prints what it found and returns nothing: what goes wrong is raised.

    Attributes:
        name: what one types after `stream-ml`.
        help: a phrase for the list of commands.
        description: what it does, for its own help.
        examples: ways to use it.
        add_arguments: puts its own arguments into its parser.
        run: does it; gets the arguments of the command line, parsed, and the settings.
        is_view: it shows how things stand, and may be watched: see `watch`.
        acts: it changes something, so its exit code tells of that, and not of whether its words
            could be written.
    """

    name: str
    help: str
    description: str
    examples: tuple[UsageExample, ...]
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace, Settings], None]
    is_view: bool = False
    acts: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Commands that belong together, under one name."""

    name: str
    help: str
    description: str
    commands: tuple[Subcommand, ...]


def no_arguments(_: ArgumentParser) -> None:
    """For commands that have none of their own."""
