"""The answers of a window about the values in it: one class per aggregate.

An aggregate is the running state of one window. Write your own as a subclass of `Aggregate`
with five methods, and use it as `window("1h").aggregate(Spread, "amount")`:

>>> class Spread(Aggregate):
...     "How many values lie above a limit."
...     name = "above"
...     any_order = True
...     def __init__(self, limit=0.0):
...         self.limit, self.n = limit, 0
...     def add(self, t, x):
...         self.n += x > self.limit
...     def evict(self, t, x):
...         self.n -= x > self.limit
...     def value(self, t):
...         return float(self.n)
...     def dump(self):
...         return self.n
...     def load(self, state):
...         self.n = state

What the engine promises: `add` comes in order of time, ties in order of the log, and `evict`
takes out exactly what `add` brought in, oldest first, so that an aggregate never has to hold
the events themselves. Where that order does not hold (an event that is late), the engine makes
a fresh aggregate and adds the whole window again, unless the aggregate says `any_order = True`.

What an aggregate promises: with everything evicted its answers are those of a fresh one,
whatever went through it; `dump` is all of its state as JSON values, and a fresh aggregate that
loads it goes on exactly as this one would. `tests/features/test_aggregates.py` holds every
subclass to these laws.

Sums here are integers: a value is taken as a multiple of 2**-192 (exact for every double above
1e-42 in size), and Python's integers are exact however many come and go, in whatever order and
of whatever magnitude. In Python this costs what a compensated float sum costs, and it leaves
nothing to drift: only the answer is rounded, and it depends on what is in the window, not on
how it got there.
"""

from __future__ import annotations

from stream_ml.features.aggregates.base import Aggregate
from stream_ml.features.aggregates.cardinality import DistinctApprox
from stream_ml.features.aggregates.decay import DecayedMean, DecayedVariance
from stream_ml.features.aggregates.distinct import Counts, Distinct, TopK
from stream_ml.features.aggregates.extremes import Max, Min
from stream_ml.features.aggregates.moments import Count, Mean, Sum, Variance
from stream_ml.features.aggregates.quantiles import Median, Quantile
from stream_ml.features.aggregates.recency import (
    First,
    Last,
    Nearest,
    SecondsSinceFirst,
    SecondsSinceLast,
)
from stream_ml.features.aggregates.trend import Slope

__all__ = [
    "Aggregate",
    "Count",
    "Counts",
    "DecayedMean",
    "DecayedVariance",
    "Distinct",
    "DistinctApprox",
    "First",
    "Last",
    "Max",
    "Mean",
    "Median",
    "Min",
    "Nearest",
    "Quantile",
    "SecondsSinceFirst",
    "SecondsSinceLast",
    "Slope",
    "Sum",
    "TopK",
    "Variance",
]
