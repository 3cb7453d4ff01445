"""A small world for simulations: a pipeline, and seeded streams with everything that goes wrong."""

from __future__ import annotations

import random
from typing import Any

from river import linear_model, naive_bayes, preprocessing

import stream_ml as sml

START_MS = 1_700_000_000_000

pipeline = sml.Pipeline(
    "world",
    events=sml.Events(
        key="shop",
        fields={
            "kind": sml.Enum("visit", "order"),
            "amount": sml.Optional[float],
            "city": sml.Enum("oslo", "rome"),
        },
        lateness="20s",
        breadth=1,
    ),
    predict=sml.when(kind="visit"),
    features=[
        sml.field("amount", fill=0.0),
        sml.one_hot("city"),
        sml.window("1m").count(kind="order"),
        sml.window("30s", by="city").mean("amount", fill=0.0),
        sml.window("1m").max("amount", fill=0.0),
    ],
    label=sml.Label(bool, horizon="40s"),
    champion="logistic",
    models={
        "logistic": preprocessing.StandardScaler() | linear_model.LogisticRegression(),
        "bayes": naive_bayes.GaussianNB(),
    },
    promotion=sml.Promotion(refresh=20, first=30),
    keep=2,
    monitors=sml.Monitors(block="1m"),
)


def stream(seed: int, count: int = 200) -> tuple[list[Any], list[Any]]:
    """Events and labels, in publishing order, good and bad."""
    world = random.Random(seed)
    events: list[Any] = []
    labels: list[Any] = []
    ts = START_MS
    for number in range(count):
        ts += world.randrange(2_000)
        event = {
            "event_id": f"e{number}",
            # Some come late, a few too late.
            "ts": ts - world.choice([0, 0, 0, 0, 5_000, 19_000, 25_000]),
            "shop": world.choice(["a", "b", "c"]),
            "kind": world.choice(["visit", "visit", "order"]),
            "amount": world.choice([None, round(world.expovariate(0.1), 2)]),
            "city": world.choice(["oslo", "rome"]),
        }
        events.append(event)
        if world.random() < 0.05:
            events.append(event)
        if world.random() < 0.05:
            events.append(b'{"event_id": ')
        label = {
            "event_id": event["event_id"],
            "ts": event["ts"] + world.choice([0, 1_000, 10_000, 30_000, 45_000]),
            "label": world.random() < 0.4,
        }
        labels += [label] * world.choice([0, 1, 1, 1, 1, 1, 2])
        if world.random() < 0.03:
            labels.append({**label, "event_id": f"unknown-{number}"})
        if world.random() < 0.03:
            labels.append(b"null")
    labels.sort(key=lambda label: label["ts"] if isinstance(label, dict) else 0)
    return events, labels
