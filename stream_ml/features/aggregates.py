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

# ruff: noqa: ARG002 - few aggregates look at both `t` and `x`, all have the same signature
# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Aggregate",
    "Count",
    "DecayedMean",
    "Distinct",
    "Last",
    "Max",
    "Mean",
    "Min",
    "SecondsSinceLast",
    "Sum",
    "Variance",
]

FRACTION_BITS = 192
SCALE = 2.0**FRACTION_BITS
UNIT = 2.0**-FRACTION_BITS
UNITS_PER_ONE = 1 << FRACTION_BITS
UNITS_PER_ONE_SQUARED = UNITS_PER_ONE * UNITS_PER_ONE


class Aggregate:
    """The running state of one window; the header of this module has the laws.

    A subclass of another aggregate keeps answering for it: where a window is asked for a mean
    and a variance, `Variance`, a subclass of `Mean`, holds the state for both, and
    `Mean.value` is called on it. So a subclass keeps its parents' attributes up to date.

    Attributes:
        name: how the aggregate is called in the names of features.
        any_order: whether `add` and `evict` may come in any order of time.
        numeric: whether values must be numbers; else they are fields as they are.
        valued: whether it looks at a value at all; else it is fed every event, and `x` is void.
        version: part of a feature set's hash; raise it when the answers change.
        refilled: whether the window as a whole gives its state, which then is not stored beside
            it: for what takes as much room as the window itself.
    """

    name: ClassVar[str]
    any_order: ClassVar[bool] = False
    numeric: ClassVar[bool] = True
    valued: ClassVar[bool] = True
    version: ClassVar[int] = 1
    refilled: ClassVar[bool] = False

    def add(self, t: int, x: Any) -> None:
        """An event at `t` (milliseconds) with value `x` enters the window.

        Args:
            t: the event's time, UTC milliseconds.
            x: its value: a finite float, or where `numeric` is False the field as it is.
        """
        raise NotImplementedError

    def evict(self, t: int, x: Any) -> None:
        """An event that was added leaves the window.

        Args:
            t: the event's time in milliseconds, as it was added.
            x: its value, as it was added.
        """
        raise NotImplementedError

    def value(self, t: int) -> float | None:
        """The answer for an event at `t`: a finite float, or None where there is none."""
        raise NotImplementedError

    def dump(self) -> Any:
        """The state as JSON values."""
        raise NotImplementedError

    def load(self, state: Any) -> None:
        """Take over what `dump` gave."""
        raise NotImplementedError

    def fill(self, times: Sequence[int], values: Sequence[Any]) -> None:
        """Add a whole window at once, oldest first; only ever called on a fresh aggregate.

        Args:
            times: of the events in milliseconds, ascending.
            values: of the events, as many.
        """
        for t, x in zip(times, values, strict=True):
            self.add(t, x)


def exact(x: float) -> int:
    """The value in multiples of 2**-192.

    >>> exact(0.5) == UNITS_PER_ONE // 2 and exact(1e300) == int(1e300) * UNITS_PER_ONE
    True
    """
    try:
        return int(x * SCALE)
    except OverflowError:
        # Beyond 2**831 the product is infinite, and the value an integer anyway.
        return int(x) << FRACTION_BITS


def quotient(numerator: int, denominator: int) -> float | None:
    """The correctly rounded quotient, or None beyond the largest float.

    Args:
        numerator: in multiples of 2**-192, as `exact` gives it, or a count.
        denominator: in the same unit; not 0.
    """
    try:
        return numerator / denominator
    except OverflowError:
        return None


class Count(Aggregate):
    """How many events: 0 in an empty window."""

    __slots__ = ("n",)
    name = "count"
    any_order = True
    valued = False

    def __init__(self) -> None:
        self.n = 0

    def add(self, t: int, x: Any) -> None:
        self.n += 1

    def evict(self, t: int, x: Any) -> None:
        self.n -= 1

    def value(self, t: int) -> float | None:
        return float(self.n)

    def dump(self) -> Any:
        return self.n

    def load(self, state: Any) -> None:
        self.n = state


class Sum(Count):
    """The sum of the values: 0 in an empty window, none beyond the largest float."""

    __slots__ = ("total",)
    name = "sum"
    valued = True

    def __init__(self) -> None:
        self.n = 0
        self.total = 0

    # `exact` is written out in the methods below: they run for every event in every window,
    # and the call would cost as much as the sum.
    def add(self, t: int, x: float) -> None:
        self.n += 1
        try:
            self.total += int(x * SCALE)
        except OverflowError:
            self.total += exact(x)

    def evict(self, t: int, x: float) -> None:
        self.n -= 1
        try:
            self.total -= int(x * SCALE)
        except OverflowError:
            self.total -= exact(x)

    def value(self, t: int) -> float | None:
        try:
            return float(self.total) * UNIT
        except OverflowError:
            return quotient(self.total, UNITS_PER_ONE)

    def dump(self) -> Any:
        return [self.n, f"{self.total:x}"]

    def load(self, state: Any) -> None:
        self.n, self.total = state[0], int(state[1], 16)


class Mean(Sum):
    """The mean of the values; none in an empty window."""

    __slots__ = ()
    name = "mean"

    def value(self, t: int) -> float | None:
        n = self.n
        if not n:
            return None
        try:
            return float(self.total) * UNIT / n
        except OverflowError:
            return quotient(self.total, n * UNITS_PER_ONE)


class Variance(Mean):
    """The sample variance (n - 1) of the values; none under two events."""

    __slots__ = ("squares",)
    name = "variance"

    def __init__(self) -> None:
        self.n = 0
        self.total = 0
        self.squares = 0

    def add(self, t: int, x: float) -> None:
        units = exact(x)
        self.n += 1
        self.total += units
        self.squares += units * units

    def evict(self, t: int, x: float) -> None:
        units = exact(x)
        self.n -= 1
        self.total -= units
        self.squares -= units * units

    def value(self, t: int) -> float | None:
        n = self.n
        if n < 2:  # noqa: PLR2004 - a spread takes two
            return None
        # The textbook formula, ruinous in floats, is exact in integers.
        return quotient(
            n * self.squares - self.total * self.total, n * (n - 1) * UNITS_PER_ONE_SQUARED
        )

    def dump(self) -> Any:
        return [self.n, f"{self.total:x}", f"{self.squares:x}"]

    def load(self, state: Any) -> None:
        self.n, self.total, self.squares = state[0], int(state[1], 16), int(state[2], 16)


class _Staircase(Aggregate):
    """The base of `Max` and `Min`: the values that no later one surpasses, so the first is it.

    Each value is pushed once and leaves once, so the cost is constant per event, amortised: a
    monotonic queue (Lemire 2006, "Streaming maximum-minimum filter using no more than three
    comparisons per element", Nordic Journal of Computing 13).
    """

    __slots__ = ("first", "stairs")
    refilled = True

    def __init__(self) -> None:
        # A list with a moving front: a deque takes 600 bytes even when it is empty, and most
        # staircases are a few steps long.
        self.stairs: list[float] = []
        self.first = 0

    def evict(self, t: int, x: float) -> None:
        first = self.first
        if self.stairs[first] == x:
            self.first = first = first + 1
            if first * 2 > len(self.stairs):
                del self.stairs[:first]
                self.first = 0

    def value(self, t: int) -> float | None:
        return self.stairs[self.first] if self.stairs else None

    def dump(self) -> Any:
        return self.stairs[self.first :]

    def load(self, state: Any) -> None:
        self.stairs, self.first = state, 0


class Max(_Staircase):
    """The largest value; none in an empty window."""

    __slots__ = ()
    name = "max"

    def add(self, t: int, x: float) -> None:
        stairs, first = self.stairs, self.first
        # Equal values stay beside each other, so that each leaves with its own event.
        while len(stairs) > first and stairs[-1] < x:
            stairs.pop()
        stairs.append(x)

    def fill(self, times: Sequence[int], values: Sequence[float]) -> None:
        stairs: list[float] = []
        for x in reversed(values):
            if not stairs or x >= stairs[-1]:
                stairs.append(x)
        stairs.reverse()
        self.stairs = stairs


class Min(_Staircase):
    """The smallest value; none in an empty window."""

    __slots__ = ()
    name = "min"

    def add(self, t: int, x: float) -> None:
        stairs, first = self.stairs, self.first
        while len(stairs) > first and stairs[-1] > x:
            stairs.pop()
        stairs.append(x)

    def fill(self, times: Sequence[int], values: Sequence[float]) -> None:
        stairs: list[float] = []
        for x in reversed(values):
            if not stairs or x <= stairs[-1]:
                stairs.append(x)
        stairs.reverse()
        self.stairs = stairs


class Last(Aggregate):
    """The newest value, the later in the log among equal times; none in an empty window."""

    __slots__ = ("n", "x")
    name = "last"

    def __init__(self) -> None:
        self.n = 0
        self.x: float | None = None

    def add(self, t: int, x: float) -> None:
        self.n += 1
        self.x = x

    def evict(self, t: int, x: float) -> None:
        self.n -= 1
        if not self.n:
            self.x = None

    def value(self, t: int) -> float | None:
        return self.x

    def dump(self) -> Any:
        return [self.n, self.x]

    def load(self, state: Any) -> None:
        self.n, self.x = state


class SecondsSinceLast(Aggregate):
    """Seconds from the newest event in the window to the asking one; none in an empty window."""

    __slots__ = ("n", "newest")
    name = "seconds_since_last"
    valued = False

    def __init__(self) -> None:
        self.n = 0
        self.newest = 0

    def add(self, t: int, x: Any) -> None:
        self.n += 1
        self.newest = t

    def evict(self, t: int, x: Any) -> None:
        self.n -= 1
        if not self.n:
            self.newest = 0

    def value(self, t: int) -> float | None:
        return (t - self.newest) / 1000 if self.n else None

    def dump(self) -> Any:
        return [self.n, self.newest]

    def load(self, state: Any) -> None:
        self.n, self.newest = state


class Distinct(Aggregate):
    """How many different values: exact, 0 in an empty window."""

    __slots__ = ("counts",)
    name = "distinct"
    any_order = True
    numeric = False
    refilled = True

    def __init__(self) -> None:
        self.counts: dict[Any, int] = {}

    def add(self, t: int, x: Any) -> None:
        counts = self.counts
        counts[x] = counts.get(x, 0) + 1

    def evict(self, t: int, x: Any) -> None:
        counts = self.counts
        remaining = counts[x] - 1
        if remaining:
            counts[x] = remaining
        else:
            del counts[x]

    def value(self, t: int) -> float | None:
        return float(len(self.counts))

    def dump(self) -> Any:
        return sorted(self.counts.items())

    def load(self, state: Any) -> None:
        self.counts = dict(state)


class DecayedMean(Aggregate):
    """The mean in which a value counts half as much for every half-life of its age.

    None in an empty window. Weights are 2**(t / half_life) rather than of the age: what they
    are multiplied by cancels in a mean, and they never have to be touched again. The whole
    half-lives in the exponent are bits to shift by; once in a while the sums move up to the
    present, and what has decayed by more than 2**-192 falls off their end. The idea is forward
    decay (Cormode, Shkapenyuk, Srivastava & Xu 2009, "Forward decay: a practical time decay model
    for streaming systems", ICDE).

    Args:
        half_life_ms: the age at which a value counts half as much, in milliseconds.
    """

    __slots__ = ("half_life_ms", "n", "total", "weight", "zero")
    name = "decayed_mean"

    def __init__(self, half_life_ms: int) -> None:
        self.half_life_ms = half_life_ms
        self.n = 0
        self.zero = 0
        self.weight = 0
        self.total = 0

    def _terms(self, t: int, x: float) -> tuple[int, int, int]:
        halvings, remainder = divmod(t, self.half_life_ms)
        weight = 2.0 ** (remainder / self.half_life_ms)
        # The product of two floats is rounded; of their exact integers it is not.
        units = exact(weight)
        return halvings, units, units * exact(x) >> FRACTION_BITS

    def add(self, t: int, x: float) -> None:
        halvings, weight, total = self._terms(t, x)
        if not self.n:
            self.zero = halvings
        self.n += 1
        shift = halvings - self.zero
        if shift > FRACTION_BITS:
            self.zero = halvings
            self.weight >>= shift
            self.total >>= shift
            shift = 0
        self.weight += weight << shift
        self.total += total << shift

    def evict(self, t: int, x: float) -> None:
        self.n -= 1
        if not self.n:
            self.zero = self.weight = self.total = 0
            return
        halvings, weight, total = self._terms(t, x)
        shift = halvings - self.zero
        if shift >= 0:
            self.weight -= weight << shift
            self.total -= total << shift
        else:
            self.weight -= weight >> -shift
            self.total -= total >> -shift

    def value(self, t: int) -> float | None:
        return quotient(self.total, self.weight) if self.n else None

    def dump(self) -> Any:
        return [self.n, self.zero, f"{self.weight:x}", f"{self.total:x}"]

    def load(self, state: Any) -> None:
        self.n, self.zero = state[:2]
        self.weight, self.total = int(state[2], 16), int(state[3], 16)
