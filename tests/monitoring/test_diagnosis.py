"""What lies behind what has moved, in words."""

from __future__ import annotations

from typing import Any

import pytest

from stream_ml.monitoring.diagnosis import CHANGE_MAX, Moved

NOW = {"values": 160, "missing": 0.3, "p50": 5.0}
USUAL = {"values": 900, "missing": 0.01, "p50": 51.25}
SHARES = {"now": {"shares": {"a" * 90: 0.3}}, "usual": {"shares": {"a" * 90: 0.5}}}


@pytest.mark.parametrize(
    ("sign", "figures", "expected"),
    [
        ("shift", {}, "median 5, usually 51.25"),
        ("units", {"factor": 0.1}, "median 5, usually 51.25"),
        ("missing", {}, "30% missing, usually 1.0%"),
        ("shift", {"of": "missing"}, "30% missing, usually 1.0%"),
        ("frozen", {}, "one value in all 160"),
        ("category", {"category": "gift"}, "'gift' is new"),
        ("shift", SHARES, "a" * (CHANGE_MAX - 3) + "..."),
    ],
)
def test_a_change_is_its_figures_in_short(
    sign: str, figures: dict[str, Any], expected: str
) -> None:
    """A row of a table says what is now and usually, however long a category's name is."""
    found = Moved(
        "field:amount", 0, sign, "block", 0.5, "", {"now": NOW, "usual": USUAL, **figures}
    )

    assert expected == found.change
