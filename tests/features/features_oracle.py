"""Window features by brute force: all that came before, masked. Shares no code with the package."""

from __future__ import annotations

import math
import random
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np

from stream_ml.records import Event
from stream_ml.schema import Enum, FieldType, Optional

LATENESS_MS = 400
HALF_LIFE_MS = 300
LAG_MS = 5_000
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
    counts = Counter(values.tolist())
    of_any = {
        "count": lambda: float(n),
        "sum": lambda: math.fsum(values),
        "distinct": lambda: float(len(counts)),
        "distinct_approx": lambda: float(len(counts)),
        "counts": lambda: 0.0,  # of no category in particular
        "top_k": lambda: float(max(counts.values(), default=0)),
    }
    if name in of_any:
        return of_any[name]()
    if n < (2 if "variance" in name else 1):
        return None
    newest = n - 1 - int(np.argmax(times[::-1]))
    of_some = {
        "mean": lambda: math.fsum(values) / n,
        "variance": lambda: math.fsum((values - math.fsum(values) / n) ** 2) / (n - 1),
        "decayed_mean": lambda: _decayed(t, times, values),
        "decayed_variance": lambda: _decayed(t, times, (values - _decayed(t, times, values)) ** 2),
        "min": lambda: float(values.min()),
        "max": lambda: float(values.max()),
        "median": lambda: float(np.sort(values)[(n - 1) // 2]),
        "quantile": lambda: float(np.sort(values)[(n - 1) // 2]),
        "first": lambda: float(values[int(np.argmin(times))]),
        "last": lambda: float(values[newest]),
        "lag": lambda: _nearest(t - LAG_MS, times, values),
        "slope": lambda: _slope(times, values),
        "seconds_since_first": lambda: (t - int(times.min())) / 1000,
        "seconds_since_last": lambda: (t - int(times[newest])) / 1000,
    }
    return of_some[name]()


def _decayed(t: int, times: np.ndarray, values: np.ndarray) -> float:
    weights = 0.5 ** ((t - times) / HALF_LIFE_MS)
    return math.fsum(weights * values) / math.fsum(weights)


def _nearest(moment: int, times: np.ndarray, values: np.ndarray) -> float:
    """Of the nearest event; the newer of two, and the later in the log."""
    distances = [(abs(moment - int(at)), -int(at), -i) for i, at in enumerate(times)]
    return float(values[-min(distances)[2]])


def _slope(times: np.ndarray, values: np.ndarray) -> float | None:
    """Per second."""
    at = [Fraction(int(each), 1_000) for each in times]
    x = [Fraction(each) for each in values.tolist()]
    n = len(x)
    spread = n * sum(each * each for each in at) - sum(at) ** 2
    rise = n * sum(a * b for a, b in zip(at, x, strict=True)) - sum(at) * sum(x)
    return float(rise / spread) if spread else None


def agrees(expected: float | None, given: float | None, scale: float) -> bool:
    """Whether two answers are the same to 1e-9; `scale` is the largest value that went in."""
    if expected is None or given is None:
        return expected is given
    # The oracle itself rounds: a sum of squares at 1e-16 of the largest square.
    return abs(expected - given) <= 1e-9 * max(1.0, abs(expected)) + 1e-12 * scale
