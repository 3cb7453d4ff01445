"""Decisions that start a line anew: what they say, and how learn takes them off the registry.

Theory of operation:

1. Evaluate alone decides: an operator has asked for it (`stream-ml restart`), or the declaration
   says so of a line that has failed (`Promotion(on_failure="restart")`). The decision names the
   line and what caused it.
2. Learn reads the registry, believes what is genuine, of this log, and no copy, and starts the
   line's learner anew in the transaction that holds the decision's offset and its own state: once,
   whatever dies when.
3. After which example that was is told (the alert `line_quarantined` resolves, or the decision's
   number in the next snapshot's epoch); nothing in the examples says it. So a state of learn that
   has taken up such a decision cannot be made again from its inputs, and is refused where it must
   be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.codec import decode_decision
from stream_ml.errors import BadRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml.records import Decision, Record

__all__ = ["RESTARTED", "Restarts", "restart_evidence"]

# The kind of decision.
RESTARTED = "restarted"
LINE = "line"
CAUSE = "cause"


def restart_evidence(line: str, cause: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The evidence of a decision that starts a line anew.

    Args:
        line: which.
        cause: the kind, subject and figures of what it follows from; None: an operator's command.
    """
    return {LINE: line} if cause is None else {LINE: line, CAUSE: dict(cause)}


class Restarts:
    """The registry as learn reads it: decisions in their order, each once.

    Args:
        key: verifies decisions.
        log: the identity of the log that they must have been written to.
    """

    def __init__(self, key: bytes, log: str | None) -> None:
        self._key, self._log = key, log
        # The next number that a genuine decision can have.
        self._next = 0

    def line(self, record: Record) -> tuple[str, Decision] | None:
        """The line that a record of the registry starts anew, and the decision; None if none.

        Of what is not genuine evaluate, which reads the same topic, writes the dead letter.

        Args:
            record: of the registry.
        """
        try:
            decision: Decision = record.memo or decode_decision(record.value, self._key)
        except BadRecord:
            return None
        is_foreign = None not in {decision.log, self._log} and decision.log != self._log
        if is_foreign or decision.number < self._next:
            return None
        self._next = decision.number + 1
        if decision.kind != RESTARTED:
            return None
        line = (decision.evidence or {}).get(LINE)
        return (line, decision) if isinstance(line, str) else None

    def dump(self) -> int:
        """The state, as JSON can hold it."""
        return self._next

    def load(self, state: int) -> None:
        """Take up a dumped state; a former release read no registry there."""
        self._next = state
