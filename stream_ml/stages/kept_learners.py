"""The learners that a line may go on from: as they were in the snapshot that answers, and since.

Learn keeps them only where the declaration says that a failed line goes on from its last good
snapshot (`Promotion(on_failure="restore")`): of each line the one in the serving set, as the
registry names it, and the newest `NEWEST`, of which one may be named next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_ml.records import line_of, version_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from stream_ml.stages.task import StateEntry

__all__ = ["NEWEST", "KeptLearners"]

NEWEST = 2


class KeptLearners:
    """Packed learners by line and version.

    Args:
        lines: the declared ones; empty: nothing is kept.

    >>> kept = KeptLearners(["tree"])
    >>> for version in (500, 1000, 2000, 4000):
    ...     kept.add("tree", version, b"%d" % version)
    ...     kept.serve("tree@500")
    >>> kept.find("tree@500"), kept.find("tree@1000"), kept.find("tree@4000")
    (b'500', None, b'4000')
    """

    def __init__(self, lines: Collection[str]) -> None:
        self._packed: dict[str, dict[int, bytes]] = {line: {} for line in lines}
        self._served: dict[str, int] = {}
        # Entries of state that changed since they were written.
        self._changed: set[str] = set()

    @property
    def is_active(self) -> bool:
        """Whether anything is kept."""
        return bool(self._packed)

    def add(self, line: str, version: int, packed: bytes) -> None:
        """Keep a learner as it was published.

        Args:
            line: whose.
            version: of its snapshot.
            packed: its bytes, signed.
        """
        self._packed[line][version] = packed
        self._changed.add(f"{line}@{version}")
        self._drop_others(line)

    def serve(self, model: str) -> None:
        """Take note of the snapshot that a line has in the serving set.

        Args:
            model: `name@version`.
        """
        line = line_of(model)
        if line in self._packed:
            self._served[line] = version_of(model)

    def _drop_others(self, line: str) -> None:
        packed = self._packed[line]
        needed = {*sorted(packed)[-NEWEST:], self._served.get(line, min(packed))}
        for version in packed.keys() - needed:
            del packed[version]
            self._changed.add(f"{line}@{version}")

    def find(self, model: str | None) -> bytes | None:
        """The packed learner of a snapshot, `name@version`, if it is kept."""
        if model is None:
            return None
        return self._packed.get(line_of(model), {}).get(version_of(model))

    def dirty(self) -> list[StateEntry]:
        """The entries of state that changed since the last call, under `name@version`."""
        names, self._changed = sorted(self._changed), set()
        return [(name, self.find(name)) for name in names]

    def load(self, entries: Iterable[tuple[str, bytes]], served: dict[str, int]) -> None:
        """Take up what was kept; what is kept no more is deleted with the next checkpoint.

        Args:
            entries: what `dirty` gave.
            served: what `served` was.
        """
        for name, packed in entries:
            line = line_of(name)
            if line in self._packed:
                self._packed[line][version_of(name)] = packed
            else:
                self._changed.add(name)
        self._served = {line: n for line, n in served.items() if line in self._packed}

    @property
    def served(self) -> dict[str, int]:
        """By line, the version in the serving set, as JSON can hold it."""
        return self._served
