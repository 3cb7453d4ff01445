"""Names of sparse columns: one name stands for all columns of a hashed feature.

A hashed feature has up to a million columns, of which an event has one or none. What is declared,
kept and compared is the name of them all, `merchant#0..1023`; what an event has is a column of it,
such as `merchant#17`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "SparseNames",
    "column_count",
    "common_name",
    "common_prefix",
    "expand",
    "is_common",
    "is_sparse",
    "name_set",
    "sparse_columns",
    "trial_names",
]

_COMMON = re.compile(r"(.+)#0\.\.([0-9]{1,7})", re.DOTALL)
_COLUMN = re.compile(r".+#[0-9]{1,7}", re.DOTALL)
DIGITS_MAX = 7


def common_name(prefix: str, width: int) -> str:
    """The name that stands for all columns.

    >>> common_name("merchant", 1024)
    'merchant#0..1023'

    Args:
        prefix: what the names of the columns begin with.
        width: how many there are.
    """
    return f"{prefix}#0..{width - 1}"


def _parts(name: str) -> tuple[str, int] | None:
    """What the columns' names begin with, and how many there are; None of any other name."""
    found = _COMMON.fullmatch(name)
    return None if found is None else (found[1], int(found[2]) + 1)


def common_prefix(name: str) -> str | None:
    """What the names of the columns begin with that one name stands for; None of any other name.

    >>> common_prefix("merchant#0..1023"), common_prefix("amount")
    ('merchant', None)

    Args:
        name: of a feature.
    """
    parts = _parts(name)
    return None if parts is None else parts[0]


def is_common(name: str) -> bool:
    """Whether a name stands for many columns."""
    return _parts(name) is not None


def is_sparse(name: str) -> bool:
    """Whether a name is that of one column of many."""
    return "#" in name and _COLUMN.fullmatch(name) is not None


def column_count(names: Iterable[str]) -> int:
    """How many columns there are under some names.

    Args:
        names: of features.
    """
    return sum(1 if parts is None else parts[1] for parts in map(_parts, names))


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """The names of all columns, each by itself.

    >>> expand(("amount", "kind#0..2"))
    ('amount', 'kind#0', 'kind#1', 'kind#2')

    Args:
        names: of features, in order.
    """
    return tuple(column for name in names for column in _columns(name, None))


def trial_names(names: Iterable[str], columns: int = 2) -> tuple[str, ...]:
    """As `expand`, but the first few columns only of those that are many: to try a learner with.

    Args:
        names: of features, in order.
        columns: how many of each.
    """
    return tuple(column for name in names for column in _columns(name, columns))


def _columns(name: str, columns: int | None) -> Iterator[str]:
    parts = _parts(name)
    if parts is None:
        yield name
        return
    prefix, width = parts
    for number in range(width if columns is None else min(width, columns)):
        yield f"{prefix}#{number}"


def sparse_columns(features: Mapping[str, float], name: str) -> dict[str, float]:
    """The columns of one name that an event has: mostly one, or none.

    Args:
        features: of the event.
        name: that stands for many columns.
    """
    known = SparseNames((name,))
    return {column: x for column, x in features.items() if column in known}


class SparseNames(frozenset[str]):
    """Names of which some stand for many columns; what is in it are columns.

    As a set it is equal to that of its names, and `union` is of names.
    """

    _widths: dict[str, int]

    def __new__(cls, names: Iterable[str]) -> Self:
        """Of the names of features.

        Args:
            names: some of which stand for many columns.
        """
        self = super().__new__(cls, names)
        self._widths = {}
        for prefix, width in filter(None, map(_parts, self)):
            # A former declaration may have had another width; the order of a set is no rule.
            self._widths[prefix] = max(width, self._widths.get(prefix, 0))
        return self

    def __contains__(self, name: object) -> bool:
        """Whether an event may have a column of this name."""
        if type(name) is not str:
            return False
        prefix, mark, number = name.rpartition("#")
        if not mark:
            return super().__contains__(name)
        if len(number) <= DIGITS_MAX and number.isascii() and number.isdecimal():
            width = self._widths.get(prefix)
            if width is not None and int(number) < width and str(int(number)) == number:
                return True
        return not is_common(name) and super().__contains__(name)

    def issuperset(self, names: Iterable[Any], /) -> bool:
        """Whether all of these are columns.

        Args:
            names: that an event has.
        """
        return all(name in self for name in names)


def name_set(names: Iterable[str]) -> frozenset[str]:
    """What tells whether an event may have a column; a plain set where no name stands for many.

    Args:
        names: of features.
    """
    plain = frozenset(names)
    return SparseNames(plain) if any(map(is_common, plain)) else plain
