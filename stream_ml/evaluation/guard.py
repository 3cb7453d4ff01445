"""The guard: gross harm by what serves is answered at once, without waiting for evidence.

Theory of operation:

1. `SuccessorGuard` judges a new champion against its predecessor, since the switch. It looks for
   harm, not for proof: one whole block in which the new one loses more than `rollback_loss` a
   pair, or an answer that the new one owes and the old one has. (Where a block is a number of
   pairs it must be more than three standard errors of them, too: few may be over by chance alone.)
   Once a block was judged harmless the watch is over, and the next refresh brings another
   predecessor. So every replacement is judged by a whole block, while of refreshes that come
   faster than `guard_block` + `maturity` only some are: the others have been renewed again before
   their labels are in.
2. `StandingGuard` never ends. It compares what serves with each *reference*: every challenger of
   equal age, the predecessor, the first model, and baselines. A block is *over* a reference where
   what serves lost more than `rollback_loss` a pair against it, and more than three standard
   errors of the pairs, without which a small block would be over by chance alone. Gross harm are
   two whole blocks running that are over one reference. Blocks of too few pairs are passed over:
   they neither count nor break the run.
3. A reference is *healthy* if it did not itself lose as much against the uniform answer in those
   blocks. What to do is up to who asks: hand over to the best of the healthy models, fall back, or
   tell a person.
4. After a switch all begins anew, from the first whole block on, so that a whole guard period
   passes between two switches. A line that was switched away from for its harm is no refuge until
   a whole block was judged in which what serves now was not over it: that a switch has come out as
   bad as what it left is no reason for turning back.

The guard promises nothing: two whole days running with .02 of Brier between equal models were seen
in none of 366 days of flights, and in one simulated reign in thirty a year where luck is heavy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_ml.evaluation.evidence import Blocks
from stream_ml.evaluation.scores import loss_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from stream_ml.evaluation.contest import Rules
    from stream_ml.evaluation.evidence import ClosedBlock
    from stream_ml.records import Example

__all__ = ["LINE", "Harm", "HarmFinding", "StandingGuard", "SuccessorGuard"]

# Whole blocks running that are over a reference before there is gross harm.
BLOCKS_RUNNING = 2
# How many standard errors a block's mean difference must be above 0 to be over.
ERRORS_MIN = 3.0
# What the name of a reference that is a challenger's line begins with.
LINE = "line:"


@dataclass(frozen=True, slots=True)
class Harm:
    """The harm that the guard saw, and its figures."""

    reason: str
    evidence: dict[str, Any]


class SuccessorGuard:
    """A new champion against its predecessor, until one whole block was judged.

    Args:
        rules: the pipeline's.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._loss = loss_of(rules.kind)
        self._blocks: Blocks | None = None
        # The block of the switch is only a part of one: a few hours' luck, that judges nothing.
        self._guarded_from: int | None = None
        # The squares of the open block's differences, where a block is a number of pairs.
        self._squares = 0.0

    def watch(self, *, active: bool) -> None:
        """Watch what serves from now on against a predecessor, or watch no more."""
        rules = self._rules
        self._blocks, self._guarded_from, self._squares = None, None, 0.0
        if active and rules.rollback_loss is not None:
            self._blocks = Blocks(
                rules.guard_block_ms, rules.guard_block_every, maturity_ms=rules.maturity_ms
            )

    @property
    def watching(self) -> bool:
        """Whether a predecessor is still needed."""
        return self._blocks is not None

    def add(
        self, example: Example, own_loss: float | None, watermark_ms: int, predecessor: str | None
    ) -> Harm | None:
        """Take in an example of the present reign.

        Args:
            example: the newest one, with the answers of all that shadowed.
            own_loss: what the champion's own answer lost; None if it had none.
            watermark_ms: of the examples.
            predecessor: the snapshot that is compared with, `name@version`; None: none.

        Returns:
            The harm that was found, if any.
        """
        prediction = example.prediction
        shadow = prediction.shadows.get("predecessor")
        if self._blocks is None or shadow is None or shadow.model != predecessor:
            return None
        predecessor_loss = self._loss(example.label, shadow.prediction)
        if predecessor_loss is None:
            return None
        if own_loss is None:
            reason = f"{prediction.model} has no answer where {shadow.model} has one"
            return Harm(reason, {"event_id": prediction.event_id})
        if self._is_guarded(prediction.ts, watermark_ms):
            difference = predecessor_loss - own_loss
            self._blocks.add(prediction.ts, difference)
            if self._rules.guard_block_ms is None:
                self._squares += difference * difference
        return self._judge(self._blocks, watermark_ms)

    def _is_guarded(self, ts: int, watermark_ms: int) -> bool:
        block_ms = self._rules.guard_block_ms
        if block_ms is None:
            return True  # a block of examples begins with the switch
        if self._guarded_from is None:
            self._guarded_from = _whole_block(ts, watermark_ms, block_ms)
        return ts // block_ms >= self._guarded_from

    def _judge(self, blocks: Blocks, watermark_ms: int) -> Harm | None:
        bound = self._rules.rollback_loss
        for block in blocks.close(watermark_ms):
            if block.pairs < self._rules.guard_pairs_min:
                continue
            self._blocks = None
            if bound is not None and -block.mean > bound and self._is_clear(block):
                reason = (
                    f"lost {-block.mean:.4f} more than its predecessor per example in one block "
                    f"of {block.pairs}; {bound} is borne"
                )
                return Harm(reason, {"block_pairs": block.pairs, "block_loss": -block.mean})
            break
        return None

    def _is_clear(self, block: ClosedBlock) -> bool:
        if self._rules.guard_block_ms is not None:
            return True  # a block of time has hundreds of pairs, and luck that they share
        return _is_beyond_luck(-block.mean, self._squares, block.pairs)

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        state: dict[str, Any] = {
            "guard": None if self._blocks is None else self._blocks.dump(),
            "guarded_from": self._guarded_from,
            "block": _block(self._rules),
        }
        if self._rules.guard_block_ms is None:
            state["guard_squares"] = self._squares
        return state

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a dumped state."""
        self.watch(active=state["guard"] is not None)
        if not _is_same_block(state, self._rules):
            return
        if self._blocks is not None:
            self._blocks.load(state["guard"])
        self._guarded_from = state["guarded_from"]
        self._squares = state.get("guard_squares", 0.0)


def _block(rules: Rules) -> list[int | None]:
    return [rules.guard_block_ms, rules.guard_block_every]


def _is_same_block(state: Mapping[str, Any], rules: Rules) -> bool:
    """Whether a state is of the blocks of today; a former release started with no others."""
    return bool(state.get("block", _block(rules)) == _block(rules))


def _is_beyond_luck(mean: float, squares: float, pairs: int) -> bool:
    """Whether a mean difference of pairs is more than `ERRORS_MIN` standard errors above 0."""
    # Rounding may take a sum of squares that is zero a little below it. Of IEEE's own: a square
    # root is rounded right on any platform.
    variance = max(0.0, squares / pairs - mean * mean)
    return mean > ERRORS_MIN * math.sqrt(variance / pairs)


def _whole_block(ts: int, watermark_ms: int, block_ms: int) -> int:
    """The first block that is whole, once the first example of a reign has come.

    A clock that is years ahead must not put the guard off for as long.
    """
    return min(ts // block_ms, watermark_ms // block_ms + 1) + 1


@dataclass(slots=True)
class _Sums:
    """What a block holds of one reference: pairs, and sums over them."""

    pairs: int = 0
    excess: float = 0.0
    squares: float = 0.0
    own: float = 0.0

    def add(self, excess: float, own: float) -> None:
        self.pairs += 1
        self.excess += excess
        self.squares += excess * excess
        self.own += own


@dataclass(slots=True)
class _Run:
    """How a reference stands: blocks running that were over, or were not, and what those lost."""

    over: int = 0
    under: int = 0
    pairs: int = 0
    excess: float = 0.0
    own: float = 0.0


@dataclass(frozen=True, slots=True)
class HarmFinding:
    """A reference that what serves has done gross harm against.

    Attributes:
        reference: `line:` and a challenger's line, `predecessor`, `first`, or a baseline.
        excess: what was lost more per pair, over the blocks running.
        pairs: how many pairs those hold.
        blocks: how many blocks those are.
        is_healthy: whether the reference itself is fit to serve.
    """

    reference: str
    excess: float
    pairs: int
    blocks: int
    is_healthy: bool

    def figures(self) -> dict[str, Any]:
        """For a decision, or an alert."""
        return {
            "reference": self.reference,
            "blocks": self.blocks,
            "block_pairs": self.pairs,
            "block_loss": self.excess,
        }


class StandingGuard:
    """What serves against every reference, block by block, for as long as it serves.

    Args:
        rules: the pipeline's.
        uniform: what the uniform answer loses; None where there is no such answer.

    Attributes:
        has_judged: whether the last example closed a block that was judged.
    """

    def __init__(self, rules: Rules, uniform: float | None) -> None:
        self._rules = rules
        self._uniform = uniform
        self.has_judged = False
        self._blocks: dict[int, dict[str, _Sums]] = {}
        self._runs: dict[str, _Run] = {}
        # What served for each of the references that are single snapshots.
        self._models: dict[str, str] = {}
        self._count = 0
        self._closed_before = 0
        self._guarded_from: int | None = None
        self._refused: str | None = None

    def start(self, left: str | None = None) -> None:
        """Begin anew: another model serves.

        Args:
            left: the line that was left for its harm, if it was.
        """
        self._blocks, self._runs, self._models = {}, {}, {}
        self._count, self._guarded_from, self.has_judged = 0, None, False
        if self._rules.guard_block_ms is None:
            self._closed_before = 0
        self._refused = left

    def add(
        self,
        ts: int,
        served_loss: float,
        losses: Mapping[str, float],
        watermark_ms: int,
        models: Mapping[str, str],
    ) -> None:
        """Take in an example of the present reign.

        Args:
            ts: the time of its event, UTC milliseconds.
            served_loss: what the served answer lost.
            losses: what each reference lost on it.
            watermark_ms: of the examples.
            models: of the references that are single snapshots, which; another one begins anew.
        """
        self.has_judged = False
        if self._rules.rollback_loss is None:
            return
        block = self._block_of(ts, watermark_ms)
        if block is not None:
            for reference, loss in losses.items():
                if models.get(reference, "") != self._models.get(reference, ""):
                    self._forget(reference, models.get(reference, ""))
                sums = block.get(reference)
                if sums is None:
                    sums = block[reference] = _Sums()
                sums.add(served_loss - loss, loss)
        self._close(watermark_ms)

    def _block_of(self, ts: int, watermark_ms: int) -> dict[str, _Sums] | None:
        block_ms = self._rules.guard_block_ms
        if block_ms is None:
            number = self._count // self._rules.guard_block_every
            self._count += 1
        else:
            number = ts // block_ms
            if self._guarded_from is None:
                self._guarded_from = _whole_block(ts, watermark_ms, block_ms)
            if number < self._guarded_from or number < self._closed_before:
                return None
        return self._blocks.setdefault(number, {})

    def _forget(self, reference: str, model: str) -> None:
        self._models[reference] = model
        self._runs.pop(reference, None)
        for block in self._blocks.values():
            block.pop(reference, None)

    def _close(self, watermark_ms: int) -> None:
        rules = self._rules
        if rules.guard_block_ms is None:
            end = self._count // rules.guard_block_every
        else:
            end = (watermark_ms - rules.maturity_ms) // rules.guard_block_ms
        if end <= self._closed_before:
            return
        self._closed_before = end
        for number in sorted(number for number in self._blocks if number < end):
            for reference, sums in sorted(self._blocks.pop(number).items()):
                if sums.pairs >= rules.guard_pairs_min:
                    self._judge(reference, sums)
                    self.has_judged = True

    def _judge(self, reference: str, sums: _Sums) -> None:
        run = self._runs.setdefault(reference, _Run())
        if self._is_over(sums):
            if not run.over:
                run.pairs, run.excess, run.own = 0, 0.0, 0.0
            run.over, run.under = run.over + 1, 0
            run.pairs += sums.pairs
            run.excess += sums.excess
            run.own += sums.own
        else:
            run.over, run.under = 0, run.under + 1
            if reference == f"{LINE}{self._refused}":
                self._refused = None

    def _is_over(self, sums: _Sums) -> bool:
        n, mean = sums.pairs, sums.excess / sums.pairs
        bound = self._rules.rollback_loss
        assert bound is not None, "nothing is judged where any loss is borne"
        return mean > bound and _is_beyond_luck(mean, sums.squares, n)

    def findings(self) -> list[HarmFinding]:
        """The references against which there is gross harm now, the greatest first."""
        found = [
            HarmFinding(
                reference, run.excess / run.pairs, run.pairs, run.over, self._is_healthy(run)
            )
            for reference, run in sorted(self._runs.items())
            if run.over >= BLOCKS_RUNNING
        ]
        return sorted(found, key=lambda finding: -finding.excess)

    def _is_healthy(self, run: _Run) -> bool:
        bound = self._rules.rollback_loss
        if self._uniform is None or bound is None:
            return True
        return run.own / run.pairs <= self._uniform + bound

    def is_refuge(self, line: str) -> bool:
        """Whether a line may be turned to: it was not left for its harm, or that is long past."""
        return line != self._refused

    def retain(self, references: Collection[str]) -> None:
        """Forget every reference but these: it is none any more.

        Args:
            references: those that there are now.
        """
        self._runs = {name: run for name, run in self._runs.items() if name in references}

    def is_calm(self, reference: str | None = None) -> bool:
        """Whether the last two blocks that were judged were over no reference.

        Args:
            reference: the one to look at; None: all of them.
        """
        runs = [run for name, run in self._runs.items() if reference in {None, name}]
        return bool(runs) and all(run.under >= BLOCKS_RUNNING for run in runs)

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        return {
            "blocks": [
                [number, reference, sums.pairs, sums.excess, sums.squares, sums.own]
                for number, block in sorted(self._blocks.items())
                for reference, sums in sorted(block.items())
            ],
            "runs": {
                reference: [run.over, run.under, run.pairs, run.excess, run.own]
                for reference, run in sorted(self._runs.items())
            },
            "models": dict(sorted(self._models.items())),
            "count": self._count,
            "closed_before": self._closed_before,
            "guarded_from": self._guarded_from,
            "refused": self._refused,
            "block": _block(self._rules),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up a dumped state; of another block, only whom nobody may turn to."""
        self._refused = state["refused"]
        if not _is_same_block(state, self._rules):
            return
        self._blocks = {}
        for number, reference, *sums in state["blocks"]:
            self._blocks.setdefault(number, {})[reference] = _Sums(*sums)
        self._runs = {reference: _Run(*run) for reference, run in state["runs"].items()}
        self._models = dict(state["models"])
        self._count, self._closed_before = state["count"], state["closed_before"]
        self._guarded_from = state["guarded_from"]
