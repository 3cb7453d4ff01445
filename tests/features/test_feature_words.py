"""Features in words, as `plan` and `apply` say them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stream_ml.features import (
    FeatureSet,
    calendar,
    hopping,
    lag,
    last_events,
    session,
    tumbling,
    window,
)
from stream_ml.features.words import feature_words
from stream_ml.schema import Enum, FieldType

if TYPE_CHECKING:
    from stream_ml.features import Feature

SCHEMA: dict[str, FieldType] = {"x": FieldType("float"), "kind": Enum("a", "b")}
WORDS: list[tuple[Feature, str]] = [
    (window("1h", ago="1d").count(), "count over 1h, until 1d before"),
    (tumbling("1h").median("x"), "median of x over the present window of 1h"),
    (
        hopping("1h", "10m", previous=True).first("x"),
        "first of x over the last whole window of 1h, one every 10m",
    ),
    (session("30m").count(), "count over the session (gap 30m, 1d at most)"),
    (
        calendar("day", "Europe/Rome").sum("x", fill=0.0),
        "sum of x over this day so far, in Europe/Rome, else 0.0",
    ),
    (calendar("month", previous=True).count(), "count over the month before, in UTC"),
    (last_events(20).slope("x"), "slope(1h) of x over the last 20 events within 30d"),
    (lag("x", "7d", tolerance="1h"), "lag(7d) of x within 1h of 7d before"),
    (
        window("1h").decayed_variance("x", half_life="10m"),
        "decayed_variance(10m) of x over 1h",
    ),
    (window("1h").rate("x", per="1m", fill=0.0), "sum of x over 1h, per 1m, else 0.0"),
    (window("1h").distinct_approx("kind"), "distinct_approx of kind over 1h"),
    (
        window("1h").counts("kind"),
        "counts of kind over 1h, as counts(kind) 1h=a, counts(kind) 1h=b",
    ),
    (
        window("1h").top_k("kind", 2),
        "top_k(2) of kind over 1h, as top_k(kind) 1h=1, top_k(kind) 1h=2",
    ),
]


@pytest.mark.parametrize(("feature", "expected"), WORDS, ids=[words for _, words in WORDS])
def test_windows_of_every_kind_have_words(feature: Feature, expected: str) -> None:
    """A person reads what a window holds, and no list of milliseconds."""
    declared = dict(FeatureSet([feature], SCHEMA, 0).declaration())

    assert expected == feature_words(declared[f"features.{feature.name}"])
