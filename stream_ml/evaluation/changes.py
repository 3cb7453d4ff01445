"""Has the loss of what is served changed for the worse? A test that may run for ever.

Theory of operation:

1. What is tested is not the loss itself but its *surplus*: the loss less what the answer claimed
   that it would be. A probability p of a calibrated model claims a Brier loss of p (1 - p), so
   hours, seasons and inputs that are hard, and are known to be, are no change (the excess is
   Spiegelhalter's: 1986, "Probabilistic prediction in patient management and clinical trials",
   Statistics in Medicine 5). What makes no such claim (regression) has a claim of 0.
2. The *bound* is the mean surplus of the past, twice its standard error more, and a margin, which
   is a share of the mean loss; and where stretches of `BLOCK_LABELS` differ by more than the luck
   of single labels explains, as days do that share their weather, `SPREADS` times the standard
   deviation of that. The past is remembered over about `MEMORY` labels, and a stretch becomes part
   of it only later, by an eighth of it: what is being tested cannot excuse itself, nor what comes
   little by little, over days, before it is detected.
3. For each start and each of four stakes a bet is held on "the surplus is above the bound": its
   factor 1 + stake (surplus - bound) has an expectation of at most 1 if it is not, whatever came
   before. The sum over all starts needs one number per stake, M <- (M + 1) factor (the
   Shiryaev-Roberts sum: Shiryaev 1963, Roberts 1966), and M less the number of labels is then a
   supermartingale. So while the conditional mean of the surplus stays within the bound, the mean
   number of labels until a detection is at least `run_length` (an e-detector: Shin, Ramdas &
   Rinaldo 2022, "E-detectors: a nonparametric framework for sequential change detection",
   arXiv 2203.03532).
4. After a detection the past is forgotten, and learned anew from what follows. Only how much
   stretches differ is kept, to which what was detected belongs: a world that has its bad days
   alarms at the first of them, and at those that are worse.

Every step is +, -, *, / and sqrt, each rounded as IEEE 754 says: equal on every platform.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["USUAL_AFTER", "LossChange", "ServedLoss"]

RUN_LENGTH = 1_000_000
# So many labels teach what is usual before anything is tested.
FIRST_LABELS = 512
BLOCK_LABELS = 64
# How many blocks wait before they become part of the past: an eighth of it, in these bounds. What
# grows little by little would pass for usual before it is detected, if few waited.
LAG_SHARE = 8
LAG_BLOCKS_MIN, LAG_BLOCKS_MAX = 4, 32
MEMORY = 20_000
SPREADS = 3.0
# Over about how many blocks stretches are compared: a single change hardly widens the bound.
SPREAD_BLOCKS = 200.0
# How far a block may count as better than the past, in standard deviations of its luck.
RELIEF = 1.5
# The share of the mean loss by which it may grow, and the least that is worth a word.
MARGIN = 0.25
MARGIN_MIN = 0.002
# An error that is further off than so many usual ones teaches no more of what is usual.
OUTLIER = 8.0
# How fast the surplus of the moment follows, once a change has been detected.
RECENT_WEIGHT = 1 / 128
# A change that has lasted so long is what is usual now.
USUAL_AFTER = 10_000
STAKES = (0.25, 0.5, 1.0, 2.0)
# Up to this sum of bound and claim the largest stake cannot lose more than all.
CLAIM_FREE = 0.5


class LossChange:
    """A detector of a mean loss that has grown, on losses in [0, 1], of O(1) state.

    While the surplus of each label (its loss less the claim), given all before, is expected to be
    within the mean of the past and the margin, a detection comes after `run_length` labels on
    average or later.

    Args:
        margin: by what share of its mean the loss may grow.
        run_length: the mean number of labels between false detections, at least.

    Attributes:
        is_high: whether the loss has changed and is not what it was before: from a detection
            until the surplus is within the former bound again, or has been beyond it for 10,000
            labels, and is usual then.

    >>> change = LossChange()
    >>> quiet = [change.add(0.1 + 0.1 * (n % 2)) for n in range(5_000)]
    >>> loud = [change.add(0.6 - 0.2 * (n % 2)) for n in range(100)]
    >>> any(quiet), loud.index(True)
    (False, 26)
    """

    __slots__ = (
        "_block",
        "_bound",
        "_cusum",
        "_former",
        "_means",
        "_pending_blocks",
        "_spread",
        "_sums",
        "_weight",
        "is_high",
        "margin",
        "run_length",
    )

    def __init__(self, margin: float = MARGIN, run_length: int = RUN_LENGTH) -> None:
        self.margin = margin
        self.run_length = run_length
        self.is_high = False
        # Of the last change: the bound before it, the recent surplus, the labels since then; and
        # for the report the mean loss before it, the labels that showed it, and their loss.
        self._former = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        # The mean of the squares of blocks' distances from the past before them, less what the
        # luck of their labels comes to.
        self._spread = 0.0
        self._start()

    def _start(self) -> None:
        self._sums = [0.0, 0.0, 0.0, 0.0]
        self._bound: float | None = None
        # What went beyond the bound since that was last nothing: its sum, in labels, their loss.
        self._cusum = [0.0, 0.0, 0.0]
        # Of the open block: labels, and the sums of surplus, its square, and loss.
        self._block = [0.0, 0.0, 0.0, 0.0]
        self._pending_blocks: list[list[float]] = []
        self._weight = 0.0
        # Of the past: the means of surplus, its square, and loss.
        self._means = [0.0, 0.0, 0.0]

    def add(self, loss: float, claim: float = 0.0) -> bool:
        """Take in a loss; whether a change has just been detected.

        Args:
            loss: from 0 to 1.
            claim: what the answer itself made one expect, known before the label; 0 to 1.
        """
        surplus = loss - claim
        block = self._block
        block[0] += 1.0
        block[1] += surplus
        block[2] += surplus * surplus
        block[3] += loss
        if self.is_high:
            self._follow(surplus)
        if self._bound is not None and self._bet(surplus, claim, loss):
            self._detect()
            return True
        if block[0] == BLOCK_LABELS:
            self._close_block()
        return False

    def _bet(self, surplus: float, claim: float, loss: float) -> bool:
        """Whether the bets have made of one coin a label as many as the run length."""
        bound = self._bound
        assert bound is not None, "there are no bets before there is a past"
        x = surplus - bound
        a, b, c, d = self._sums
        p, q, r, s = STAKES
        if claim + bound > CLAIM_FREE:
            limit = 1.0 / (claim + bound)
            p, q, r, s = (min(stake, limit) for stake in STAKES)
        a, b = (a + 1.0) * (1.0 + p * x), (b + 1.0) * (1.0 + q * x)
        c, d = (c + 1.0) * (1.0 + r * x), (d + 1.0) * (1.0 + s * x)
        self._sums = [a, b, c, d]
        beyond, labels, total = self._cusum
        is_beyond = beyond + x > 0.0
        self._cusum = [beyond + x, labels + 1.0, total + loss] if is_beyond else [0.0, 0.0, 0.0]
        return a + b + c + d >= len(STAKES) * self.run_length

    def _close_block(self) -> None:
        self._pending_blocks.append(self._block)
        self._block = [0.0, 0.0, 0.0, 0.0]
        is_first = self._bound is None
        if is_first and len(self._pending_blocks) * BLOCK_LABELS < FIRST_LABELS:
            return
        for _ in range(len(self._pending_blocks) - (0 if is_first else self._lag())):
            block = self._pending_blocks.pop(0)
            if not is_first:
                self._compare(block)
            labels, *totals = block
            self._weight = min(self._weight + labels, MEMORY)
            share = labels / self._weight
            self._means = [
                mean + share * (total / labels - mean)
                for mean, total in zip(self._means, totals, strict=True)
            ]
        surplus, square, loss = self._means
        variance = max(0.0, square - surplus * surplus)
        margin = max(MARGIN_MIN, self.margin * loss)
        error = math.sqrt(variance / self._weight)
        # A past that was better than it claimed is no reason to ask for more of what comes.
        self._bound = max(0.0, surplus) + 2.0 * error + margin
        self._bound += SPREADS * math.sqrt(max(0.0, self._spread))

    def _lag(self) -> int:
        """How many blocks are not part of the past yet."""
        known = int(self._weight) // BLOCK_LABELS
        return min(LAG_BLOCKS_MAX, max(LAG_BLOCKS_MIN, known // LAG_SHARE))

    def _compare(self, block: list[float]) -> None:
        """See how far a block is from the past before it."""
        labels, total, *_ = block
        surplus, square, _ = self._means
        luck = max(0.0, square - surplus * surplus) / labels
        # How much worse the past was, after a change, is no measure of what comes.
        distance = max(total / labels - surplus, -RELIEF * math.sqrt(luck))
        self._spread += (distance * distance - luck - self._spread) / SPREAD_BLOCKS

    def _detect(self) -> None:
        assert self._bound is not None, "nothing is detected before there is a past"
        if not self.is_high:
            _, labels, total = self._cusum
            self._former = [self._bound, 1.0, 0.0, self._means[2], labels, total]
        self.is_high = True
        for block in self._pending_blocks:
            self._compare(block)
        self._start()

    def _follow(self, surplus: float) -> None:
        """See whether a change is over."""
        bound, recent, age, *_ = self._former
        self._former[1] = recent = recent + RECENT_WEIGHT * (surplus - recent)
        self._former[2] = age + 1.0
        self.is_high = recent > bound and age + 1.0 < USUAL_AFTER

    @property
    def age(self) -> int:
        """How many labels ago the last change was detected, up to where it was over."""
        return int(self._former[2])

    def report(self) -> dict[str, Any]:
        """The figures of the last change, for people: all of them of the loss.

        Returns:
            `usual`: the mean loss before it; `loss`: the mean since it seems to have begun, up to
            its detection; `labels`: how many those are.
        """
        *_, usual, labels, total = self._former
        return {
            "usual": usual,
            "loss": total / labels if labels else None,
            "labels": int(labels),
        }

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it; the configuration is the constructor's and not in it."""
        return [
            self.is_high,
            list(self._former),
            list(self._sums),
            self._bound,
            list(self._cusum),
            list(self._block),
            [list(block) for block in self._pending_blocks],
            self._weight,
            list(self._means),
            self._spread,
        ]

    def load(self, state: list[Any]) -> None:
        """Go on from a dump, bit for bit."""
        self.is_high, former, sums, self._bound, cusum, block, blocks, *rest = state
        self._weight, means, self._spread = rest
        self._former, self._sums, self._cusum = list(former), list(sums), list(cusum)
        self._block, self._means = list(block), list(means)
        self._pending_blocks = [list(each) for each in blocks]


class ServedLoss:
    """The losses of what is served, of any kind of task, under a `LossChange`.

    Binary: the Brier loss, whose claim is p (1 - p). Multiclass: half of it, and of 1 - Σ p².
    Regression: e / (e + s), e being the absolute error and s what it is on average, over about the
    last 20,000 labels; nothing is claimed.

    Args:
        kind: `binary`, `multiclass` or `regression`.

    >>> served = ServedLoss("binary")
    >>> any([served.add(0.2, 0.64 if n % 5 == 0 else 0.04) for n in range(2_000)])
    False
    >>> sum(served.add(0.2, 0.64) for n in range(100)), served.change.is_high
    (1, True)
    """

    __slots__ = ("_labels", "_scale", "change", "kind")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.change = LossChange()
        self._labels = 0
        self._scale = 0.0

    def add(self, answer: Any, loss: float) -> bool:
        """Take in an answer that was served; whether a change has just been detected.

        Args:
            answer: what was served, of the kind of the task.
            loss: its loss, as `evaluation.scores.loss` has it.
        """
        if self.kind == "binary":
            return self.change.add(loss, answer * (1.0 - answer))
        if self.kind == "multiclass":
            claim = (1.0 - math.fsum(p * p for p in answer.values())) / 2.0
            return self.change.add(loss / 2.0, claim)
        return self.change.add(self._squash(loss))

    def _squash(self, error: float) -> float:
        scale = self._scale
        self._labels = min(self._labels + 1, MEMORY)
        capped = min(error, OUTLIER * scale) if self._labels > BLOCK_LABELS else error
        self._scale = scale + (capped - scale) / self._labels
        return error / (error + scale) if error else 0.0

    def dump(self) -> list[Any]:
        """The state, as JSON can hold it."""
        return [self._labels, self._scale, self.change.dump()]

    def load(self, state: list[Any]) -> None:
        """Go on from a dump, bit for bit."""
        self._labels, self._scale, change = state
        self.change.load(change)
