"""Features as people read them, of the text that a declaration is compared by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from stream_ml.features.durations import duration_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["feature_words"]


def feature_words(text: str) -> str:
    """A feature in words; a text of another shape as it is.

    >>> feature_words('[["x"],[["mean",1],3600000,[["shop"],[["kind",["order"]]],'
    ...     '["field","amount",null]],0.0]]')
    'mean of amount over 1h by shop where kind is order, else 0.0'

    Args:
        text: as `FeatureSet.declaration` gives it.
    """
    try:
        names, description = orjson.loads(text)
        words = _words(description)
    except (ValueError, TypeError, IndexError, KeyError):
        return text  # of another release
    return words if len(names) == 1 else f"{words}, as {', '.join(names)}"


def _words(description: Sequence[Any]) -> str:
    """The words of one description; nested ones stand in it."""
    kind, *rest = description
    if isinstance(kind, list):
        return _window(kind, *rest)
    if kind in _OWN_WORDS:
        return _OWN_WORDS[kind](*rest)
    if isinstance(rest[0], list):
        sources, constants, fill = rest
        inner = ", ".join([*map(_words, sources), *map(str, constants)])
        return f"{kind}({inner}){_filled(fill)}"
    zone, encoding = rest
    return f"{kind} in {zone} as {encoding}"


def _field(name: str, fill: Any = None) -> str:
    return f"{name}{_filled(fill)}"


def _function(name: str, fields: Sequence[str], version: int, fill: Any) -> str:
    of_version = "" if version == 1 else f" version {version}"
    return f"{name}({', '.join(fields)}){of_version}{_filled(fill)}"


def _one_hot(field: str, categories: Sequence[Any] | None) -> str:
    among = "" if categories is None else f" of {', '.join(map(str, categories))}"
    return f"one_hot({field}{among})"


def _hashed(sources: Sequence[Any], width: int, kind: str = "hashed") -> str:
    return f"{kind}({', '.join(map(_words, sources))}) in {width} columns"


def _cross(sources: Sequence[Any], width: int) -> str:
    return _hashed(sources, width, "cross")


_OWN_WORDS: dict[str, Callable[..., str]] = {
    "raw": _field,
    "field": _field,
    "function": _function,
    "one_hot": _one_hot,
    "hashed": _hashed,
    "cross": _cross,
}


def _window(kind: Sequence[Any], duration_ms: int, series: Sequence[Any], fill: Any) -> str:
    """The words of an aggregate over a window."""
    name, version, *constants = kind
    keys, filters, source = series
    words = f"{name}({', '.join(map(str, constants))})" if constants else str(name)
    if version != 1:
        words += f" version {version}"
    if source is not None:
        words += f" of {_words(source)}"
    words += f" over {duration_text(duration_ms)}"
    if keys:
        words += f" by {', '.join(keys)}"
    conditions = [f"{field} is {' or '.join(map(str, values))}" for field, values in filters]
    if conditions:
        words += f" where {' and '.join(conditions)}"
    return words + _filled(fill)


def _filled(fill: Any) -> str:
    return "" if fill is None else f", else {fill}"
