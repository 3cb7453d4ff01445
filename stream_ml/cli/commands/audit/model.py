"""`audit model`: every decision about a line, or about one snapshot of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.arguments import add_limit
from stream_ml.cli.commands.audit.history import history_of
from stream_ml.cli.decisions import DECISION_HEAD, decision_row, names_in
from stream_ml.cli.output import write, write_json
from stream_ml.cli.subcommand import Subcommand, UsageExample
from stream_ml.cli.tables import NO_VALUE, format_table
from stream_ml.shell.printable import printable
from stream_ml.shell.views.audit import entries_about, roles
from stream_ml.suggestion import suggestion

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings
    from stream_ml.shell.views.registry import Entry

__all__ = ["COMMAND"]


def run(arguments: Namespace, settings: Settings) -> None:
    """Print the decisions that changed what it is, or speak of it."""
    entries, notes = history_of(settings)
    name = arguments.model
    matches = list(entries_about(entries, name))
    is_known = bool(matches)
    if arguments.limit is not None:
        matches = matches[-arguments.limit :]
    if arguments.format == "json":
        members = [
            {**entry.as_dict(), "roles": roles(entry.decision.serving, name)} for entry in matches
        ]
        write_json({"model": name, "decisions": members, "notes": notes})
        return
    rows = [
        [*row[:-1], _roles(entry, name), row[-1]]
        for entry, row in zip(matches, map(decision_row, matches), strict=True)
    ]
    head = [*DECISION_HEAD[:-1], "it is then", DECISION_HEAD[-1]]
    like = suggestion(name, names_in(entry.decision.serving for entry in entries))
    empty_text = f"no decision is about {printable(name)}{like}"
    write(format_table(rows, head=head, right=[0]) if is_known else empty_text)
    for note in notes:
        write(note)


def _roles(entry: Entry, name: str) -> str:
    models_by_role = roles(entry.decision.serving, name)
    return ", ".join(f"{role} {model}" for role, model in models_by_role.items()) or NO_VALUE


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL[@VERSION]", help="a line, or one snapshot of it")
    add_limit(parser, "only so many of the last ones")


COMMAND = Subcommand(
    name="model",
    help="every decision about a model",
    description=(
        "Shows every decision that changed what a model is (champion, challenger, predecessor,\n"
        "first), or that speaks of it, with what it was from then on."
    ),
    examples=(
        UsageExample("stream-ml audit model adagrad", "of the line"),
        UsageExample("stream-ml audit model adagrad@16000 --format json", "of one snapshot"),
    ),
    add_arguments=_add_arguments,
    run=run,
    is_view=True,
)
