"""The contest of lines: evidence for each challenger, and a guard for the new champion.

Theory of operation:

1. *Evidence* compares line with line, from predictions made since the present champion's line
   took over. It runs on over refreshes and starts anew when another line takes over. Only pairs of
   equal age count, that is snapshots that were offered to be renewed at the same instant: freshness
   must not pass for quality. So nothing is gathered after a rollback until there is a refresh. But
   who could not be renewed for a fault of its own (its learner has diverged, or it published
   nothing) is not spared by it: its old snapshot stands against the others' new ones, for being
   fresh is a quality, too. For which instants that is so is kept with the snapshot (`stays`).
2. The *guard* compares what serves with the predecessor snapshot, since the switch. It looks for
   harm, not for proof: one whole block in which the new one loses more than `rollback_loss` a
   pair, or an answer that the new one owes and the old one has. Once a block was judged harmless
   the watch is over, and the next refresh brings another predecessor. So every replacement is
   judged by a whole block, while of refreshes that come faster than `guard_block` + `maturity`
   only some are: the others have been renewed again before their labels are in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_ml.evaluation.evidence import RENEWAL, Blocks, Evidence, ready, threshold
from stream_ml.evaluation.scores import loss_of
from stream_ml.records import line_of, version_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_ml.records import Example, Shadow

__all__ = ["Contest", "Harm", "Rules"]

# How many of a line's stays are remembered: each ends with a refresh that renews it.
STAYS_MAX = 8


@dataclass(frozen=True, slots=True)
class Rules:
    """The evidence that is asked for, and the harm that is borne.

    Args:
        kind: of the task, for its loss.
        block_ms: a block of evidence; `block_every` counts pairs where it is None.
        guard_block_ms: a block that the guard judges.
        maturity_ms: how long after its end a block waits for labels.
        pairs_min: fewer pairs than this do not vote.
        slots, alpha, gain_min: replace when E >= slots / alpha and the mean gain is that.
        rollback_loss: what a pair may lose in a guarded block; None guards nothing.
        renewal: in how many votes alpha is put down once more; None: once in a reign.
    """

    kind: str
    block_ms: int | None
    block_every: int
    guard_block_ms: int
    maturity_ms: int
    pairs_min: int
    slots: int
    alpha: float
    gain_min: float
    rollback_loss: float | None
    renewal: int | None = RENEWAL

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


@dataclass(frozen=True, slots=True)
class Harm:
    """The harm that the guard saw, and its figures."""

    reason: str
    evidence: dict[str, Any]


class Contest:
    """The champion against its challengers, and against what it replaced.

    `has_new_vote` says whether the last example closed a block of evidence.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._loss = loss_of(rules.kind)
        self._champion = ""
        self._first_version = 0
        self.has_new_vote = False
        self._evidence: dict[str, Evidence] = {}
        # By line: a version, and the first and the last instant at which it stayed by a fault.
        self._stays: dict[str, list[list[int]]] = {}
        self._instant = -1
        self._guard: Blocks | None = None
        # The block of the switch is only a part of one: a few hours' luck, that judges nothing.
        self._guarded_from: int | None = None

    def start(self, champion: str, challengers: Iterable[str]) -> None:
        """Begin anew: another line serves, from this snapshot on.

        Args:
            champion: the snapshot that serves from now on, `name@version`.
            challengers: the other lines.
        """
        self._champion, self._first_version = line_of(champion), version_of(champion)
        self._evidence = {line: self._rules.evidence() for line in challengers}

    def renew(self, challengers: Iterable[str]) -> None:
        """Go on with these challengers: begin for who is new, and forget who dropped out."""
        former = self._evidence
        self._evidence = {line: former.get(line) or self._rules.evidence() for line in challengers}

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

    def watch(self, *, active: bool) -> None:
        """Watch what serves from now on against a predecessor, or watch no more."""
        guards = active and self._rules.rollback_loss is not None
        block_ms, maturity_ms = self._rules.guard_block_ms, self._rules.maturity_ms
        self._guard = Blocks(block_ms, maturity_ms=maturity_ms) if guards else None
        self._guarded_from = None

    @property
    def lines(self) -> list[str]:
        """The challengers that evidence is gathered for."""
        return list(self._evidence)

    @property
    def watching(self) -> bool:
        """Whether a predecessor is still needed."""
        return self._guard is not None

    def add(self, example: Example, watermark_ms: int, predecessor: str | None) -> Harm | None:
        """Take in an example; `predecessor` is the snapshot that the guard compares with.

        Args:
            example: the newest one, with the answers of all that shadowed.
            watermark_ms: of the examples.
            predecessor: the snapshot that the guard compares with, `name@version`; None: no guard.

        Returns:
            What the guard found, if it found harm.
        """
        prediction, label = example.prediction, example.label
        # Only a vote can make evidence sufficient, and asking costs more than all that follows.
        self.has_new_vote = False
        version = version_of(prediction.model)
        if line_of(prediction.model) != self._champion or version < self._first_version:
            return None  # made in another's reign, or in an earlier one of this line
        champion_loss = self._loss(label, prediction.own_answer)
        for line, evidence in self._evidence.items():
            shadow = prediction.shadows.get(line)
            if (
                champion_loss is not None
                and shadow is not None
                and self.is_comparable(prediction.model, shadow.model)
            ):
                challenger_loss = self._loss(label, shadow.prediction)
                if challenger_loss is not None:
                    evidence.add(prediction.ts, champion_loss - challenger_loss)
            if evidence.close(watermark_ms):
                self.has_new_vote = True
        shadow = prediction.shadows.get("predecessor")
        if self._guard is None or shadow is None or shadow.model != predecessor:
            return None
        return self._compare(example, shadow, champion_loss, watermark_ms)

    def _compare(
        self, example: Example, shadow: Shadow, champion_loss: float | None, watermark_ms: int
    ) -> Harm | None:
        assert self._guard is not None, "compared only while watching"
        prediction = example.prediction
        predecessor_loss = self._loss(example.label, shadow.prediction)
        if predecessor_loss is None:
            return None
        if champion_loss is None:
            reason = f"{prediction.model} has no answer where {shadow.model} has one"
            return Harm(reason, {"event_id": prediction.event_id})
        block = prediction.ts // self._rules.guard_block_ms
        if self._guarded_from is None:
            # A clock that is years ahead must not put the guard off for as long.
            current_block = watermark_ms // self._rules.guard_block_ms
            self._guarded_from = min(block, current_block + 1) + 1
        if block >= self._guarded_from:
            self._guard.add(prediction.ts, predecessor_loss - champion_loss)
        return self._judge(watermark_ms)

    def _judge(self, watermark_ms: int) -> Harm | None:
        assert self._guard is not None, "judged only while watching"
        bound = self._rules.rollback_loss
        for block in self._guard.close(watermark_ms):
            if block.pairs < self._rules.pairs_min:
                continue
            self._guard = None
            if bound is not None and -block.mean > bound:
                reason = (
                    f"lost {-block.mean:.4f} more than its predecessor per example in one block "
                    f"of {block.pairs}; {bound} is borne"
                )
                return Harm(reason, {"block_pairs": block.pairs, "block_loss": -block.mean})
            break
        return None

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
            "evidence": {line: evidence.dump() for line, evidence in self._evidence.items()},
            **({"stays": self._stays, "instant": self._instant} if self._stays else {}),
            "guard": None if self._guard is None else self._guard.dump(),
            "guarded_from": self._guarded_from,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self.start(state["champion"], state["evidence"])
        for line, evidence_state in state["evidence"].items():
            self._evidence[line].load(evidence_state)
        # A former release renewed all lines at once, or none.
        self._stays, self._instant = state.get("stays", {}), state.get("instant", -1)
        self.watch(active=state["guard"] is not None)
        if self._guard is not None:
            self._guard.load(state["guard"])
        self._guarded_from = state["guarded_from"]
