"""Ids met before: never forgotten too early, and not kept for ever."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ml.stages.dedup import CHUNK_IDS_MAX, SeenIds


@given(st.integers(1, 5_000), st.integers(0, 2**32))
def test_nothing_younger_than_the_bound_is_forgotten(span_ms: int, seed: int) -> None:
    """Every id whose time is not before the bound is known, under its time."""
    rand = random.Random(seed)
    seen, truth = SeenIds(span_ms), dict[str, int]()
    now = 0
    for number in range(300):
        now += rand.choice([0, 0, 1, span_ms // 10, span_ms])
        ts = max(0, now - rand.randrange(span_ms + 1))
        seen.add(f"e{number}", ts)
        truth[f"e{number}"] = ts
        seen.forget_before(now - span_ms)

        kept = {name: at for name, at in truth.items() if at >= now - span_ms}
        assert kept == {name: seen.get(name) for name in kept}, f"seed {seed}"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_memory_is_bounded_by_the_span(seed: int) -> None:
    """However long the stream, little more is held than what is younger than the bound."""
    rand = random.Random(seed)
    seen = SeenIds(1_600)
    for now in range(0, 100_000, 10):
        seen.add(f"e{now}", now - rand.randrange(100))
        seen.forget_before(now - 1_600)

        assert len(seen) <= (1_600 + 100 + 100) // 10 + 1, f"seed {seed}"


def test_a_chunk_that_is_full_is_not_written_again() -> None:
    """A checkpoint costs what is new, not what is known."""
    seen = SeenIds(16_000_000)
    for number in range(10 * CHUNK_IDS_MAX):
        seen.add(f"e{number}", 5)
    assert 10 == len(seen.dirty())

    seen.add("one more", 5)
    assert 1 == len(seen.dirty())
    assert [] == seen.dirty()


@given(st.integers(0, 2**32))
def test_state_written_and_taken_up_knows_the_same_ids(seed: int) -> None:
    """After any number of checkpoints and restarts the same ids are known and forgotten."""
    rand = random.Random(seed)
    expected, seen = SeenIds(1_600), SeenIds(1_600)
    pieces: dict[str, bytes] = {}
    now = 0
    for number in range(1_500):
        now += rand.randrange(10)
        for each in (expected, seen):
            each.add(f"e{number}", now)
            each.forget_before(now - 1_600)
        if rand.random() < 0.01:
            for name, piece in seen.dirty():
                if piece is None:
                    pieces.pop(name, None)
                else:
                    pieces[name] = piece
            seen = SeenIds(1_600)
            seen.restore(pieces.items())

    names = [f"e{number}" for number in range(1_500)]
    assert [expected.get(n) for n in names] == [seen.get(n) for n in names], f"seed {seed}"
    assert len(expected) == len(seen)
