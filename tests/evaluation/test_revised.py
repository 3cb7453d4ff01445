"""A label that takes the place of another: scores, baselines and blocks go by the last word."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_ml.evaluation.baselines import Baselines
from stream_ml.evaluation.block_scores import ScoresByBlock, block_reports
from stream_ml.evaluation.evidence import Blocks
from stream_ml.evaluation.scores import Scores, pair_name
from stream_ml.evaluation.slices import LEARNED, SliceNames
from stream_ml.models.target import Target
from stream_ml.records import Correction, Example, Prediction, Source
from stream_ml.stages.scoreboard import SERVED_SLOT, Scoreboard

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = st.integers(0, 2**32)
CLASSES = ("a", "b", "c", "d")
WINDOW = 40


def _simplex(rand: random.Random) -> dict[str, float]:
    weights = [rand.random() for _ in CLASSES]
    return {name: w / sum(weights) for name, w in zip(CLASSES, weights, strict=True)}


KINDS: dict[str, tuple[Callable[[random.Random], Any], Callable[[random.Random], Any]]] = {
    "binary": (lambda rand: rand.random() < 0.3, lambda rand: rand.random()),
    "multiclass": (lambda rand: rand.choice(CLASSES), _simplex),
    "regression": (lambda rand: rand.gauss(5, 2), lambda rand: rand.gauss(5, 1)),
}


def _scores(kind: str) -> Scores:
    classes = CLASSES if kind == "multiclass" else ()
    return Scores(kind, classes, window=WINDOW, by_class=True, revisable=True)


def _near(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return found.keys() == expected.keys() and all(
        found[form] == pytest.approx(expected[form], rel=1e-9, abs=1e-9) for form in found
    )


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(sorted(KINDS)))
def test_revised_scores_are_those_of_the_last_words(seed: int, kind: str) -> None:
    """All forms of those in the window, the cumulative ones of all, also over a restart."""
    rand = random.Random(seed)
    label_of, answer_of = KINDS[kind]
    revised, expected, rows = _scores(kind), _scores(kind), []
    for n in range(rand.choice([5, 35, 100])):
        answer = None if rand.random() < 0.1 else answer_of(rand)
        row = [f"e{n}", label_of(rand), answer]
        revised.update_of(row[0], row[1], row[2])
        rows.append(row)
    within = rand.random() < 0.5
    scored = [row for row in rows if row[2] is not None]
    for row in rand.sample(scored[-WINDOW:] if within else scored, min(5, len(scored))):
        former, row[1] = row[1], label_of(rand)
        revised.revise(row[0], former, row[1], row[2])
        if rand.random() < 0.5:
            state, revised = revised.dump(), _scores(kind)
            revised.load(state)
            assert state == revised.dump()
    for row in rows:
        expected.update_of(row[0], row[1], row[2])
    found, wanted = revised.report(), expected.report()
    if not within:
        found, wanted = ({"cumulative": each["cumulative"]} for each in (found, wanted))

    assert _near(found, wanted), f"seed {seed}"
    assert revised.totals() == pytest.approx(expected.totals(), rel=1e-9, abs=1e-9)
    assert (expected.n, expected.coverage) == (revised.n, revised.coverage)


def test_a_score_that_forgets_its_former_label_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of revised scores notices one that is left in the window."""
    monkeypatch.setattr(Scores, "_revise_recent", lambda *_: None)
    inner = test_revised_scores_are_those_of_the_last_words.hypothesis.inner_test  # type: ignore[attr-defined]
    with pytest.raises(AssertionError):
        inner(3, "binary")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_baseline_knows_the_last_word_from_when_it_was_said(kind: str) -> None:
    """Before that it answers by the first; after it as if that had never been said."""
    rand = random.Random(5)
    label_of, _ = KINDS[kind]
    labels = [label_of(rand) for _ in range(20)]
    last = [*labels[:7], label_of(random.Random(1)), *labels[8:]]
    classes = CLASSES if kind == "multiclass" else ()
    corrected, expected = (Baselines(kind, classes, horizon_ms=1_000) for _ in range(2))
    for n, (first, word) in enumerate(zip(labels, last, strict=True)):
        corrected.learn(first, n, n)
        expected.learn(word, n, n)
    before = [corrected.answers(15), corrected.answers(29)]
    corrected.learn(last[7], 30, 25, labels[7])
    state = corrected.dump()
    assert before == [corrected.answers(15), corrected.answers(29)]
    corrected.load(state)
    corrected.learn(labels[0], 40, 40)
    expected.learn(labels[0], 40, 40)
    found, wanted = corrected.answers(40), expected.answers(40)

    # `last` is what was said last, whatever it was about.
    assert [pytest.approx(answer) for name, answer in found.items() if name != "last"] == [
        answer for name, answer in wanted.items() if name != "last"
    ]


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_open_blocks_sum_to_what_the_last_words_do_exactly(seed: int) -> None:
    """Those that were closed stay as they were, and the corrections that they miss are counted."""
    rand = random.Random(seed)
    revised, expected = (Blocks(100, maturity_ms=50) for _ in range(2))
    pairs = [[rand.randrange(500), rand.gauss(0, 1)] for _ in range(60)]
    closed_before = rand.choice([0, 250])
    for ts, difference in pairs:
        revised.add(int(ts), difference)
    # A block that is complete is past correction, whether or not it was closed as yet.
    closed = revised.close(closed_before) if rand.random() < 0.5 else []
    ended = (closed_before - 50) // 100 * 100
    missed = 0
    for pair in rand.sample(pairs, 15):
        is_late, difference = pair[0] < ended, rand.gauss(0, 1)
        revised.revise(int(pair[0]), pair[1], difference, closed_before)
        missed += is_late
        if not is_late:
            pair[1] = difference
    for ts, difference in pairs:
        expected.add(int(ts), difference)
    closed += revised.close(closed_before)

    assert expected.close(closed_before) == closed
    assert expected.close(10_000) == revised.close(10_000)
    assert missed == revised.late_corrections == revised.dump().get("late_corrections", 0)


def test_scores_hold_no_id_and_take_up_a_state_that_has_them() -> None:
    """A board's state names no event, and one of before is corrected as one of now."""
    board = _board()
    for n in range(3):
        board.add(_example(n, True, 10 + n), 10 + n)
    held = board.dump_scores()[SERVED_SLOT]
    former, present = Scores("binary", revisable=True), Scores("binary", revisable=True)
    ids = {"ids": [f"e{n}" for n in range(3)]}
    former.load({name: each for name, each in held.items() if name != "names"} | ids)
    present.load(held)
    for scores in (former, present):
        scores.revise(pair_name("e1"), True, False, 0.2)

    assert "e1" not in str(held)
    assert present.dump() == former.dump() != held
    assert (0.64 * 2 + 0.04) / 3 == pytest.approx(present.report()["windowed"]["brier"])


def test_a_correction_counts_in_the_block_of_its_example() -> None:
    """Neither the open block nor another one of the last shows it."""
    scores, blocks = Scores("binary", revisable=True), ScoresByBlock(100, "binary", ())
    for n in range(6):
        blocks.close(100 * n, {"served": scores})
        scores.update_of(f"e{n}", False, 0.25)
    for n in (2, 5):
        before = scores.totals()
        scores.revise(f"e{n}", False, True, 0.25)
        change = [b - a for a, b in zip(before, scores.totals(), strict=True)]
        blocks.book("served", change, 100 * n + 1)
    blocks.close(600, {"served": scores})
    found = [row["scores"]["served"]["brier"] for row in block_reports(blocks.dump())[1:]]

    assert found == pytest.approx([0.0625, 0.0625, 0.5625, 0.0625, 0.0625, 0.5625])
    assert math.isclose(scores.report()["cumulative"]["brier"], (4 * 0.0625 + 2 * 0.5625) / 6)


def _example(n: int, label: bool, label_ts: int, correction: Correction | None = None) -> Example:
    prediction = Prediction(
        f"e{n}", "k", n, Source(0, n), "a@1", 1, 0.2, False, {}, {}, ("country=it",)
    )
    return Example(prediction, label, label_ts, Source(0, 0), correction=correction)


def _board() -> Scoreboard:
    slices = SliceNames(["country=it"], {})
    return Scoreboard(Target("binary"), 10**6, slices, block_ms=100, corrections_ms=10**6)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_blocks_are_those_of_the_last_words_whatever_the_times(seed: int) -> None:
    """However often a label is corrected, and however far ahead or behind its time is."""
    rand = random.Random(seed)
    revised, expected, watermark = _board(), _board(), 0
    rows: list[list[Any]] = []
    for n in range(80):
        watermark += rand.choice([0, 5, 30, 150])
        revised.end_block(watermark)
        rows.append(
            [n, rand.random() < 0.5, max(0, watermark + rand.randint(-120, 120)), watermark]
        )
        revised.add(_example(*rows[-1][:3]), watermark)
        for _ in range(rand.randint(0, 2)):
            row = rand.choice(rows)
            former, row[1] = row[1], not row[1]
            correction = Correction(former, watermark, first_ts=row[2])
            revised.revise(_example(row[0], row[1], watermark), correction, watermark)
        if rand.random() < 0.1:
            state, scores = revised.dump(), revised.dump_scores()
            revised = _board()
            revised.load(state, scores)
            assert state == revised.dump()
    for n, label, label_ts, when in rows:
        expected.end_block(when)
        expected.add(_example(n, label, label_ts), when)
    found, wanted = (
        {row["start"]: row["scores"] for row in block_reports(each.dump()["blocks"])[1:]}
        for each in (revised, expected)
    )

    assert wanted.keys() == found.keys()
    for start, scores in wanted.items():
        for name in (SERVED_SLOT, "slice country=it"):
            assert scores.get(name) == _approx(found[start].get(name)), (start, name)


def _approx(each: Any) -> Any:
    if isinstance(each, dict):
        return {name: _approx(x) for name, x in each.items()}
    return pytest.approx(each, rel=1e-9, abs=1e-9) if isinstance(each, float) else each


def test_what_came_while_values_were_learned_is_corrected_in_no_slice_of_them() -> None:
    """A slice is of the examples that were counted in it, whichever labels are corrected."""
    names = SliceNames([], {"country": 1})
    board = Scoreboard(Target("binary"), 10**6, names, corrections_ms=10**6)
    for n in range(LEARNED + 10):
        board.add(_example(n, False, n + 1), n + 1)
    for n in range(20):
        board.revise(_example(n, True, 2_000), Correction(False, n + 1), 2_000)
    board.revise(_example(LEARNED + 3, True, 2_000), Correction(False, LEARNED + 4), 2_000)
    [found] = [each for each in board.evaluations(0, lambda _: None) if each.model == SERVED_SLOT]

    assert found.slices is not None
    part = found.slices["country=it"]
    assert (10, 0.9) == (part["n"], part["scores"]["cumulative"]["accuracy"])
    state = names.dump()
    other = SliceNames([], {"country": 1})
    other.load(state)
    assert state == other.dump()
    assert [] == other.counted(["country=it"], 5)
