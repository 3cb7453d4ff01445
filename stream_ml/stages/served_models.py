"""The snapshots that have served, so that one can be returned to by name.

They are kept `SERVED_MAX` deep for each line, and the oldest are forgotten: their snapshots stay on
the log, and the registry names them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.records import ModelRef, line_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.records import ServingSet

__all__ = ["SERVED_MAX", "ServedModels"]

SERVED_MAX = 500


class ServedModels:
    """What has served, by line.

    >>> served = ServedModels()
    >>> served.add(ModelRef("tree@500", "d", 7))
    >>> served.find("tree@500")
    ModelRef(model='tree@500', digest='d', offset=7)
    """

    def __init__(self) -> None:
        self._refs: dict[str, dict[str, ModelRef]] = {}
        self._changed_lines: set[str] = set()

    def add(self, ref: ModelRef) -> None:
        """Take note that a snapshot serves.

        Args:
            ref: its name, and where it lies.
        """
        line = line_of(ref.model)
        refs = self._refs.setdefault(line, {})
        if refs.get(ref.model) == ref:
            return
        refs[ref.model] = ref
        while len(refs) > SERVED_MAX:
            del refs[next(iter(refs))]
        self._changed_lines.add(line)

    def know(self, serving: ServingSet | None) -> None:
        """Take what serves for what has served, and the two snapshots that it would return to."""
        if serving is not None:
            for ref in (serving.first, serving.predecessor, serving.champion):
                if ref is not None:
                    self.add(ref)

    def find(self, model: str) -> ModelRef | None:
        """The snapshot of a name, `name@version`, if it has served."""
        return self._refs.get(line_of(model), {}).get(model)

    def newest(self, line: str, count: int) -> list[str]:
        """The names of a line's newest snapshots that have served, the newest first.

        Args:
            line: whose.
            count: how many.
        """
        return list(self._refs.get(line, {}))[: -count - 1 : -1]

    def dirty(self) -> dict[str, list[list[Any]]]:
        """By line, what has served, where that changed since the last call."""
        lines, self._changed_lines = sorted(self._changed_lines), set()
        return {
            line: [[ref.model, ref.digest, ref.offset] for ref in self._refs[line].values()]
            for line in lines
        }

    def load(self, states: Iterable[tuple[str, list[list[Any]]]]) -> None:
        """Take up what has served, by line."""
        self._refs = {
            line: {model: ModelRef(model, digest, offset) for model, digest, offset in refs}
            for line, refs in states
        }
