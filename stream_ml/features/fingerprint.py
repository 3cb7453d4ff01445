"""Fingerprints of users' functions: a digest of the compiled code tells one from another.

The same for the same source in every process of one release of Python, wherever its file lies. It
says that code is another, never that it is the same: what a function calls is not looked into.
"""

from __future__ import annotations

import functools
import hashlib
from types import CodeType
from typing import Any

__all__ = ["fingerprint"]


def fingerprint(code: Any) -> str:
    """A digest of a function, or of all methods of a class.

    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 1)
    True
    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 2)
    False
    """
    return hashlib.sha256(_text(code).encode()).hexdigest()[:16]


def _text(part: Any) -> str:  # noqa: PLR0911 - one line for each kind of thing
    if isinstance(part, functools.partial):
        return repr((_text(part.func), list(map(_text, part.args)), _item_texts(part.keywords)))
    if isinstance(part, type):
        methods = {name: item for name, item in vars(part).items() if hasattr(item, "__code__")}
        return repr((part.__qualname__, _item_texts(methods)))
    if isinstance(part, CodeType):
        return repr((part.co_code, part.co_names, [_text(item) for item in part.co_consts]))
    if isinstance(part, frozenset | set):
        return repr(sorted(map(_text, part)))
    if isinstance(part, tuple | list):
        return repr([_text(item) for item in part])
    if (code := getattr(part, "__code__", None)) is not None:
        defaults = (getattr(part, "__defaults__", None), getattr(part, "__kwdefaults__", None))
        return repr((_text(code), [_text(item) for item in defaults]))
    if part is None or isinstance(part, bool | int | float | complex | str | bytes):
        return repr(part)
    if isinstance(part, dict):
        return repr(_item_texts(part))
    # A text of any other object may hold where it lies in memory.
    return getattr(part, "__qualname__", type(part).__qualname__)


def _item_texts(parts: dict[Any, Any]) -> list[tuple[str, str]]:
    return sorted((str(name), _text(part)) for name, part in parts.items())
