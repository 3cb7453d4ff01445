"""The world that scenarios script: flagged card payments, of which some turn out to be fraud.

A payment is an amount, a distance from the card's home, the age of the account, and a channel. The
chance that it is fraud is a logistic function of these, so the best possible answer is known. The
truth comes as a label 10 to 60 minutes later. Payments come a minute apart, on average.

Records are given in the order in which they are to be published. What changes is told by `truth`:

    scenario, seed, events, labels   what was made, and how many records of it
    pipeline, partitions             the declaration that fits it, and how many partitions
    first_ms, last_ms                the times of the first and last payment, UTC milliseconds
    changes                          a list, in order of time; of each:
        event, ts                    the payment at which it begins, and its time
        until_event, until_ts        the payment from which on it is over; null: it stays
        diagnosis                    `concept`, `inputs`, `label_share`, `units`, `frozen`, `nulls`,
                                     `category`, `label_outage`, `label_delay`, `label_source`,
                                     `flood`, or `silence`
        origin                       `world`, or `pipeline` where it is a fault on the way to us
        field                        the field of the event that it shows in; null: in none
        details                      by how much, as text
    serves                           which line should serve: a list of `event`, `ts` and `line`
                                     (null: there is none that is better than another)
    best                             the mean `brier` and `log_loss` of who knows each chance
    periods                          the same from each change on, each with its `event` and `ts`

Payments are counted from 0, in the order of their times. An answer is best that is the chance of
fraud given the payment as it was made; where a fault hides something of it, the best that can be
had from what is sent is a little worse.
"""

from __future__ import annotations

import heapq
import math
import random
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HOUR_MS", "Payment", "Scenario", "ScriptedChange", "Steady", "amount_score"]

FIRST_MS = 1_704_067_200_000  # Monday, 2024-01-01 00:00 UTC
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
CARDS = 200
CHANNELS = ("chip", "online", "phone")
CHANNEL_WEIGHTS = {"chip": -0.6, "online": 0.6, "phone": 0.0}
AMOUNT_MEAN, AMOUNT_SPREAD = 3.5, 0.8
DISTANCE_MEAN, DISTANCE_SPREAD = 2.0, 1.0
AGE_DAYS = 3_650


class Payment(NamedTuple):
    """A payment as it was made: its number, its time, and its event."""

    n: int
    ts: int
    event: dict[str, Any]


class ScriptedChange(NamedTuple):
    """What happens, as shares of the stream: from where to where (None: for good), and what."""

    begins: float
    ends: float | None
    diagnosis: str
    origin: str
    field: str | None
    details: str


class Scenario:
    """A stream of payments and labels; iterate it once, and ask for the truth then.

    Subclasses script it: each overrides what differs from a world that stays as it is.

    Args:
        seed: the same one gives the same records.
        events: how many payments are made.

    Attributes:
        name: of the scenario.
        summary: what happens in it.
        pipeline: the declaration that fits it, as `module:name`.
        partitions: how many partitions of events it is about.
        changes: what happens when.
        serves: which line should serve, from which share of the stream on.
    """

    name = ""
    summary = ""
    pipeline = "stream_ml.examples.payments:payments"
    partitions = 1
    changes: tuple[ScriptedChange, ...] = ()
    serves: tuple[tuple[float, str | None], ...] = ((0.0, "adagrad"),)

    def __init__(self, seed: int, events: int) -> None:
        self.seed = seed
        self.events = events
        # Each has draws of its own, so that what is done to one leaves the others as they are. A
        # text as a seed is hashed by SHA-512, in every process alike.
        self.inputs, self.truths, self.delivery = (
            random.Random(f"{self.name} {seed} {use}")  # noqa: S311 - a made-up world
            for use in ("inputs", "truths", "delivery")
        )
        self._labels = 0
        # The payments at which a period begins, and of each the sums over its payments: how many,
        # and what the best answers are expected to lose.
        shares = [share for c in self.changes for share in (c.begins, c.ends) if share is not None]
        self._periods = {self._event(share): [0.0, 0.0, 0.0] for share in sorted({0.0, *shares})}
        self._period = self._periods[0]
        # The times of all payments that the truth names.
        named = {0, events - 1, *self._periods, *(self._event(share) for share, _ in self.serves)}
        self._times: dict[int, int | None] = dict.fromkeys(sorted(named))

    # --- the script ----------------------------------------------------------------------------

    def pace(self, at: float, ts: int) -> float:
        """How many times as many payments as usual come now."""
        del at, ts
        return 1.0

    def draw(self, at: float, ts: int) -> dict[str, Any]:
        """The fields of a payment as it was made."""
        del at, ts
        return self.fields()

    def logit(self, event: dict[str, Any], at: float) -> float:
        """The logit of the chance that it is fraud."""
        del at
        return _logit_of(event)

    def sent(self, payment: Payment, at: float) -> Iterator[tuple[int, dict[str, Any]]]:
        """The events that reach us of a payment, and when."""
        del at
        yield payment.ts, payment.event

    def told(self, payment: Payment, at: float, fraud: bool) -> Iterator[dict[str, Any]]:
        """The labels that reach us about a payment."""
        del at
        yield self.label(payment, fraud)

    # --- what scripts are made of --------------------------------------------------------------

    def is_on(self, at: float, index: int = 0) -> bool:
        """Whether a change is on at this share of the stream."""
        change = self.changes[index]
        return change.begins <= at and (change.ends is None or at < change.ends)

    def fields(self, amount_shift: float = 0.0, distance_shift: float = 0.0) -> dict[str, Any]:
        """The fields of a usual payment; shifts are in standard deviations of their logarithms."""
        world = self.inputs
        amount = AMOUNT_MEAN + AMOUNT_SPREAD * (world.gauss(0, 1) + amount_shift)
        distance = DISTANCE_MEAN + DISTANCE_SPREAD * (world.gauss(0, 1) + distance_shift)
        draw = world.random()
        return {
            "card": f"c{world.randrange(CARDS)}",
            "amount": round(math.exp(amount), 2),
            "distance": round(math.exp(distance), 1),
            "age": float(world.randrange(AGE_DAYS)),
            "channel": CHANNELS[0 if draw < 0.5 else 1 if draw < 0.85 else 2],  # noqa: PLR2004 - shares
        }

    def label(self, payment: Payment, fraud: bool, delay_ms: int | None = None) -> dict[str, Any]:
        """The label of a payment, 10 to 60 minutes later unless said."""
        if delay_ms is None:
            delay_ms = self.delivery.randrange(10 * MINUTE_MS, 60 * MINUTE_MS)
        label = {"event_id": payment.event["event_id"], "ts": payment.ts + delay_ms, "label": fraud}
        return {**label, "source": "a" if self.delivery.random() < 0.7 else "b"}  # noqa: PLR2004

    # --- the stream ----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The records with their topics, in the order in which they are to be published."""
        waiting: list[tuple[int, int, str, dict[str, Any]]] = []
        ts, number = FIRST_MS, 0
        for n in range(self.events):
            at = n / self.events
            ts += 1 + int(self.inputs.random() * 2 * MINUTE_MS / self.pace(at, ts))
            payment, chance = self._payment(n, ts, at)
            fraud = self.truths.random() < chance
            self._tally(n, ts, chance)
            for sent_ms, event in self.sent(payment, at):
                number += 1
                heapq.heappush(waiting, (sent_ms, number, "events", event))
            for label in self.told(payment, at, fraud):
                number += 1
                self._labels += 1
                heapq.heappush(waiting, (label["ts"], number, "labels", label))
            while waiting and waiting[0][0] <= ts:
                _, _, topic, record = heapq.heappop(waiting)
                yield topic, record
        while waiting:
            _, _, topic, record = heapq.heappop(waiting)
            yield topic, record

    def _payment(self, n: int, ts: int, at: float) -> tuple[Payment, float]:
        fields = self.draw(at, ts)
        chance = 1 / (1 + math.exp(-self.logit(fields, at)))
        return Payment(n, ts, {"event_id": f"p{n}", "ts": ts, **fields}), chance

    def _event(self, share: float) -> int:
        """The first payment at or past a share of the stream."""
        n = int(share * self.events)
        return n if n / self.events >= share else n + 1

    def _tally(self, n: int, ts: int, chance: float) -> None:
        if n in self._times:
            self._times[n] = ts
            self._period = self._periods.get(n, self._period)
        period = self._period
        period[0] += 1
        period[1] += chance * (1 - chance)
        if 0 < chance < 1:
            period[2] -= chance * math.log(chance) + (1 - chance) * math.log1p(-chance)

    # --- the truth -----------------------------------------------------------------------------

    def truth(self) -> dict[str, Any]:
        """What was done, once all records have been made; the module tells its form."""
        return {
            "scenario": self.name,
            "seed": self.seed,
            "events": self.events,
            "labels": self._labels,
            "pipeline": self.pipeline,
            "partitions": self.partitions,
            "first_ms": self._times[0],
            "last_ms": self._times[self.events - 1],
            "changes": [self._change(change) for change in self.changes],
            "serves": [
                {**self._moment(self._event(share)), "line": line} for share, line in self.serves
            ],
            "best": _means([sum(column) for column in zip(*self._periods.values(), strict=True)]),
            "periods": [
                {**self._moment(n), **_means(sums)} for n, sums in self._periods.items() if sums[0]
            ],
        }

    def _moment(self, n: int) -> dict[str, int | None]:
        return {"event": n, "ts": self._times.get(n)}

    def _change(self, change: ScriptedChange) -> dict[str, Any]:
        end = None if change.ends is None else self._event(change.ends)
        return {
            **self._moment(self._event(change.begins)),
            "until_event": end,
            "until_ts": None if end is None else self._times.get(end),
            "diagnosis": change.diagnosis,
            "origin": change.origin,
            "field": change.field,
            "details": change.details,
        }


class Steady(Scenario):
    """Nothing ever changes."""

    name = "steady"
    summary = "nothing changes"


def amount_score(amount: float) -> float:
    """How many standard deviations an amount's logarithm is above the mean."""
    return (math.log(amount) - AMOUNT_MEAN) / AMOUNT_SPREAD


def _logit_of(event: dict[str, Any]) -> float:
    distance = (math.log(max(event["distance"], 0.1)) - DISTANCE_MEAN) / DISTANCE_SPREAD
    age: float = 2 * event["age"] / AGE_DAYS - 1
    channel: float = CHANNEL_WEIGHTS.get(event["channel"], 0.0)
    return 1.6 * amount_score(event["amount"]) + 1.2 * distance - 0.8 * age + channel - 0.4


def _means(sums: list[float]) -> dict[str, float]:
    count, brier, log_loss = sums
    return {"brier": brier / count, "log_loss": log_loss / count}
