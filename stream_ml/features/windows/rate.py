"""Events, or a sum, per unit of time."""

# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_ml.features.durations import parse_duration
from stream_ml.features.transforms import (
    Evaluator,
    FeatureContext,
    Mistake,
    Scalar,
    Schema,
    finite,
)
from stream_ml.features.windows.frames import duration_mistakes, duration_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stream_ml.features.windows.window_feature import WindowFeature

__all__ = ["Rate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate(Scalar):
    """What a window counts or sums up, per unit of the time that it covers.

    Where the clock alone says where the window begins, it covers the time from there to its end,
    which is at the asking event unless it is one of the past. A session, and the last events,
    cover the time since the oldest event in them.

    Attributes:
        counted: the count, or the sum.
        oldest: how many seconds ago the oldest event came, where that tells what is covered.
        per: the unit of time: a duration.
    """

    is_stateless = False
    counted: WindowFeature
    oldest: WindowFeature | None
    per: str | int

    @property
    def auto_name(self) -> str:
        return f"{self.counted.name} per {duration_words(self.per)}"

    @property
    def inputs(self) -> tuple[Scalar, ...]:
        return (self.counted,) if self.oldest is None else (self.counted, self.oldest)

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        yield from self.counted.mistakes(schema)
        yield from duration_mistakes(self.per)
        yield from self.fill_mistakes()

    def describe(self) -> list[Any]:
        return ["rate", self.counted.describe(), parse_duration(self.per), self.fill]

    def compile(self, context: FeatureContext) -> Evaluator:
        per_ms = parse_duration(self.per)
        count = self.counted.evaluator(context)
        if self.oldest is None:
            covered_ms = self.counted.frame.covered_ms()

            def by_clock(
                fields: Mapping[str, Any], t: int, answers: Sequence[float | None]
            ) -> float | None:
                n, covered = count(fields, t, answers), covered_ms(t)
                return None if n is None or not covered else finite(n * per_ms / covered)

            return by_clock
        since = self.oldest.evaluator(context)

        def by_events(
            fields: Mapping[str, Any], t: int, answers: Sequence[float | None]
        ) -> float | None:
            n, seconds = count(fields, t, answers), since(fields, t, answers)
            return None if n is None or not seconds else finite(n * per_ms / (seconds * 1_000))

        return by_events
