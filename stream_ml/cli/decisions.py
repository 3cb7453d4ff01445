"""Decisions as every command shows them: by whom, when, and what holds since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.tables import aligned, moment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.shell.views.registry import Entry, RegistryView

__all__ = ["HEAD", "as_row", "by", "decisions_table", "effects", "registry_notes", "when"]

HEAD = ["decision", "events at", "made at", "kind", "by", "champion", "reason"]


def by(actor: str, signed_by: str | None) -> str:
    """Who decided: whose key signed, and whom they named if that is somebody else.

    >>> by("evaluate", None), by("ana", "ana"), by("ana", "gus")
    ('evaluate', 'ana', 'gus (says ana)')

    Args:
        actor: whom the command or stage names.
        signed_by: the operator whose key signed; None if no operator's did.
    """
    return actor if signed_by in {None, actor} else f"{signed_by} (says {actor})"


def as_row(entry: Entry) -> list[str]:
    """As a row of a table; see `HEAD`."""
    decision = entry.decision
    return [
        str(decision.number),
        moment(decision.ts),
        moment(entry.made_ms),
        decision.kind,
        by(decision.actor, decision.signed_by),
        decision.serving.champion.model,
        decision.reason,
    ]


def decisions_table(entries: Iterable[Entry]) -> str:
    """Decisions, a line each."""
    return aligned([HEAD, *map(as_row, entries)], right=[0])


def when(entry: Entry) -> str:
    """When it took effect: in the time of events, and a person's decision by the clock."""
    decision = entry.decision
    if decision.command_id is None:
        return moment(decision.ts)
    return f"{moment(entry.made_ms)} (at events of {moment(decision.ts)})"


def registry_notes(registry: RegistryView, unchecked: str | None) -> list[str]:
    """What a reader should know of signatures.

    Args:
        registry: as it was read.
        unchecked: why no signature was checked, where none was.
    """
    notes = [] if unchecked is None else [unchecked]
    for count, description in (
        (registry.refused, "not signed with our key"),
        (registry.copies, "copies of earlier ones"),
    ):
        if count:
            notes.append(
                f"{count:,} records of the registry are {description}, and count for nothing"
            )
    return notes


def effects(registry: RegistryView) -> str:
    """What the last decisions mean for those to come."""
    if registry.paused is not None:
        return "paused: nothing is renewed, or replaced by itself, until `resume`"
    if registry.frozen is not None:
        return "frozen after a rollback: nothing is renewed until `resume` or the next replacement"
    return "models are renewed, and replaced as the pipeline declares it"
