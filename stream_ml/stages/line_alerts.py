"""The alerts of learn: which lines learn no more, or cost much, or go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_ml.stages.alarms import Alarms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_ml.records import Decision, Output

__all__ = ["QUARANTINED", "LineAlerts"]

QUARANTINED = "line_quarantined"
# How an alert of that is resolved, by what is written in the state until it can be said.
ENDS_OF_QUARANTINES = {
    "line_restarted": "starts anew, from nothing",
    "line_gone": "is gone",
}


class LineAlerts:
    """What was told of lines, and what is still to be told.

    Attributes:
        alarms: those that are open.
        unsaid: kind, line and reason of alerts where nothing could be written.
    """

    def __init__(self) -> None:
        self.alarms = Alarms("learn")
        self.unsaid: list[tuple[str, str, str]] = []

    def later(self, kind: str, line: str, reason: str) -> None:
        """Have something said with the next outputs.

        Args:
            kind: `QUARANTINED`, or one of `ENDS_OF_QUARANTINES`.
            line: which.
            reason: why.
        """
        self.unsaid.append((kind, line, reason))

    def say_unsaid(self, n: int, watermark_ms: int) -> list[Output]:
        """What could not be said before.

        Args:
            n: how many examples there are.
            watermark_ms: of the examples.
        """
        unsaid, self.unsaid = self.unsaid, []
        outputs: list[Output] = []
        for kind, line, reason in unsaid:
            if kind == QUARANTINED:
                outputs += self.quarantined(line, reason, n, watermark_ms)
            else:
                message = f"the line {line!r} {ENDS_OF_QUARANTINES[kind]}: {reason}"
                figures = {"line": line, "examples": n}
                outputs += self._resolve(line, message, watermark_ms, figures)
        return outputs

    def quarantined(self, line: str, reason: str, n: int, watermark_ms: int) -> list[Output]:
        """Say that a line learns no more.

        Args:
            line: which.
            reason: why.
            n: after which example.
            watermark_ms: of the examples there.
        """
        message = f"the line {line!r} learns no more after example {n}: {reason}"
        evidence = {"line": line, "examples": n}
        return self.alarms.open(QUARANTINED, f"line:{line}", message, watermark_ms, evidence)

    def restarted(
        self, line: str, origin: str, n: int, watermark_ms: int, decision: Decision
    ) -> list[Output]:
        """Say that a line which had learned no more starts anew.

        Args:
            line: which.
            origin: from what it does.
            n: after which example.
            watermark_ms: of the examples.
            decision: that started it.
        """
        message = (
            f"the line {line!r} starts anew, {origin}, after example {n}: decision "
            f"{decision.number} by {decision.actor}: {decision.reason}"
        )
        figures = {"line": line, "examples": n, "decision": decision.number}
        return self._resolve(line, message, watermark_ms, figures)

    def _resolve(
        self, line: str, message: str, watermark_ms: int, figures: Mapping[str, Any]
    ) -> list[Output]:
        return self.alarms.resolve(QUARANTINED, f"line:{line}", message, watermark_ms, figures)

    def load(
        self, state: dict[str, Any], gone_lines: Iterable[str], watermark_ms: int
    ) -> list[str]:
        """Take up what is open and unsaid; of the state of a former release, what it has told.

        Returns the lines whose alerts end, as they are declared no more.

        Args:
            state: of learn, the piece that is no line's.
            gone_lines: that are declared no more.
            watermark_ms: of the examples.
        """
        # What was written before there were other kinds has none.
        self.unsaid = [
            (kind[0] if kind else QUARANTINED, line, reason)
            for *kind, line, reason in state["unsaid"]
        ]
        self.alarms.load(state.get("alarms", ()))
        if "alarms" not in state:
            untold_lines = {line for _, line, _ in self.unsaid}
            for line, (_, is_stopped, *_) in state["lines"].items():
                if is_stopped and line not in untold_lines:
                    self.alarms.adopt(QUARANTINED, f"line:{line}", watermark_ms)
        ended = [line for line in gone_lines if self.alarms.is_open(QUARANTINED, f"line:{line}")]
        for line in ended:
            self.later("line_gone", line, "it is not declared any more")
        return ended
