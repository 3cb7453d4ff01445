"""The decisions of the log that is set, and notes about records that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.cli.log import existing_log
from stream_ml.shell.settings.keys import reading_key
from stream_ml.shell.views.audit import read_history

if TYPE_CHECKING:
    from stream_ml.shell.settings.settings import Settings
    from stream_ml.shell.views.registry import Entry

__all__ = ["history_of"]


def history_of(settings: Settings) -> tuple[tuple[Entry, ...], list[str]]:
    """All decisions that can be believed, and what a reader should know of the others."""
    with existing_log(settings) as log:
        key = reading_key(settings, log)
        history = read_history(log, key)
    notes = [] if key is not None else [settings.unverified_reason(settings.path)]
    if history.missing:
        notes.append(
            f"{history.missing:,} records of the registry are missing, or not signed with our key, "
            "and count for nothing; see `stream-ml audit verify`"
        )
    return history.entries, notes
