"""Alerts as they stand: those that are open, and each change of that, folded from their topic."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stream_ml.codec import decode_alert
from stream_ml.errors import BadRecord
from stream_ml.sealing import Seals, strip_seal
from stream_ml.shell.log.reading import last_records
from stream_ml.shell.views.registry import read_registry
from stream_ml.stages.alert_kinds import ALERT_KINDS, SEVERITIES, subjects_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stream_ml.records import Alert, Record
    from stream_ml.sealing import RecordSeal
    from stream_ml.shell.log.port import Log

__all__ = [
    "AlertFold",
    "AlertView",
    "AlertsView",
    "alert_seal",
    "alerts_in",
    "read_alerts",
]

# So many of the last records are folded: years of changes, read in half a second.
ALERTS_READ = 10_000
RANKS: dict[str, int] = {severity: rank for rank, severity in enumerate(SEVERITIES)}
# What a kind of another release is looked into with.
COMMAND = "stream-ml status"
# While one of these is open, a line learns no more, or is asked no more.
QUARANTINES = ("line_quarantined", "shadow_slow")


@dataclass(frozen=True, slots=True)
class AlertView:
    """One alert about one subject, as it stood after a record.

    Attributes:
        kind: names it for machines.
        severity: critical, warning or info.
        state: open, resolved, or once.
        stage: whose task raised it.
        partition: of that task.
        subject: what it is about; empty if nothing more than the kind says.
        message: for a person to read.
        details: the figures.
        ts: the watermark at this change, UTC milliseconds (-1: before the first event).
        since: the watermark when it opened.
        append_ms: when the log took this change in, UTC milliseconds.
        since_append_ms: when it took in that it opened.
        command: to look further with.
        fingerprint: the same for every record about it; of a happening, of this one alone.
    """

    kind: str
    severity: str
    state: str
    stage: str
    partition: int
    subject: str
    message: str
    details: dict[str, Any]
    ts: int
    since: int
    append_ms: int
    since_append_ms: int
    command: str
    fingerprint: str

    @property
    def task(self) -> str:
        """The task that raised it."""
        return f"{self.stage}-{self.partition}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class AlertsView:
    """The alerts on a log.

    Attributes:
        open: what is open, the gravest first, and of those the oldest.
        last: the last changes, oldest first.
        foreign: how many records are not sealed with our key, and count for nothing.
        read: how many records were read.
        total: how many there are, at most.
    """

    open: tuple[AlertView, ...]
    last: tuple[AlertView, ...]
    foreign: int
    read: int
    total: int

    @property
    def open_counts(self) -> dict[str, int]:
        """How many are open, by severity."""
        counts = Counter(alert.severity for alert in self.open)
        return {severity: counts[severity] for severity in SEVERITIES}

    @property
    def quarantines(self) -> tuple[AlertView, ...]:
        """The open alerts about lines that learn no more, or are asked no more."""
        return tuple(alert for alert in self.open if alert.kind in QUARANTINES)


class AlertFold:
    """What is open, from records in their order."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str, int, str], AlertView] = {}

    def add(self, record: Record, alert: Alert) -> list[AlertView]:
        """Fold a record in: what it says, an alert for each subject.

        Args:
            record: as it lies on the log.
            alert: that it holds.
        """
        return [self._add(record, alert, subject) for subject in subjects_of(alert)]

    def _add(self, record: Record, alert: Alert, subject: str) -> AlertView:
        place = (alert.kind, alert.stage, alert.partition, subject)
        opened = self._open.pop(place, None)
        since, since_append_ms = alert.ts, record.append_ms
        if opened is not None and alert.state != "once":
            since, since_append_ms = opened.since, opened.since_append_ms
        elif alert.state == "resolved" and isinstance(alert.details.get("since"), int):
            since = alert.details["since"]
        row = ALERT_KINDS.get(alert.kind)
        view = AlertView(
            alert.kind,
            alert.severity if alert.severity in RANKS else "warning",
            alert.state,
            alert.stage,
            alert.partition,
            subject,
            alert.message,
            alert.details,
            alert.ts,
            since,
            record.append_ms,
            since_append_ms,
            COMMAND if row is None else row.command,
            _fingerprint(*place, *((record.offset,) if alert.state == "once" else ())),
        )
        if alert.state == "open":
            self._open[place] = view
        elif alert.state == "once" and opened is not None:
            self._open[place] = opened
        return view

    def open(self) -> tuple[AlertView, ...]:
        """What is open now, the gravest first, and of those the oldest."""
        alerts = self._open.values()
        return tuple(sorted(alerts, key=lambda alert: (RANKS[alert.severity], alert.append_ms)))


def _fingerprint(*place: str | int) -> str:
    text = "\x00".join(map(str, place))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def alert_seal(log: Log, key: bytes | None) -> RecordSeal | None:
    """The seal that alerts on `log` have; None where nobody can check it.

    Args:
        log: that they lie on.
        key: the pipeline's, as far as it is known.
    """
    if key is None:
        return None
    pipeline = read_registry(log, key, recent=0).pipeline
    return None if pipeline is None else Seals(key, pipeline, log.identity).records("alerts")


def alerts_in(
    records: Iterable[Record], seal: RecordSeal | None
) -> Iterator[tuple[Record, Alert | None]]:
    """The alert in each record; None where it is not ours, or none at all.

    Args:
        records: of `alerts`.
        seal: what they must be sealed with; without one all are believed.
    """
    for record in records:
        try:
            body = strip_seal(record.value) if seal is None else seal.unseal(record.value)
            yield record, decode_alert(body)
        except BadRecord:
            yield record, None


def read_alerts(log: Log, key: bytes | None, recent: int = 0) -> AlertsView:
    """The alerts as they stand.

    Args:
        log: that they lie on; a worker may be at work on it.
        key: checks their seals; without one all are believed.
        recent: how many of the last changes to hold.
    """
    fold, last = AlertFold(), deque[AlertView](maxlen=recent)
    records = last_records(log, "alerts", ALERTS_READ)
    foreign = 0
    for record, alert in alerts_in(records, alert_seal(log, key)):
        if alert is None:
            foreign += 1
        else:
            last += fold.add(record, alert)
    total = len(records)
    if total >= ALERTS_READ:
        total = log.end_offset("alerts", 0) - log.first_offset("alerts", 0)
    return AlertsView(fold.open(), tuple(last), foreign, len(records), total)
