"""Plans as operators apply them: a command with all that differs, and what evaluate makes of it.

What a version of a line is, and who runs under which name, is `stream_ml.generation`'s to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from stream_ml.stages.operators import CommandRefusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["CHANGES", "PlannedText", "plan_details", "planned_texts"]

# The member of the command's details, and of its decision's evidence.
CHANGES = "changes"
_NULL = type(None)
_PLANNED_TYPES = ([str, str, str, str], [str, _NULL, str, str], [str, str, _NULL, str])


class PlannedText(NamedTuple):
    """A part of a declaration that a plan changes: both its texts, and what that does."""

    path: str
    old: str | None
    new: str | None
    effect: str


def plan_details(changes: Iterable[PlannedText]) -> dict[str, Any]:
    """The details of a command that applies a plan.

    Args:
        changes: of the plan.
    """
    return {CHANGES: list(map(list, changes))}


def planned_texts(details: Mapping[str, Any] | None) -> tuple[PlannedText, ...]:
    """The plan that a command's details name.

    Raises:
        CommandRefusal: they name none.
    """
    changes = (details or {}).get(CHANGES)
    if not isinstance(changes, list) or not changes:
        raise CommandRefusal(
            f"expected in `details` a plan with at least one change as `{CHANGES}`, given none"
        )
    if not all(
        isinstance(each, list) and list(map(type, each)) in _PLANNED_TYPES for each in changes
    ):
        raise CommandRefusal(
            "expected path, text as it runs, text as it is to be, and effect of each change, given "
            "others"
        )
    return tuple(PlannedText(*each) for each in changes)
