"""Scenarios in which the world stays as it is, and what reaches us does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.scenarios.world import HOUR_MS, Payment, Scenario, ScriptedChange
from stream_ml.topics import partition_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FAULTS"]

CENTS = 100.0
NULLS_SHARE = 0.6
LATE_MS = (18 * HOUR_MS, 22 * HOUR_MS)
FLOOD_SHARE = 0.7
COPIES = 3


class _Units(Scenario):
    name = "units"
    summary = "amounts come in cents from half time on, a hundred times as large"
    changes = (
        ScriptedChange(0.5, None, "units", "pipeline", "amount", "cents instead of whole units"),
    )

    def sent(self, payment: Payment, at: float) -> Iterator[tuple[int, dict[str, Any]]]:
        event = payment.event
        if self.is_on(at):
            event = {**event, "amount": round(event["amount"] * CENTS, 2)}
        yield payment.ts, event


class _Frozen(Scenario):
    name = "frozen"
    summary = "the distance stands still from half time to .7 of the stream"
    changes = (ScriptedChange(0.5, 0.7, "frozen", "pipeline", "distance", "always 7.4"),)

    def sent(self, payment: Payment, at: float) -> Iterator[tuple[int, dict[str, Any]]]:
        event = payment.event
        yield payment.ts, {**event, "distance": 7.4} if self.is_on(at) else event


class _Nulls(Scenario):
    name = "nulls"
    summary = "six in ten amounts are null from half time to .6 of the stream"
    changes = (
        ScriptedChange(0.5, 0.6, "nulls", "pipeline", "amount", "null in 60 % of the events"),
    )

    def sent(self, payment: Payment, at: float) -> Iterator[tuple[int, dict[str, Any]]]:
        event = payment.event
        if self.is_on(at) and self.delivery.random() < NULLS_SHARE:
            event = {**event, "amount": None}
        yield payment.ts, event


class _LabelOutage(Scenario):
    name = "label_outage"
    summary = "no label comes about the payments from half time to .7 of the stream"
    changes = (ScriptedChange(0.5, 0.7, "label_outage", "pipeline", None, "no labels"),)

    def told(self, payment: Payment, at: float, fraud: bool) -> Iterator[dict[str, Any]]:
        if not self.is_on(at):
            yield self.label(payment, fraud)


class _LabelDelay(Scenario):
    name = "label_delay"
    summary = "labels take 20 hours instead of one half, from half time to .7 of the stream"
    changes = (ScriptedChange(0.5, 0.7, "label_delay", "pipeline", None, "18 to 22 hours"),)

    def told(self, payment: Payment, at: float, fraud: bool) -> Iterator[dict[str, Any]]:
        delay_ms = self.delivery.randrange(*LATE_MS) if self.is_on(at) else None
        yield self.label(payment, fraud, delay_ms)


class _LabelSource(Scenario):
    name = "label_source"
    summary = "one of two sources of labels tells the opposite from half time on"
    changes = (
        ScriptedChange(
            0.5, None, "label_source", "pipeline", None, "source b, three labels in ten"
        ),
    )

    def told(self, payment: Payment, at: float, fraud: bool) -> Iterator[dict[str, Any]]:
        label = self.label(payment, fraud)
        if self.is_on(at) and label["source"] == "b":
            label["label"] = not fraud
        yield label


class _Flood(Scenario):
    """Events of a backlog: seven in ten come up to two hours late, and each of these thrice."""

    name = "flood"
    summary = "a flood of late and duplicate events from half time to .6 of the stream"
    changes = (
        ScriptedChange(
            0.5, 0.6, "flood", "pipeline", None, "70 % up to 2 hours late, each three times"
        ),
    )

    def sent(self, payment: Payment, at: float) -> Iterator[tuple[int, dict[str, Any]]]:
        if not self.is_on(at) or self.delivery.random() >= FLOOD_SHARE:
            yield payment.ts, payment.event
            return
        for _ in range(COPIES):
            yield payment.ts + self.delivery.randrange(2 * HOUR_MS), payment.event


class _Silence(Scenario):
    """The cards of one of four partitions pay nothing for a while; the others go on."""

    name = "silence"
    summary = "one of four partitions falls silent from half time to .7 of the stream"
    partitions = 4
    changes = (ScriptedChange(0.5, 0.7, "silence", "pipeline", None, "partition 2 of events"),)

    def draw(self, at: float, ts: int) -> dict[str, Any]:
        fields = super().draw(at, ts)
        while self.is_on(at) and self._is_silent(fields["card"]):
            fields = super().draw(at, ts)
        return fields

    def _is_silent(self, card: str) -> bool:
        return partition_of(card.encode(), self.partitions) == 2  # noqa: PLR2004 - see `changes`


FAULTS: tuple[type[Scenario], ...] = (
    _Units,
    _Frozen,
    _Nulls,
    _LabelOutage,
    _LabelDelay,
    _LabelSource,
    _Flood,
    _Silence,
)
