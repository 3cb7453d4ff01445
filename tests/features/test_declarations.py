"""What users declare: names, values, missing values, and every mistake found at once."""

from __future__ import annotations

import math
from typing import Any

import pytest

from stream_ml.errors import DeclarationError
from stream_ml.features import (
    Aggregate,
    FeatureSet,
    calendar,
    clip,
    difference,
    field,
    function,
    hopping,
    hour_of_day,
    lag,
    last_events,
    log,
    one_hot,
    parse_duration,
    ratio,
    session,
    weekday,
    window,
)
from stream_ml.records import Event
from stream_ml.schema import Enum, FieldType, Optional

SCHEMA: dict[str, FieldType] = {
    "a": FieldType("float"),
    "b": Optional[float],
    "n": FieldType("int"),
    "flag": FieldType("bool"),
    "kind": Enum("x", "y"),
    "maybe": Optional(Enum("x", "y")),
    "text": FieldType("str"),
}
FIELDS: dict[str, Any] = {
    "a": 4.0,
    "b": None,
    "n": 3,
    "flag": True,
    "kind": "y",
    "maybe": None,
    "text": "red",
}
# Wednesday, 1 January 2025, 03:30 in UTC; still Tuesday in New York.
NEW_YEAR_MS = 1_735_702_200_000


def values(*features: Any, **fields: Any) -> dict[str, float]:
    """The features of one event."""
    state = FeatureSet(features, SCHEMA, lateness_ms=0).new_state()
    return state.features(Event("1", NEW_YEAR_MS, "k", FIELDS | fields))


def test_fields_are_numbers() -> None:
    """Integers and booleans become floats; a null is left out unless it is filled."""
    features = values(field("a"), field("n"), field("flag"), field("b"))

    assert features == {"a": 4.0, "n": 3.0, "flag": 1.0}
    assert all(type(value) is float for value in features.values())
    assert values(field("b", fill=-1)) == {"b": -1.0}


def test_formulas() -> None:
    """Log keeps the sign, clip its bounds, and both compose over anything."""
    assert values(log("a")) == {"log(a)": math.log(5)}
    assert values(log("a"), a=-4.0) == {"log(a)": -math.log(5)}
    assert values(clip("a", 0, 1)) == {"clip(a, 0, 1)": 1.0}
    assert values(ratio("a", difference("n", "a")), a=2.0) == {"ratio(a, difference(n, a))": 2.0}


def test_what_has_no_finite_answer_is_left_out() -> None:
    """A ratio over zero, a difference beyond the largest float and NaN are missing, or filled."""
    nan = function(lambda _: math.nan, "a", name="nan")

    assert values(ratio("a", "n"), n=0) == {}
    assert values(ratio("a", "n", fill=9), n=0) == {"ratio(a, n)": 9.0}
    assert values(difference("a", "b"), a=1.7e308, b=-1.7e308) == {}
    assert values(nan, log(nan)) == {}


def test_missing_spreads_until_it_is_filled() -> None:
    """A formula of a missing value is missing; of a filled one it is not."""
    assert values(log("b")) == {}
    assert values(log(field("b", fill=0))) == {"log(b)": 0.0}
    assert values(ratio("a", window("1h").mean("a", fill=2))) == {"ratio(a, mean(a) 1h)": 2.0}
    assert values(ratio("a", window("1h").mean("a"))) == {}


def test_one_hot_has_every_column() -> None:
    """Zeros are there, and an unknown category and a null have columns of their own."""
    assert values(one_hot("kind")) == {"kind=x": 0.0, "kind=y": 1.0}
    assert values(one_hot("flag")) == {"flag=false": 0.0, "flag=true": 1.0}
    assert values(one_hot("maybe")) == {"maybe=x": 0.0, "maybe=y": 0.0, "maybe=null": 1.0}
    assert values(one_hot("text", ["blue"])) == {"text=blue": 0.0, "text=other": 1.0}
    assert values(one_hot("n", [3]).named("size")) == {"size=3": 1.0, "size=other": 0.0}


def test_a_category_may_be_called_as_one_of_our_own_columns() -> None:
    """What is not among the categories, and null, keep columns apart from such categories."""
    assert values(one_hot("text", ["red", "other"])) == {
        "text=red": 1.0,
        "text=other": 0.0,
        "text=(other)": 0.0,
    }
    assert values(one_hot("text", ["other", "(other)"]), text="z")["text=((other))"] == 1.0
    schema = SCHEMA | {"maybe": Optional(Enum("null", "x"))}
    state = FeatureSet([one_hot("maybe")], schema, lateness_ms=0).new_state()

    assert state.features(Event("1", 1, "k", FIELDS | {"maybe": None})) == {
        "maybe=null": 0.0,
        "maybe=x": 0.0,
        "maybe=(null)": 1.0,
    }


def test_the_calendar() -> None:
    """Hours and weekdays in UTC and elsewhere, as numbers, on a circle, and one by one."""
    assert values(hour_of_day(), weekday()) == {"hour_of_day": 3.0, "weekday": 2.0}
    assert values(hour_of_day("America/New_York"), weekday("America/New_York")) == {
        "hour_of_day America/New_York": 22.0,
        "weekday America/New_York": 1.0,
    }
    quarter = values(hour_of_day(encode="cycle"))

    assert quarter == pytest.approx({"hour_of_day sin": 0.5**0.5, "hour_of_day cos": 0.5**0.5})
    assert values(weekday(encode="one_hot")) == {f"weekday={n}": float(n == 2) for n in range(7)}


def test_names_are_those_of_the_features_in_order() -> None:
    """`names` lists every column, window features and others in the order declared."""
    declared = [
        window("90m").count(kind=("x", "y")),
        one_hot("kind"),
        window("1d", by=("kind", "flag")).decayed_mean("a", half_life="1h"),
        window("1h").aggregate(Aggregate_, "a", 5).named("mine"),
        window(1_500).time_since_last(),
        field("a"),
    ]
    feature_set = FeatureSet(declared, SCHEMA, 0)

    assert feature_set.names == (
        "count 90m kind=x|y",
        "kind=x",
        "kind=y",
        "decayed_mean(a, 1h) 1d by kind,flag",
        "mine",
        "seconds_since_last 1500ms",
        "a",
    )
    assert feature_set.horizon_ms == parse_duration("1d")

    state = feature_set.new_state()
    state.insert(Event("1", 0, "k", FIELDS))

    assert tuple(state.features(Event("2", 1, "k", FIELDS))) == feature_set.names


class Aggregate_(Aggregate):  # noqa: N801 - not to be taken for the real one
    """A user's own: the sum, times a factor."""

    name = "mine"

    def __init__(self, factor: int) -> None:
        self.factor, self.total = factor, 0.0

    def add(self, t: int, x: float) -> None:  # noqa: D102, ARG002 - the protocol's signature
        self.total += x

    def evict(self, t: int, x: float) -> None:  # noqa: D102, ARG002 - the protocol's signature
        self.total -= x

    def value(self, t: int) -> float:  # noqa: D102, ARG002 - the protocol's signature
        return self.total * self.factor


def test_equal_declarations_have_equal_hashes() -> None:
    """The hash tells declarations apart by name, order, value, window, fill and version."""

    def hashed(*features: Any) -> str:
        return FeatureSet(features, SCHEMA, 0).hash

    def double(x: float) -> float:
        return 2 * x

    different = [
        hashed(field("a")),
        hashed(field("a", fill=0)),
        hashed(field("a").named("A")),
        hashed(field("a"), field("n")),
        hashed(field("n"), field("a")),
        hashed(window("1h").mean("a")),
        hashed(window("2h").mean("a").named("mean(a) 1h")),
        hashed(window("1h").mean("a", kind="x").named("mean(a) 1h")),
        hashed(function(double, "a")),
        hashed(function(double, "a", version=2)),
    ]

    assert len(set(different)) == len(different)
    assert hashed(window("60m").mean("a")) == hashed(window("1h").mean("a"))
    assert len(different[0]) == 64


@pytest.mark.parametrize(
    ("feature", "expected", "given"),
    [
        (field("z"), "one of the fields a, b, n, flag, kind, maybe, text", "str 'z'"),
        (field("text"), "a field that is a number", "`text`, which is str"),
        (field("a", fill=math.nan), "a finite number as `fill`", "float nan"),
        (window("1h").mean("kind"), "a field that is a number", "`kind`, which is one of x, y"),
        (
            window("1 h").count(),
            "a duration such as '30s', '10m', '1h', '7d' or milliseconds",
            "str '1 h'",
        ),
        (window(0).count(), "a duration such as '30s', '10m', '1h', '7d' or milliseconds", "int 0"),
        (
            window("1h").decayed_mean("a", half_life="x"),
            "a duration such as '30s', '10m', '1h', '7d' or milliseconds",
            "str 'x'",
        ),
        (window("1h").count(kind="z"), "`kind` to be one of x, y", "str 'z'"),
        (window("1h").count(n="1"), "`n` to be int", "str '1'"),
        (window("1h").count(kind=()), "values of `kind` to look for", "none"),
        (window("1h").count(kind=None), "`kind` to be one of x, y", "null"),
        (window("1h").count(z=1), "one of the fields a, b, n, flag, kind, maybe, text", "str 'z'"),
        (window("1h", by="a").count(), "`by` a field with categories", "`a`, which is float"),
        (
            window("1h").mean(window("1h").mean("a")),
            "an expression on the event's own fields",
            "`mean(a) 1h`",
        ),
        (window("1h").aggregate(Aggregate_), "what to take the mine of", "nothing"),
        (window("1h").aggregate(int, "a"), "a subclass of Aggregate", "type <class 'int'>"),
        (one_hot("text"), "`categories`, as `text` is an open str", "none"),
        (one_hot("kind", ["x"]), "no `categories`, as `kind` is one of x, y", "tuple ('x',)"),
        (one_hot("a"), "a field with categories", "`a`, which is float"),
        (one_hot("text", [1]), "categories that are str", "int 1"),
        (log(one_hot("kind")), "a feature of one number", "`kind`, which has several"),
        (clip("a", 2, 1), "two finite numbers, the lower first", "int 2, int 1"),
        (ratio("a", 1.5), "a field's name or a feature", "float 1.5"),  # type: ignore[arg-type]  # the mistake
        (function(lambda a: a, "a"), "a `name` for a function that has none", "str '<lambda>'"),
        (function(abs), "the fields the function takes", "none"),
        (
            hour_of_day("Mars/Olympus"),
            "a time zone such as 'UTC' or 'America/New_York'",
            "str 'Mars/Olympus'",
        ),
        (hour_of_day(encode="words"), "`encode` to be number, cycle or one_hot", "str 'words'"),  # type: ignore[arg-type]  # the mistake
        (one_hot("text", {"a"}), "a list or tuple of categories: a set has no order", "set {'a'}"),  # type: ignore[arg-type]  # the mistake
        (one_hot("text", ["a", "a"]), "categories that are different", "str 'a' twice"),
        (
            window("1h", by={"kind"}).count(),  # type: ignore[arg-type]  # the mistake
            "`by` a field, or a list of fields: a set has no order",
            "set {'kind'}",
        ),
        (log(field("a").named("")), "a name that is a text", "str ''"),
        (hopping("1h", "7m").count(), "`every` to go into 1h without a rest", "7m"),
        (session("2d").count(), "`longest` not below the gap of 2d", "1d"),
        (calendar("year").count(), "one of hour, day, week, month", "str 'year'"),
        (
            calendar("day", "Mars").count(),
            "a time zone such as 'UTC' or 'America/New_York'",
            "str 'Mars'",
        ),
        (calendar("day", previous=1).count(), "`previous` to be True or False", "int 1"),  # type: ignore[arg-type]  # the mistake
        (last_events(0).count(), "a whole number of events from 1 to 10000", "int 0"),
        (lag("a", "1h", tolerance="1h"), "a tolerance below 1h, how long ago it is", "1h"),
        (window("1h").quantile("a", 1.5), "`q` to be a number from 0 to 1", "float 1.5"),
        (window("1h").top_k("kind", 0), "a whole number `k` from 1 to 100", "int 0"),
        (window("1h").counts("text"), "`categories`, as `text` is an open str", "none"),
        (window("1h").counts("a"), "a field with categories", "`a`, which is float"),
        (
            window("1h").rate(per="x"),
            "a duration such as '30s', '10m', '1h', '7d' or milliseconds",
            "str 'x'",
        ),
        ("a", "a feature, such as field('amount')", "str 'a'"),
    ],
)
def test_every_mistake_says_what_was_expected(feature: Any, expected: str, given: str) -> None:
    """A mistake names its feature's place, what was expected there and what was given."""
    (problem,) = FeatureSet.check([field("a"), feature], SCHEMA)

    assert (problem.path, problem.expected, problem.actual) == ("features[1]", expected, given)


def test_all_mistakes_are_found_at_once() -> None:
    """A declaration with several mistakes is refused once, with all of them."""
    with pytest.raises(DeclarationError) as caught:
        FeatureSet([field("z"), field("a"), field("text"), field("a")], SCHEMA, 0)

    assert [problem.path for problem in caught.value.problems] == [
        "features[0]",
        "features[2]",
        "features[3]",
    ]
    assert caught.value.problems[2].actual == "`a`, the name of features[1]"


@pytest.mark.parametrize(
    "wrong", ["", "1", "h", "-1h", "1.5h", "1w", "0s", 0, -1, True, "40000d", None]
)
def test_what_is_no_duration_is_refused(wrong: Any) -> None:
    """A duration is a positive whole number of ms, s, m, h or d; nothing else is guessed at."""
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(wrong)
