"""Evidence against its own mathematics, against brute force, and against equal challengers."""

from __future__ import annotations

import json
import math
import random
import sys
from collections import defaultdict
from fractions import Fraction
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from stream_ml.evaluation.evidence import (
    Blocks,
    ClosedBlock,
    Evidence,
    e_value,
    log_e_value,
    ready,
    suggested_block,
    threshold,
    variance_ladder,
)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@cache
def exact_e(wins: int, losses: int) -> Fraction:
    """E as a binomial tail, in whole numbers: sum of C(n+1, k) to k = w, over (n+1) C(n, w)."""
    n = wins + losses
    return Fraction(sum(math.comb(n + 1, k) for k in range(wins + 1)), (n + 1) * math.comb(n, wins))


class TestEValue:
    """The e-value of so many wins and losses."""

    @pytest.mark.parametrize(
        ("wins", "losses", "expected"),
        [(0, 0, 1.0), (1, 0, 1.5), (0, 1, 0.5), (8, 0, 511 / 9), (9, 0, 102.3), (0, 10, 1 / 11)],
    )
    def test_known_values(self, wins: int, losses: int, expected: float) -> None:
        """It has the values that can be worked out by hand."""
        assert e_value(wins, losses) == pytest.approx(expected, rel=1e-15)

    def test_the_fastest_replacement_is_nine_to_nothing(self) -> None:
        """By default 8-0 is not enough, 9-0 is, and one loss puts it off to 12-1."""
        enough = [(w, n) for n in (0, 1) for w in range(20) if e_value(w, n) >= threshold(3, 0.05)]

        assert [(9, 0), (12, 1)] == [min(e for e in enough if e[1] == n) for n in (0, 1)]

    @given(st.integers(0, 300), st.integers(0, 300))
    def test_it_is_exact(self, wins: int, losses: int) -> None:
        """The series agrees with whole numbers to the rounding of its sum."""
        assert e_value(wins, losses) == pytest.approx(float(exact_e(wins, losses)), rel=1e-13)

    @given(st.integers(0, 500), st.integers(0, 500))
    def test_it_is_the_incomplete_beta(self, wins: int, losses: int) -> None:
        """It agrees with the formula in terms of the incomplete beta function."""
        upper = special.betaincc(1 + wins, 1 + losses, 0.5)
        log_scale = (wins + losses + 1) * math.log(2) + special.betaln(1 + wins, 1 + losses)

        # Where losses lead, scipy's upper half is a number close to 0; where it is 0, so is E.
        if upper > 1e-290:
            assert log_e_value(wins, losses) == pytest.approx(
                log_scale + math.log(upper), rel=1e-9, abs=1e-9
            )

    def test_a_fair_vote_leaves_it_as_it_is(self) -> None:
        """It is a martingale at p = 1/2, exactly, and falls on average for any smaller p."""
        for n in range(40):
            for wins in range(n + 1):
                now = exact_e(wins, n - wins)
                won, lost = exact_e(wins + 1, n - wins), exact_e(wins, n - wins + 1)
                assert (won + lost) / 2 == now
                for p in (Fraction(0), Fraction(1, 4), Fraction(49, 100)):
                    assert p * won + (1 - p) * lost < now

    def test_votes_update_it_as_documented(self) -> None:
        """A win gives (2(w+1) E + 1) / (n+2), a loss (2(l+1) E - 1) / (n+2)."""
        for w in range(20):
            for lost in range(20):
                e, n = exact_e(w, lost), w + lost
                assert exact_e(w + 1, lost) == (2 * (w + 1) * e + 1) / (n + 2)
                assert exact_e(w, lost + 1) == (2 * (lost + 1) * e - 1) / (n + 2)

    @given(st.integers(0, 2_000), st.integers(0, 2_000))
    def test_a_loss_never_raises_it_and_a_win_always_does(self, wins: int, losses: int) -> None:
        """Evidence cannot grow by losing, whatever came before."""
        now = log_e_value(wins, losses)

        assert log_e_value(wins, losses + 1) < now < log_e_value(wins + 1, losses)

    @pytest.mark.parametrize(
        ("wins", "losses"), [(10**6, 0), (0, 10**6), (10**6, 10**6), (600_000, 400_000)]
    )
    def test_it_never_overflows(self, wins: int, losses: int) -> None:
        """A million votes give a finite number, and a logarithm where that is too large."""
        value, log_value = e_value(wins, losses), log_e_value(wins, losses)

        assert 0 <= value <= sys.float_info.max
        assert math.isfinite(log_value)
        if log_value < 700:
            assert value == pytest.approx(math.exp(log_value), rel=1e-6)

    def test_ville_holds_exactly_over_a_year(self) -> None:
        """A fair coin looked at 365 times gets to 60 with probability .0107, under 1/60."""
        alive, replaced = {0: 1.0}, 0.0
        for n in range(1, 366):
            former, alive = alive, defaultdict(float)
            for wins, share in former.items():
                alive[wins] += share / 2
                alive[wins + 1] += share / 2
            for wins in [w for w in alive if 2 * w > n and e_value(w, n - w) >= 60]:
                replaced += alive.pop(wins)

        assert round(replaced, 4) == 0.0107


def brute_force(
    steps: list[tuple[str, int, float]], block_ms: int, maturity_ms: int
) -> tuple[list[ClosedBlock], int]:
    """What closes and how many pairs are late, from the whole history and exact fractions."""
    held: dict[int, list[Fraction]] = {}
    closed, late, watermark = [], 0, -1
    for kind, ts, difference in steps:
        if kind == "pair":
            if (ts // block_ms + 1) * block_ms + maturity_ms <= watermark:
                late += 1
            else:
                held.setdefault(ts // block_ms, []).append(Fraction(difference))
            continue
        watermark = max(watermark, ts)
        for number in sorted(held):
            if (number + 1) * block_ms + maturity_ms <= watermark:
                block = held.pop(number)
                closed.append(ClosedBlock(number, len(block), float(sum(block))))
    return closed, late


differences = st.one_of(
    st.sampled_from([0.0, 0.1, -0.1, 1e-30, 1e100, -1e100]), st.floats(-1, 1, allow_nan=False)
)
histories = st.lists(
    st.one_of(
        st.tuples(st.just("pair"), st.integers(0, 1_000), differences),
        st.tuples(st.just("close"), st.integers(-1, 1_200), st.just(0.0)),
    ),
    max_size=60,
)


class TestBlocks:
    """Pairs put together by the time of their prediction."""

    @given(histories, st.integers(1, 400), st.integers(0, 300))
    def test_it_is_what_brute_force_says(
        self, steps: list[tuple[str, int, float]], block_ms: int, maturity_ms: int
    ) -> None:
        """Blocks close when ripe, in order, with exact sums; late pairs are counted only."""
        blocks = Blocks(block_ms, maturity_ms=maturity_ms)
        closed = []
        for kind, ts, difference in steps:
            if kind == "pair":
                blocks.add(ts, difference)
            else:
                closed += blocks.close(ts)

        assert brute_force(steps, block_ms, maturity_ms) == (closed, blocks.late_pairs)

    @given(
        st.lists(st.tuples(st.integers(0, 1_000), differences), max_size=40),
        st.randoms(use_true_random=False),
    )
    def test_the_order_of_pairs_does_not_matter(
        self, pairs: list[tuple[int, float]], rand: random.Random
    ) -> None:
        """Pairs that come before their block closes may come in any order, to the last bit."""
        shuffled = rand.sample(pairs, len(pairs))
        outcomes = []
        for order in (pairs, shuffled):
            blocks = Blocks(100)
            for ts, difference in order:
                blocks.add(ts, difference)
            outcomes.append(blocks.close(2_000))

        assert outcomes[0] == outcomes[1]

    def test_a_block_closes_when_its_labels_are_complete(self) -> None:
        """Not a millisecond before the watermark is at its end and the maturity past."""
        blocks = Blocks(100, maturity_ms=30)
        blocks.add(99, 0.5)
        blocks.add(100, 0.25)

        assert [] == blocks.close(129)
        assert [ClosedBlock(0, 1, 0.5)] == blocks.close(130)
        assert [ClosedBlock(1, 1, 0.25)] == blocks.close(230)

    def test_a_watermark_never_goes_back(self) -> None:
        """A block that was closed stays closed, and its pairs are late, whatever comes."""
        blocks = Blocks(100)
        blocks.close(200)
        blocks.close(50)
        blocks.add(150, 1.0)

        assert ([], 1) == (blocks.close(300), blocks.late_pairs)

    @given(st.lists(differences, max_size=30), st.integers(1, 7), st.integers(0, 2**31))
    def test_blocks_of_pairs(self, given_: list[float], every: int, seed: int) -> None:
        """So many pairs in the order in which they came are a block, whatever their time."""
        rand = random.Random(seed)
        blocks = Blocks(None, every)
        closed = []
        for difference in given_:
            blocks.add(rand.randrange(1_000), difference)
            if rand.random() < 0.5:
                closed += blocks.close(rand.randrange(1_000))
        closed += blocks.close(0)

        whole = len(given_) // every
        chunks = [given_[n * every : (n + 1) * every] for n in range(whole)]
        assert closed == [ClosedBlock(n, every, math.fsum(c)) for n, c in enumerate(chunks)]

    def test_memory_is_bounded_by_maturity(self) -> None:
        """However long it runs, it holds the blocks that are open and no more."""
        blocks = Blocks(DAY_MS, maturity_ms=36 * HOUR_MS)
        most = 0
        for hour in range(24 * 100):
            blocks.add(hour * HOUR_MS, 0.1)
            blocks.close(hour * HOUR_MS)
            most = max(most, len(blocks.dump()["open"]))

        assert most == 3

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0,), "block_ms: expected at least 1, given 0"),
            ((None, 0), "pairs_per_block: expected at least 1, given 0"),
        ],
    )
    def test_what_is_no_block_is_refused(self, arguments: tuple[Any, ...], message: str) -> None:
        """A block of nothing is a mistake, said with what was given."""
        with pytest.raises(ValueError, match=message):
            Blocks(*arguments)

    def test_a_negative_maturity_is_refused(self) -> None:
        """A block cannot close before it ends."""
        with pytest.raises(ValueError, match="maturity_ms: expected at least 0, given -1"):
            Blocks(1, maturity_ms=-1)

    @pytest.mark.parametrize("difference", [math.nan, math.inf])
    def test_what_is_no_difference_stops_the_process(self, difference: float) -> None:
        """Losses are finite: anything else is a broken invariant, and would poison a vote."""
        with pytest.raises(AssertionError):
            Blocks(1).add(0, difference)


def voted(differences: list[float], **config: Any) -> Evidence:
    """Evidence that has seen a block per difference."""
    evidence = Evidence(None, pairs_per_block=1, **config)
    for difference in differences:
        evidence.add(0, difference)
    evidence.close(0)
    return evidence


class TestEvidence:
    """Votes, the gain, and what is kept."""

    def test_one_vote_per_block(self) -> None:
        """A block votes by the sign of its sum; a tie and one with too few pairs do not vote."""
        evidence = Evidence(100, pairs_min=2)
        for ts, difference in [
            *((0, 0.5), (1, -0.25)),  # won
            *((100, -0.5), (101, 0.25)),  # lost
            *((200, 0.1 + 0.2), (201, -0.3), (202, 0.3 - (0.1 + 0.2))),  # a tie, exactly
            (300, 1.0),  # thin
        ]:
            evidence.add(ts, difference)
        closed = evidence.close(400)

        assert 4 == len(closed)
        votes = (evidence.wins, evidence.losses, evidence.ties, evidence.thin, evidence.pairs)
        assert (1, 1, 1, 1, 7) == votes

    def test_the_least_number_of_pairs(self) -> None:
        """50 where blocks are of time, 1 where they are of pairs."""
        timed, counted = Evidence(100), Evidence(None, pairs_per_block=1)
        for n in range(99):
            timed.add(0 if n < 50 else 100, 1.0)
        timed.close(200)
        counted.add(0, 1.0)
        counted.close(0)

        assert (1, 1, 50) == (timed.wins, timed.thin, timed.pairs)
        assert (1, 0, 1) == (counted.wins, counted.thin, counted.pairs)

    def test_a_late_pair_does_not_vote(self) -> None:
        """It is counted, and changes neither votes nor gain."""
        evidence = Evidence(100, pairs_min=1)
        evidence.add(50, 0.5)
        evidence.close(100)
        evidence.add(60, -9.0)
        evidence.close(10_000)

        assert (1, 0, 1) == (evidence.wins, evidence.losses, evidence.late_pairs)
        assert evidence.gain is not None
        assert 0.5 == evidence.gain.mean

    def test_the_gain_has_the_interval_of_a_ratio(self) -> None:
        """Mean per pair and a t interval over the run's blocks, as computed from the definition."""
        rand = random.Random(3)
        evidence = Evidence(100, pairs_min=1)
        sums: dict[int, list[float]] = defaultdict(list)
        for _ in range(400):
            ts, difference = rand.randrange(2_400), rand.gauss(0.1, 1)
            evidence.add(ts, difference)
            sums[ts // 100].append(difference)
        evidence.close(2_400)

        blocks = [sums[number] for number in sorted(sums)]
        run, pairs = self.run_of(blocks), sum(map(len, self.run_of(blocks)))
        assert 2 < len(run) < len(blocks)
        assert pairs == evidence.run_pairs
        assert evidence.reign_gain == pytest.approx(sum(map(sum, blocks)) / 400)
        mean = sum(map(sum, run)) / pairs
        residuals = [sum(block) - mean * len(block) for block in run]
        error = math.sqrt(sum(r * r for r in residuals) * len(run) / (len(run) - 1)) / pairs
        half = special.stdtrit(len(run) - 1, 0.975) * error
        gain = evidence.gain
        assert gain is not None
        assert (gain.mean, gain.low, gain.high) == pytest.approx(
            (mean, mean - half, mean + half), rel=1e-4
        )

    def run_of(self, blocks: list[list[float]]) -> list[list[float]]:
        """The blocks since the lead, by all sums so far, was last at its lowest."""
        course = [0]
        for block in blocks:
            course.append(course[-1] + (1 if sum(block) > 0 else -1))
        return blocks[max(n for n, lead in enumerate(course) if lead == min(course)) :]

    def test_a_long_loser_is_ready_as_soon_as_its_evidence_suffices(self) -> None:
        """What a reign lost before the lead was at its lowest is no debt of the gain's either."""
        rand = random.Random(4)
        past = [0.01 if rand.random() < 0.2 else -0.01 for _ in range(365)]
        evidence = voted(past)
        assert not ready(evidence, 3, 0.05)

        wins = 0
        while evidence.e_value < 60:
            evidence.add(0, 0.01)
            evidence.close(0)
            wins += 1

        assert 16 <= wins <= 18
        assert ready(evidence, 3, 0.05)
        assert evidence.gain is not None
        assert evidence.gain.mean > 0 > (evidence.reign_gain or 0)

    @pytest.mark.parametrize("blocks", [2, 3, 4, 5, 6, 9, 30, 400])
    def test_the_interval_is_student_s(self, blocks: int) -> None:
        """Its half width over the standard error is the t quantile, to four digits."""
        evidence = voted([1.0, 0.0, *(1.0 for _ in range(blocks - 2))])
        gain = evidence.gain
        assert gain is not None
        assert gain.high is not None

        mean = (blocks - 1) / blocks
        error = math.sqrt(mean * (1 - mean) / (blocks - 1))
        expected = special.stdtrit(blocks - 1, 0.975)
        assert (gain.high - gain.mean) / error == pytest.approx(expected, rel=2e-4)

    def test_no_gain_before_a_block_and_no_interval_before_two(self) -> None:
        """What is not known is not said."""
        assert voted([]).gain is None
        gain = voted([0.25]).gain
        assert gain is not None
        assert (0.25, None, None) == (gain.mean, gain.low, gain.high)

    def test_the_report_is_finite_json(self) -> None:
        """Whatever the votes: none, one, or more than E has floats for."""
        for differences in ([], [1.0], [0.5] * 2_000, [1e100, -1e100]):
            report = voted(differences).report()
            assert report == json.loads(json.dumps(report, allow_nan=False))
        assert None is voted([]).report()["gain"]

    def test_a_fresh_start_forgets_everything_but_what_is_closed(self) -> None:
        """After a reset nothing speaks for anyone, and a closed block does not open again."""
        evidence = Evidence(100, pairs_min=1)
        for ts in (0, 100, 250):
            evidence.add(ts, 1.0)
        evidence.close(200)
        evidence.reset()
        assert voted([]).report() == evidence.report()

        evidence.add(150, 1.0)
        evidence.add(260, -1.0)
        evidence.close(300)
        assert (0, 1, 1) == (evidence.wins, evidence.losses, evidence.late_pairs)

    @given(histories, st.sampled_from([(100, 0), (None, 3)]), st.integers(0, 60))
    def test_dump_and_load_anywhere(
        self, steps: list[tuple[str, int, float]], block: tuple[int | None, int], cut: int
    ) -> None:
        """A state that went through JSON goes on bit for bit."""
        through, straight = (Evidence(*block, maturity_ms=20, pairs_min=1) for _ in range(2))
        for number, (kind, ts, difference) in enumerate(steps):
            if number == cut:
                state = json.loads(json.dumps(through.dump()))
                through = Evidence(*block, maturity_ms=20, pairs_min=1)
                through.load(state)
            if kind == "pair":
                through.add(ts, difference)
                straight.add(ts, difference)
            else:
                assert straight.close(ts) == through.close(ts)

        assert straight.dump() == through.dump()
        assert straight.report() == through.report()

    def test_a_state_of_a_former_release_is_taken_up(self) -> None:
        """It had no bets: E follows from its votes, and the gain counts from now on."""
        evidence = Evidence(None, pairs_per_block=1)
        blocks = evidence.dump()["blocks"]
        moments = [1.75, 0.5, 17.0, 17.0]
        evidence.load({"blocks": blocks, "votes": [14, 3, 0, 1], "pairs": 17, "moments": moments})

        report = evidence.report()
        assert (14, 3, 1, 17) == tuple(report[name] for name in ("wins", "losses", "thin", "pairs"))
        assert (21.336, None) == (round(report["e_value"], 3), report["gain"])
        assert report["reign_gain"] == 1.75 / 17
        for _ in range(3):
            evidence.add(0, 0.5)
            evidence.close(0)
        assert ready(evidence, 3, 0.05)

    def test_a_state_shares_nothing_with_its_source(self) -> None:
        """What happens after a dump does not change it."""
        evidence = Evidence(100)
        evidence.add(0, 0.5)
        state = evidence.dump()
        before = json.dumps(state)
        evidence.add(1, 0.25)
        evidence.close(1_000)

        assert before == json.dumps(state)


class TestReady:
    """Whether the evidence suffices."""

    def test_nine_wins_suffice_by_default(self) -> None:
        """9-0 with three slots at .05; more slots or a smaller alpha ask for more."""
        assert not ready(voted([0.1] * 8), 3, 0.05)
        assert ready(voted([0.1] * 9), 3, 0.05)
        assert not ready(voted([0.1] * 9), 6, 0.05)
        assert not ready(voted([0.1] * 9), 3, 0.01)

    def test_a_gain_too_small_does_not(self) -> None:
        """Many small wins are not worth a replacement; nor are they with one great loss."""
        assert ready(voted([0.01] * 20), 3, 0.05, gain_min=0.01)
        assert not ready(voted([0.01] * 20), 3, 0.05, gain_min=0.011)
        assert not ready(voted([*([0.01] * 20), -1.0]), 3, 0.05)

    @settings(max_examples=300)
    @given(st.integers(0, 150), st.integers(0, 149))
    def test_it_agrees_with_the_e_value(self, wins: int, losses: int) -> None:
        """Without renewal it suffices where the integral over all chances does."""
        evidence = voted([-1.0] * losses + [1e6] * wins, renewal=None)

        assert ready(evidence, 3, 0.05) == (wins > 0 and exact_e(wins, losses) >= 60)

    def test_equal_models_are_left_in_peace(self) -> None:
        """Of 600 equal challengers that share a day's luck, 1/50 at most replace in a year.

        (Two standard errors are allowed; independent pairs would have a t-test or an e-value
        by label replace most of them, see docs/promotion.md.)
        """
        replaced = 0
        for seed in range(600):
            rand = random.Random(seed)
            evidence = Evidence(3 * DAY_MS, maturity_ms=36 * HOUR_MS, pairs_min=20)
            for day in range(365):
                luck = rand.gauss(0, 1)
                for hour in range(0, 24, 3):
                    evidence.add(day * DAY_MS + hour * HOUR_MS, luck + rand.gauss(0, 1))
                if evidence.close((day + 1) * DAY_MS) and ready(evidence, 3, 0.05):
                    replaced += 1
                    break

        nominal = (1 + 121 / 600) / 60
        assert replaced / 600 <= nominal + 2 * math.sqrt(nominal * (1 - nominal) / 600)

    def test_a_better_model_gets_through(self) -> None:
        """Of challengers that win 70 % of blocks, half are through in about 51 blocks."""
        blocks = []
        for seed in range(400):
            rand = random.Random(seed)
            wins, n = 0, 0
            while e_value(wins, n - wins) < 60:
                n += 1
                wins += rand.random() < 0.7
            blocks.append(n)

        assert 42 <= sorted(blocks)[200] <= 60


class TestVarianceLadder:
    """How far luck is shared."""

    LENGTHS = tuple(h * HOUR_MS for h in (1, 6, 24, 72, 168))

    def pairs(self, shared_hours: int, seed: int = 0) -> list[tuple[int, float]]:
        """A year of ten pairs an hour; luck is shared by so many hours."""
        rand = random.Random(seed)
        luck = [rand.gauss(0, 1) for _ in range(24 * 365 // (shared_hours or 1) + 1)]
        return [
            (
                hour * HOUR_MS + n,
                rand.gauss(0, 2) + (luck[hour // shared_hours] if shared_hours else 0),
            )
            for hour in range(24 * 365)
            for n in range(10)
        ]

    def test_independent_pairs_show_none(self) -> None:
        """The inflation is 1, within its noise, for every length."""
        for rung in variance_ladder(self.pairs(0), self.LENGTHS):
            assert rung.inflation == pytest.approx(1, abs=4 * math.sqrt(2 / rung.blocks))

    @pytest.mark.parametrize("hours", [6, 24, 72])
    def test_the_suggested_block_covers_the_sharing(self, hours: int) -> None:
        """Luck shared by so many hours asks for blocks of as many, or a little more by chance."""
        for seed in range(2):
            suggested = suggested_block(variance_ladder(self.pairs(hours, seed), self.LENGTHS))
            assert suggested in {hours * HOUR_MS, 72 * HOUR_MS}

    def test_the_inflation_is_the_design_effect(self) -> None:
        """Luck of share r of the variance inflates the sums of m pairs to 1 + (m - 1) r."""
        rungs = {r.block_ms: r for r in variance_ladder(self.pairs(24), self.LENGTHS)}

        assert rungs[DAY_MS].inflation == pytest.approx(1 + 239 / 5, rel=0.2)
        assert rungs[HOUR_MS].inflation == pytest.approx(1 + 9 / 5, rel=0.1)
        correlation = rungs[HOUR_MS].correlation
        assert correlation is not None
        assert correlation == pytest.approx(23 / 24 * (10 / 5) / (1 + 9 / 5), rel=0.1)

    def test_too_few_blocks_suggest_nothing(self) -> None:
        """Where no length has 30 blocks there is no suggestion, and no growth is told."""
        rungs = variance_ladder([(hour * HOUR_MS, hour % 3 - 1.0) for hour in range(29)], [HOUR_MS])

        assert (None, None) == (suggested_block(rungs), rungs[0].growth)

    @pytest.mark.parametrize("pairs", [[], [(0, 0.5)], [(0, 0.5), (HOUR_MS, 0.5)]])
    def test_no_variance_no_ladder(self, pairs: list[tuple[int, float]]) -> None:
        """Two models that never differ, or a single pair, say nothing about luck."""
        assert [] == variance_ladder(pairs, [HOUR_MS])
        assert None is suggested_block([])

    def test_a_single_block_is_not_a_ladder_s_end(self) -> None:
        """All pairs in one block give a rung that claims nothing."""
        rungs = variance_ladder([(0, 0.5), (1, -0.5)], [HOUR_MS])

        assert [(1, 1.0, None, None)] == [
            (r.blocks, r.inflation, r.correlation, r.growth) for r in rungs
        ]
