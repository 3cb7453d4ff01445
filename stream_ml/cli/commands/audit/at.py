"""`audit at`: what served at a time, since when, by whose decision, on what evidence."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from stream_ml.cli.arguments import instant
from stream_ml.cli.commands.audit.history import history_of
from stream_ml.cli.decisions import decider
from stream_ml.cli.output import write, write_json
from stream_ml.cli.scores import evidence_line
from stream_ml.cli.subcommand import Subcommand, UsageExample
from stream_ml.cli.tables import format_table, format_time
from stream_ml.shell.views.audit import served_at

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from stream_ml.shell.settings.settings import Settings
    from stream_ml.shell.views.registry import Entry

__all__ = ["COMMAND"]

EVENT_CLOCK, LOG_CLOCK = "events", "log"
NOW_WORD = "now"


def run(arguments: Namespace, settings: Settings) -> None:
    """Print the decision by which something served then."""
    entries, notes = history_of(settings)
    now_ms = time.time_ns() // 1_000_000
    # The last decision holds now, whatever the time of events, or another's clock.
    ms = sys.maxsize if arguments.time is NOW_WORD else arguments.time
    entry = served_at(entries, ms, by_log=arguments.clock == LOG_CLOCK)
    shown_ms = now_ms if arguments.time is NOW_WORD else ms
    if arguments.format == "json":
        decision = None if entry is None else entry.as_dict()
        write_json({"time": shown_ms, "decision": decision, "notes": notes})
        return
    time_text = format_time(shown_ms)
    write(f"at {time_text} nothing served yet" if entry is None else _text(time_text, entry))
    for note in notes:
        write(note)


def _text(time_text: str, entry: Entry) -> str:
    decision, serving = entry.decision, entry.decision.serving
    shadow_refs = [*serving.challengers.values(), serving.predecessor, serving.first]
    facts = [
        ["at", time_text],
        ["served", serving.champion.model],
        ["since", f"{format_time(decision.ts)}, on the log at {format_time(entry.append_ms)}"],
        ["decision", f"{decision.number}, {decision.kind}"],
        ["by", decider(decision.actor, decision.signed_by)],
        ["reason", decision.reason],
        ["evidence", evidence_line(decision.evidence)],
        ["in its shadow", ", ".join(ref.model for ref in shadow_refs if ref is not None) or "none"],
        ["rests on", ", ".join(f"{n:,} {topic}" for topic, n in decision.inputs.items())],
    ]
    if decision.command_id is not None:
        facts.append(["command", decision.command_id])
    if decision.given_ms is not None:
        log_time_text = f"on the log at {format_time(decision.received_ms)}"
        facts.append(["given", f"{format_time(decision.given_ms)}, {log_time_text}"])
    return format_table(facts)


def _time(text: str) -> int | str:
    return NOW_WORD if text == NOW_WORD else instant(text)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "time",
        type=_time,
        metavar="TIME",
        help="such as 2013-05-01T12:00Z, or milliseconds; or `now`",
    )
    parser.add_argument(
        "--clock",
        choices=(EVENT_CLOCK, LOG_CLOCK),
        default=EVENT_CLOCK,
        help="whose time it is: that of events (the default), or that of the log's own clock, by "
        "which a replay takes minutes",
    )


COMMAND = Subcommand(
    name="at",
    help="what served at a time, and why",
    description=(
        "Shows what served at a time: since when, by whose decision, for what reason, on what\n"
        "evidence, and what shadowed it. A decision counts from the time up to which it knew\n"
        "labels; where these were long in coming, --clock log tells when it was really made."
    ),
    examples=(
        UsageExample("stream-ml audit at 2013-05-01T12:00Z", "by the time of events"),
        UsageExample("stream-ml audit at now", "what serves"),
        UsageExample("stream-ml audit at '2026-01-31 09:00' --clock log", "by the log's clock"),
    ),
    add_arguments=_add_arguments,
    run=run,
    is_view=True,
)
