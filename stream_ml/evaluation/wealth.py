"""Evidence whose stake is renewed: a challenger's past never becomes a debt.

Theory of operation. Each vote is bet on, at 16 chances p that the challenger wins it. At the first
vote a coin is staked, at every later one 1/renewal coin more:

    M(p) <- min((M(p) + stake) f(p), cap)    f(p) = 2p if the vote was won, 2 - 2p if it was lost
    E    =  mean of the M(p)                 for 16 p = 33/64, 35/64 ... 63/64

That is the sum, over all votes j, of the j-th stake times the wealth of who began to bet with it:
the Shiryaev-Roberts sum of e-processes (Shiryaev 1963; Roberts 1966, Technometrics 8; Shin, Ramdas
& Rinaldo 2023, "E-detectors: a nonparametric framework for sequential change detection", New
England Journal of Statistics in Data Science 2), with a head start of one coin, so that a fresh
challenger needs no more votes than without renewal. Whatever has been lost before, the newest
stakes bear no part of it: after any past, 17 or 18 blocks won in a row suffice for E >= 60.

Given all that has happened, let the next vote be won with chance at most 1/2. Then f(p) has an
expectation of at most 1, E less the stakes so far is a supermartingale, and by Doob's inequality

    P(E reaches x within n votes)  <=  (1 + (n - 1) / renewal) / x

Only doubles are added, multiplied and compared, so that the same votes give the same bits anywhere.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Wealth"]

# The chances that are bet on lie in the middle of as many equal parts of [1/2, 1].
GRID = 16
FACTORS_WON = tuple((33 + 2 * i) / 32 for i in range(GRID))  # 2p, exactly
FACTORS_LOST = tuple((31 - 2 * i) / 32 for i in range(GRID))  # 2 - 2p


class Wealth:
    """E for one challenger, as votes come.

    Args:
        needed: the E at which the evidence suffices. Each M(p) is held at 16 times as much, which
            leaves the first time that E gets there as it is, and lets no lead grow stale: however
            many votes were won, 15 lost ones bring E below `needed`.
        renewal: in how many votes another whole coin is staked; None: the first one is the last.

    Attributes:
        votes: how many came.

    >>> wealth = Wealth(needed=60)
    >>> for _ in range(9):
    ...     wealth.vote(won=True)
    >>> round(wealth.e_value), round(wealth.error_bound, 4)
    (102, 0.0167)
    """

    __slots__ = ("_bets", "_needed", "_stake", "votes")

    def __init__(self, needed: float, renewal: int | None = None) -> None:
        self._needed = needed
        self._stake = 0.0 if renewal is None else 1.0 / renewal
        self.votes = 0
        self._bets = [0.0] * GRID

    def vote(self, *, won: bool) -> None:
        """Take in a vote: a block that was won or lost; a tie is none.

        Args:
            won: whether the challenger won it.
        """
        stake = self._stake if self.votes else 1.0
        cap = GRID * self._needed
        factors = FACTORS_WON if won else FACTORS_LOST
        self._bets = [
            min((bet + stake) * factor, cap)
            for bet, factor in zip(self._bets, factors, strict=True)
        ]
        self.votes += 1

    @property
    def e_value(self) -> float:
        """E of the votes so far; 1 before the first."""
        return math.fsum(self._bets) / GRID if self.votes else 1.0

    @property
    def error_bound(self) -> float:
        """The most that the chance of E >= `needed` by now can be, for one that is no better."""
        return (1.0 + self._stake * max(self.votes - 1, 0)) / self._needed

    def dump(self) -> list[float]:
        """The bets, as JSON can hold them; the number of votes is kept by who casts them."""
        return list(self._bets)

    def load(self, bets: Sequence[float], votes: int) -> None:
        """Take up dumped bets.

        Args:
            bets: what `dump` gave.
            votes: how many votes they have seen.
        """
        self._bets, self.votes = list(bets), votes

    def load_votes(self, wins: int, losses: int) -> None:
        """Take up votes on which no stake was renewed, as former releases counted them.

        Args:
            wins: votes that were won.
            losses: votes that were lost.
        """
        self.votes = wins + losses
        cap = Fraction(GRID * self._needed)
        # In whole numbers: thousands of votes neither overflow nor vanish on the way.
        self._bets = [
            float(min(Fraction((33 + 2 * i) ** wins * (31 - 2 * i) ** losses, 32**self.votes), cap))
            for i in range(GRID if self.votes else 0)
        ] or [0.0] * GRID
