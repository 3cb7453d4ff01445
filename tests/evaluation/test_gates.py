"""Gates: what keeps a challenger from being promoted, whatever the evidence."""

from __future__ import annotations

import json
import random
import re

import pytest

from stream_ml.evaluation.gates import EXAMPLES_MIN, Gates


def fed(losses: list[float | None], **baselines: float) -> Gates:
    """Gates that have seen a line lose this, beside baselines that always lose the same."""
    gates = Gates(coverage_min=0.9)
    for loss in losses:
        gates.add("tree", loss, baselines)
    return gates


def test_a_line_that_is_worse_than_a_baseline_is_rejected() -> None:
    """It says which baseline, and the figures."""
    reason = fed([0.3] * 60, prior=0.25, uniform=0.35).rejection("tree")

    assert "worse than prior: 0.3000 against 0.2500 per example, on the same examples" == reason


@pytest.mark.parametrize("loss", [0.2, 0.25, 0.2524])
def test_a_line_that_is_no_worse_passes(loss: float) -> None:
    """Also one that is as good, or worse by less than a hundredth."""
    assert fed([loss] * 60, prior=0.25, uniform=0.35).rejection("tree") is None


def test_too_few_examples_reject_nobody() -> None:
    """What is not known is held against nobody; nor is who was never asked."""
    gates = fed([0.3] * (EXAMPLES_MIN - 1), prior=0.25)
    assert gates.rejection("tree") is None
    assert gates.rejection("nobody") is None

    gates.add("tree", 0.3, {"prior": 0.25})
    assert gates.rejection("tree") is not None


def test_a_line_with_too_few_answers_is_rejected() -> None:
    """Silence must not look good: what is not answered is no loss, and no merit."""
    silent: list[float | None] = [0.0, 0.0, 0.0, None]
    reason = fed(silent * 100, prior=0.25).rejection("tree")

    assert reason is not None
    assert re.fullmatch(r"answers only 7[45]\.\d% of examples; 90\.0% are asked for", reason)
    assert fed([*([0.0] * 19), None] * 20, prior=0.25).rejection("tree") is None


def test_a_line_is_held_against_what_answered_the_same_examples() -> None:
    """A baseline that had no answer yet where the line did badly is compared on the rest."""
    gates = Gates(coverage_min=0.9)
    for number in range(200):
        gates.add("tree", 0.9 if number < 100 else 0.1, {"prior": 0.25} if number >= 100 else {})

    assert gates.rejection("tree") is None


def test_the_past_fades() -> None:
    """A line that was bad a few thousand examples ago, and is good now, passes."""
    gates = fed([0.9] * 500, prior=0.25)
    assert gates.rejection("tree") is not None
    for _ in range(4_000):
        gates.add("tree", 0.1, {"prior": 0.25})

    assert gates.rejection("tree") is None


def test_a_state_goes_on_bit_for_bit() -> None:
    """Dumped as JSON and taken up, it comes to the same; a line that is gone is forgotten."""
    rand = random.Random(1)
    straight, through = Gates(0.9), Gates(0.9)
    for number in range(300):
        line = rand.choice(["a", "b"])
        loss = None if rand.random() < 0.05 else rand.random()
        losses = {"prior": rand.random()} if rand.random() < 0.9 else {}
        straight.add(line, loss, losses)
        through.add(line, loss, losses)
        if number == 150:
            state = json.loads(json.dumps(through.dump()))
            through = Gates(0.9)
            through.load(state)

    assert straight.dump() == through.dump()
    through.retain(["a"])
    assert ["a"] == list(through.dump())
