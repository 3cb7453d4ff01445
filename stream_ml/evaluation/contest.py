"""The contest of lines: the evidence for each challenger.

Theory of operation:

1. *Evidence* compares line with line, from predictions made since the present champion's line
   took over. It runs on over refreshes and starts anew when another line takes over. Only pairs of
   equal age count, that is snapshots that were offered to be renewed at the same instant: freshness
   must not pass for quality. So nothing is gathered after a rollback until there is a refresh. But
   who could not be renewed for a fault of its own (its learner has diverged, or it published
   nothing) is not spared by it: its old snapshot stands against the others' new ones, for being
   fresh is a quality, too. For which instants that is so is kept with the snapshot (`stays`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_ml.evaluation.evidence import RENEWAL, Evidence, ready, threshold
from stream_ml.evaluation.scores import loss_of
from stream_ml.evaluation.slices import SliceDoubt, SliceLosses
from stream_ml.records import line_of, version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stream_ml.records import Example, LabelValue

__all__ = ["Comparison", "Contest", "Rules"]

# How many of a line's stays are remembered: each ends with a refresh that renews it.
STAYS_MAX = 8


@dataclass(frozen=True, slots=True)
class Rules:
    """The evidence that is asked for, and the harm that is borne.

    Args:
        kind: of the task, for its loss.
        block_ms: a block of evidence; `block_every` counts pairs where it is None.
        guard_block_ms: a block that the guard judges; `guard_block_every` counts examples where
            it is None.
        maturity_ms: how long after its end a block waits for labels.
        pairs_min: fewer pairs than this do not vote.
        slots, alpha, gain_min: replace when E >= slots / alpha and the mean gain is that.
        rollback_loss: what a pair may lose in a guarded block; None guards nothing.
        renewal: in how many votes alpha is put down once more; None: once in a reign.
        slice_margin: what share more than the champion a challenger may lose on a slice.
    """

    kind: str
    block_ms: int | None
    block_every: int
    guard_block_ms: int | None
    maturity_ms: int
    pairs_min: int
    slots: int
    alpha: float
    gain_min: float
    rollback_loss: float | None
    renewal: int | None = RENEWAL
    guard_block_every: int = 0
    slice_margin: float = 0.1

    @property
    def guard_pairs_min(self) -> int:
        """Fewer pairs than this judge nothing; of a block of examples, less than half of them."""
        if self.guard_block_ms is None:
            return (self.guard_block_every + 1) // 2
        return self.pairs_min

    def units(self) -> list[Any]:
        """What evidence, and the losses on slices, are sums by: begun with others, they are void.

        The first two are the block's.
        """
        return [self.block_ms, self.block_every, self.slice_margin]

    def evidence(self) -> Evidence:
        """Evidence that has seen nothing."""
        return Evidence(
            self.block_ms,
            self.block_every,
            maturity_ms=self.maturity_ms,
            pairs_min=self.pairs_min if self.block_ms is not None else None,
            needed=threshold(self.slots, self.alpha),
            renewal=self.renewal,
        )

    def slice_losses(self) -> SliceLosses:
        """Losses by slice, of none so far."""
        return SliceLosses(
            self.slice_margin, self.block_ms, max(1, self.block_every), self.maturity_ms
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the lines lost on one example that was predicted in the present reign.

    Attributes:
        own_loss: of the champion's own answer; None if it had none.
        losses: of each challenger that may be compared with it, by line.
    """

    own_loss: float | None
    losses: dict[str, float]


class Contest:
    """The champion against its challengers.

    `has_new_vote` says whether the last example closed a block of evidence.

    Args:
        rules: of the pipeline.
        revisable: whether labels may be corrected.
    """

    def __init__(self, rules: Rules, *, revisable: bool = False) -> None:
        self._rules = rules
        self._is_revisable = revisable
        self._loss = loss_of(rules.kind)
        self._champion = ""
        self._first_version = 0
        self.has_new_vote = False
        self._evidence: dict[str, Evidence] = {}
        # By line, where slices are declared.
        self._slices: dict[str, SliceLosses] = {}
        # By line: a version, and the first and the last instant at which it stayed by a fault.
        self._stays: dict[str, list[list[int]]] = {}
        self._instant = -1
        # The newest prediction; by line that begins within a reign, the newest one before it.
        self._newest_ms = -1
        self._since: dict[str, int] = {}

    @property
    def first_version(self) -> int:
        """The version of the champion's line at which the present reign began."""
        return self._first_version

    def start(self, champion: str, challengers: Iterable[str]) -> None:
        """Begin anew: another line serves, from this snapshot on.

        Args:
            champion: the snapshot that serves from now on, `name@version`.
            challengers: the other lines.
        """
        self._champion, self._first_version = line_of(champion), version_of(champion)
        self._evidence = {line: self._rules.evidence() for line in challengers}
        self._slices, self._since = {}, {}
        if self._is_revisable:
            # A pair of a former reign is in none of this one's, though the same snapshot served.
            self._since = dict.fromkeys(self._evidence, self._newest_ms)

    def renew(self, challengers: Iterable[str]) -> None:
        """Go on with these challengers: begin for who is new, and forget who dropped out."""
        former = self._evidence
        self._evidence = {line: former.get(line) or self._rules.evidence() for line in challengers}
        self._slices = {line: e for line, e in self._slices.items() if line in self._evidence}
        self._since = {
            line: self._since.get(line, -1) if line in former else self._newest_ms
            for line in self._evidence
            if line not in former or line in self._since
        }

    def refresh(self, version: int, faults: Iterable[str]) -> None:
        """Take note of a refresh.

        Args:
            version: its instant.
            faults: the snapshots that stay although they were to be renewed, `name@version` each.
        """
        for model in faults:
            stays = self._stays.setdefault(line_of(model), [])
            if stays and stays[-1][0] == version_of(model) and stays[-1][2] == self._instant:
                stays[-1][2] = version
            else:
                stays.append([version_of(model), version, version])
                del stays[:-STAYS_MAX]
        self._instant = version

    def is_comparable(self, model: str, other: str) -> bool:
        """Whether two snapshots are of equal age, or of unequal by the older one's own fault.

        Args:
            model: a snapshot, `name@version`.
            other: another line's, likewise.
        """
        versions = version_of(model), version_of(other)
        if versions[0] == versions[1]:
            return True
        older, newest = (model, versions[1]) if versions[0] < versions[1] else (other, versions[0])
        return any(
            stayed == version_of(older) and first <= newest <= last
            for stayed, first, last in self._stays.get(line_of(older), ())
        )

    @property
    def lines(self) -> list[str]:
        """The challengers that evidence is gathered for."""
        return list(self._evidence)

    def add(
        self, example: Example, watermark_ms: int, slices: Sequence[str] = ()
    ) -> Comparison | None:
        """Take in an example.

        Args:
            example: the newest one, with the answers of all that shadowed.
            watermark_ms: of the examples.
            slices: that it is in.

        Returns:
            What was compared; None where it was predicted in another reign.
        """
        prediction, label = example.prediction, example.label
        if self._is_revisable and prediction.ts > self._newest_ms:
            self._newest_ms = prediction.ts
        # Only a vote can make evidence sufficient, and asking costs more than all that follows.
        self.has_new_vote = False
        version = version_of(prediction.model)
        if line_of(prediction.model) != self._champion or version < self._first_version:
            return None  # made in another's reign, or in an earlier one of this line
        own_loss = self._loss(label, prediction.own_answer)
        losses: dict[str, float] = {}
        for line, evidence in self._evidence.items():
            shadow = prediction.shadows.get(line)
            if shadow is not None and self.is_comparable(prediction.model, shadow.model):
                loss = self._loss(label, shadow.prediction)
                if loss is not None:
                    losses[line] = loss
                    if own_loss is not None:
                        evidence.add(prediction.ts, own_loss - loss)
                        if slices:
                            self._slices_of(line).add(prediction.ts, slices, loss, own_loss)
            if evidence.close(watermark_ms):
                self.has_new_vote = True
        for slice_losses in self._slices.values():
            slice_losses.close(watermark_ms)
        return Comparison(own_loss, losses)

    def revise(
        self,
        example: Example,
        former: LabelValue,
        watermark_ms: int,
        slices: Sequence[str] = (),
    ) -> None:
        """Let the label of an example take the place of a former one, in the blocks that are open.

        Blocks that the watermark ends are not: they are closed by the next example that counts.

        Args:
            example: with the answers of all that shadowed.
            former: the label by which its pairs were taken in.
            watermark_ms: of the examples.
            slices: that it is in.
        """
        self.has_new_vote = False
        prediction, label = example.prediction, example.label
        version = version_of(prediction.model)
        if line_of(prediction.model) != self._champion or version < self._first_version:
            return
        own_before, own_after = (
            self._loss(each, prediction.own_answer) for each in (former, label)
        )
        for line, evidence in self._evidence.items():
            shadow = prediction.shadows.get(line)
            if shadow is None or not self.is_comparable(prediction.model, shadow.model):
                continue
            before, after = (self._loss(each, shadow.prediction) for each in (former, label))
            if own_before is None or own_after is None or before is None or after is None:
                continue
            if prediction.ts <= self._since.get(line, -1):
                evidence.miss_correction()
                continue
            evidence.revise(prediction.ts, own_before - before, own_after - after, watermark_ms)
            if slices and line in self._slices:
                self._slices[line].revise(
                    prediction.ts, slices, (before, own_before), (after, own_after), watermark_ms
                )

    def _slices_of(self, line: str) -> SliceLosses:
        if line not in self._slices:
            self._slices[line] = self._rules.slice_losses()
        return self._slices[line]

    def doubt(self, line: str) -> SliceDoubt | None:
        """What a challenger loses on a slice, more than is borne; None: nothing that is known."""
        slice_losses = self._slices.get(line)
        return None if slice_losses is None else slice_losses.doubt()

    def suffices(self, line: str) -> bool:
        """Whether the evidence for a challenger suffices to replace the champion."""
        rules = self._rules
        evidence = self._evidence.get(line)
        return evidence is not None and ready(evidence, rules.slots, rules.alpha, rules.gain_min)

    def winner(self, able: Iterable[str]) -> str | None:
        """The one of these for which the evidence suffices; of several the one with the most."""
        able = [line for line in able if self.suffices(line)]
        return max(able, key=lambda line: self._evidence[line].e_value, default=None)

    def report(self, line: str) -> dict[str, Any] | None:
        """The evidence for a challenger; None for what is no challenger."""
        evidence = self._evidence.get(line)
        if evidence is None:
            return None
        return {**evidence.report(), "needed": threshold(self._rules.slots, self._rules.alpha)}

    def dump(self) -> dict[str, Any]:
        """The state, as JSON can hold it."""
        return {
            "champion": f"{self._champion}@{self._first_version}",
            "rules": self._rules.units(),
            "evidence": {line: evidence.dump() for line, evidence in self._evidence.items()},
            **({"slices": {k: v.dump() for k, v in self._slices.items()}} if self._slices else {}),
            **({"stays": self._stays, "instant": self._instant} if self._stays else {}),
            **({"since": self._since} if self._since else {}),
            **({"newest": self._newest_ms} if self._is_revisable else {}),
        }

    def load(self, state: dict[str, Any], is_counted: Callable[[str], bool] | None = None) -> None:
        """Take up a dumped state.

        Args:
            state: what `dump` gave.
            is_counted: tells whether a slice is declared still; None: none is.
        """
        self.start(state["champion"], state["evidence"])
        # A former release kept none, and refused to start with others.
        units = state.get("rules", self._rules.units())
        if units[:2] == self._rules.units()[:2]:
            for line, evidence_state in state["evidence"].items():
                self._evidence[line].load(evidence_state)
        is_as_before = units == self._rules.units()
        for line, slices in state.get("slices", {}).items() if is_as_before else ():
            counted = {k: v for k, v in slices.items() if is_counted is not None and is_counted(k)}
            if counted:
                self._slices_of(line).load(counted)
        # A former release renewed all lines at once, or none.
        self._stays, self._instant = state.get("stays", {}), state.get("instant", -1)
        self._since, self._newest_ms = dict(state.get("since", {})), state.get("newest", -1)
