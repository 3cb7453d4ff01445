"""What every aggregate is, and the exact numbers that sums are kept in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "FRACTION_BITS",
    "SCALE",
    "UNIT",
    "UNITS_PER_ONE",
    "UNITS_PER_ONE_SQUARED",
    "Aggregate",
    "exact",
    "quotient",
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
        rounded: whether its state is rounded, so that an answer may depend, in its last bits, on
            what was asked before.
        numeric: whether values must be numbers; else they are fields as they are.
        valued: whether it looks at a value at all; else it is fed every event, and `x` is void.
        version: part of a feature set's hash; raise it when the answers change.
        refilled: whether the window as a whole gives its state, which then is not stored beside
            it: for what takes as much room as the window itself.
    """

    name: ClassVar[str]
    any_order: ClassVar[bool] = False
    rounded: ClassVar[bool] = False
    numeric: ClassVar[bool] = True
    valued: ClassVar[bool] = True
    version: ClassVar[int] = 1
    refilled: ClassVar[bool] = False

    @classmethod
    def question_mistakes(cls, *question: Any) -> Iterator[tuple[str, str]]:  # noqa: ARG003 - as said
        """The mistakes in what `value` takes besides the time, as expected and actual value.

        Args:
            question: as it was declared, of any type.
        """
        yield from ()

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
