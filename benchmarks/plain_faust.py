"""The cards work as Faust's own documentation teaches: agents, windowed tables, records.

    BENCH_BROKER=HOST:PORT BENCH_PREFIX=NAME faust -A benchmarks.plain_faust worker --without-web

One agent per topic, one event at a time, records as JSON by Faust's own serializer, a table with
its changelog for the windows. Where the documentation leaves a choice it is made in Faust's favour:
one table of cards, whose windows slide as everybody's here, because Faust's windowed tables (one
per aggregate and width, eleven changelog records per event) cost three times as much; and what
waits for its label, like the models, lies in memory and is gone after a crash, where a table would
cost as much again. It prints how much it has learned, every 1,000 labels.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from bisect import bisect_left
from typing import Any

import faust

from benchmarks.work import WINDOWS_MS, Models, plain_features

PREFIX = os.environ["BENCH_PREFIX"]
PARTITIONS = 4
REPORT = 1_000

app = faust.App(
    PREFIX,
    broker=f"kafka://{os.environ['BENCH_BROKER']}",
    store="memory://",
    topic_partitions=PARTITIONS,
    consumer_auto_offset_reset="earliest",
)


class Payment(faust.Record, serializer="json"):
    """An event."""

    event_id: str
    ts: int
    card: str
    amount: float
    distance: float
    age: float


class Card(faust.Record, serializer="json"):
    """A card's payments of the longest window."""

    times: list[int]
    amounts: list[float]

    def features(self, now: int) -> dict[str, float]:
        """Of each window, which this moment's payments are not in."""
        features: dict[str, float] = {}
        for w, width in enumerate(WINDOWS_MS):
            amounts = self.amounts[bisect_left(self.times, now - width) :]
            features[f"count {w}"] = len(amounts)
            features[f"sum {w}"] = total = sum(amounts)
            features[f"mean {w}"] = total / len(amounts) if amounts else 0.0
            features[f"max {w}"] = max(amounts, default=0.0)
        return features

    def insert(self, now: int, amount: float) -> None:
        """Let a payment count, and those forget that no window holds."""
        old = bisect_left(self.times, now - WINDOWS_MS[-1])
        self.times = [*self.times[old:], now]
        self.amounts = [*self.amounts[old:], amount]


class Truth(faust.Record, serializer="json"):
    """A label."""

    event_id: str
    ts: int
    label: bool


class Prediction(faust.Record, serializer="json"):
    """What was served, and what it was made of."""

    event_id: str
    key: str
    ts: int
    prediction: float
    features: dict[str, float]
    shadows: list[float]


payments = app.topic(f"{PREFIX}.events", key_type=str, value_type=Payment)
truths = app.topic(f"{PREFIX}.labels", key_type=str, value_type=Truth)
predictions = app.topic(f"{PREFIX}.predictions", key_type=str, value_type=Prediction)


cards = app.Table("cards", key_type=str, value_type=Card, partitions=PARTITIONS)
waiting: dict[str, tuple[dict[str, float], list[float]]] = {}
early: dict[str, bool] = {}
models = Models()


@app.agent(payments)
async def predict(stream: Any) -> None:
    """Features of the windows so far, a prediction, and the event into the windows."""
    async for payment in stream:
        card = cards.get(payment.card) or Card([], [])
        features = plain_features(payment.asdict()) | card.features(payment.ts)
        card.insert(payment.ts, payment.amount)
        cards[payment.card] = card
        answers = models.predict(features)
        await predictions.send(
            key=payment.event_id,
            value=Prediction(
                payment.event_id, payment.card, payment.ts, answers[0], features, answers[1:]
            ),
        )
        if payment.event_id in early:
            _learn(features, answers, early.pop(payment.event_id))
        else:
            waiting[payment.event_id] = features, answers


@app.agent(truths)
async def learn(stream: Any) -> None:
    """Score and learn what a label belongs to."""
    async for truth in stream:
        if truth.event_id in waiting:
            _learn(*waiting.pop(truth.event_id), truth.label)
        else:
            early[truth.event_id] = truth.label


def _learn(features: dict[str, float], answers: list[float], label: bool) -> None:
    models.learn(features, answers, label)
    if models.learned_count % REPORT == 0:
        # Faust has turned `print` into a log call.
        sys.__stdout__.write(json.dumps(models.report()) + "\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]


gc.freeze()

if __name__ == "__main__":
    app.main()
