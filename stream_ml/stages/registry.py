"""Which models serve, and the chain of decisions that says so and why.

Decisions are numbered, each names the record before it by hash, and all are signed. Only evaluate
writes them; what others put on the topic is refused by `check`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stream_ml.codec import (
    decode_decision,
    encode_decision,
    record_hash,
    serving_members,
    serving_set,
)
from stream_ml.errors import BadRecord
from stream_ml.records import NO_RECORD, Decision, Output, ServingSet, line_of

if TYPE_CHECKING:
    from stream_ml.records import ModelRef, Record
    from stream_ml.stages.operators import ReceivedCommand

__all__ = ["Registry", "serving_after_promotion", "serving_after_rollback"]

# Who decides where no operator does.
ACTOR = "evaluate"


class Registry:
    """What serves now, and the decisions that made it so.

    Args:
        pipeline: the name of the pipeline, under which decisions are written.
        key: signs them.
        log: the identity of the log that is written to, which every decision names.

    Attributes:
        serving: what serves; None before the first decision.
    """

    def __init__(self, pipeline: str, key: bytes, log: str | None) -> None:
        self._pipeline, self._key, self._log = pipeline, key, log
        self.serving: ServingSet | None = None
        self._number = 0
        self._previous = NO_RECORD
        # The next number that a genuine record on the topic can have.
        self._next_registered = 0

    @property
    def line(self) -> str | None:
        """The line whose snapshot serves."""
        return None if self.serving is None else line_of(self.serving.champion.model)

    def decide(
        self,
        kind: str,
        reason: str,
        serving: ServingSet,
        *,
        ts: int,
        inputs: dict[str, int],
        evidence: dict[str, Any] | None = None,
        request: ReceivedCommand | None = None,
    ) -> Output:
        """Make the next decision.

        Args:
            kind: of decision, such as `replaced`.
            reason: a sentence for people.
            serving: what serves from now on.
            ts: the event time, in ms.
            inputs: the next offset of each input, before which all was known.
            evidence: the figures behind it.
            request: the command that is answered by it.
        """
        command = None if request is None else request.command
        decision = Decision(
            number=self._number,
            kind=kind,
            ts=ts,
            actor=ACTOR if command is None else command.actor,
            reason=reason,
            serving=serving,
            inputs=dict(inputs),
            previous=self._previous,
            evidence=evidence,
            command_id=None if command is None else command.command_id,
            log=self._log,
            signed_by=None if command is None else command.operator,
            given_ms=None if command is None else command.ts,
            received_ms=None if request is None else request.received_ms,
        )
        self._number += 1
        self.serving = serving
        value = encode_decision(decision, self._key)
        self._previous = record_hash(value)
        return Output("registry", self._pipeline.encode(), value, decision)

    def check(self, record: Record) -> None:
        """Look over what lies where evaluate alone writes: nobody else refuses a forgery.

        Raises:
            BadRecord: it is not genuine, of another log, or a copy.
        """
        decision: Decision = record.memo or decode_decision(record.value, self._key)
        self.check_log(decision.log)
        if decision.number < self._next_registered:
            raise BadRecord(
                "repeated", "$.number", f"expected {self._next_registered}, given {decision.number}"
            )
        self._next_registered = decision.number + 1

    def check_log(self, log: str | None) -> None:
        """Refuse what was signed for another log; what a former release signed names none.

        Raises:
            BadRecord: another log is named.
        """
        if None not in (log, self._log) and log != self._log:
            raise BadRecord(
                "foreign_log",
                "$.log",
                f"expected {self._log}, which is this log, given {log}: it is genuine, and was "
                "written to another one",
            )

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        return {
            "number": self._number,
            "serving": None if self.serving is None else serving_members(self.serving),
            "registered": self._next_registered,
            "previous": self._previous,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self._number = state["number"]
        self.serving = None if state["serving"] is None else serving_set(state["serving"])
        # State of a release that did not count them has none.
        self._next_registered = state.get("registered", 0)
        self._previous = state["previous"]


def serving_after_promotion(former: ServingSet, line: str) -> ServingSet:
    """What serves once a challenger's line has replaced the champion's, which goes on in its slot.

    Promoted is the very snapshot that shadows; the former champion is the predecessor.

    Args:
        former: what has served so far.
        line: a challenger's.
    """
    challengers = {
        line_of(former.champion.model) if name == line else name: (
            former.champion if name == line else ref
        )
        for name, ref in former.challengers.items()
    }
    return replace(
        former,
        champion=former.challengers[line],
        challengers=challengers,
        predecessor=former.champion,
        fallback=None,
    )


def serving_after_rollback(former: ServingSet, champion: ModelRef | None = None) -> ServingSet:
    """What serves once a model that has served, or shadowed, serves again.

    Args:
        former: what has served so far.
        champion: the model to return to; None: the predecessor, which there must be.
    """
    bad = former.champion
    if champion is None:
        champion = former.predecessor
    assert champion is not None, "a rollback returns to a predecessor"
    line, challengers = line_of(champion.model), former.challengers
    if line != line_of(bad.model):
        challengers = {
            line_of(bad.model) if name == line else name: bad if name == line else ref
            for name, ref in challengers.items()
        }
    return replace(
        former, champion=champion, challengers=challengers, predecessor=None, fallback=None
    )
