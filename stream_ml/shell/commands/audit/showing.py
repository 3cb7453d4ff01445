"""Decisions as the audit shows them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stream_ml.shell.audit import entries
from stream_ml.shell.commands.output import aligned, moment
from stream_ml.shell.commands.reading import existing_log

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.shell.audit import Entry
    from stream_ml.shell.settings import Settings

__all__ = ["HEAD", "as_members", "as_row", "evidence_line", "read_entries", "table"]

HEAD = ["decision", "at", "kind", "by", "champion", "reason"]
UNCHECKED = "signatures were not checked: no key is set, and none lies by the log"


def read_entries(settings: Settings, command: str) -> tuple[list[Entry], list[str]]:
    """All decisions that can be believed, and what a reader should know of the others."""
    with existing_log(settings, command) as log:
        key = settings.verifying_key(settings.path)
        found = list(entries(log, key))
        refused = log.end_offset("registry", 0) - len(found)
    notes = [] if key is not None else [UNCHECKED]
    if refused:
        notes.append(
            f"{refused:,} records of the registry are missing, or not signed with our key, and "
            "count for nothing; see `stream-ml audit verify`"
        )
    return found, notes


def as_members(entry: Entry) -> dict[str, Any]:
    """A decision whole, for a machine."""
    return {**asdict(entry.decision), "append_ms": entry.append_ms}


def as_row(entry: Entry) -> list[str]:
    """A decision as a row of a table; see `HEAD`."""
    decision = entry.decision
    return [
        str(decision.number),
        moment(decision.ts),
        decision.kind,
        decision.actor,
        decision.serving.champion.model,
        decision.reason,
    ]


def table(found: Iterable[Entry]) -> str:
    """Decisions, a line each."""
    return aligned([HEAD, *map(as_row, found)], right=[0])


def evidence_line(evidence: dict[str, Any] | None) -> str:
    """The evidence that a decision rested on, in a line.

    >>> evidence_line({"wins": 9, "losses": 0, "e_value": 102.3, "needed": 60.0, "gain": 0.01})
    '9 blocks won, 0 lost: E 102 of 60; gain 0.0100 per example'
    """
    if not evidence:
        return "none"
    if "e_value" not in evidence:
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in evidence.items())
    gain, low, high = (evidence.get(name) for name in ("gain", "gain_low", "gain_high"))
    effect = "" if gain is None else f"; gain {gain:.4f} per example"
    interval = "" if low is None or high is None else f" ({low:.4f} to {high:.4f})"
    return (
        f"{evidence['wins']} blocks won, {evidence['losses']} lost: E {evidence['e_value']:.3g} of "
        f"{evidence['needed']:.3g}{effect}{interval}"
    )
