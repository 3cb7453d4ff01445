"""Evidence whose stake is renewed, against its mathematics and against equal challengers."""

from __future__ import annotations

import json
import math
import random
from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ml.evaluation.evidence import e_value
from stream_ml.evaluation.wealth import FACTORS_LOST, FACTORS_WON, Wealth

NEEDED = 60.0
RENEWAL = 600


def voted(votes: list[bool], renewal: int | None = RENEWAL, needed: float = NEEDED) -> Wealth:
    """Wealth that has seen these votes."""
    wealth = Wealth(needed, renewal)
    for won in votes:
        wealth.vote(won=won)
    return wealth


def streak(wealth: Wealth) -> int:
    """How many blocks must now be won in a row until the evidence suffices."""
    count = 0
    while wealth.e_value < NEEDED:
        wealth.vote(won=True)
        count += 1
    return count


def rational(votes: list[bool]) -> list[Fraction]:
    """E after each vote in exact fractions, at the same chances and without a cap."""
    points = [Fraction(33 + 2 * i, 64) for i in range(16)]
    bets, course = [Fraction(0)] * 16, []
    for number, won in enumerate(votes):
        stake = Fraction(1, RENEWAL) if number else Fraction(1)
        bets = [
            (bet + stake) * (2 * p if won else 2 - 2 * p)
            for bet, p in zip(bets, points, strict=True)
        ]
        course.append(sum(bets, Fraction(0)) / 16)
    return course


def test_a_fair_vote_adds_the_stake_and_no_more() -> None:
    """After a win and after a loss E averages E plus the stake, exactly: looking gains nothing."""
    rand = random.Random(1)
    votes = [rand.random() < 0.5 for _ in range(120)]
    course = rational(votes)

    for number in range(1, len(votes), 7):
        won, lost = (rational([*votes[:number], vote])[-1] for vote in (True, False))
        assert course[number - 1] + Fraction(1, RENEWAL) == (won + lost) / 2


def test_it_is_exact_to_the_rounding_of_its_floats() -> None:
    """Four hundred votes leave it within 1e-13 of whole numbers, where no bet meets its cap."""
    rand = random.Random(2)
    votes = [rand.random() < 0.5 for _ in range(400)]
    course = list(accumulate(votes, lambda w, won: w.vote(won=won) or w, initial=voted([])))

    assert float(rational(votes)[-1]) == pytest.approx(course[-1].e_value, rel=1e-13)


@pytest.mark.parametrize(
    ("blocks", "share", "former"),
    [(0, 0.5, 9), (30, 0.2, 47), (121, 0.3, 100), (121, 0.2, 128), (365, 0.2, 313)],
)
def test_no_past_is_a_debt(blocks: int, share: float, former: int) -> None:
    """Whatever was lost before, at most 18 blocks in a row suffice; over a whole reign it grew."""
    wins = round(blocks * share)
    past = [True] * wins + [False] * (blocks - wins)
    rand = random.Random(blocks)

    more = next(n for n in range(1_000) if e_value(wins + n, blocks - wins) >= NEEDED)
    streaks = [streak(voted(rand.sample(past, blocks))) for _ in range(20)]

    assert former == more
    assert max(streaks) == (18 if blocks else 9)
    assert min(streaks) >= (12 if blocks else 9)


@given(st.lists(st.booleans(), max_size=300))
def test_18_blocks_suffice_after_any_past(past: list[bool]) -> None:
    """No order of wins and losses can make it more."""
    assert streak(voted(past)) <= 18


@given(st.randoms(use_true_random=False), st.sampled_from([0.5, 0.6, 0.7, 0.9]))
@settings(max_examples=60)
def test_it_is_never_later_than_without_renewal(rand: random.Random, share: float) -> None:
    """Run by run, the evidence suffices no later than it would over the whole reign."""
    renewed, once = voted([]), voted([], None)
    for _ in range(300):
        won = rand.random() < share
        renewed.vote(won=won)
        once.vote(won=won)
        assert renewed.e_value >= once.e_value * (1 - 1e-12)
        if once.e_value >= NEEDED:
            break


@pytest.mark.parametrize(
    ("needed", "losses_max"), [(10, 30), (40, 30), (60, 100), (200, 30), (1_000, 30)]
)
def test_sixteen_chances_decide_as_all_of_them(needed: float, losses_max: int) -> None:
    """Without renewal it suffices at exactly the wins and losses at which the integral does."""
    for losses in range(losses_max):
        wealth = voted([False] * losses, None, needed)
        wins = 0
        while wealth.e_value < needed:
            wealth.vote(won=True)
            wins += 1
        assert wins == next(n for n in range(1_000) if e_value(n, losses) >= needed)


def test_a_lead_grows_stale() -> None:
    """However many blocks were won, fifteen lost ones take the evidence back; nothing overflows."""
    wealth = voted([True] * 5_000)
    assert wealth.e_value == 16 * NEEDED

    losses = 0
    while wealth.e_value >= NEEDED:
        wealth.vote(won=False)
        losses += 1

    assert losses == 15
    assert 0 < voted([False] * 5_000).e_value < 0.01


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 60))
def test_a_state_goes_on_bit_for_bit(votes: list[bool], cut: int) -> None:
    """Dumped as JSON and taken up between any two votes, it comes to the same."""
    straight = voted(votes)
    first = voted(votes[:cut])
    second = Wealth(NEEDED, RENEWAL)
    second.load(json.loads(json.dumps(first.dump())), first.votes)
    for won in votes[cut:]:
        second.vote(won=won)

    assert (straight.dump(), straight.votes) == (second.dump(), second.votes)
    assert straight.error_bound == second.error_bound


def test_votes_of_a_former_release_are_taken_up() -> None:
    """14 won and 3 lost come to the E that they had, and any number of them to a finite one."""
    wealth = Wealth(NEEDED, RENEWAL)
    wealth.load_votes(14, 3)
    assert round(wealth.e_value, 3) == 21.336
    assert wealth.e_value == pytest.approx(
        voted([False] * 3 + [True] * 14, None).e_value, rel=1e-14
    )

    for wins, losses in ((0, 0), (0, 3_000), (3_000, 0), (3_000, 3_000)):
        wealth.load_votes(wins, losses)
        assert math.isfinite(wealth.e_value)
        assert wealth.votes == wins + losses


def test_an_equal_challenger_replaces_as_rarely_as_promised() -> None:
    """Of 10,000 fair coins tossed for five years, 2 in a hundred get there; 3.3 are promised."""
    runs, votes = 10_000, 608
    rand = np.random.default_rng(1)
    won_factors, lost_factors = np.array(FACTORS_WON), np.array(FACTORS_LOST)
    bets, has_reached = np.zeros((runs, 16)), np.zeros(runs, bool)
    samples = [voted([]) for _ in range(10)]
    for number in range(votes):
        won = rand.random(runs) < 0.5
        bets += 1.0 / RENEWAL if number else 1.0
        bets *= np.where(won[:, None], won_factors, lost_factors)
        np.minimum(bets, 16 * NEEDED, out=bets)
        has_reached |= bets.mean(axis=1) >= NEEDED
        for sample, vote in zip(samples, won.tolist(), strict=False):
            sample.vote(won=vote)

    assert bets[:10].tolist() == [sample.dump() for sample in samples]
    assert samples[0].error_bound == pytest.approx((1 + 607 / 600) / 60)
    assert 0.015 <= has_reached.mean() <= samples[0].error_bound
