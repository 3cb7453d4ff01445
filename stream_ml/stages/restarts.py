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

from typing import TYPE_CHECKING, Any, NamedTuple

from stream_ml.codec import decode_decision
from stream_ml.errors import BadRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_ml.records import Decision, Record

__all__ = ["RESTARTED", "Restart", "Restarts", "restart_evidence", "restart_of"]

# The kind of decision.
RESTARTED = "restarted"
LINE = "line"
CAUSE = "cause"
FROM = "from"


def restart_evidence(
    line: str, cause: Mapping[str, Any] | None = None, model: str | None = None
) -> dict[str, Any]:
    """The evidence of a decision that starts a line anew.

    Args:
        line: which.
        cause: the kind, subject and figures of what it follows from; None: an operator's command.
        model: the snapshot that it goes on from, `name@version`; None: from nothing.
    """
    return {
        LINE: line,
        **({} if cause is None else {CAUSE: dict(cause)}),
        **({} if model is None else {FROM: model}),
    }


class Restart(NamedTuple):
    """A line to start anew, and the snapshot that it goes on from; None: from nothing."""

    line: str
    model: str | None


def restart_of(decision: Decision) -> Restart | None:
    """What a decision starts anew; None if nothing."""
    evidence = decision.evidence or {}
    line, model = evidence.get(LINE), evidence.get(FROM)
    if decision.kind != RESTARTED or not isinstance(line, str):
        return None
    return Restart(line, model if isinstance(model, str) else None)


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

    def decision(self, record: Record) -> Decision | None:
        """The decision in a record of the registry; None where it is none of ours, or a copy.

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
        return decision

    def dump(self) -> int:
        """The state, as JSON can hold it."""
        return self._next

    def load(self, state: int) -> None:
        """Take up a dumped state; a former release read no registry there."""
        self._next = state
