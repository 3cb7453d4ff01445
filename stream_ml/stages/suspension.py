"""Promotions and refreshes stand still while a fault of the pipeline lasts, where that is declared.

Theory of operation:

1. A fault is an open alert `data_fault`, `label_outage` or `event_outage`, or that much of the
   events is refused as the summaries tell it (what is refused of labels is not known here). It
   begins and ends with those alerts: what flaps there is one episode, and here too. A fault that
   comes again, of which nobody is told any more, is one nevertheless.
2. `Promotion(on_fault=...)` says what stands still. Learning, scoring, evidence and the guard go
   on.
3. Two decisions frame an episode, with the faults that caused it: `suspended`, and `continued` once
   none is left. An operator's `resume` ends it at once; until the present faults are over no other
   begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.stages.alarms import Alarms

__all__ = ["FAULT_KINDS", "Suspension"]

FAULT_KINDS = ("data_fault", "event_outage", "label_outage")
PROMOTIONS = frozenset({"pause promotions", "pause"})
REFRESHES = frozenset({"pause refreshes", "pause"})


class Suspension:
    """Whether something stands still for faults, and for which.

    Args:
        action: as declared; `alert`: nothing stands still.
        alarms: of the stage.

    >>> from stream_ml.stages.alarms import Alarms
    >>> alarms = Alarms("evaluate")
    >>> suspension = Suspension("pause refreshes", alarms)
    >>> _ = alarms.open("label_outage", "", "No labels come.", 5)
    >>> suspension.step(()), suspension.holds_refreshes, suspension.holds_promotions
    ('suspended', True, False)
    >>> _ = alarms.resolve("label_outage", "", "They come again.", 9)
    >>> suspension.step(()), suspension.holds_refreshes
    ('continued', False)
    """

    def __init__(self, action: str, alarms: Alarms) -> None:
        self._action, self._alarms = action, alarms
        # Kinds and subjects of the faults that there are, as last told.
        self._faults: list[list[str]] = []
        self._is_active = self._is_overridden = False

    def step(self, others: Sequence[list[str]]) -> Literal["suspended", "continued"] | None:
        """Look at the faults that there are now: the kind of decision to make, if any.

        Args:
            others: alert and subject of faults that are there now, and of which no alarm is open.
        """
        if self._action == "alert" and not self._is_active:
            return None
        faults = [] if self._action == "alert" else self._present(others)
        if faults:
            self._faults = faults
            if self._is_active or self._is_overridden:
                return None
            self._is_active = True
            return "suspended"
        self._is_overridden = False
        if not self._is_active:
            return None
        self._is_active = False
        return "continued"

    def _present(self, others: Sequence[list[str]]) -> list[list[str]]:
        alarms = [[kind, each] for kind in FAULT_KINDS for each in self._alarms.subjects(kind)]
        return [*alarms, *others]

    def override(self) -> None:
        """An operator says that all goes on, whatever faults there are."""
        self._is_overridden = self._is_overridden or self._is_active
        self._is_active = False

    @property
    def holds_promotions(self) -> bool:
        """Whether nothing is promoted."""
        return self._is_active and self._action in PROMOTIONS

    @property
    def holds_refreshes(self) -> bool:
        """Whether nothing is renewed."""
        return self._is_active and self._action in REFRESHES

    @property
    def causes(self) -> str:
        """The faults, for a sentence."""
        return ", ".join(f"{kind} {subject}".strip() for kind, subject in self._faults)

    def evidence(self) -> dict[str, Any]:
        """The figures of a decision that frames an episode."""
        return {
            "action": self._action,
            "cause": [{"alert": kind, "subject": subject} for kind, subject in self._faults],
        }

    def dump(self) -> list[Any]:
        """The state, beside the stage's alarms."""
        return [self._is_active, self._is_overridden, self._faults]

    def load(self, state: Sequence[Any]) -> None:
        """Take up a dumped state."""
        self._is_active, self._is_overridden, self._faults = state
