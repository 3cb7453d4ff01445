"""Decisions as every command shows them: by whom, when, and what holds since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.tables import format_table, format_time
from stream_ml.shell.views.registry import applied_paths, batched_line, restarted_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.records import Decision, ServingSet
    from stream_ml.shell.views.registry import Entry, RegistryView

__all__ = [
    "DECISION_HEAD",
    "decider",
    "decision_row",
    "decision_time",
    "decisions_table",
    "names_in",
    "reason_text",
    "registry_notes",
]

DECISION_HEAD = ["decision", "events at", "made at", "kind", "by", "champion", "reason"]


def decider(actor: str, signed_by: str | None) -> str:
    """The one who decided: whose key signed, and whom they named if that is somebody else.

    >>> decider("evaluate", None), decider("ana", "ana"), decider("ana", "gus")
    ('evaluate', 'ana', 'gus (says ana)')

    Args:
        actor: whom the command or stage names.
        signed_by: the operator whose key signed; None if no operator's did.
    """
    return actor if signed_by in {None, actor} else f"{signed_by} (says {actor})"


def names_in(serving_sets: Iterable[ServingSet]) -> list[str]:
    """The lines and the snapshots that serve or shadow, sorted.

    Args:
        serving_sets: of decisions.
    """
    names = set()
    for serving in serving_sets:
        refs = (serving.champion, *serving.challengers.values(), serving.predecessor, serving.first)
        models = {ref.model for ref in refs if ref is not None}
        names |= models | {model.partition("@")[0] for model in models}
    return sorted(names)


def reason_text(decision: Decision) -> str:
    """The reason, behind what the decision starts anew or changes, where an operator's is silent.

    Args:
        decision: any.
    """
    line, paths = restarted_line(decision), applied_paths(decision)
    batched = batched_line(decision)
    if batched is not None:
        return f"{batched[0]} fits {batched[1]} examples at once: {decision.reason}"
    if paths:
        return f"{', '.join(paths)} changed: {decision.reason}"
    if line is None:
        return decision.reason
    words = f"{line} starts anew"
    # What starts a line by itself names it.
    is_said = decision.command_id is None and decision.reason.startswith(words)
    return decision.reason if is_said else f"{words}: {decision.reason}"


def decision_row(entry: Entry) -> list[str]:
    """A decision as a row of a table; see `DECISION_HEAD`."""
    decision = entry.decision
    return [
        str(decision.number),
        format_time(decision.ts),
        format_time(entry.made_ms),
        decision.kind,
        decider(decision.actor, decision.signed_by),
        decision.serving.champion.model,
        reason_text(decision),
    ]


def decisions_table(entries: Iterable[Entry]) -> str:
    """Decisions, a line each."""
    return format_table([*map(decision_row, entries)], head=DECISION_HEAD, right=[0])


def decision_time(entry: Entry) -> str:
    """When it took effect: in the time of events, and a person's decision by the clock."""
    decision = entry.decision
    if decision.command_id is None:
        return format_time(decision.ts)
    return f"{format_time(entry.made_ms)} (at events of {format_time(decision.ts)})"


def registry_notes(registry: RegistryView, signature_note: str | None) -> list[str]:
    """Notes on signatures: why none was checked, and how many records do not count.

    Args:
        registry: as it was read.
        signature_note: why no signature was checked, where none was.
    """
    notes = [] if signature_note is None else [signature_note]
    for count, description in (
        (registry.unsigned_count, "not signed with our key"),
        (registry.copy_count, "copies of earlier ones"),
    ):
        if count:
            notes.append(
                f"{count:,} records of the registry are {description}, and count for nothing"
            )
    return notes
