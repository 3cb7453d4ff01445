"""Decisions that change how many examples a line fits at once, and how learn carries them out.

Theory of operation:

1. An operator asks (`stream-ml batch`), and evaluate decides: the decision names the line and how
   many examples its batches have from then on.
2. Learn takes it off the registry, in the transaction that holds the decision's offset and its own
   state, and carries it out at the next refresh at which the line publishes: what waits for a batch
   is fitted as it is, and the line's next example begins the next batch. So each batch begins and
   ends at examples that the log tells: the snapshot of that refresh says that it was so
   (`rebatched`: the decision's number), and those behind it what holds (`batch`), and behind which
   examples it was changed since the line began (`batches`): the snapshot of the change itself may
   be removed. A replay from the examples alone does not know where that was, and is refused, as
   with restarts.
3. What was asked last holds until it is asked otherwise, over restarts of the worker and of the
   line, which carries it out again with its next snapshot; another recipe under the line's name has
   its own.
4. A line that has more changes behind it than `CHANGES_MAX` states none of them, and its versions
   are learned again by nobody until it is started anew: a snapshot's size has a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_ml.records import Decision

__all__ = ["BATCHED", "CHANGES_MAX", "LineBatch", "LineBatches", "batch_evidence", "batch_of"]

# The kind of decision.
BATCHED = "batched"
LINE = "line"
BATCH = "batch"
# So many changes of a line's batches are stated in its snapshots.
CHANGES_MAX = 64


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


@dataclass(slots=True)
class _Request:
    """The newest request for a line's batches.

    Attributes:
        size: how many examples it asks for.
        decision: its number.
        is_due: whether it is still to be carried out.
        offset: of the example behind which it was carried out.
        changes: of each change since the line began, the offset of the example that it came
            behind, and the size; None: not known any more.
    """

    size: int
    decision: int
    is_due: bool = True
    offset: int | None = None
    changes: list[list[int]] | None = None


class LineBatches:
    """The newest requests for the batches of lines, and where they were carried out."""

    def __init__(self) -> None:
        self._requests: dict[str, _Request] = {}

    def decisions(self) -> set[tuple[str, int]]:
        """The lines whose batches were changed, each with the number of the newest decision."""
        return {(line, each.decision) for line, each in self._requests.items()}

    def request(self, batch: LineBatch, number: int) -> None:
        """Take note of a decision.

        Args:
            batch: what it says.
            number: its own.
        """
        former = self._requests.get(batch.line)
        changes = [] if former is None else former.changes
        self._requests[batch.line] = _Request(batch.size, number, changes=changes)

    def begin_anew(self, line: str) -> None:
        """Have it carried out again, of a line that starts anew."""
        former = self._requests.get(line)
        if former is not None:
            self._requests[line] = _Request(former.size, former.decision, changes=[])

    def forget(self, line: str) -> None:
        """Let a line have the batches that it is declared with."""
        self._requests.pop(line, None)

    def due_size(self, line: str) -> int | None:
        """The size that is to be carried out now, if there is one."""
        request = self._requests.get(line)
        return request.size if request is not None and request.is_due else None

    def complete(self, line: str, offset: int) -> None:
        """Take note that the due size was carried out.

        Args:
            line: one that has it.
            offset: of the last example before it.
        """
        request = self._requests[line]
        request.is_due, request.offset = False, offset
        if request.changes is not None:
            changes = [*request.changes, [offset, request.size]]
            request.changes = changes if len(changes) <= CHANGES_MAX else None

    def figures(self, line: str, offset: int) -> dict[str, Any]:
        """The words of a snapshot of the line about its batches.

        Args:
            line: any.
            offset: of the last example in it.
        """
        request = self._requests.get(line)
        if request is None or request.is_due:
            return {}
        figures: dict[str, Any] = {"batch": request.size}
        if request.changes is not None:
            figures["batches"] = request.changes
        if request.offset == offset:
            figures["rebatched"] = request.decision
        return figures

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it; empty where nothing was asked."""
        if not self._requests:
            return {}
        return {
            "batches": {
                line: [each.size, each.decision, each.offset, each.changes]
                for line, each in self._requests.items()
            },
            "batches_due": sorted(line for line, each in self._requests.items() if each.is_due),
        }

    def load(self, state: Mapping[str, Any], lines: Iterable[str]) -> None:
        """Take up a dumped state.

        Args:
            state: of learn; of a former release it has none.
            lines: that are declared.
        """
        known, due = set(lines), set(state.get("batches_due", ()))
        self._requests = {
            line: _Request(size, decision, line in due, *places)
            for line, (size, decision, *places) in state.get("batches", {}).items()
            if line in known
        }
