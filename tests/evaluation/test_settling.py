"""Settling: how much a line must have learned, and to whom it must not be worse."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ml.evaluation.settling import (
    CLASS_LABELS,
    LABELS_MAX,
    PAIRS_MAX,
    VALUE_LABELS,
    VALUE_PAIRS,
    Settling,
)


def settled_after(
    share: float, answer: float, *, labels: int | None = None, seed: int = 1, most: int = 20_000
) -> int:
    """After how many labels a line settles that always answers so, against the true share."""
    rand = random.Random(seed)
    settling = Settling("binary", (), labels)
    settling.begin(["line"])
    for n in range(1, most):
        label = rand.random() < share
        settling.learn(label, n)
        settling.compare("line", n - 1, label, answer, share)
        if "line" not in settling:
            return n
    return most


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.99])
def test_each_class_must_have_been_seen(share: float) -> None:
    """One in two is soon seen often enough, one in a hundred takes its time."""
    rare = min(share, 1 - share)
    n = settled_after(share, share)

    assert CLASS_LABELS < n < LABELS_MAX + PAIRS_MAX + 1
    assert 0.5 < n / (CLASS_LABELS / rare) < 3


def test_who_never_sees_a_class_settles_at_last() -> None:
    """So many labels are enough in any case."""
    assert LABELS_MAX + PAIRS_MAX == settled_after(0.0, 0.0)


@pytest.mark.parametrize("share", [0.01, 0.5])
def test_a_line_that_does_worse_than_the_prior_does_not_settle(share: float) -> None:
    """Whether it says one half to all, or never expects what is rare."""
    assert settled_after(share, 0.001) == 20_000
    assert settled_after(share, 0.9) == 20_000


def test_a_declared_number_of_labels_is_what_must_be_learned() -> None:
    """No more, however rare a class is; what answers must have learned as many."""
    assert 50 < settled_after(0.5, 0.5, labels=50) < 120
    settling = Settling("binary", (), 50)
    settling.begin(["line"])
    for n in range(1, 1_000):
        settling.learn(n % 2 == 0, n)
        assert settling.compare("line", 49, n % 2 == 0, 0.5, 0.5) is None
    assert "line" in settling


def test_none_has_to_settle_where_none_is_asked_to() -> None:
    """Of 0 labels every line has enough, also one that starts anew."""
    settling = Settling("binary", (), 0)
    settling.begin(["line"])
    settling.restart("line")
    assert (False, True) == ("line" in settling, settling.is_over)


def test_a_number_is_compared_with_the_mean() -> None:
    """By its absolute error, once so many labels were learned."""
    settling = Settling("regression", (), None)
    settling.begin(["good", "poor"])
    for n in range(1, VALUE_LABELS + VALUE_PAIRS + 1):
        settling.learn(float(n % 7), n)
        good = settling.compare("good", n, float(n % 7), float(n % 7), 3.0)
        settling.compare("poor", n, float(n % 7), 9.0, 3.0)
        assert (good is None) == (n != VALUE_LABELS + VALUE_PAIRS - 1)
    assert ("good" in settling, "poor" in settling) == (False, True)


def test_the_running_prior_is_told_at_few_numbers_of_labels() -> None:
    """At 10, 20, 40 ... labels, and never as certain."""
    settling = Settling("multiclass", ("a", "b"), 1_000)
    settling.begin(["line"])
    told: list[tuple[int, Any]] = []
    for n in range(1, 100):
        assert (settling.prior is None) == (n <= 10)
        settling.learn("a", n)
        if settling.is_prior_due():
            told.append((n, settling.prior))

    assert [10, 20, 40, 80] == [n for n, _ in told]
    assert {"a": 11 / 12, "b": 1 / 12} == told[0][1]


def test_lines_of_a_former_release_have_settled_and_new_ones_have_not() -> None:
    """Who has served goes on serving; what is declared later begins like any other."""
    former, newer, later = (Settling("binary", (), 5) for _ in range(3))
    former.begin(["line"])
    former.load(None)
    assert "line" not in former
    later.begin(["line", "other"])
    later.load(former.dump())
    assert ("line" in later, "other" in later) == (False, True)
    newer.begin(["line"])
    newer.load(later.dump())
    assert "line" not in newer


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["binary", "multiclass", "regression"]),
    st.sampled_from([None, 3]),
    st.integers(0, 2**32),
)
def test_state_written_and_taken_up_goes_on_alike(kind: str, labels: int | None, seed: int) -> None:
    """Through JSON at every step, a line settles with the same label."""
    rand = random.Random(seed)

    def fresh() -> Settling:
        settling = Settling(kind, ("a", "b"), labels)
        settling.begin(["one", "two"])
        return settling

    truths: dict[str, list[Any]] = {
        "binary": [True, False],
        "multiclass": ["a", "b"],
        "regression": [1.5, -2.0],
    }
    answers: dict[str, list[Any]] = {
        "binary": [0.2, 0.7, None],
        "multiclass": [{"a": 0.2, "b": 0.8}, {"a": 0.7, "b": 0.3}, None],
        "regression": [1.0, -1e300, None],
    }
    whole, cut = fresh(), fresh()
    for n in range(1, 300):
        state = orjson.dumps(cut.dump())
        cut = fresh()
        cut.load(orjson.loads(state))
        label = rand.choice(truths[kind])
        pair = [rand.choice(answers[kind]) for _ in range(2)]
        line = rand.choice(["one", "two"])
        for each in (whole, cut):
            each.learn(label, n)
        assert whole.compare(line, n, label, *pair) == cut.compare(line, n, label, *pair)
    assert whole.dump() == cut.dump()
