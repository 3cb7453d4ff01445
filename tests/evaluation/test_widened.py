"""Scores, baselines and settling of a task that has more classes than when their state was kept."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_ml.evaluation.baselines import Baselines
from stream_ml.evaluation.block_scores import ScoresByBlock, block_reports
from stream_ml.evaluation.scores import Scores
from stream_ml.evaluation.settling import CLASS_LABELS, Settling

CLASSES = tuple(f"c{number:02}" for number in range(20))


class Board:
    """All that is known by class, of one model."""

    def __init__(self, count: int) -> None:
        self.scores = Scores("multiclass", CLASSES[:count], window=7, by_class=True)
        self.blocks = ScoresByBlock(5, "multiclass", CLASSES[:count])
        self.baselines = Baselines("multiclass", CLASSES[:count], 10)

    def add(self, ts: int, label: str, answer: dict[str, float]) -> list[Any]:
        """Score an answer; what the baseline says of that moment."""
        if self.blocks.is_over(ts):
            self.blocks.close(ts, {"served": self.scores})
        self.scores.update(label, answer)
        said = self.baselines.answers(ts)["prior"]
        self.baselines.learn(label, ts, ts)
        shares = said if isinstance(said, dict) else {}
        return [shares.get(label, 0.0), sum(shares.values())]

    def dump(self) -> Any:
        """The state, as it comes back from JSON."""
        parts = (self.scores, self.blocks, self.baselines)
        return orjson.loads(orjson.dumps([each.dump() for each in parts]))

    def load(self, state: Any) -> None:
        """Take it up."""
        self.scores.load(state[0])
        self.blocks.load(state[1])
        self.baselines.load(state[2])


@given(
    former=st.integers(2, 18),
    more=st.integers(1, 3),
    seed=st.integers(0, 2**16),
    change=st.integers(0, 40),
)
def test_more_classes_are_as_if_there_had_been_so_many_all_along(
    former: int, more: int, seed: int, change: int
) -> None:
    """Sums, reports of blocks and baselines: from a state with fewer they come to the same."""
    world, count = random.Random(seed), min(former + more, len(CLASSES))
    whole, board = Board(count), Board(former)
    for ts in range(60):
        if ts == change:
            state, board = board.dump(), Board(count)
            board.load(state)
        known = CLASSES[: former if ts < change else count]
        shares = {
            name: world.random() for name in world.sample(known, world.randint(1, len(known)))
        }
        answer = {name: share / sum(shares.values()) for name, share in shares.items()}
        label = world.choice(known)
        assert whole.add(ts, label, answer) == board.add(ts, label, answer)

    assert whole.dump() == board.dump()
    assert block_reports(whole.blocks.dump()) == block_reports(board.blocks.dump())


@pytest.mark.parametrize("has_settled", [False, True])
def test_a_line_settles_with_the_classes_that_came_since(has_settled: bool) -> None:
    """One that has not must see each of them so often, too; one that has stays so."""

    def feed(settling: Settling, labels: str, first: int) -> None:
        for n, label in enumerate(labels, first):
            settling.learn(label, n)
            settling.compare("line", n, label, {label: 1.0}, dict.fromkeys("ab", 0.5))

    narrow = Settling("multiclass", ("a", "b"), None)
    narrow.begin(["line"])
    feed(narrow, "ab" * (CLASS_LABELS * 2 if has_settled else CLASS_LABELS - 5), 1)
    wider = Settling("multiclass", ("a", "b", "c"), None)
    wider.begin(["line"])
    wider.load(orjson.loads(orjson.dumps(narrow.dump())))

    assert ("line" in narrow, "line" in wider) == (not has_settled, not has_settled)
    feed(wider, "ab" * CLASS_LABELS * 3, 1_000)
    assert ("line" in wider) is not has_settled
    feed(wider, "cab" * CLASS_LABELS * 2, 2_000)
    assert "line" not in wider
    prior = wider.prior
    assert isinstance(prior, dict)
    assert {"a", "b", "c"} == set(prior)
    assert abs(1.0 - sum(prior.values())) < 1e-12
