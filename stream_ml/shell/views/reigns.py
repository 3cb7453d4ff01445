"""The contest of a log fought again: its decisions say who served, and against whom to compare.

Evaluate's own `Contest` is fed with the examples in their order, and with each decision where
evaluate made it: before the first example that it did not know yet. So the evidence of a line that
has run is the recorded one to the last bit, and that of a candidate is what it would have been.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stream_ml.evaluation.contest import Contest
from stream_ml.records import line_of, version_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from stream_ml.evaluation.contest import Comparison, Rules
    from stream_ml.records import Decision, Example, ServingSet

__all__ = ["Reign", "ReplayedContest"]


@dataclass(slots=True)
class Reign:
    """A time in which one line served, with the evidence that grew for one candidate.

    Attributes:
        champion: the model that the reign began with, `name@version`.
        since: the examples watermark at which it began (UTC ms; -1 before any example).
        until: that at which it ended; None for the last one.
        evidence: the figures at its end; None where the candidate itself served.
        promotable: when the evidence sufficed and no gate spoke against it (UTC ms); None: never.
    """

    champion: str
    since: int
    until: int | None = None
    evidence: dict[str, Any] | None = None
    promotable: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "champion": self.champion,
            "since": self.since,
            "until": self.until,
            "evidence": self.evidence,
            "promotable": self.promotable,
        }


@dataclass(slots=True)
class ReplayedContest:
    """The champions that served against lines that may never have run.

    Args:
        rules: as they are declared.
        candidates: the lines whose reigns are told of; they challenge in every reign.

    Attributes:
        is_paused: whether an operator has paused by the newest decision.
        is_suspended: whether promotions stand still by it for a fault of the pipeline.
        restarts: by line, the offsets on `models` at which it started anew, from nothing.
    """

    rules: Rules
    candidates: Collection[str]
    is_paused: bool = False
    is_suspended: bool = False
    restarts: Mapping[str, Collection[int]] = field(default_factory=dict)
    _contest: Contest = field(init=False)
    _reigns: dict[str, list[Reign]] = field(init=False)
    _serving: ServingSet | None = None
    _models_end: int = 0

    def __post_init__(self) -> None:
        self._contest = Contest(self.rules)
        self._reigns = {line: [] for line in self.candidates}

    @property
    def is_stopped(self) -> bool:
        """Whether nothing is promoted by itself."""
        return self.is_paused or self.is_suspended

    def decide(self, decision: Decision, watermark_ms: int, stays: Iterable[str]) -> bool:
        """Follow a decision; whether another line serves since.

        Args:
            decision: the next one of the registry.
            watermark_ms: of the examples before it.
            stays: the models of candidates that could not be renewed with it, `name@version`.
        """
        former, serving = self._serving, decision.serving
        self._serving = serving
        self._forget_restarted(decision.inputs.get("models", 0))
        if decision.kind in {"paused", "resumed"}:
            self.is_paused = decision.kind == "paused"
        if decision.kind in {"suspended", "continued", "resumed"}:
            action = (decision.evidence or {}).get("action")
            self.is_suspended = decision.kind == "suspended" and action != "pause refreshes"
        champion = serving.champion.model
        line = line_of(champion)
        challengers = [name for name in serving.challengers if name != line]
        challengers += [name for name in self.candidates if name not in {line, *challengers}]
        if former is None or decision.kind == "replaced":
            self._start(champion, challengers, watermark_ms)
            return former is not None
        if decision.kind == "rolled_back":
            left = line_of(former.champion.model)
            if line != left or version_of(champion) < self._contest.first_version:
                self._start(champion, challengers, watermark_ms)
            return True
        if decision.kind == "refreshed":
            models = [ref.model for ref in serving.lines.values()]
            version = max(map(version_of, models))
            kept = [model for model in models if version_of(model) < version]
            self._contest.refresh(version, [*kept, *stays])
            self._contest.renew(challengers)
        return False

    def _forget_restarted(self, models_end: int) -> None:
        """Let nothing speak for a line that has started anew for what its namesake did."""
        for line, offsets in self.restarts.items():
            if any(self._models_end <= offset < models_end for offset in offsets):
                self._contest.renew([name for name in self._contest.lines if name != line])
        self._models_end = models_end

    def _start(self, champion: str, challengers: list[str], watermark_ms: int) -> None:
        self.close(watermark_ms)
        self._contest.start(champion, challengers)
        for reigns in self._reigns.values():
            reigns.append(Reign(champion, watermark_ms))

    def close(self, watermark_ms: int | None) -> None:
        """Write down how the present reign stands.

        Args:
            watermark_ms: at which it ends; None where the log ends, and the reign does not.
        """
        for line, reigns in self._reigns.items():
            if reigns:
                reigns[-1].until = watermark_ms
                reigns[-1].evidence = self._contest.report(line)

    def add(
        self, example: Example, watermark_ms: int, slices: Sequence[str] = ()
    ) -> Comparison | None:
        """Take in an example, with the candidates' answers among its shadows.

        Args:
            example: the newest one.
            watermark_ms: of the examples.
            slices: that it is in.

        Returns:
            What was compared; None where it was predicted in another reign, or before any.
        """
        if self._serving is None:
            return None
        return self._contest.add(example, watermark_ms, slices)

    @property
    def has_new_vote(self) -> bool:
        """Whether the last example closed a block of evidence."""
        return self._contest.has_new_vote

    @property
    def lines(self) -> list[str]:
        """Those that challenge now."""
        return self._contest.lines

    def suffices(self, line: str) -> bool:
        """Whether the evidence for a line suffices now."""
        return self._contest.suffices(line)

    def is_doubted(self, line: str) -> bool:
        """Whether a line loses on a slice, more than is borne."""
        return self._contest.doubt(line) is not None

    def report(self, line: str) -> dict[str, Any] | None:
        """The evidence for a line; None for what is no challenger."""
        return self._contest.report(line)

    def note_promotable(self, line: str, watermark_ms: int) -> None:
        """Note that a line would have been promoted in this reign, if it is the first time.

        Args:
            line: a candidate.
            watermark_ms: of the examples.
        """
        reign = self._reigns[line][-1]
        if reign.promotable is None:
            reign.promotable = watermark_ms

    def reigns(self, line: str) -> tuple[Reign, ...]:
        """The reigns of the log, with the evidence that there was for a candidate."""
        return tuple(self._reigns[line])
