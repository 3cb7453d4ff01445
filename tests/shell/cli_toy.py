"""A pipeline small enough for a test: whether `x` is high, known ten seconds later."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
from river import linear_model, preprocessing

import stream_ml as sml
from stream_ml.shell.embedded.replay import output_of

if TYPE_CHECKING:
    from pathlib import Path

    from stream_ml.records import Output

START_MS = 1_700_000_000_000

toy = sml.Pipeline(
    "toy",
    events=sml.Events(key="user", fields={"user": str, "x": float}, lateness=0, breadth=1),
    features=[sml.field("x"), sml.window("1m").mean("x", fill=0.0)],
    label=sml.Label(bool, horizon="1h"),
    champion="plain",
    models={
        "plain": linear_model.LogisticRegression(),
        "scaled": preprocessing.StandardScaler() | linear_model.LogisticRegression(),
    },
    promotion=sml.Promotion(refresh=1_000),
)
# As --pipeline has it, wherever pytest has put this module.
TOY = f"{__name__}:toy"
apart = replace(toy, events=replace(toy.events, too_late="topic"))
APART = f"{__name__}:apart"
sliced = replace(toy, slices=[sml.Slice("seldom", user="u1")])


def stream(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """So many events, a second apart, and a label for each but the last ten."""
    world = random.Random(1)
    events, labels = [], []
    for number in range(count):
        ts, x = START_MS + 1_000 * number, round(world.gauss(), 3)
        event_id = f"e{number}"
        events.append({"event_id": event_id, "ts": ts, "user": f"u{number % 7}", "x": x})
        labels.append({"event_id": event_id, "ts": ts + 10_000, "label": x > world.gauss()})
    return events, labels[:-10]


def outputs(count: int) -> list[Output]:
    """The same, ready to be published."""
    events, labels = stream(count)
    return [
        *(output_of(toy, "events", event) for event in events),
        *(output_of(toy, "labels", label) for label in labels),
    ]


def write_lines(path: Path, records: list[dict[str, Any]], *extra: bytes) -> str:
    """Write JSON lines, and the path as a command line has it."""
    path.write_bytes(b"".join(line + b"\n" for line in [*map(orjson.dumps, records), *extra]))
    return str(path)
