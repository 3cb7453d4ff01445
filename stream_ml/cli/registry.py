"""What commands read off a log that a worker may be at work on: without its place, in its way."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.cli.scores import FORMS
from stream_ml.client import open_log
from stream_ml.codec import decode_decision
from stream_ml.errors import BadRecord
from stream_ml.sealing import unsealed
from stream_ml.shell.audit import Entry
from stream_ml.shell.identity import check_name
from stream_ml.shell.loading import load_pipeline
from stream_ml.shell.log import read_between, whole_piece
from stream_ml.shell.reader import read_all

if TYPE_CHECKING:
    from stream_ml.records import Decision, Record
    from stream_ml.shell.log import Isolation, Log
    from stream_ml.shell.settings import Settings

__all__ = [
    "Registry",
    "existing_log",
    "is_empty",
    "last_records",
    "newest_evaluations",
    "piece",
    "read_registry",
]

# Of an evaluation, what is shown of every model.
SHOWN = {"model": str, "version": str, "ts": int, "n": int, "scores": dict, "coverage": float}
EVIDENCE = {"wins", "losses", "ties", "thin", "e_value", "needed", "gain", "gain_low", "gain_high"}
# Enough for the newest evaluation of every model: they are written together.
EVALUATIONS = 200


def existing_log(settings: Settings, *, isolation: Isolation = "committed") -> Log:
    """The log that is set, in a file or on a cluster, which must be there: reading makes none.

    Args:
        settings: say where.
        isolation: what readers see of transactions; the embedded log's are all committed.

    Raises:
        LogError: it is not.
        UsageError: it is on a cluster, and the pipeline's name is not known; or it is the file of
            another pipeline than the command line names.
    """
    name = None
    # Who only looks at a file need not wait for a declaration that the surroundings name.
    named = settings.on_kafka or settings.by_option("pipeline")
    if named and settings.pipeline is not None:
        name = load_pipeline(settings.pipeline).name
    log = open_log(settings, name, isolation=isolation)
    try:
        if name is not None:
            check_name(settings, log, name)
    except BaseException:
        log.close()
        raise
    return log


def is_empty(log: Log) -> bool:
    """Whether nothing was ever published or written."""
    return not any(
        log.end_offset(topic, p) for topic, count in log.partitions.items() for p in range(count)
    )


@dataclass(slots=True)
class Registry:
    """What the registry says, read to its end.

    Attributes:
        pipeline: whose decisions they are.
        newest: the last decision; None before the first.
        since: the decision that made the champion serve.
        recent: the last ones, oldest first.
        paused: the decision since which nothing is renewed or replaced by itself, if so.
        frozen: the rollback since which the champion's line is not renewed, if so.
        refused: how many records are not signed with our key, and count for nothing.
    """

    pipeline: str | None = None
    newest: Decision | None = None
    since: Entry | None = None
    recent: deque[Entry] = field(default_factory=deque)
    paused: Entry | None = None
    frozen: Entry | None = None
    refused: int = 0
    copies: int = 0

    def fold(self, record: Record, key: bytes | None) -> None:
        """Take in one more record.

        Args:
            record: of the topic `registry`.
            key: checks its signature; without one it is believed.
        """
        try:
            decision = decode_decision(record.value, key)
        except BadRecord:
            self.refused += 1
            return
        if key is not None and self.newest is not None and decision.number <= self.newest.number:
            self.copies += 1
            return
        entry = Entry(decision, record.append_ms)
        if self.newest is None or self.newest.serving.champion != decision.serving.champion:
            self.since = entry
        self.pipeline = (record.key or b"").decode(errors="replace")
        self.newest = decision
        if decision.kind in {"paused", "resumed"}:
            self.paused = entry if decision.kind == "paused" else None
        if decision.kind in {"rolled_back", "resumed", "replaced"}:
            by_hand = decision.kind == "rolled_back" and decision.command_id is not None
            self.frozen = entry if by_hand else None
        self.recent.append(entry)

    def notes(self, unchecked: str | None) -> list[str]:
        """What a reader should know of signatures; `unchecked` says why none was checked."""
        notes = [] if unchecked is None else [unchecked]
        if self.refused:
            notes.append(
                f"{self.refused:,} records of the registry are not signed with our key, and count "
                "for nothing"
            )
        if self.copies:
            notes.append(
                f"{self.copies:,} records of the registry are copies of earlier ones, and count "
                "for nothing"
            )
        return notes


def read_registry(log: Log, key: bytes | None, recent: int | None) -> Registry:
    """The registry, with its last `recent` decisions (all, if None), checked if there is a key.

    Args:
        log: that it lies on.
        key: checks signatures; without one all is believed.
        recent: how many of the last decisions are kept; all, if None.
    """
    registry = Registry(recent=deque(maxlen=recent))
    for record in read_all(log, "registry"):
        registry.fold(record, key)
    return registry


def newest_evaluations(log: Log) -> list[dict[str, Any]]:
    """How each model stood when that was last written down, the served one first."""
    newest = {}
    for record in last_records(log, "evaluations", EVALUATIONS):
        # Whatever else lies there, what can be shown is.
        with suppress(orjson.JSONDecodeError, BadRecord):
            evaluation = orjson.loads(unsealed(record.value) or b"{}")
            if _is_evaluation(evaluation):
                newest[evaluation["model"]] = evaluation
    return list(newest.values())


def _is_evaluation(members: Any) -> bool:
    """Whether it has the members of one that are shown, each of its type."""
    if not isinstance(members, dict):
        return False
    evidence = members.get("evidence")
    return (
        all(isinstance(members.get(name), kind) for name, kind in SHOWN.items())
        and all(isinstance(members["scores"].get(form), dict) for form in FORMS)
        and all(
            isinstance(figure, int | float)
            for form in FORMS
            for figure in members["scores"][form].values()
        )
        and (evidence is None or (isinstance(evidence, dict) and evidence.keys() >= EVIDENCE))
    )


def last_records(log: Log, topic: str, count: int) -> list[Record]:
    """Up to so many of the last records of a topic's each partition.

    Args:
        log: that they lie on.
        topic: that they are of.
        count: how many of each partition.
    """
    records = []
    for partition in range(log.partitions[topic]):
        first, end = log.first_offset(topic, partition), log.end_offset(topic, partition)
        reach = count
        found = list(read_between(log, topic, partition, max(first, end - reach), end))
        # Offsets have gaps, so it may be further back than it seems.
        while len(found) < count and end - reach > first:
            reach *= 8
            found = list(read_between(log, topic, partition, max(first, end - reach), end))
        records += found[-count:]
    return records


def piece(log: Log, task: str) -> dict[str, Any]:
    """The state of a task that belongs to no key; empty before its first checkpoint.

    Args:
        log: that the state lies on.
        task: `STAGE-PARTITION`.
    """
    value = whole_piece(log, task, "")
    return {} if value is None else dict(orjson.loads(value))
