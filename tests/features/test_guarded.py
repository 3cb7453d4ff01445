"""Users' aggregates that raise: their window has no answer, and nothing else is any different."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import stream_ml as sml
from stream_ml.features import Aggregate, FeatureSet
from stream_ml.features.aggregates import Quantile, Slope, TopK
from stream_ml.records import Event
from stream_ml.schema import field_type
from stream_ml.testing import CRASH, Driver
from tests.shop import declare, shop, stream

if TYPE_CHECKING:
    from stream_ml.features import Feature

AT = 13.0


class Touchy(Aggregate):
    """Counts, and fails at one value, in whichever method it was made to."""

    name = "touchy"
    any_order = True

    def __init__(self, where: str) -> None:
        self.where = where
        self.n = 0
        self.met = False

    def _may_fail(self, where: str) -> None:
        if self.met and where == self.where:
            raise SystemExit(3)

    def add(self, t: int, x: Any) -> None:
        """Counts."""
        del t
        self.n += 1
        self.met |= x == AT
        self._may_fail("add")

    def evict(self, t: int, x: Any) -> None:
        """Counts."""
        del t, x
        self.n -= 1
        self._may_fail("evict")

    def value(self, t: int) -> float | None:
        """The count."""
        del t
        self._may_fail("value")
        return float("nan") if self.met and self.where == "nan" else float(self.n)

    def dump(self) -> Any:
        """The count; of what has met the value, nothing that JSON knows."""
        self._may_fail("dump")
        return [self.n, {self} if self.met and self.where == "json" else self.met]

    def load(self, state: Any) -> None:
        """The count."""
        self.n, self.met = state
        self._may_fail("load")


@pytest.mark.parametrize("where", ["add", "evict", "value", "nan", "dump", "json", "load"])
def test_an_aggregate_that_fails_ends_its_window_and_nothing_else(where: str) -> None:
    """Every event is answered, before and after starts; a person is told once."""
    mine = sml.window("30s").aggregate(Touchy, "amount", where)
    pipeline = declare(features=[*shop.features, mine])
    events, _ = stream()
    events[20]["amount"] = AT
    with Driver(shop) as plain, Driver(pipeline) as driver:
        plain.feed(events[:100])
        driver.feed([*events[:60], CRASH, *events[60:100]])
        driver.declare(pipeline)
        plain.feed(events[100:])
        driver.feed(events[100:])
        expected = [each["features"] for each in plain.read("predictions")]
        found = [each["features"] for each in driver.read("predictions")]
        answers = [each.pop(mine.name, None) for each in found]

        assert expected == found
        assert 0 < sum(each is not None for each in answers)
        if where != "load":  # whether that is called depends on starts
            alerts = [each["message"] for each in driver.read("alerts")]
            assert 1 == len([each for each in alerts if "touchy" in each])


class Spread(Quantile):
    """How far the middle half of the values spreads: a quantile with another answer."""

    __slots__ = ()
    name = "spread"

    def value(self, t: int, q: float = 0.5) -> float | None:
        """The distance of two quantiles."""
        upper, lower = (Quantile.value(self, t, each) for each in (q / 2 + 0.5, 0.5 - q / 2))
        return None if upper is None or lower is None else upper - lower


class Trend(Slope):
    """A slope by another name."""

    __slots__ = ()
    name = "trend"


class Ranks(TopK):
    """Ranks by another name."""

    __slots__ = ()
    name = "ranks"


@pytest.mark.parametrize(
    ("features", "own"),
    [
        ([sml.window("1h").quantile("amount", 0.9)], Spread),
        ([sml.window("1h").slope("amount")], Trend),
        ([sml.window("1h").top_k("kind", 2), sml.window("1h").counts("kind", ["b"])], Ranks),
    ],
)
def test_an_own_aggregate_beside_ours_leaves_its_questions_as_they_were(
    features: list[Feature], own: type[Aggregate]
) -> None:
    """An answer is the same whether our aggregate holds the window or a subclass of a user's."""
    schema = {"amount": field_type(float), "kind": field_type(str)}
    field_name = "kind" if own is Ranks else "amount"
    answers = []
    for declared in (features, [*features, sml.window("1h").aggregate(own, field_name)]):
        state = FeatureSet(declared, schema, lateness_ms=0).new_state()
        for n in range(100):
            fields = {"amount": float(n % 37), "kind": "abb"[n % 3]}
            state.insert(Event(f"e{n}", 1_000 * n, "k", fields))
        answers.append(state.features(Event("q", 200_000, "k", {"amount": 0.0, "kind": "a"})))

    assert answers[0].items() <= answers[1].items()
    assert 0 < len(answers[0])
