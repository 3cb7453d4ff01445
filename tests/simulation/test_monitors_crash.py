"""Monitors say the same, once, wherever the worker dies."""

from __future__ import annotations

import functools
import random
from typing import Any

import pytest
from river import dummy, stats

import stream_ml as sml
from stream_ml.testing import CRASH, Driver

HOUR = 3_600_000
FIRST = 1_704_067_200_000
HOURS, FROZEN = 40, (28, 31)
TOPICS = ("summaries", "alerts", "evaluations")
metered = sml.Pipeline(
    "metered",
    events=sml.Events(key="meter", fields={"load": float, "site": str}, lateness="1m"),
    features=[sml.field("load"), sml.window("1h").mean("load", fill=0.0)],
    label=sml.Label(float, horizon="2h"),
    champion="average",
    models={"average": dummy.StatisticRegressor(stats.Mean())},
)


@functools.cache
def stream() -> tuple[list[Any], list[Any]]:
    """Twenty events an hour, of which a load stands still for three; labels half an hour later."""
    rand = random.Random(3)
    events, labels = [], []
    for n in range(HOURS * 20):
        ts = FIRST + n * HOUR // 20 + rand.randrange(30_000)
        load = 5.0 if FROZEN[0] <= n // 20 < FROZEN[1] else round(rand.gauss(50, 9), 2)
        site = rand.choice(("north", "south"))
        event = {"event_id": f"e{n}", "ts": ts, "meter": f"m{n % 29}", "load": load, "site": site}
        events.append(event)
        labels.append({"event_id": f"e{n}", "ts": ts + HOUR // 2, "label": load + 1.0})
    return events, labels


def outcome(partitions: int, seed: int | None) -> dict[str, list[Any]]:
    """What comes out, where the worker dies some times, or never."""
    events, labels = stream()
    with Driver(metered, partitions=partitions, seed=seed or 0) as driver:
        if seed is None:
            driver.feed(events, labels)
        else:
            driver.publish("labels", labels)
            driver.publish("events", events)
            driver.feed([CRASH] * random.Random(seed).randrange(2, 6))
        return {topic: [(r.key, r.value) for r in driver.records(topic)] for topic in TOPICS}


@functools.cache
def uninterrupted(partitions: int) -> dict[str, list[Any]]:
    """What comes out where nobody dies."""
    return outcome(partitions, None)


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_crash_changes_nothing_of_what_monitors_say(partitions: int) -> None:
    """Summaries and alerts are to the byte those of a run without crashes: a fault, and its end."""
    expected = uninterrupted(partitions)
    alerts = [value for _, value in expected["alerts"] if b'"field:load"' in value]
    assert ["open", "resolved"] == [
        "open" if b'"state":"open"' in value else "resolved" for value in alerts
    ]
    assert len(expected["summaries"]) > HOURS - 3
    for seed in range(1, 5):
        assert expected == outcome(partitions, seed), f"seed {seed}"
