"""Decisions as the audit shows them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stream_ml.cli import decisions
from stream_ml.cli.decisions import HEAD, as_row
from stream_ml.cli.registry import existing_log
from stream_ml.cli.tables import aligned
from stream_ml.shell.audit import entries
from stream_ml.shell.identity import reading_key
from stream_ml.shell.reader import read_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.shell.audit import Entry
    from stream_ml.shell.settings import Settings

__all__ = ["as_members", "read_entries", "table"]


def read_entries(settings: Settings) -> tuple[list[Entry], list[str]]:
    """All decisions that can be believed, and what a reader should know of the others."""
    with existing_log(settings) as log:
        key = reading_key(settings, log)
        found = list(entries(log, key))
        # More than were decided, or fewer: offsets have gaps, and tell nothing.
        decided = max((entry.decision.number + 1 for entry in found), default=0)
        refused = max(decided, sum(1 for _ in read_all(log, "registry"))) - len(found)
    notes = [] if key is not None else [settings.unchecked(settings.path)]
    if refused:
        notes.append(
            f"{refused:,} records of the registry are missing, or not signed with our key, and "
            "count for nothing; see `stream-ml audit verify`"
        )
    return found, notes


def as_members(entry: Entry) -> dict[str, Any]:
    """A decision whole, for a machine."""
    return {
        **asdict(entry.decision),
        "append_ms": entry.append_ms,
        "made_ms": decisions.made_ms(entry),
    }


def table(found: Iterable[Entry]) -> str:
    """Decisions, a line each."""
    return aligned([HEAD, *(as_row(decisions.as_members(each)) for each in found)], right=[0])
