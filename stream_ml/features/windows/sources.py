"""What the windows look at that is no number: a field as it is, or a code of it."""

# ruff: noqa: ARG002, ARG005 - what is called alike has one signature, whoever needs it all
# ruff: noqa: D102 - an override is documented where it is declared
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_ml.features.aggregates.cardinality import register_code
from stream_ml.features.transforms import (
    Evaluator,
    FeatureContext,
    Mistake,
    Scalar,
    Schema,
    field_mistakes,
    source_description,
    source_mistakes,
    source_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Raw", "Registers"]


@dataclass(frozen=True, slots=True)
class Raw(Scalar):
    """A field as it is, of whatever type, for the aggregates that can take it."""

    field: str

    @property
    def auto_name(self) -> str:
        return self.field

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        yield from field_mistakes(self.field, schema)

    def describe(self) -> list[Any]:
        return ["raw", self.field]

    def total(self, schema: Schema) -> bool:
        return not schema[self.field].optional

    def compile(self, context: FeatureContext) -> Evaluator:
        name = self.field
        return lambda fields, t, answers: fields[name]


@dataclass(frozen=True, slots=True)
class Registers(Scalar):
    """The code of a value by which different ones are counted about (`register_code`)."""

    source: Any

    @property
    def auto_name(self) -> str:
        return source_name(self.source)

    @property
    def inputs(self) -> tuple[Scalar, ...]:
        return (self.source,)

    def mistakes(self, schema: Schema) -> Iterator[Mistake]:
        yield from source_mistakes(self.source, schema)

    def describe(self) -> list[Any]:
        return ["registers", source_description(self.source)]

    def total(self, schema: Schema) -> bool:
        return bool(self.source.total(schema))

    def compile(self, context: FeatureContext) -> Evaluator:
        evaluate = self.source.evaluator(context)

        def code(
            fields: Mapping[str, Any], t: int, answers: Sequence[float | None]
        ) -> float | None:
            x = evaluate(fields, t, answers)
            return None if x is None else register_code(x)

        return code
