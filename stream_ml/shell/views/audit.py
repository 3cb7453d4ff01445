"""The registry read back: what served when and why, and whether anybody has altered the record.

Each decision is signed, numbered, and names the record before it by its hash. So an edit shows in
the record's own signature and in its successor, a gap or a swap in the numbers, and a cut at the
end in what the worker last wrote down of its own position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from stream_ml.codec import record_hash
from stream_ml.errors import BadRecord
from stream_ml.records import NO_RECORD, ModelRef, line_of
from stream_ml.shell.log.port import whole_piece
from stream_ml.shell.log.reading import read_all, registry_records
from stream_ml.shell.views.registry import batched_line, entries, restarted_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stream_ml.records import Decision, Record, ServingSet
    from stream_ml.shell.log.port import Log
    from stream_ml.shell.views.registry import Entry

__all__ = ["History", "Verdict", "entries_about", "read_history", "roles", "served_at", "verify"]


@dataclass(frozen=True, slots=True)
class History:
    """The decisions that can be believed, in their order, and how many records cannot."""

    entries: tuple[Entry, ...]
    missing: int


def read_history(log: Log, key: bytes | None) -> History:
    """All decisions; `verify` says what is wrong with the others.

    Args:
        log: that the registry lies on.
        key: checks signatures; without one all is believed.
    """
    valid_entries = tuple(entries(log, key))
    # More than were decided, or fewer: offsets have gaps, and tell nothing.
    decision_count = max((entry.decision.number + 1 for entry in valid_entries), default=0)
    records = sum(1 for _ in read_all(log, "registry"))
    return History(valid_entries, max(decision_count, records) - len(valid_entries))


def served_at(history: Iterable[Entry], ms: int, *, by_log: bool = False) -> Entry | None:
    """The decision by which a model served at a time; None before the first.

    Args:
        history: all decisions, in their order.
        ms: the time, of events.
        by_log: the time is that of the log's clock.
    """
    serving_entry: Entry | None = None
    for entry in history:
        if (entry.append_ms if by_log else entry.decision.ts) > ms:
            break
        former = None if serving_entry is None else serving_entry.decision.serving.champion
        if entry.decision.serving.champion != former:
            serving_entry = entry
    return serving_entry


def roles(serving: ServingSet, name: str) -> dict[str, str]:
    """What a line, or a snapshot `name@version`, is in a serving set: snapshots by role.

    Args:
        serving: a serving set.
        name: of a line, or `name@version`.
    """
    slots: dict[str, ModelRef | None] = {
        "champion": serving.champion,
        **{f"challenger {line}": ref for line, ref in serving.challengers.items()},
        "predecessor": serving.predecessor,
        "first": serving.first,
    }
    return {
        slot.split()[0]: ref.model
        for slot, ref in slots.items()
        if ref is not None and name in {ref.model, line_of(ref.model)}
    }


def entries_about(history: Iterable[Entry], name: str) -> Iterator[Entry]:
    """The decisions that changed what a line or snapshot is, or that speak of it.

    Args:
        history: decisions in their order.
        name: of a line, or `name@version`.
    """
    former_roles: dict[str, str] = {}
    for entry in history:
        decision = entry.decision
        new_roles = roles(decision.serving, name)
        words = {word.strip(".,:;()'`") for word in decision.reason.split()}
        mentions = words | {line_of(word) for word in words if "@" in word}
        batched = batched_line(decision)
        changed = {restarted_line(decision), None if batched is None else batched[0]}
        if new_roles != former_roles or name in mentions | changed:
            yield entry
        former_roles = new_roles


# --- is it whole? -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found.

    Attributes:
        sound: how many records are as they were written, up to the first that is not.
        flaw: which record is wrong and how; None if none is.
        signatures: whether there was a key to check signatures with.
    """

    sound: int
    flaw: str | None
    signatures: bool


def verify(log: Log, key: bytes | None) -> Verdict:
    """Go through the registry, and find the first record that is not as it was written.

    Args:
        log: that the registry lies on.
        key: checks signatures; without one only numbers and hashes are.
    """
    # First where the worker stands, lest it write more between the two.
    number, newest = _worker_position(log)
    sound, previous, former = 0, NO_RECORD, None
    for record, decision in registry_records(log, key):
        flaw = _flaw(record, decision, former, sound, previous)
        previous, former = record_hash(record.value), record
        if flaw is None and sound + 1 == number and newest != previous:
            flaw = "it is not the record that the worker wrote last and remembers"
        if flaw is not None:
            return Verdict(
                sound, f"record {sound} (offset {record.offset}): {flaw}", key is not None
            )
        sound += 1
    if sound < number:
        flaw = f"record {sound}: missing, for the worker remembers {number} decisions"
        return Verdict(sound, flaw, key is not None)
    return Verdict(sound, None, key is not None)


def _worker_position(log: Log) -> tuple[int, str]:
    """How many decisions the worker has written down as made, and the hash of the last."""
    value = whole_piece(log, "evaluate-0", "")
    if value is None:
        return 0, NO_RECORD
    state = orjson.loads(value)
    return state["number"], state["previous"]


def _flaw(
    record: Record,
    decision: Decision | BadRecord,
    former: Record | None,
    number: int,
    previous: str,
) -> str | None:
    """What is wrong with the record that should be decision `number`."""
    if isinstance(decision, BadRecord):
        return str(decision)
    if decision.number != number:
        return f"expected decision {number}, given {decision.number}: one is missing or misplaced"
    if decision.previous != previous:
        return "it does not follow the record before it: one of the two was altered"
    if former is not None and record.key != former.key:
        return "it is of another pipeline than the record before it"
    if former is not None and record.append_ms < former.append_ms:
        return "the log took it in before the record that it follows"
    return None
