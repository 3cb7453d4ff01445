"""What each kind of window, and each aggregate, costs beside the sliding mean.

    $ python -m benchmarks.windows

One event is asked about and taken in again and again: a key's hour holds some 60 events, its day
some 1,400. CPU time per event of the features alone, the best of three runs in turns; and how many
bytes of state are kept for the key. What the empty declaration takes is taken off.
"""

from __future__ import annotations

import random
import sys
import time
from typing import TYPE_CHECKING, Any

import stream_ml as sml
from stream_ml.features import FeatureSet
from stream_ml.records import Event
from stream_ml.schema import FieldType

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ml.features import Window

EVENTS = 20_000
ROUNDS = 3
SCHEMA = {"x": FieldType("float"), "text": FieldType("str")}
WINDOWS: dict[str, Callable[[], Window]] = {
    '`window("1h")`': lambda: sml.window("1h"),
    '`window("1h", ago="1d")`': lambda: sml.window("1h", ago="1d"),
    '`tumbling("1h")`': lambda: sml.tumbling("1h"),
    '`tumbling("1h", previous=True)`': lambda: sml.tumbling("1h", previous=True),
    '`hopping("1h", every="10m")`': lambda: sml.hopping("1h", every="10m"),
    '`session("3m")`': lambda: sml.session("3m"),
    '`calendar("day", tz="Europe/Rome")`': lambda: sml.calendar("day", tz="Europe/Rome"),
    "`last_events(60)`": lambda: sml.last_events(60),
}
AGGREGATES: dict[str, Callable[[Window], Any]] = {
    "count": lambda window: window.count(),
    "mean": lambda window: window.mean("x"),
    "variance": lambda window: window.variance("x"),
    "max": lambda window: window.max("x"),
    "first": lambda window: window.first("x"),
    "rate": lambda window: window.rate("x"),
    "slope": lambda window: window.slope("x"),
    "decayed_mean": lambda window: window.decayed_mean("x", half_life="1h"),
    "decayed_variance": lambda window: window.decayed_variance("x", half_life="1h"),
    "median": lambda window: window.median("x"),
    "distinct": lambda window: window.distinct("text"),
    "distinct_approx": lambda window: window.distinct_approx("text"),
    "counts, of 3": lambda window: window.counts("text", ["1", "2", "3"]),
    "top_k, 3": lambda window: window.top_k("text", 3),
}


def cost(features: list[Any]) -> tuple[float, int]:
    """Microseconds of CPU per event, and the bytes of state.

    Args:
        features: as they are declared.
    """
    rand = random.Random(1)
    t, events = 1_760_000_000_000, []
    for number in range(EVENTS):
        t += rand.choice((30_000, 60_000, 90_000))
        late = rand.randrange(5_000) if rand.random() < 0.05 else 0
        fields = {"x": rand.gauss(0, 100), "text": str(rand.randrange(300))}
        events.append(Event(str(number), t - late, "key", fields))
    state = FeatureSet(features, SCHEMA, 60_000).new_state()
    watermark, start_s = 0, time.process_time()
    for event in events:
        watermark = max(watermark, event.ts)
        state.advance(watermark)
        state.features(event)
        state.insert(event)
    seconds = time.process_time() - start_s
    return seconds / EVENTS * 1e6, sum(len(piece or b"") for _, piece in state.dirty())


def main() -> int:
    """Print both tables."""
    cases = {name: [make().mean("x")] for name, make in WINDOWS.items()}
    cases |= {f"{name} 1h": [make(sml.window("1h"))] for name, make in AGGREGATES.items()}
    cases["lag 1d"] = [sml.lag("x", "1d", tolerance="10m")]
    cases["mean of all these windows"] = [make().mean("x") for make in WINDOWS.values()]
    cases["nothing"] = []
    runs = [{name: cost(cases[name]) for name in cases} for _ in range(ROUNDS)]
    idle_us = min(run["nothing"][0] for run in runs)
    for name in cases:
        us = min(run[name][0] for run in runs) - idle_us
        sys.stdout.write(f"| {name} | {us:.1f} | {runs[0][name][1]:,} |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
