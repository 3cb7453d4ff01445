"""Decisions that change how many examples a line fits at once, and how learn carries them out.

Theory of operation:

1. An operator asks (`stream-ml batch`), and evaluate decides: the decision names the line and how
   many examples its batches have from then on.
2. Learn takes it off the registry, in the transaction that holds the decision's offset and its own
   state, and carries it out at the next refresh at which the line publishes: what waits for a batch
   is fitted as it is, and the line's next example begins the next batch. So each batch begins and
   ends at examples that the log tells: the snapshot of that refresh says that it was so
   (`rebatched`: the decision's number), and those behind it what holds (`batch`). A replay from the
   examples alone does not know where that was, and is refused, as with restarts.
3. What was asked last holds until it is asked otherwise, over restarts of the worker and of the
   line, which carries it out again with its next snapshot; another recipe under the line's name has
   its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stream_ml.records import Decision

__all__ = ["BATCHED", "LineBatch", "LineBatches", "batch_evidence", "batch_of"]

# The kind of decision.
BATCHED = "batched"
LINE = "line"
BATCH = "batch"


class LineBatch(NamedTuple):
    """How many examples a line fits at once."""

    line: str
    size: int


def batch_evidence(batch: LineBatch) -> dict[str, Any]:
    """The evidence of a decision that changes a line's batches.

    Args:
        batch: as it is from then on.
    """
    return {LINE: batch.line, BATCH: batch.size}


def batch_of(decision: Decision) -> LineBatch | None:
    """The batches that a decision changes; None where it changes none.

    Args:
        decision: any.
    """
    evidence = decision.evidence or {}
    line, size = evidence.get(LINE), evidence.get(BATCH)
    if decision.kind != BATCHED or not isinstance(line, str) or type(size) is not int:
        return None
    return LineBatch(line, size)


class LineBatches:
    """What was asked of the batches of lines, and what of it is still to be carried out."""

    def __init__(self) -> None:
        # By line: the size, and the number of the decision.
        self._asked: dict[str, tuple[int, int]] = {}
        self._due: set[str] = set()
        # Of the present refresh.
        self._done: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        """The lines of which something was asked."""
        return iter(self._asked)

    def ask(self, batch: LineBatch, number: int) -> None:
        """Take note of a decision.

        Args:
            batch: what it says.
            number: its own.
        """
        self._asked[batch.line] = batch.size, number
        self._due.add(batch.line)

    def begin_anew(self, line: str) -> None:
        """Have it carried out again, of a line that starts anew."""
        if line in self._asked:
            self._due.add(line)

    def forget(self, line: str) -> None:
        """Let a line have the batches that it is declared with."""
        self._asked.pop(line, None)
        self._due.discard(line)

    def take(self, line: str) -> int | None:
        """The size to be carried out now, if there is one; `figures` tell of it."""
        if line not in self._due:
            return None
        self._due.discard(line)
        self._done.add(line)
        return self._asked[line][0]

    def figures(self, line: str) -> dict[str, int]:
        """What the line's next snapshot says of its batches."""
        if line not in self._asked or line in self._due:
            return {}
        size, number = self._asked[line]
        is_done = line in self._done
        self._done.discard(line)
        return {"batch": size, **({"rebatched": number} if is_done else {})}

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it; empty where nothing was asked."""
        if not self._asked:
            return {}
        asked = {line: [*each] for line, each in self._asked.items()}
        return {"batches": asked, "batches_due": sorted(self._due)}

    def load(self, state: Mapping[str, Any], lines: Iterable[str]) -> None:
        """Take up a dumped state.

        Args:
            state: of learn; of a former release it has none.
            lines: that are declared.
        """
        known = set(lines)
        asked = state.get("batches", {})
        self._asked = {line: (*each,) for line, each in asked.items() if line in known}
        self._due = known & set(state.get("batches_due", ()))
