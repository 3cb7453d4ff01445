"""Window features by brute force: all that came before, masked. Shares no code with the package."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np

from stream_ml.records import Event
from stream_ml.schema import Enum, FieldType, Optional

LATENESS_MS = 400
HALF_LIFE_MS = 300
SCHEMA: dict[str, FieldType] = {
    "x": FieldType("float"),
    "y": Optional[float],
    "kind": Enum("scheduled", "departed", "weather"),
    "carrier": Optional[str],
}


def random_events(seed: int, count: int, keys: int = 4, jumps: float = 0.001) -> list[Event]:
    """Events with magnitudes from 1e-6 to 1e9, late ones, and many at the same time."""
    rand = random.Random(seed)
    events, now = [], 0
    for number in range(count):
        if rand.random() < 0.6:
            now += rand.randrange(40)
        if rand.random() < jumps:
            now += 30_000
        late = rand.random() < 0.25
        t = max(0, now - rand.randrange(LATENESS_MS + 1)) if late else now
        scale = rand.choice((1e-6, 1.0, 1.0, 1e3, 1e9))
        x = rand.choice((1e9 + rand.uniform(-1, 1), rand.gauss(0, 1) * scale, 1.0, 2.0))
        fields = {
            "x": x,
            "y": rand.choice((None, 3.0, rand.gauss(0, 1))),
            "kind": rand.choice(("scheduled", "departed", "weather")),
            "carrier": rand.choice((None, "AA", "AA", "UA")),
        }
        events.append(Event(str(number), t, f"key {rand.randrange(keys)}", fields))
    return events


class BruteForce:
    """Remembers everything; answers by looking at all of it."""

    def __init__(self) -> None:
        self.arrays: dict[Any, tuple[np.ndarray, np.ndarray, int]] = {}

    def insert(self, group: Any, t: int, x: Any) -> None:
        """Remember a value of a group."""
        times, values, n = self.arrays.get(group, (np.zeros(64, int), np.zeros(64), 0))
        if n == len(times):
            times, values = np.concatenate([times, times]), np.concatenate([values, values])
        times[n], values[n] = t, x
        self.arrays[group] = (times, values, n + 1)

    def window(self, group: Any, t: int, duration_ms: int) -> tuple[np.ndarray, np.ndarray]:
        """Times and values of a group in [t - duration, t), in the order of the log."""
        times, values, n = self.arrays.get(group, (np.zeros(0, int), np.zeros(0), 0))
        inside = (times[:n] >= t - duration_ms) & (times[:n] < t)
        return times[:n][inside], values[:n][inside]


def aggregate(name: str, t: int, times: np.ndarray, values: np.ndarray) -> float | None:
    """An aggregate by its textbook definition; None where it is left out."""
    n = len(values)
    if name in ("count", "sum", "distinct"):
        return {
            "count": lambda: float(n),
            "sum": lambda: math.fsum(values),
            "distinct": lambda: float(len(set(values.tolist()))),
        }[name]()
    if n < (2 if name == "variance" else 1):
        return None
    if name == "variance":
        mean = math.fsum(values) / n
        return math.fsum((values - mean) ** 2) / (n - 1)
    if name == "decayed_mean":
        weights = 0.5 ** ((t - times) / HALF_LIFE_MS)
        return math.fsum(weights * values) / math.fsum(weights)
    newest = n - 1 - int(np.argmax(times[::-1]))
    simple = {
        "mean": lambda: math.fsum(values) / n,
        "min": lambda: float(values.min()),
        "max": lambda: float(values.max()),
        "last": lambda: float(values[newest]),
        "seconds_since_last": lambda: (t - int(times[newest])) / 1000,
    }
    return simple[name]()


def agrees(expected: float | None, given: float | None, scale: float) -> bool:
    """Whether two answers are the same to 1e-9; `scale` is the largest value that went in."""
    if expected is None or given is None:
        return expected is given
    # The oracle itself rounds: a sum of squares at 1e-16 of the largest square.
    return abs(expected - given) <= 1e-9 * max(1.0, abs(expected)) + 1e-12 * scale
