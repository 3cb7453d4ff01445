"""A long reign that was deserved is no debt: a champion that breaks is replaced soon after."""

from __future__ import annotations

import pytest

from benchmarks.reign import BLOCK, BREAKS, Break, outcome

GUARDED, BY_EVIDENCE, _ = BREAKS
REIGN_BLOCKS = 60


@pytest.mark.parametrize(
    ("happening", "blocks", "begin"),
    [
        (GUARDED, 2, "guard: champion@"),
        (BY_EVIDENCE, 25, "the evidence that challenger is better suffices"),
    ],
)
def test_a_champion_that_breaks_is_replaced_whatever_its_challenger_lost_before(
    happening: Break, blocks: int, begin: str
) -> None:
    """Gross harm is answered within two guard blocks, and by evidence alone it takes 18 blocks."""
    found = outcome(1, REIGN_BLOCKS, happening)

    assert (0, True) == (found.early, found.reason.startswith(begin))
    assert found.won < 0.5
    assert found.after is not None
    assert found.after <= blocks * BLOCK
