"""Divergence: noise is borne, what has diverged is found soon, and what is over is over."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ml.evaluation.divergence import BLOCK_EXAMPLES, BlockScores, Divergence


def judged(
    excess: list[float],
    *,
    seed: int = 1,
    blocks: int = 18,
    luck: float = 0.02,
    margin: float = 0.005,
) -> list[bool]:
    """Whether each refresh is refused, of a learner that does so much worse in each."""
    rand = random.Random(seed)
    divergence = Divergence(margin, is_relative=False)
    refused = []
    for each in excess:
        scores = [each + rand.gauss(0.0, luck) for _ in range(blocks)]
        moments = {
            "blocks": blocks,
            "total": sum(scores),
            "squares": sum(score * score for score in scores),
        }
        refused.append(divergence.judge(moments) is not None)
    return refused


@pytest.mark.parametrize(("refresh", "has_scores"), [(1, False), (8, False), (10, True)])
def test_who_is_refreshed_at_nearly_every_example_is_compared_with_nothing(
    refresh: int, *, has_scores: bool
) -> None:
    """An older copy of a learner that is renewed at once is no better thing to serve."""
    scores = BlockScores(is_relative=False)
    blocks = 0
    for n in range(1, 10 * BLOCK_EXAMPLES + 1):
        scores.add(1.0, 0.0)
        if n % refresh == 0:
            restored = BlockScores(is_relative=False)
            restored.load(orjson.loads(orjson.dumps(scores.dump())))
            scores = restored
            blocks += scores.take()["blocks"]

    assert has_scores is (blocks > 0)


@pytest.mark.parametrize("blocks", [1, 4, 18])
def test_noise_is_borne(blocks: int) -> None:
    """Ten years of days on which a learner is now better, now worse: none is refused."""
    days = [random.Random(day).gauss(0.0, 0.005) for day in range(3_650)]

    assert not any(judged(days, blocks=blocks))


@pytest.mark.parametrize("blocks", [1, 4, 18])
def test_what_has_diverged_is_found_within_two_refreshes(blocks: int) -> None:
    """And goes on being refused, until it does well again."""
    days = [0.0] * 30 + [0.3] * 30 + [-0.05] * 30
    refused = judged(days, blocks=blocks)

    assert [False] * 30 == refused[:30]
    assert refused[31:60] == [True] * 29
    assert [False] * 30 == refused[60:]


def test_what_is_slightly_worse_is_found_in_several_refreshes() -> None:
    """What a refresh alone cannot show, several can; within the margin it never is."""
    assert any(judged([0.02] * 8))
    assert not any(judged([0.02]))
    assert not any(judged([0.004] * 1_000))


@pytest.mark.parametrize(("is_relative", "unit"), [(True, 1.0), (True, 1e12), (False, 1.0)])
def test_block_scores_are_of_examples_in_their_order(*, is_relative: bool, unit: float) -> None:
    """A regressor's are a share of its error, whatever the unit; refreshes cut no block."""
    scores = BlockScores(is_relative=is_relative)
    for number in range(2 * BLOCK_EXAMPLES - 1):
        scores.add(0.75 * unit, 0.25 * unit)
        if number == BLOCK_EXAMPLES + 7:
            assert {"blocks": 1, "total": 0.5, "squares": 0.25} == scores.take()
    assert {"blocks": 0, "total": 0.0, "squares": 0.0} == scores.take()
    scores.add(0.75 * unit, 0.25 * unit)
    assert {"blocks": 1, "total": 0.5, "squares": 0.25} == scores.take()


def test_a_regressor_that_outgrows_every_number_has_diverged() -> None:
    """Errors that double with each example are found as any other."""
    scores, divergence = BlockScores(is_relative=True), Divergence(0.005, is_relative=True)
    for number in range(4 * BLOCK_EXAMPLES):
        scores.add(min(2.0 ** (8 * number), 1.7e308) if number < 128 else 1.7e308, 1.0)

    refusal = divergence.judge(orjson.loads(orjson.dumps(scores.take())))
    assert refusal is not None
    assert "more than what serves on the newest 200 examples, where 0.005 is borne" in refusal


def test_nothing_new_changes_nothing() -> None:
    """A snapshot without blocks, or one of a former release, neither refuses nor absolves."""
    divergence = Divergence(0.005, is_relative=False)
    nothing: dict[str, Any] = {"blocks": 0, "total": 0.0, "squares": 0.0}
    assert [None, None] == [divergence.judge(None), divergence.judge(nothing)]
    first = divergence.judge({"blocks": 4, "total": 2.0, "squares": 1.0})

    assert first is not None
    assert [first, first] == [divergence.judge(None), divergence.judge(nothing)]


@given(
    st.lists(st.floats(-0.5, 0.5), max_size=40),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=200),
    st.booleans(),
)
def test_state_written_and_taken_up_goes_on_alike(
    epochs: list[float],
    losses: list[tuple[float, float]],
    is_relative: bool,
) -> None:
    """Both halves, the learner's and the judge's, go through JSON at every step."""
    whole, cut = (Divergence(0.005, is_relative=is_relative) for _ in range(2))
    for score in epochs:
        moments = {"blocks": 3, "total": 3 * score, "squares": 3 * score * score}
        state = orjson.dumps(cut.dump())
        cut = Divergence(0.005, is_relative=is_relative)
        cut.load(orjson.loads(state))
        assert whole.judge(moments) == cut.judge(moments)
    scores, parts = (BlockScores(is_relative=is_relative) for _ in range(2))
    for live, served in losses:
        written = orjson.dumps(parts.dump())
        parts = BlockScores(is_relative=is_relative)
        parts.load(orjson.loads(written))
        scores.add(live, served)
        parts.add(live, served)
    assert scores.take() == parts.take()
