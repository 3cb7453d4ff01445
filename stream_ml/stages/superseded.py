"""Serving sets that serve no more, and that predictions which wait for their label may still name.

A challenger's snapshot is needed until every prediction that it shadowed has met its label, or can
meet none any more. Predict goes from set to set in their order. So once an example names a later
set, what still comes of the former one was predicted on events no later than that, but for
lateness, and its labels come within the horizon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.stages.guard import FIRST, PREDECESSOR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.records import Prediction, ServingSet

__all__ = ["SETS_MAX", "SupersededSets"]

# Predict may be any number of sets behind; what is older than so many of them is let go.
SETS_MAX = 1_000


class SupersededSets:
    """The snapshots of challengers that are needed still, though newer ones shadow.

    Args:
        wait_ms: how long after its event a label may come, lateness included.
    """

    def __init__(self, wait_ms: int) -> None:
        self._wait_ms = wait_ms
        # The oldest first: its newest place on `models`, what of it shadows no more, and the time
        # of the first example that named a later set (-1: there is none yet).
        self._sets: list[tuple[int, list[str], int]] = []
        # How many of them were passed so; and the shadows that were looked at last.
        self._passed = 0
        self._last: object = None

    def __len__(self) -> int:
        return len(self._sets)

    @property
    def models(self) -> set[str]:
        """The snapshots that are needed still, by name."""
        return {model for _, models, _ in self._sets for model in models}

    def add(self, former: ServingSet, present: ServingSet) -> None:
        """Take note that a set has taken the place of another."""
        kept = {ref.model for ref in present.challengers.values()}
        models = [ref.model for ref in former.challengers.values() if ref.model not in kept]
        if models:
            newest = max(ref.offset for ref in former.challengers.values())
            if len(self._sets) == SETS_MAX:
                del self._sets[0]
                self._passed = max(0, self._passed - 1)
            self._sets.append((newest, models, -1))

    def see(self, prediction: Prediction, watermark_ms: int) -> None:
        """Let go of what no label can come for any more.

        Args:
            prediction: of the newest example.
            watermark_ms: of the examples.
        """
        if not self._sets:
            return
        if self._passed < len(self._sets) and prediction.shadows is not self._last:
            # Within a process all predictions of a set share one object.
            self._last = prediction.shadows
            self._pass(prediction)
        while self._passed and watermark_ms > self._sets[0][2] + self._wait_ms:
            del self._sets[0]
            self._passed -= 1

    def _pass(self, prediction: Prediction) -> None:
        """Take note of the sets that an example shows to be passed."""
        # Predecessor and first are of former sets, or of none: `add` goes by challengers alone.
        named = max(
            [
                -1 if shadow.offset is None else shadow.offset
                for slot, shadow in prediction.shadows.items()
                if slot not in {PREDECESSOR, FIRST}
            ],
            default=-1,
        )
        while self._passed < len(self._sets):
            newest, models, _ = self._sets[self._passed]
            if newest >= named:
                break
            self._sets[self._passed] = newest, models, prediction.ts
            self._passed += 1

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it."""
        return self._sets

    def load(self, state: Iterable[Any]) -> None:
        """Take up a dumped state."""
        self._sets = [(newest, models, passed_ms) for newest, models, passed_ms in state]
        self._passed = sum(passed_ms >= 0 for _, _, passed_ms in self._sets)
