"""Names that have moved: the former module answers for one release, and names the new one.

A name is looked up when it is first used (PEP 562), so that the former module loads nothing.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["moved_names"]


def moved_names(former: str, present: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__` that finds its former names where they are now.

    Args:
        former: the module that had them.
        present: the module that has them.
        names: what each is called there, by its former name.

    Returns:
        The function; it warns with `DeprecationWarning` at the line that uses the former name.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {former!r} has no attribute {name!r}")
        warnings.warn(
            f"{former}.{name} is now {present}.{names[name]}; the former name goes with the next "
            "release",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(importlib.import_module(present), names[name])

    return find
