"""The registry as it is believed: its decisions in order, what serves since when, what holds."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_ml.errors import BadRecord
from stream_ml.generation import newest_generation
from stream_ml.shell.log.reading import registry_records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.pipeline import Pipeline
    from stream_ml.records import Decision, Record
    from stream_ml.shell.log.port import Log

__all__ = [
    "Entry",
    "RegistryView",
    "applied_paths",
    "batched_line",
    "effects",
    "entries",
    "read_registry",
    "restarted_line",
    "running_pipeline",
]

UNSIGNED, COPIES = "unsigned", "copies"


@dataclass(frozen=True, slots=True)
class Entry:
    """A decision, and when the log took it in (UTC ms)."""

    decision: Decision
    append_ms: int

    @property
    def made_ms(self) -> int:
        """When it was made, by a clock: an operator's when it was given, else as it was logged."""
        given_ms = self.decision.given_ms
        return self.append_ms if given_ms is None else given_ms

    def as_dict(self) -> dict[str, Any]:
        """The decision as every JSON output has it, with its times on the log."""
        return {
            **self.decision.as_dict(),
            "append_ms": self.append_ms,
            "made_ms": self.made_ms,
        }


@dataclass(frozen=True, slots=True)
class RegistryView:
    """The registry, read to its end.

    Attributes:
        pipeline: whose decisions they are; None before the first.
        newest: the last decision; None before the first.
        since: the decision that made the champion serve.
        decisions: the last ones that were asked for, oldest first.
        paused: the decision since which nothing is renewed or replaced by itself, if so.
        frozen: the rollback since which the champion's line is not renewed, if so.
        suspended: the decision since which promotions or refreshes stand still for a fault of the
            pipeline, if so.
        proposed: the decision that asks a person for a change, while it stands.
        unsigned_count: how many records are not signed with our key, and count for nothing.
        copy_count: how many are copies of earlier ones, and count for nothing.
    """

    pipeline: str | None = None
    newest: Decision | None = None
    since: Entry | None = None
    decisions: tuple[Entry, ...] = ()
    paused: Entry | None = None
    frozen: Entry | None = None
    suspended: Entry | None = None
    proposed: Entry | None = None
    unsigned_count: int = 0
    copy_count: int = 0

    @property
    def champion(self) -> str | None:
        """The model that serves, `name@version`."""
        return None if self.newest is None else self.newest.serving.champion.model


def restarted_line(decision: Decision) -> str | None:
    """The line that a decision starts anew; None if it starts none.

    Args:
        decision: any. As learn reads it, without what a stage loads.
    """
    line = (decision.evidence or {}).get("line")
    return line if decision.kind == "restarted" and isinstance(line, str) else None


def batched_line(decision: Decision) -> tuple[str, int] | None:
    """The line whose batches a decision changes, and how many examples they have; None if none's.

    Args:
        decision: any. As learn reads it, without what a stage loads.
    """
    evidence = decision.evidence or {}
    line, size = evidence.get("line"), evidence.get("batch")
    if decision.kind == "batched" and isinstance(line, str) and isinstance(size, int):
        return line, size
    return None


def applied_paths(decision: Decision) -> list[str]:
    """The parts of the declaration that a decision applies a change of; none of any other kind.

    Args:
        decision: any.
    """
    changes = (decision.evidence or {}).get("changes")
    if decision.kind != "applied" or not isinstance(changes, list):
        return []
    return [str(each.get("path")) for each in changes if isinstance(each, dict)]


def entries(log: Log, key: bytes | None) -> Iterator[Entry]:
    """The decisions in their order: those signed with `key`, without copies of earlier ones.

    Args:
        log: that the registry lies on.
        key: checks signatures; without one all is believed, copies included.
    """
    return (entry for _, entry in _valid_records(log, key, Counter()))


def running_pipeline(log: Log, pipeline: Pipeline, key: bytes | None) -> Pipeline:
    """A declaration as it runs on a log, where features were changed in flight.

    Args:
        log: that the registry lies on.
        pipeline: as it is declared.
        key: checks signatures; without one all is believed.
    """
    return pipeline.running_as(newest_generation(entry.decision for entry in entries(log, key)))


def read_registry(log: Log, key: bytes | None, recent: int | None) -> RegistryView:
    """The registry as it stands.

    Args:
        log: that it lies on.
        key: checks signatures; without one all is believed.
        recent: how many of the last decisions to hold; all, if None.
    """
    counts: Counter[str] = Counter()
    last: deque[Entry] = deque(maxlen=recent)
    pipeline, newest = None, None
    since = None
    holds = _Holds()
    for record, entry in _valid_records(log, key, counts):
        decision = entry.decision
        if newest is None or newest.serving.champion != decision.serving.champion:
            since = entry
        pipeline = (record.key or b"").decode(errors="replace")
        newest = decision
        holds.add(entry)
        last.append(entry)
    return RegistryView(
        pipeline,
        newest,
        since,
        tuple(last),
        holds.paused,
        holds.frozen,
        holds.suspended,
        holds.proposed,
        counts[UNSIGNED],
        counts[COPIES],
    )


def effects(registry: RegistryView) -> str:
    """The meaning of the last decisions for those to come."""
    sentences = []
    if registry.paused is not None:
        sentences.append("paused: nothing is renewed, or replaced by itself, until `resume`")
    elif registry.frozen is not None:
        sentences.append(
            "frozen after a rollback: nothing is renewed until `resume` or the next replacement"
        )
    if registry.suspended is not None:
        reason = registry.suspended.decision.reason
        sentences.append(f"suspended: {reason}; it goes on by itself, or by `resume`")
    if registry.proposed is not None:
        sentences.append(f"proposed: {registry.proposed.decision.reason}")
    return "\n".join(sentences) or "models are renewed, and replaced as the pipeline declares it"


class _Holds:
    """What keeps things as they are, or waits for a person, by the decisions so far."""

    def __init__(self) -> None:
        self.paused: Entry | None = None
        self.frozen: Entry | None = None
        self.suspended: Entry | None = None
        self.proposed: Entry | None = None

    def add(self, entry: Entry) -> None:
        """Take in the next decision."""
        decision, kind = entry.decision, entry.decision.kind
        if kind in {"paused", "resumed"}:
            self.paused = entry if kind == "paused" else None
        if kind in {"rolled_back", "resumed", "replaced"}:
            self.frozen = entry if _freezes(decision) else None
        if kind in {"suspended", "continued", "resumed"}:
            self.suspended = entry if kind == "suspended" else None
        if kind in {"proposed", "lapsed", "replaced", "rolled_back"}:
            self.proposed = entry if kind == "proposed" else None


def _freezes(decision: Decision) -> bool:
    """Whether what it returns to is not renewed: an operator's, or the guard's last refuge."""
    is_last_refuge = (decision.evidence or {}).get("reference") == "first"
    return decision.kind == "rolled_back" and (decision.command_id is not None or is_last_refuge)


def _valid_records(
    log: Log, key: bytes | None, counts: Counter[str]
) -> Iterator[tuple[Record, Entry]]:
    """The records that count, decoded; the others are only counted."""
    newest = -1
    for record, decision in registry_records(log, key):
        if isinstance(decision, BadRecord):
            counts[UNSIGNED] += 1
        elif key is not None and decision.number <= newest:
            counts[COPIES] += 1
        else:
            newest = decision.number
            yield record, Entry(decision, record.append_ms)
