"""What a feature is made from, all the way down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.features.compilation import is_ours
from stream_ml.features.transforms import Feature, FunctionFeature, Scalar
from stream_ml.features.windows import WindowColumns, WindowFeature

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_ml.features.transforms import Schema

__all__ = ["code_in", "fields_in", "functions_in", "parts_of", "windows_in"]


def parts_of(feature: Feature, schema: Schema) -> tuple[Feature, ...]:
    """The features that can be missing each by itself, of which a feature consists.

    Args:
        feature: of any kind.
        schema: the events' fields.
    """
    return feature.members(schema) if isinstance(feature, WindowColumns) else (feature,)


def windows_in(feature: Feature, schema: Schema) -> Iterator[WindowFeature]:
    """The window features in a feature: itself, or what it is made from.

    Args:
        feature: of any kind.
        schema: the events' fields.
    """
    if isinstance(feature, WindowFeature):
        yield feature
    elif isinstance(feature, WindowColumns):
        yield from feature.members(schema)
    elif isinstance(feature, Scalar):
        for source in feature.inputs:
            yield from windows_in(source, schema)


def fields_in(feature: Feature | str, schema: Schema) -> Iterator[str]:
    """The fields that a feature is made from, those that a window is kept or filtered by too.

    Args:
        feature: of any kind, or a field's name.
        schema: the events' fields.
    """
    if isinstance(feature, str):
        yield feature
    elif isinstance(feature, WindowColumns):
        for member in feature.members(schema):
            yield from fields_in(member, schema)
    elif isinstance(feature, WindowFeature):
        yield from (*feature.entity, *feature.by)
        yield from (name for name, _ in feature.filters)
        if feature.source is not None:
            yield from fields_in(feature.source, schema)
    elif isinstance(feature, FunctionFeature):
        yield from feature.fields
    elif isinstance(feature, Scalar) and feature.inputs:
        for source in feature.inputs:
            yield from fields_in(source, schema)
    else:
        # What stands for one field, or is made from several sources; a calendar is of neither.
        sources = getattr(feature, "sources", (getattr(feature, "field", ()) or (),))
        for source in filter(None, sources):
            yield from fields_in(source, schema)


def code_in(feature: Feature) -> Iterator[Any]:
    """The users' own functions and aggregates in a feature."""
    if isinstance(feature, WindowColumns):
        feature = feature.window
    if isinstance(feature, WindowFeature):
        if not is_ours(feature.kind):
            yield feature.kind
        if isinstance(feature.source, Feature):
            yield from code_in(feature.source)
    elif isinstance(feature, FunctionFeature):
        yield feature.function
    elif isinstance(feature, Scalar):
        for source in feature.inputs:
            yield from code_in(source)


def functions_in(feature: Feature) -> Iterator[Scalar]:
    """The user's functions that are called when an event asks, windows apart."""
    if isinstance(feature, Scalar) and not isinstance(feature, WindowFeature):
        if feature.may_raise() and not feature.inputs:
            yield feature
        for source in feature.inputs:
            yield from functions_in(source)
