"""Cards paying: a made-up stream whose truth is known, for benchmarks and for reading.

A card pays every so often. Some payments are fraud: likelier where the amount is high for this
card, far from home, or after a burst. Whether one was is known only after later payments.

    $ python -m stream_ml.examples.cards events 20000

prints payments as JSON lines, and `labels` instead of `events` the truth about them.
"""

from __future__ import annotations

import json
import math
import random
import sys
from typing import TYPE_CHECKING, Any

from river import linear_model, optim, preprocessing, tree

import stream_ml as sml

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cards", "transactions"]

LABEL_DELAY_EVENTS = 1_000

_windows = [sml.window(duration) for duration in ("1m", "10m", "1h")]

cards = sml.Pipeline(
    "cards",
    events=sml.Events(
        key="card",
        fields={"amount": float, "distance": float, "age": float},
    ),
    features=[
        sml.field("amount"),
        sml.field("distance"),
        sml.field("age"),
        sml.hour_of_day(),
        sml.weekday(),
        *(
            aggregate
            for window in _windows
            for aggregate in (
                window.count(),
                window.sum("amount"),
                window.mean("amount", fill=0.0),
                window.max("amount", fill=0.0),
            )
        ),
    ],
    label=sml.Label(bool, horizon="5m"),
    champion="logistic",
    models={
        "logistic": preprocessing.StandardScaler() | linear_model.LogisticRegression(),
        "adagrad": preprocessing.StandardScaler()
        | linear_model.LogisticRegression(optim.AdaGrad(0.02)),
        "tree": tree.HoeffdingTreeClassifier(max_depth=6),
    },
)


def transactions(
    count: int, *, seed: int, keys: int = 1_000, start_ms: int = 1_700_000_000_000
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """`count` payments and the labels of those whose truth is known by the last of them.

    Events come 50 ms apart on average; a label is known when the payment 1,000 later is made.

    Args:
        count: how many payments.
        seed: the same one makes the same payments.
        keys: how many cards there are.
        start_ms: the time before the first payment, UTC milliseconds.
    """
    events = list(_events(random.Random(seed), count, keys, start_ms))  # noqa: S311 - a made-up world
    truth = random.Random(seed + 1)  # noqa: S311 - as above
    labels = []
    for event, later in zip(events, events[LABEL_DELAY_EVENTS:], strict=False):
        logit = 0.01 * event["amount"] + 0.05 * event["distance"] - 4.0
        fraud = truth.random() < 1 / (1 + math.exp(-logit))
        labels.append({"event_id": event["event_id"], "ts": later["ts"], "label": fraud})
    return events, labels


def _events(world: random.Random, count: int, keys: int, start_ms: int) -> Iterator[dict[str, Any]]:
    ts = start_ms
    for number in range(count):
        ts += world.randrange(100)
        yield {
            "event_id": f"t{number}",
            "ts": ts,
            "card": f"c{world.randrange(keys)}",
            "amount": round(world.expovariate(1 / 60), 2),
            "distance": round(world.expovariate(1 / 20), 1),
            "age": float(world.randrange(20, 90)),
        }


if __name__ == "__main__":
    topic, count = sys.argv[1:]
    payments, truths = transactions(int(count), seed=1)
    for record in payments if topic == "events" else truths:
        sys.stdout.write(json.dumps(record) + "\n")
