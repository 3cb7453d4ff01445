"""`audit at`: what served at a time, since when, by whose decision, on what evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.shell.audit import served_at
from stream_ml.shell.commands.audit.showing import as_members, read_entries
from stream_ml.shell.commands.command import Command, Example
from stream_ml.shell.commands.output import aligned, instant, moment
from stream_ml.shell.commands.scores import evidence_line
from stream_ml.shell.printing import write, write_json

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.audit import Entry
    from stream_ml.shell.settings import Settings

__all__ = ["COMMAND"]

EVENTS, LOG = "events", "log"


def run(arguments: Namespace, settings: Settings) -> None:
    """Print the decision by which something served then."""
    found, notes = read_entries(settings)
    by = served_at(found, arguments.time, by_log=arguments.clock == LOG)
    if arguments.format == "json":
        decision = None if by is None else as_members(by)
        write_json({"time": arguments.time, "decision": decision, "notes": notes})
        return
    when = moment(arguments.time)
    write(f"at {when} nothing served yet" if by is None else _text(when, by))
    for note in notes:
        write(note)


def _text(when: str, by: Entry) -> str:
    decision, serving = by.decision, by.decision.serving
    others = [*serving.challengers.values(), serving.predecessor, serving.first]
    facts = [
        ["at", when],
        ["served", serving.champion.model],
        ["since", f"{moment(decision.ts)}, on the log at {moment(by.append_ms)}"],
        ["decision", f"{decision.number}, {decision.kind}"],
        ["by", decision.actor],
        ["reason", decision.reason],
        ["evidence", evidence_line(decision.evidence)],
        ["in its shadow", ", ".join(ref.model for ref in others if ref is not None) or "none"],
        ["rests on", ", ".join(f"{n:,} {topic}" for topic, n in decision.inputs.items())],
    ]
    if decision.command_id is not None:
        facts.append(["command", decision.command_id])
    return aligned(facts)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "time", type=instant, metavar="TIME", help="such as 2013-05-01T12:00Z, or milliseconds"
    )
    parser.add_argument(
        "--clock",
        choices=(EVENTS, LOG),
        default=EVENTS,
        help="whose time it is: that of events (the default), or that of the log's own clock, by "
        "which a replay takes minutes",
    )


COMMAND = Command(
    name="at",
    help="what served at a time, and why",
    description=(
        "Shows what served at a time: since when, by whose decision, for what reason, on what\n"
        "evidence, and what shadowed it. A decision counts from the time up to which it knew\n"
        "labels; where these were long in coming, --clock log tells when it was really made."
    ),
    examples=(
        Example("stream-ml audit at 2013-05-01T12:00Z", "by the time of events"),
        Example("stream-ml audit at '2026-01-31 09:00' --clock log", "by the log's clock"),
    ),
    add_arguments=_add_arguments,
    run=run,
)
