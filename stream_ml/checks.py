"""Checks that several parts of a declaration share, of members that a user gave any values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.errors import Problem
from stream_ml.features import parse_duration
from stream_ml.schema import is_text, short_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "are_categories",
    "duration_or_zero",
    "duration_problems",
]


def are_categories(categories: tuple[Any, ...], count_min: int = 1) -> bool:
    """Whether they are different texts, at least so many."""
    if not all(
        category == "" or is_text(category) for category in categories if isinstance(category, str)
    ):
        return False
    texts = [category for category in categories if type(category) is str]
    return len(set(texts)) == len(categories) >= count_min


def duration_or_zero(value: str | int) -> int:
    """The duration in milliseconds, which may be 0.

    Raises:
        ValueError: it is neither a duration nor 0.
    """
    return 0 if type(value) is int and value == 0 else parse_duration(value)


def duration_problems(
    path: str, value: Any, parse: Callable[[Any], int] = parse_duration
) -> Iterator[Problem]:
    """The problem of a member that is no duration."""
    try:
        parse(value)
    except (ValueError, TypeError):
        yield Problem(path, 'a duration such as "10m", or whole milliseconds', short_repr(value))
