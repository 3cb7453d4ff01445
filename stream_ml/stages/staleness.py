"""Whether what serves is renewed: an alert when several refreshes have gone by without it.

A line that could be renewed and is not has an alert of its own, with the reason. What is left is
what people have decided, or the declaration does: a pause, a rollback after which nothing is
renewed, a fault that lasts. All are meant for a while, and easily forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.records import line_of, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_ml.records import Output, ServingSet
    from stream_ml.stages.alarms import Alarms

__all__ = ["REFRESHES", "Staleness"]

# As many as a week of daily ones has working days.
REFRESHES = 5
KIND = "staleness"


class Staleness:
    """How many refreshes have gone by since what serves was renewed.

    Args:
        alarms: of the stage.
    """

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        # The versions that lines published at the last refreshes.
        self._versions: list[int] = []

    def refresh(self, version: int, serving: ServingSet, reason: str, ts: int) -> list[Output]:
        """Lines have published: what is to be said of what serves.

        Args:
            version: how many examples they had learned.
            serving: the models that predict, renewed if they were to be.
            reason: why what serves is not renewed; empty if nothing keeps it from being.
            ts: the stage's watermark, UTC milliseconds.
        """
        self._versions = [*self._versions, version][-REFRESHES:]
        model = serving.champion.model
        subject = f"line:{line_of(model)}"
        others = [each for each in self._alarms.subjects(KIND) if each != subject]
        outputs = self._alarms.resolve_group(KIND, others, f"{model} serves now", ts)
        missed = sum(each > version_of(model) for each in self._versions)
        if not missed:
            return outputs + self._alarms.resolve(KIND, subject, f"{model} serves: renewed", ts)
        if missed < REFRESHES or not reason:
            return outputs
        message = f"{model} was not renewed at the last {missed} refreshes, up to @{version}: "
        figures = {"model": model, "refreshes": missed, "version": version}
        return outputs + self._alarms.open(KIND, subject, message + reason, ts, figures)

    def dump(self) -> list[int]:
        """The state, beside the stage's alarms."""
        return self._versions

    def load(self, state: Sequence[int]) -> None:
        """Take up a dumped state."""
        self._versions = list(state)
