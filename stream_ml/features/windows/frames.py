"""The stretches of time, or of events, that a window can hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_ml.features.durations import duration_text, parse_duration
from stream_ml.schema import brief

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.features.transforms import Mistake

__all__ = ["Sliding", "duration_mistakes", "duration_words"]


@dataclass(frozen=True, slots=True)
class Sliding:
    """A stretch of one length that ends at the event: [t - duration, t).

    Attributes:
        duration: its length: such as "1h", or milliseconds.
    """

    duration: str | int

    @property
    def name(self) -> str:
        """How it is called in the names of features."""
        return duration_words(self.duration)

    @property
    def duration_ms(self) -> int:
        """How far it reaches back, in milliseconds."""
        return parse_duration(self.duration)

    def mistakes(self) -> Iterator[Mistake]:
        """The mistakes in its declaration."""
        yield from duration_mistakes(self.duration)

    def describe(self) -> Any:
        """What it is, as JSON values: equal for equal frames."""
        return self.duration_ms


def duration_words(duration: Any) -> str:
    """A duration as names show it; what is none as it is."""
    try:
        return duration_text(parse_duration(duration))
    except ValueError:
        return str(duration)


def duration_mistakes(duration: Any) -> Iterator[Mistake]:
    """Whether it is a duration.

    Args:
        duration: as it was declared, of any type.
    """
    try:
        parse_duration(duration)
    except ValueError:
        yield "a duration such as '30s', '10m', '1h', '7d' or milliseconds", brief(duration)
