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
    >>> feature_words('[["x"],[["count",1],["last",20,3600000],[[],[],null],null]]')
    'count over the last 20 events within 1h'
    >>> feature_words('[["x"],[["count",1],3600000,[[],[],null,["merchant"]],null]]')
    'count over 1h of merchant'

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


def _registers(source: Sequence[Any]) -> str:
    return _words(source)


def _rate(counted: Sequence[Any], per_ms: int, fill: Any) -> str:
    return f"{_window(*counted)}, per {duration_text(per_ms)}{_filled(fill)}"


def _window_columns(
    kind: Sequence[Any], frame: Any, series: Sequence[Any], fill: Any, columns: Any
) -> str:
    if isinstance(columns, int):
        return _window([*kind, columns], frame, series, fill)
    among = "" if columns is None else f" among {', '.join(map(str, columns))}"
    return _window(kind, frame, series, fill) + among


_OWN_WORDS: dict[str, Callable[..., str]] = {
    "registers": _registers,
    "rate": _rate,
    "window_columns": _window_columns,
    "raw": _field,
    "field": _field,
    "function": _function,
    "one_hot": _one_hot,
    "hashed": _hashed,
    "cross": _cross,
}


# The aggregates whose arguments are durations.
_OF_DURATIONS = ("decayed_mean", "decayed_variance", "lag", "slope")


def _sliding(duration_ms: int, ago_ms: int) -> str:
    return f"over {duration_text(duration_ms)}, until {duration_text(ago_ms)} before"


def _hopping(duration_ms: int, every_ms: int, previous: bool) -> str:
    which = "the last whole window" if previous else "the present window"
    step = "" if duration_ms == every_ms else f", one every {duration_text(every_ms)}"
    return f"over {which} of {duration_text(duration_ms)}{step}"


def _session(gap_ms: int, longest_ms: int) -> str:
    return f"over the session (gap {duration_text(gap_ms)}, {duration_text(longest_ms)} at most)"


def _calendar(unit: str, tz: str, previous: bool) -> str:
    return f"over {f'the {unit} before' if previous else f'this {unit} so far'}, in {tz}"


def _last(n: int, within_ms: int) -> str:
    return f"over the last {n} events within {duration_text(within_ms)}"


def _nearby(ago_ms: int, tolerance_ms: int) -> str:
    return f"within {duration_text(tolerance_ms)} of {duration_text(ago_ms)} before"


_FRAME_WORDS: dict[str, Callable[..., str]] = {
    "ago": _sliding,
    "hopping": _hopping,
    "session": _session,
    "calendar": _calendar,
    "last": _last,
    "nearby": _nearby,
}


def _frame(frame: Any) -> str:
    """The words of the stretch that a window holds: a number is the length of a sliding one."""
    if isinstance(frame, int):
        return f"over {duration_text(frame)}"
    kind, *rest = frame
    return _FRAME_WORDS[kind](*rest)


def _window(kind: Sequence[Any], frame: Any, series: Sequence[Any], fill: Any) -> str:
    """The words of an aggregate over a window."""
    name, version, *constants = kind
    keys, filters, source, *entity = series
    if name in _OF_DURATIONS:
        constants = list(map(duration_text, constants))
    words = f"{name}({', '.join(map(str, constants))})" if constants else str(name)
    if version != 1:
        words += f" version {version}"
    if source is not None:
        words += f" of {_words(source)}"
    words += f" {_frame(frame)}"
    if entity:
        words += f" of {', '.join(entity[0])}"
    if len(entity) > 1:
        words += f", as of {duration_text(entity[1][1])} before"
    if keys:
        words += f" by {', '.join(keys)}"
    conditions = [f"{field} is {' or '.join(map(str, values))}" for field, values in filters]
    if conditions:
        words += f" where {' and '.join(conditions)}"
    return words + _filled(fill)


def _filled(fill: Any) -> str:
    return "" if fill is None else f", else {fill}"
