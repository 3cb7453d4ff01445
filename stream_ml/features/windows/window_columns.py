"""Several answers of one window under one declaration."""

# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_ml.features.texts import kept_text
from stream_ml.features.transforms import Feature, OneHot
from stream_ml.features.windows.sources import Raw
from stream_ml.schema import brief

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.features.transforms import Mistake, Schema
    from stream_ml.features.windows.window_feature import WindowFeature

__all__ = ["CategoryCounts", "RankCounts", "WindowColumns"]

RANKS_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowColumns(Feature):
    """The base of features that are several answers of one window.

    Attributes:
        window: the question to the window without what tells the columns apart.
    """

    window: WindowFeature

    @property
    def auto_name(self) -> str:
        return self.window.auto_name

    def members(self, schema: Schema) -> tuple[WindowFeature, ...]:
        """One window feature per column, under the column's name."""
        raise NotImplementedError

    def columns(self, schema: Schema) -> tuple[str, ...]:
        return tuple(member.name for member in self.members(schema))

    def describe(self) -> list[Any]:
        return ["window_columns", *self.window.describe()]


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryCounts(WindowColumns):
    """How many events of a window have each category of a field.

    Attributes:
        categories: as they were declared; None for those that the field's type knows.
    """

    categories: Any

    @property
    def _one_hot(self) -> OneHot:
        return OneHot(self.window.source.field, self.categories)

    def members(self, schema: Schema) -> tuple[WindowFeature, ...]:
        categories = self._one_hot.vocabulary(schema)
        texts = [str(each).lower() if type(each) is bool else str(each) for each in categories]
        return tuple(
            self.window.asked(f"{self.name}={text}", kept_text(category))
            for category, text in zip(categories, texts, strict=True)
        )

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        if not isinstance(self.window.source, Raw):
            yield "a field's name", brief(self.window.source)
            return
        mistakes = [*self.window.mistakes(schema)]
        yield from mistakes or self._one_hot.mistakes(schema)

    def describe(self) -> list[Any]:
        categories = None if self.categories is None else [*self.categories]
        return [*super(CategoryCounts, self).describe(), categories]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCounts(WindowColumns):
    """How many events of a window have its most frequent value, its second most, ...

    Attributes:
        k: how many columns.
    """

    k: int

    def members(self, schema: Schema) -> tuple[WindowFeature, ...]:  # noqa: ARG002 - as the others
        return tuple(
            self.window.asked(f"{self.name}={rank}", rank) for rank in range(1, self.k + 1)
        )

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        if type(self.k) is not int or not 1 <= self.k <= RANKS_MAX:
            yield f"a whole number `k` from 1 to {RANKS_MAX}", brief(self.k)
        yield from self.window.mistakes(schema)

    def describe(self) -> list[Any]:
        return [*super(RankCounts, self).describe(), self.k]
