"""The name that somebody meant who typed another one."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["suggestion"]


def suggestion(given: str, names: Iterable[str]) -> str:
    """A question after the likeliest of the names; empty where none is like what was given.

    >>> suggestion("adagard", ["logistic", "adagrad"]), suggestion("tree", ["logistic"])
    ('; did you mean adagrad?', '')

    Args:
        given: as it was typed.
        names: those that there are.
    """
    choices = {name.lower(): name for name in names if name != given}
    matches = difflib.get_close_matches(given.lower(), choices, n=1)
    return f"; did you mean {choices[matches[0]]}?" if matches else ""
