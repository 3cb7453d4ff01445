"""Gates: what keeps a challenger from being promoted, whatever the evidence against the champion.

Better than the champion is not good. A gate rejects a challenger that loses more than a baseline
(running prior, or mean and last value; the uniform answer) on the same examples, and one that too
often has no answer. Both are means that fade, of about the last thousand examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["EXAMPLES_MIN", "Gates", "PromotionVerdict"]

FADING = 0.999
# Of fewer examples a mean says little: nothing is rejected for it.
EXAMPLES_MIN = 50
# A line that does as a baseline does is worse by its age: so much of the baseline's loss is borne.
MARGIN = 0.01


@dataclass(frozen=True, slots=True)
class PromotionVerdict:
    """Whether a challenger may be promoted: `promote`, `hold` or `reject`, and why."""

    kind: Literal["promote", "hold", "reject"]
    reason: str


class _Record:
    """What one line and the baselines lost on the same examples, fading."""

    __slots__ = ("answered", "baselines", "examples", "weight")

    def __init__(self) -> None:
        self.examples = 0
        # Of all examples, and of those with an answer.
        self.weight = self.answered = 0.0
        # By baseline: the weight of the examples on which it had an answer too, what the line lost
        # on those, and what the baseline did.
        self.baselines: dict[str, list[float]] = {}

    def add(self, loss: float | None, baseline_losses: Mapping[str, float]) -> None:
        self.examples += 1
        self.weight = 1.0 + FADING * self.weight
        self.answered *= FADING
        if loss is None:
            return
        self.answered += 1.0
        for name, baseline_loss in baseline_losses.items():
            sums = self.baselines.get(name)
            if sums is None:
                sums = self.baselines[name] = [0.0, 0.0, 0.0]
            weight, own, other = sums
            sums[:] = (1.0 + FADING * weight, loss + FADING * own, baseline_loss + FADING * other)


class Gates:
    """The gates of every line that challenges.

    Args:
        coverage_min: the least share of examples that must have an answer.

    >>> gates = Gates(coverage_min=0.9)
    >>> for _ in range(60):
    ...     gates.add("tree", 0.3, {"prior": 0.25})
    >>> gates.rejection("tree")
    'worse than prior: 0.3000 against 0.2500 per example, on the same examples'
    """

    def __init__(self, coverage_min: float) -> None:
        self._coverage_min = coverage_min
        self._records: dict[str, _Record] = {}

    def add(self, line: str, loss: float | None, baseline_losses: Mapping[str, float]) -> None:
        """Take in an example that a line was asked about.

        Args:
            line: whose answer it is.
            loss: what it lost; None if it had no answer.
            baseline_losses: what each baseline lost, of those that had an answer.
        """
        record = self._records.get(line)
        if record is None:
            record = self._records[line] = _Record()
        record.add(loss, baseline_losses)

    def retain(self, lines: Collection[str]) -> None:
        """Forget all lines but these.

        Args:
            lines: those that challenge, or may again.
        """
        self._records = {line: r for line, r in self._records.items() if line in lines}

    def rejection(self, line: str) -> str | None:
        """The gate that rejects a line, in words; None if none does."""
        record = self._records.get(line)
        if record is None or record.examples < EXAMPLES_MIN:
            return None
        coverage = record.answered / record.weight
        if coverage < self._coverage_min:
            return (
                f"answers only {coverage:.1%} of examples; {self._coverage_min:.1%} are asked for"
            )
        for name, (weight, own, other) in sorted(record.baselines.items()):
            if own > other * (1.0 + MARGIN):
                return (
                    f"worse than {name}: {own / weight:.4f} against {other / weight:.4f} per "
                    "example, on the same examples"
                )
        return None

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        return {
            line: [r.examples, r.weight, r.answered, r.baselines]
            for line, r in sorted(self._records.items())
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a dumped state; that of a former release has none."""
        self._records = {}
        for line, (examples, weight, answered, baselines) in state.items():
            record = self._records[line] = _Record()
            record.examples, record.weight, record.answered = examples, weight, answered
            record.baselines = {name: list(sums) for name, sums in baselines.items()}
