"""Alarms of a stage: what it has open, and one record for each change of that.

Theory of operation:

1. An alarm is of a kind and about a subject: `field:amount`, `line:quick`, `events/not_json`; the
   subject is empty where there is no more to say than the kind does. It opens once, however often
   its cause is seen meanwhile, and resolves once. What is no condition but a happening is said
   `once`: nothing resolves it.
2. What is open is part of the stage's state, so a stage that is restored or replayed says nothing
   a second time. Subjects are of a bounded set, or the raiser bounds them.
3. Many subjects with one cause in the same block are one record, whose details list them in
   `subjects`: each is open, and may resolve, by itself.
4. Whoever reads folds the records by kind, task and subject (`alert_kinds.subjects_of`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.codec import encode
from stream_ml.records import Alert, Output
from stream_ml.stages.alert_kinds import ALERT_KINDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

__all__ = ["QUIET_BLOCKS", "Alarms", "Recurrence"]

# What comes now and then is one episode while no more than so many blocks pass without it.
QUIET_BLOCKS = 10


class Alarms:
    """What one task of a stage has open.

    Args:
        stage: who raises alerts.
        partition: of its task.

    >>> alarms = Alarms("learn")
    >>> [output.memo.state for output in alarms.open("line_quarantined", "line:a", "It fails.", 5)]
    ['open']
    >>> alarms.open("line_quarantined", "line:a", "It fails again.", 6)
    []
    >>> [output.memo.details for output in alarms.resolve("line_quarantined", "line:a", "Anew.", 9)]
    [{'since': 5}]
    """

    def __init__(self, stage: str, partition: int = 0) -> None:
        self._stage = stage
        self._partition = partition
        # By kind and subject: since when.
        self._open: dict[tuple[str, str], int] = {}

    def open(
        self,
        kind: str,
        subject: str,
        message: str,
        ts: int,
        details: Mapping[str, Any] | None = None,
    ) -> list[Output]:
        """Open an alarm: its record, or nothing where it is open already.

        Args:
            kind: one of `alert_kinds`.
            subject: what it is about.
            message: what is wrong, for a person to read.
            ts: the stage's watermark, UTC milliseconds.
            details: the figures behind it, and a first sample where there is one.
        """
        return self.open_group(kind, (subject,), message, ts, details)

    def resolve(
        self,
        kind: str,
        subject: str,
        message: str,
        ts: int,
        details: Mapping[str, Any] | None = None,
    ) -> list[Output]:
        """Resolve an alarm: its record, or nothing where it is not open. Arguments: see `open`."""
        return self.resolve_group(kind, (subject,), message, ts, details)

    def once(
        self,
        kind: str,
        message: str,
        ts: int,
        details: Mapping[str, Any] | None = None,
        subject: str = "",
    ) -> list[Output]:
        """Say what has happened; nothing will resolve it. Arguments: see `open`."""
        return [self._record(kind, "once", (subject,), message, ts, details or {})]

    def open_group(
        self,
        kind: str,
        subjects: Iterable[str],
        message: str,
        ts: int,
        details: Mapping[str, Any] | None = None,
    ) -> list[Output]:
        """Open alarms with one cause: one record of those that are not open, or nothing.

        Args:
            kind: see `open`.
            subjects: what each of them is about.
            message: see `open`.
            ts: see `open`.
            details: see `open`.
        """
        new = sorted({subject for subject in subjects if (kind, subject) not in self._open})
        self._open |= {(kind, subject): ts for subject in new}
        return [self._record(kind, "open", new, message, ts, details or {})] if new else []

    def resolve_group(
        self,
        kind: str,
        subjects: Iterable[str],
        message: str,
        ts: int,
        details: Mapping[str, Any] | None = None,
    ) -> list[Output]:
        """Resolve alarms: one record of those that are open, or nothing. See `open_group`."""
        ended = sorted({subject for subject in subjects if (kind, subject) in self._open})
        if not ended:
            return []
        since = min(self._open.pop((kind, subject)) for subject in ended)
        figures = {**(details or {}), "since": since}
        return [self._record(kind, "resolved", ended, message, ts, figures)]

    def retain(self, kind: str, subjects: Collection[str], message: str, ts: int) -> list[Output]:
        """Resolve what is open of a kind, but for these subjects: nobody watches others any more.

        Args:
            kind: see `open`.
            subjects: those that there are still.
            message: see `open`.
            ts: see `open`.
        """
        gone = [subject for subject in self.subjects(kind) if subject not in subjects]
        return self.resolve_group(kind, gone, message, ts)

    def is_open(self, kind: str, subject: str = "") -> bool:
        """Whether an alarm is open.

        Args:
            kind: its kind.
            subject: what it is about.
        """
        return (kind, subject) in self._open

    def since(self, kind: str, subject: str = "") -> int:
        """Since when an alarm that is open is, UTC milliseconds.

        Args:
            kind: its kind.
            subject: what it is about.
        """
        return self._open[kind, subject]

    def subjects(self, kind: str) -> list[str]:
        """What the open alarms of a kind are about, sorted."""
        return sorted(subject for each, subject in self._open if each == kind)

    def adopt(self, kind: str, subject: str, ts: int) -> None:
        """Hold an alarm for open that a former release, which kept none, has raised.

        Args:
            kind: its kind.
            subject: what it is about.
            ts: since when at the latest, UTC milliseconds.
        """
        self._open.setdefault((kind, subject), ts)

    def dump(self) -> list[list[Any]]:
        """What is open, as JSON can hold it."""
        return [[kind, subject, ts] for (kind, subject), ts in sorted(self._open.items())]

    def load(self, state: Sequence[Sequence[Any]]) -> None:
        """Take up what was open; nothing where a former release wrote the state."""
        self._open = {(kind, subject): ts for kind, subject, ts in state}

    def _record(  # noqa: PLR0917 - the members of an alert, in their order
        self,
        kind: str,
        state: str,
        subjects: Sequence[str],
        message: str,
        ts: int,
        details: Mapping[str, Any],
    ) -> Output:
        assert kind in ALERT_KINDS, f"{kind} is no kind of alert: alert_kinds has no row for it"
        assert ALERT_KINDS[kind].ends is (state != "once"), f"{kind} cannot be {state}"
        subject = subjects[0] if len(subjects) == 1 else ""
        if len(subjects) > 1:
            details = {**details, "subjects": list(subjects)}
        alert = Alert(
            kind,
            ts,
            self._stage,
            message,
            dict(details),
            ALERT_KINDS[kind].severity,
            state,
            subject,
            self._partition,
        )
        return Output("alerts", kind.encode(), encode(alert), alert)


class Recurrence:
    """An alarm of what comes now and then: open from the first time until it has stayed away.

    A figure that comes in every other block opens one alarm, not one each time.

    Args:
        alarms: the stage's.
        kind: of the alarm.
        subject: what it is about.
    """

    def __init__(self, alarms: Alarms, kind: str, subject: str = "") -> None:
        self._alarms = alarms
        self._kind = kind
        self._subject = subject
        # Whole blocks since the last time; -1 in the block of that.
        self._quiet_blocks = 0

    def happen(self, message: str, ts: int, details: Mapping[str, Any]) -> list[Output]:
        """It has come: what is to be said. Arguments: see `Alarms.open`."""
        self._quiet_blocks = -1
        return self._alarms.open(self._kind, self._subject, message, ts, details)

    def end_block(self, message: str, ts: int) -> list[Output]:
        """A block ends, by a rule that batches do not change: what is to be said.

        Args:
            message: what is over.
            ts: the stage's watermark, UTC milliseconds.
        """
        if not self._alarms.is_open(self._kind, self._subject):
            return []
        self._quiet_blocks += 1
        if self._quiet_blocks < QUIET_BLOCKS:
            return []
        self._quiet_blocks = 0
        return self._alarms.resolve(self._kind, self._subject, message, ts)

    def dump(self) -> int:
        """The state, beside the stage's alarms."""
        return self._quiet_blocks

    def load(self, state: int) -> None:
        """Take up a dumped state."""
        self._quiet_blocks = state
