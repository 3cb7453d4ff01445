"""Is the challenger better? Evidence that may be looked at after every block, for ever.

Theory of operation:

1. A *pair* is what champion and challenger lost on the same example; its *difference* is the
   champion's loss less the challenger's: above 0, the challenger did better. Only pairs in which
   both lines answered, under the present champion, are to be added: that is the caller's part.
2. Predictions made on one day share its luck, so the unit of evidence is not the pair but a
   *block* of event time. A pair belongs to the block of its prediction's time, and a block closes
   when the watermark of the examples has passed its end by `maturity_ms`, so that labels that
   come fast count no more than slow ones. What comes later is counted and does not vote.
3. A closed block casts one vote: the sign of its summed difference. Ties and blocks of too few
   pairs are dropped. Sums are exact, so that the order in which pairs come cannot turn a vote.
4. Votes are weighed by an *e-value*: what a fair game would have made of the stakes on "more than
   half of the blocks are won" (Ville 1939, "Étude critique de la notion de collectif"; Ramdas,
   Grünwald, Vovk & Shafer 2023, "Game-theoretic statistics and safe anytime-valid inference",
   Statistical Science 38). A coin is staked at the first vote and a little more at each later one,
   so that what was lost long ago holds up nobody; `wealth` says how, and what it promises.
5. How much better a challenger is, is its *gain*: the mean difference of a pair since the lead
   (blocks won less blocks lost) was last at its lowest. Over the whole reign it would be a debt.
6. That presumes that luck is not shared beyond a block. `variance_ladder` shows whether it is.

Here nothing decides: `ready` says that the evidence suffices, and evaluate does the rest.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stream_ml.evaluation.wealth import Wealth

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "Blocks",
    "ClosedBlock",
    "Evidence",
    "Gain",
    "Rung",
    "e_value",
    "log_e_value",
    "ready",
    "suggested_block",
    "t_quantile",
    "threshold",
    "variance_ladder",
]

PAIRS_MIN = 50
# 3 slots at an alpha of .05.
NEEDED = 60.0
# Five years of blocks of three days: alpha doubles in them, and is six fifths in the first.
RENEWAL = 600
# The terms of the series are rescaled from here on, long before they could overflow.
RESCALE_BITS = 900
# Terms that are left out of the series are below the rounding of its sum.
NEGLIGIBLE = 2.0**-70
# The 97.5 % points of Student's t with 1 to 4 degrees of freedom, where the expansion is poor.
T_SMALL = (12.706204736174694, 4.302652729749462, 3.1824463052837078, 2.7764451051977934)
Z = 1.959963984540054
# A variance from fewer blocks is off by a quarter and more.
RUNG_BLOCKS_MIN = 30
# About what a variance from 30 to 100 blocks is off by: less growth cannot be told from none.
GROWTH_MAX = 1.25


def e_value(wins: int, losses: int) -> float:
    """The evidence in so many won and lost blocks, of which only the first brought a stake.

    It is what `Wealth` without renewal comes to for ever finer chances p: tests hold it to that.

    A stake of 1 is spread evenly over all p in [1/2, 1] and bet on each p's being the chance of
    a win: E = 2 ∫ (2p)^w (2 - 2p)^l dp over [1/2, 1], which is
    2^(w+l+1) [B(1+w, 1+l) - B½(1+w, 1+l)] with the incomplete beta function B½. (The two-sided
    mixture over [0, 1] is Ville's and Robbins's: Robbins 1970, "Statistical methods related to
    the law of the iterated logarithm", Annals of Mathematical Statistics 41.) The incomplete
    beta is a binomial tail, so E is a finite sum of positive terms,

        E = 1/(l+1) [1 + w/(l+2) + w(w-1)/((l+2)(l+3)) + ...],

    which neither cancels nor, summed with an exponent of its own, overflows. A win turns E into
    (2(w+1) E + 1) / (w+l+2), a loss into (2(l+1) E - 1) / (w+l+2): the mean of the two is E.

    Args:
        wins: blocks that the challenger won.
        losses: blocks that it lost.

    Returns:
        1 for no votes; never more than the largest float.

    >>> round(e_value(9, 0), 9), e_value(0, 0), round(e_value(0, 10), 3)
    (102.3, 1.0, 0.091)
    """
    total, exponent = _series(wins, losses)
    try:
        return math.ldexp(total / (losses + 1), exponent)
    except OverflowError:
        return sys.float_info.max


def log_e_value(wins: int, losses: int) -> float:
    """The natural logarithm of `e_value`, for any number of votes.

    >>> round(log_e_value(100_000, 0) / 100_000, 3)  # each win doubles, or nearly so
    0.693

    Args:
        wins: blocks that the challenger has won.
        losses: blocks that it has lost.
    """
    total, exponent = _series(wins, losses)
    return math.log(total) - math.log(losses + 1) + exponent * math.log(2)


def _series(wins: int, losses: int) -> tuple[float, int]:
    """(l+1) E as a float and a power of two."""
    assert wins >= 0 <= losses, f"votes cannot be negative: {wins} and {losses}"
    term = total = 1.0
    exponent = 0
    for i in range(wins):
        ratio = (wins - i) / (losses + 2 + i)
        term *= ratio
        total += term
        if ratio < 1.0 and term < total * NEGLIGIBLE:
            break
        if total >= 2.0**RESCALE_BITS:
            term = math.ldexp(term, -RESCALE_BITS)
            total = math.ldexp(total, -RESCALE_BITS)
            exponent += RESCALE_BITS
    return total, exponent


def threshold(slots: int, alpha: float) -> float:
    """The value that E has to reach: each of the slots is given its share of `alpha`.

    >>> threshold(3, 0.05)
    60.0

    Args:
        slots: how many challengers share `alpha`.
        alpha: the chance that any equal challenger ever wins, above 0 and below 1.
    """
    return slots / alpha


@dataclass(frozen=True, slots=True)
class ClosedBlock:
    """A block that no pair can join any more.

    Attributes:
        number: blocks of time count from the epoch, blocks of pairs from the last fresh start.
        pairs: how many pairs it holds.
        total: their summed difference.
    """

    number: int
    pairs: int
    total: float

    @property
    def mean(self) -> float:
        """The mean difference of a pair; what the guard looks at."""
        return self.total / self.pairs


class _Sum:
    """An exact sum: floats that do not overlap, least first.

    (Shewchuk 1997, "Adaptive precision floating-point arithmetic and fast robust geometric
    predicates", Discrete & Computational Geometry 18; `math.fsum` is the same algorithm.)
    """

    __slots__ = ("n", "partials")

    def __init__(self, n: int = 0, partials: Iterable[float] = ()) -> None:
        self.n = n
        self.partials = list(partials)

    def add(self, x: float) -> None:
        partials = []
        for y in self.partials:
            high = x + y
            low = y - (high - x) if abs(x) >= abs(y) else x - (high - y)
            if low:
                partials.append(low)
            x = high
        partials.append(x)
        self.partials = partials
        self.n += 1


class Blocks:
    """Pairs by block: of event time, or of a number of pairs.

    Memory: one sum per open block that holds a pair. Blocks of time are open from their first
    pair to `maturity_ms` after their end, so there are at most (`maturity_ms` + s) / `block_ms`
    + 2 of them, s being by how much a label's time may be past the watermark (the silence after
    which a partition is left out), and one for each pair of a clock that is further ahead. Of
    blocks of pairs, one is open between calls of `close`.

    Args:
        block_ms: the length of a block; None where pairs are counted.
        pairs_per_block: how many pairs are a block, where `block_ms` is None.
        maturity_ms: how long after its end a block of time stays open.

    Attributes:
        late_pairs: how many pairs came for a block that was closed.
        late_corrections: how many corrections did; where pairs are counted, all of them.

    >>> blocks = Blocks(100, maturity_ms=50)
    >>> for ts, difference in [(10, 0.5), (130, -0.25), (90, 0.25)]:
    ...     blocks.add(ts, difference)
    >>> blocks.close(149), blocks.close(150)
    ([], [ClosedBlock(number=0, pairs=2, total=0.75)])
    >>> blocks.add(95, 1.0)
    >>> blocks.late_pairs
    1
    """

    __slots__ = (
        "_block_ms",
        "_closed_before",
        "_maturity_ms",
        "_open",
        "_pair_count",
        "_pairs_per_block",
        "late_corrections",
        "late_pairs",
    )

    def __init__(
        self, block_ms: int | None, pairs_per_block: int = 0, *, maturity_ms: int = 0
    ) -> None:
        length = pairs_per_block if block_ms is None else block_ms
        if length < 1:
            name = "pairs_per_block" if block_ms is None else "block_ms"
            raise ValueError(f"{name}: expected at least 1, given {length}")
        if maturity_ms < 0:
            raise ValueError(f"maturity_ms: expected at least 0, given {maturity_ms}")
        self._block_ms = block_ms
        self._pairs_per_block = pairs_per_block
        self._maturity_ms = maturity_ms
        self._open: dict[int, _Sum] = {}
        self._closed_before = 0
        self._pair_count = 0
        self.late_pairs = self.late_corrections = 0

    def revise(
        self, prediction_ts: int, former: float, difference: float, watermark_ms: int
    ) -> None:
        """Correct a pair that was taken in, where its block is open.

        A block of a number of pairs does not say whose they are: nothing in it is corrected.

        Args:
            prediction_ts: the event's time, UTC milliseconds.
            former: the difference that was taken in.
            difference: the one that counts.
            watermark_ms: a block that it ends is past correction, closed already or not.
        """
        is_open = False
        if self._block_ms is not None:
            number = prediction_ts // self._block_ms
            end_number = (watermark_ms - self._maturity_ms) // self._block_ms
            closed_before = max(self._closed_before, end_number)
            is_open = number >= closed_before and number in self._open
        if not is_open:
            self.late_corrections += 1
            return
        block = self._open[number]
        block.add(-former)
        block.add(difference)
        block.n -= 2  # it is the pair that it was

    def add(self, prediction_ts: int, difference: float) -> None:
        """Take in a pair: when it was predicted, and the champion's loss less the challenger's.

        Args:
            prediction_ts: the event's time, UTC milliseconds.
            difference: the champion's loss less the challenger's, in the unit of the loss.
        """
        assert math.isfinite(difference), f"a difference of losses cannot be {difference}"
        if self._block_ms is None:
            number = self._pair_count // self._pairs_per_block
            self._pair_count += 1
        else:
            number = prediction_ts // self._block_ms
            if number < self._closed_before:
                self.late_pairs += 1
                return
        block = self._open.get(number)
        if block is None:
            block = self._open[number] = _Sum()
        block.add(difference)

    def close(self, watermark_ms: int) -> list[ClosedBlock]:
        """Close what can be closed, oldest first; a block without pairs is none."""
        # The blocks before this one are complete.
        if self._block_ms is None:
            end_number = self._pair_count // self._pairs_per_block
        else:
            end_number = (watermark_ms - self._maturity_ms) // self._block_ms
        if end_number <= self._closed_before:
            return []
        self._closed_before = end_number
        numbers = sorted(number for number in self._open if number < end_number)
        blocks = [(number, self._open.pop(number)) for number in numbers]
        return [ClosedBlock(number, b.n, math.fsum(b.partials)) for number, b in blocks]

    def reset(self) -> None:
        """Forget the open blocks; what was closed stays closed."""
        self._open = {}
        self.late_pairs = self.late_corrections = 0
        if self._block_ms is None:
            self._pair_count = self._closed_before = 0

    def dump(self) -> dict[str, Any]:
        """The state as plain JSON; the configuration is the constructor's and not in it."""
        return {
            "open": [
                [number, block.n, list(block.partials)] for number, block in self._open.items()
            ],
            "closed_before": self._closed_before,
            "taken": self._pair_count,
            "late_pairs": self.late_pairs,
            **({"late_corrections": self.late_corrections} if self.late_corrections else {}),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a dump, bit for bit."""
        self.late_corrections = state.get("late_corrections", 0)
        self._open = {number: _Sum(n, partials) for number, n, partials in state["open"]}
        self._closed_before = state["closed_before"]
        self._pair_count = state["taken"]
        self.late_pairs = state["late_pairs"]


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better the challenger is per example, with a 95 % interval where there is one."""

    mean: float
    low: float | None
    high: float | None


class Evidence:
    """The evidence for one challenger's line against the champion's, since the last fresh start.

    Args:
        block_ms: the length of a block; None where pairs are counted.
        pairs_per_block: how many pairs are a block, where `block_ms` is None.
        maturity_ms: how long after its end a block stays open: the horizon of the labels, unless
            they are known to be complete sooner.
        pairs_min: a block of fewer pairs does not vote. Default 50; 1 where pairs are counted.
        needed: the E that will be asked for; see `threshold`.
        renewal: in how many votes another whole coin is staked; None: the first one is the last.

    Attributes:
        wins: blocks that the challenger won.
        losses: blocks that it lost.
        ties: blocks in which the two lost the same.
        thin: blocks of fewer than `pairs_min` pairs.
        pairs: how many pairs lie in the blocks that were judged: all but the thin ones.
        lead: blocks won less blocks lost, since that was last at its lowest.
        run_pairs: how many pairs lie in the blocks that were judged since then.

    >>> evidence = Evidence(None, pairs_per_block=1)
    >>> for ts in range(9):
    ...     evidence.add(ts, 0.125)
    >>> blocks = evidence.close(9)
    >>> evidence.wins, round(evidence.e_value), ready(evidence, slots=3, alpha=0.05)
    (9, 102, True)
    """

    __slots__ = (
        "_blocks",
        "_moments",
        "_needed",
        "_pairs_min",
        "_renewal",
        "_run_blocks",
        "_total",
        "_wealth",
        "lead",
        "losses",
        "pairs",
        "run_pairs",
        "thin",
        "ties",
        "wins",
    )

    def __init__(
        self,
        block_ms: int | None,
        pairs_per_block: int = 0,
        *,
        maturity_ms: int = 0,
        pairs_min: int | None = None,
        needed: float = NEEDED,
        renewal: int | None = RENEWAL,
    ) -> None:
        self._blocks = Blocks(block_ms, pairs_per_block, maturity_ms=maturity_ms)
        if pairs_min is None:
            pairs_min = 1 if block_ms is None else PAIRS_MIN
        self._pairs_min = pairs_min
        self._needed, self._renewal = needed, renewal
        self._start()

    def _start(self) -> None:
        self.wins = self.losses = self.ties = self.thin = self.pairs = 0
        self._total = 0.0
        self._wealth = Wealth(self._needed, self._renewal)
        self.lead = 0
        self._start_run()

    def _start_run(self) -> None:
        self._run_blocks = self.run_pairs = 0
        # Over the run's blocks of n pairs that sum to s: the sums of s, s², s n, n².
        self._moments = [0.0, 0.0, 0.0, 0.0]

    @property
    def late_pairs(self) -> int:
        """How many pairs came for a block that was closed."""
        return self._blocks.late_pairs

    @property
    def e_value(self) -> float:
        """E of the votes so far."""
        return self._wealth.e_value

    @property
    def gain(self) -> Gain | None:
        """The mean difference per pair since the lead was at its lowest; None where there is none.

        The interval takes blocks as the units of chance: m = Σs / Σn has about the variance
        B/(B-1) Σ(s - m n)² / (Σn)² (the ratio estimate of cluster sampling: Cochran 1977,
        "Sampling Techniques"), with Student's t on B - 1 degrees of freedom. It shows the size of
        the effect and is right for one look at blocks fixed beforehand, from some ten on. The run
        begins where it suits the challenger, so it flatters a little: what may be looked at any
        time is E.
        """
        blocks = self._run_blocks
        if not blocks:
            return None
        s, ss, sn, nn = self._moments
        mean = s / self.run_pairs
        if blocks == 1:
            return Gain(mean, None, None)
        # Rounding may take a sum of squares that is zero a little below it.
        squares = max(0.0, ss - 2 * mean * sn + mean * mean * nn)
        error = math.sqrt(squares * blocks / (blocks - 1)) / self.run_pairs
        half = t_quantile(blocks - 1) * error
        return Gain(mean, mean - half, mean + half)

    @property
    def reign_gain(self) -> float | None:
        """The mean difference per pair over all judged blocks; None before the first of them."""
        return self._total / self.pairs if self.pairs else None

    def add(self, prediction_ts: int, difference: float) -> None:
        """Take in a pair: when it was predicted, and the champion's loss less the challenger's.

        Args:
            prediction_ts: the event's time, UTC milliseconds.
            difference: the champion's loss less the challenger's, in the unit of the loss.
        """
        self._blocks.add(prediction_ts, difference)

    def revise(
        self, prediction_ts: int, former: float, difference: float, watermark_ms: int
    ) -> None:
        """Correct a pair, where its block is open. Arguments: see `Blocks.revise`."""
        self._blocks.revise(prediction_ts, former, difference, watermark_ms)

    def miss_correction(self) -> None:
        """Count a correction of a pair that is not in this evidence."""
        self._blocks.late_corrections += 1

    def close(self, watermark_ms: int) -> list[ClosedBlock]:
        """Let the blocks that can be closed vote, oldest first; call it after every `add`.

        Where pairs are counted the watermark does not matter.
        """
        blocks = self._blocks.close(watermark_ms)
        for block in blocks:
            self._vote(block)
        return blocks

    def _vote(self, block: ClosedBlock) -> None:
        n, s = block.pairs, block.total
        if n < self._pairs_min:
            self.thin += 1
            return
        self.pairs += n
        self._total += s
        if s == 0:
            self.ties += 1
        else:
            won = s > 0
            self.wins += won
            self.losses += not won
            self._wealth.vote(won=won)
            self.lead = max(0, self.lead + (1 if won else -1))
        if not self.lead:
            self._start_run()
            return
        self._run_blocks += 1
        self.run_pairs += n
        for i, value in enumerate((s, s * s, s * n, float(n * n))):
            self._moments[i] += value

    def reset(self) -> None:
        """A fresh start, after a replacement; blocks that were closed stay closed."""
        self._blocks.reset()
        self._start()

    def report(self) -> dict[str, Any]:
        """The running figures, every one finite; what is undefined is None."""
        gain = self.gain or Gain(0.0, None, None)
        return {
            "wins": self.wins,
            "losses": self.losses,
            "ties": self.ties,
            "thin": self.thin,
            "pairs": self.pairs,
            "late_pairs": self.late_pairs,
            **({"late_corrections": late} if (late := self._blocks.late_corrections) else {}),
            "e_value": self.e_value,
            "error_bound": self._wealth.error_bound,
            "lead": self.lead,
            "run_pairs": self.run_pairs,
            "gain": gain.mean if self.run_pairs else None,
            "gain_low": gain.low,
            "gain_high": gain.high,
            "reign_gain": self.reign_gain,
        }

    def dump(self) -> dict[str, Any]:
        """The state as plain JSON; the configuration is the constructor's and not in it."""
        return {
            "blocks": self._blocks.dump(),
            "votes": [self.wins, self.losses, self.ties, self.thin],
            "pairs": self.pairs,
            "total": self._total,
            "bets": self._wealth.dump(),
            "run": [self.lead, self._run_blocks, self.run_pairs],
            "moments": list(self._moments),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a dump, bit for bit."""
        self._blocks.load(state["blocks"])
        self.wins, self.losses, self.ties, self.thin = state["votes"]
        self.pairs = state["pairs"]
        if "bets" not in state:
            # A former release kept moments of the reign, and E followed from the votes.
            self._total = state["moments"][0]
            self._wealth.load_votes(self.wins, self.losses)
            self.lead = 0
            self._start_run()
            return
        self._total = state["total"]
        self._wealth.load(state["bets"], self.wins + self.losses)
        self.lead, self._run_blocks, self.run_pairs = state["run"]
        self._moments = list(state["moments"])


def ready(evidence: Evidence, slots: int, alpha: float, gain_min: float = 0.0) -> bool:
    """Whether the challenger has shown that it is better, and by enough.

    Args:
        evidence: for the challenger.
        slots: how many challengers may replace the champion; each has `alpha` / `slots` to err.
        alpha: the chance that, at the first vote of a reign, any of `slots` challengers no better
            than the champion gets stakes that will ever suffice, as far as luck is not shared
            beyond a block; every `renewal` votes add as much.
        gain_min: the least mean gain per example that is worth a replacement.
    """
    gain = evidence.gain
    if gain is None or gain.mean < gain_min:
        return False
    return evidence.e_value >= threshold(slots, alpha)


def t_quantile(freedom: int) -> float:
    """The 97.5 % point of Student's t, to 1e-4 (Abramowitz & Stegun 1964, 26.7.5)."""
    if freedom <= len(T_SMALL):
        return T_SMALL[freedom - 1]
    z2, f = Z * Z, freedom
    terms = (
        (z2 + 1) / (4 * f),
        ((5 * z2 + 16) * z2 + 3) / (96 * f**2),
        (((3 * z2 + 19) * z2 + 17) * z2 - 15) / (384 * f**3),
        ((((79 * z2 + 776) * z2 + 1482) * z2 - 1920) * z2 - 945) / (92_160 * f**4),
    )
    return Z * (1 + sum(terms))


@dataclass(frozen=True, slots=True)
class Rung:
    """How much luck the pairs of blocks of one length share.

    Attributes:
        block_ms: the length.
        blocks: how many blocks hold a pair.
        inflation: the variance of the blocks' sums over what it would be if pairs were
            independent; 1 if they are.
        correlation: of the sums of neighbouring blocks; None where there are none.
        growth: by what factor the inflation grows up to longer rungs, at most, of those that
            have 30 blocks or more; None where there is no such rung, or this one has fewer.
    """

    block_ms: int
    blocks: int
    inflation: float
    correlation: float | None
    growth: float | None


def variance_ladder(pairs: Iterable[tuple[int, float]], lengths_ms: Sequence[int]) -> list[Rung]:
    """How far luck is shared: the variance of sums over blocks, length by length.

    The inflation is the design effect of cluster sampling (Kish 1965, "Survey Sampling"):
    Σ (s - m n)² over blocks of n pairs that sum to s, m being the mean of all pairs, over its
    expectation if pairs were independent. While blocks share luck it grows with their length.

    Args:
        pairs: when each pair was predicted, and its difference.
        lengths_ms: the lengths of blocks to try.

    Returns:
        A rung per length, shortest first; none where the differences do not vary.

    >>> hour, day = 3_600_000, 86_400_000
    >>> luck = [(n * hour, (-1.0) ** (n // 24)) for n in range(60 * 24)]
    >>> [(r.block_ms // hour, round(r.inflation)) for r in variance_ladder(luck, [hour, day])]
    [(1, 1), (24, 24)]
    """
    samples = list(pairs)
    n = len(samples)
    mean = math.fsum(difference for _, difference in samples) / n if n else 0.0
    squares = math.fsum((difference - mean) ** 2 for _, difference in samples)
    if not squares:
        return []
    rungs = [_rung(samples, length, mean, squares / (n - 1)) for length in sorted(set(lengths_ms))]
    return [
        rung if rung.blocks < RUNG_BLOCKS_MIN else _with_growth(rung, rungs[index + 1 :])
        for index, rung in enumerate(rungs)
    ]


def _rung(samples: list[tuple[int, float]], block_ms: int, mean: float, variance: float) -> Rung:
    sums: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for ts, difference in samples:
        block = sums[ts // block_ms]
        block[0] += 1.0
        block[1] += difference - mean
    squares = math.fsum(s * s for _, s in sums.values())
    # The mean is the pairs' own, which takes a block's share out of its deviation.
    free = len(samples) - math.fsum(n * n for n, _ in sums.values()) / len(samples)
    deviations = sorted((number, s) for number, (_, s) in sums.items())
    products = [s * t for (x, s), (y, t) in pairwise(deviations) if y == x + 1]
    correlation = None
    if products and squares:
        correlation = math.fsum(products) / len(products) / (squares / len(sums))
    return Rung(
        block_ms, len(sums), squares / (variance * free) if free else 1.0, correlation, None
    )


def _with_growth(rung: Rung, longer: list[Rung]) -> Rung:
    inflations = [r.inflation for r in longer if r.blocks >= RUNG_BLOCKS_MIN]
    growth = max(inflations) / rung.inflation if inflations and rung.inflation else None
    return Rung(rung.block_ms, rung.blocks, rung.inflation, rung.correlation, growth)


def suggested_block(rungs: Sequence[Rung]) -> int | None:
    """The shortest block after which the inflation grows by no more than a quarter.

    Where it grows all the way, the longest one with 30 blocks: luck may be shared beyond it, and
    nothing here would show. None where no rung has 30 blocks.

    It is coarse. A quarter is what a variance from 30 to 100 blocks is off by, so a dependence
    that is weaker goes unseen (between two lines of one recipe, neighbouring days have been
    seen to correlate by .1, which is enough to be wrong five times as often), and an odd week
    can suggest more than is needed. Where in doubt, take the longer block: it costs days, not
    truth. A gain that changes in time looks like shared luck.
    """
    reliable = [rung for rung in rungs if rung.blocks >= RUNG_BLOCKS_MIN]
    for rung in reliable:
        if rung.growth is None or rung.growth <= GROWTH_MAX:
            return rung.block_ms
    return None
