"""Scenarios in which the world itself moves: its cycles, concept, inputs, share of fraud."""

from __future__ import annotations

import math
from typing import Any

from stream_ml.scenarios.world import HOUR_MS, Scenario, ScriptedChange

__all__ = ["WORLDS"]

DAY_HOURS, WEEK_HOURS = 24, 168
WEEKEND_HOURS = 120
# A genuine payment is kept with this chance where fraud is to be more frequent.
KEPT_SHARE = 0.25


class _Cycle(Scenario):
    """Payments, their amounts and so the share of fraud go up and down by day and by week."""

    name = "cycle"
    summary = "strong daily and weekly cycles of traffic and inputs, and nothing else"

    def pace(self, at: float, ts: int) -> float:
        del at
        return (1 + 0.8 * _day(ts)) * (0.4 if _is_weekend(ts) else 1.0)

    def draw(self, at: float, ts: int) -> dict[str, Any]:
        del at
        return self.fields(0.8 * _day(ts), 0.8 if _is_weekend(ts) else 0.0)


class _Sudden(Scenario):
    name = "sudden"
    summary = "the concept turns into its opposite at half time"
    changes = (
        ScriptedChange(0.5, None, "concept", "world", None, "all chances are inverted at once"),
    )
    serves = ((0.0, "adagrad"), (0.5, "sgd"))

    def logit(self, event: dict[str, Any], at: float) -> float:
        logit = super().logit(event, at)
        return -logit if self.is_on(at) else logit


class _Gradual(Scenario):
    name = "gradual"
    summary = "the concept turns into its opposite little by little, from .4 to .6 of the stream"
    changes = (
        ScriptedChange(0.4, None, "concept", "world", None, "more and more payments are inverted"),
    )
    serves = ((0.0, "adagrad"), (0.5, "sgd"))

    def logit(self, event: dict[str, Any], at: float) -> float:
        logit = super().logit(event, at)
        share = min(1.0, max(0.0, (at - 0.4) / 0.2))
        before, after = 1 / (1 + math.exp(-logit)), 1 / (1 + math.exp(logit))
        chance = (1 - share) * before + share * after
        return math.log(chance / (1 - chance))


class _Recurring(Scenario):
    name = "recurring"
    summary = "two opposite concepts take turns, a fifth of the stream each"
    changes = (
        ScriptedChange(0.2, 0.4, "concept", "world", None, "all chances are inverted"),
        ScriptedChange(0.6, 0.8, "concept", "world", None, "all chances are inverted again"),
    )
    serves = ((0.0, "adagrad"), (0.2, "sgd"))

    def logit(self, event: dict[str, Any], at: float) -> float:
        logit = super().logit(event, at)
        return -logit if self.is_on(at, 0) or self.is_on(at, 1) else logit


class _Inputs(Scenario):
    name = "inputs"
    summary = "amounts grow threefold at half time, and mean what they meant before"
    changes = (
        ScriptedChange(
            0.5, None, "inputs", "world", "amount", "its logarithm rises by 1.4 deviations"
        ),
    )

    def draw(self, at: float, ts: int) -> dict[str, Any]:
        del ts
        return self.fields(1.4 if self.is_on(at) else 0.0)


class _Share(Scenario):
    """Fraud is four times as likely against the rest: of genuine payments a quarter is kept.

    Of those that are kept, the logit is higher by log 4, whatever the payment is.
    """

    name = "label_share"
    summary = "fraud becomes four times as frequent against the rest at half time"
    changes = (
        ScriptedChange(0.5, None, "label_share", "world", None, "the odds of fraud are fourfold"),
    )

    def draw(self, at: float, ts: int) -> dict[str, Any]:
        fields = super().draw(at, ts)
        while self.is_on(at):
            chance = 1 / (1 + math.exp(-super().logit(fields, at)))
            # Kept with its chance to be kept, given what it is: the label is drawn later.
            if self.inputs.random() < chance + (1 - chance) * KEPT_SHARE:
                break
            fields = super().draw(at, ts)
        return fields

    def logit(self, event: dict[str, Any], at: float) -> float:
        return super().logit(event, at) - (math.log(KEPT_SHARE) if self.is_on(at) else 0.0)


class _Category(Scenario):
    name = "category"
    summary = "a quarter of the payments come by a channel that nobody has declared"
    changes = (ScriptedChange(0.5, None, "category", "world", "channel", "a quarter are `wallet`"),)

    def draw(self, at: float, ts: int) -> dict[str, Any]:
        fields = super().draw(at, ts)
        if self.is_on(at) and self.inputs.random() < 0.25:  # noqa: PLR2004 - a share
            fields["channel"] = "wallet"
        return fields


def _day(ts: int) -> float:
    return math.sin(ts % (DAY_HOURS * HOUR_MS) / (DAY_HOURS * HOUR_MS) * math.tau)


def _is_weekend(ts: int) -> bool:
    # The epoch was a Thursday: three days into a week that begins on Monday.
    return (ts + 3 * DAY_HOURS * HOUR_MS) % (WEEK_HOURS * HOUR_MS) >= WEEKEND_HOURS * HOUR_MS


WORLDS: tuple[type[Scenario], ...] = (
    _Cycle,
    _Sudden,
    _Gradual,
    _Recurring,
    _Inputs,
    _Share,
    _Category,
)
