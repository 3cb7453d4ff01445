"""Windows of another entity than the key: of a merchant, over the events of all cards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stream_ml as sml
from benchmarks.entities import declare, differences, expected, payments, windows
from stream_ml.errors import DeclarationError, UsageError
from stream_ml.features import FeatureSet, FeatureState, window
from stream_ml.features.words import feature_words
from stream_ml.records import Event, Record
from stream_ml.schema import FieldType, Optional
from stream_ml.stages.erasure import Erasures
from stream_ml.stages.predict import Predict
from stream_ml.stages.serving import Serving
from stream_ml.testing import CRASH, Driver
from tests.stages.test_erasure import at, marker

if TYPE_CHECKING:
    from stream_ml.pipeline import Pipeline

MARKET = declare()
SCHEMA: dict[str, FieldType] = {
    "card": FieldType("str"),
    "merchant": Optional[str],
    "amount": FieldType("float"),
}


def state_of(*features: Any) -> FeatureState:
    """The state before any event."""
    return FeatureSet(features, SCHEMA, 1_000).new_state()


def event(ts: int, card: str, merchant: str | None, amount: float = 1.0) -> Event:
    """A payment."""
    return Event(f"{card} {ts}", ts, card, {"card": card, "merchant": merchant, "amount": amount})


def asked(state: FeatureState, *events: Event) -> list[dict[str, float]]:
    """The features of each, taken in one after the other."""
    given = []
    for each in events:
        given.append(state.features(each))
        state.insert(each)
    return given


# --- against the oracle -----------------------------------------------------------------------


@given(st.integers(0, 2**32))
@settings(max_examples=4, deadline=None)
def test_features_of_a_merchant_are_those_of_brute_force_whoever_dies(seed: int) -> None:
    """Late and doubled payments, odd merchants and none, crashes: all is as an oracle says."""
    sent = payments(seed, 600, cards=40, merchants=8)
    with Driver(MARKET, seed=seed) as driver:
        driver.feed([*sent[:200], CRASH, *sent[200:400], CRASH, *sent[400:]])
        found = differences(expected(sent), driver.read("predictions"))

    assert [] == found


def test_the_oracle_sees_a_payment_that_sees_its_own_instant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asked a millisecond later, or of the card in place of the merchant, nothing passes."""
    sent = payments(3, 400, cards=4, merchants=3)
    features = [sml.window("1h").count(), *windows()]
    names = [feature.name for feature in MARKET.features]
    renamed = [each.named(name) for each, name in zip(features, names, strict=True)]
    with Driver(declare(features=renamed)) as driver:
        driver.feed(sent)
        of_cards = differences(expected(sent), driver.read("predictions"))
    monkeypatch.setattr(FeatureState, "_answers", _late(FeatureState._answers))
    with Driver(MARKET) as driver:
        driver.feed(sent)
        too_late = differences(expected(sent), driver.read("predictions"))

    assert len(of_cards) > 300
    assert len(too_late) > 20


def _late(answers: Any) -> Any:
    def of(state: FeatureState, each: Event) -> Any:
        return answers(state, Event(each.event_id, each.ts + 1, each.key, each.fields))

    return of


# --- who is in whose window -------------------------------------------------------------------


def test_a_window_of_a_merchant_holds_the_payments_of_all_cards() -> None:
    """Those of another merchant, and of the same card elsewhere, are not in it."""
    count = window(100, entity="merchant").count().named("n")
    given = asked(
        state_of(count),
        event(1, "ada", "shoes"),
        event(2, "bob", "shoes"),
        event(3, "ada", "books"),
        event(4, "cid", "shoes"),
    )

    assert [0.0, 1.0, 0.0, 2.0] == [each["n"] for each in given]


def test_what_is_at_no_merchant_has_no_answer_and_enters_no_window() -> None:
    """The fill stands in; no such events are together."""
    count = window(100, entity="merchant").count().named("n")
    filled = window(100, entity="merchant").count(fill=-1.0).named("filled")
    state = state_of(count, filled)
    given = asked(state, event(1, "ada", None), event(2, "bob", None))

    assert [{"filled": -1.0}] * 2 == given
    assert {"n"} == state.feature_set.missing


def test_a_key_and_a_merchant_of_one_name_are_two() -> None:
    """Whatever a card or a merchant is called, their windows and pieces of state are apart."""
    state = state_of(
        window(100).count().named("of_card"), window(100, entity="merchant").count().named("of_m")
    )
    asked(state, event(1, "None", "m"), event(2, "m", "None"), event(3, "null", ""))
    names = [name for name, _ in state.dirty()]
    last = asked(state, event(9, "m", "m"))
    forgotten = state.forget(lambda name: name == "None", "somebody")
    after = asked(state, event(10, "None", "m"))

    assert 6 == len(set(names))
    assert 3 == sum(orjson.loads(name)[1] is None for name in names)
    assert [{"of_card": 1.0, "of_m": 1.0}] == last
    assert (1, [{"of_card": 0.0, "of_m": 2.0}]) == (forgotten, after)
    assert 3 == len(state)  # cards: a merchant is no key


def test_what_was_stored_goes_on_where_it_was() -> None:
    """Pieces, taken up by another process, give what the first would have given."""
    names = ("1s", "90s")
    features = [window(each, entity="merchant").mean("amount").named(each) for each in names]
    grouped = window("1s", entity="merchant", by="card").count().named("by card")
    first, second = state_of(*features, grouped), state_of(*features, grouped)
    asked(first, *[event(100 * n, f"c{n % 3}", f"m{n % 2}", n / 7) for n in range(40)])
    second.restore([(name, piece) for name, piece in first.dirty() if piece is not None])
    later = [event(4_000 + 50 * n, f"c{n % 3}", f"m{n % 2}", n / 3) for n in range(40)]

    assert asked(first, *later) == asked(second, *later)
    assert first.dirty() == second.dirty()


def test_a_merchant_that_has_fallen_silent_is_let_go() -> None:
    """Its window is dropped as a card's is, when no payment can ask for it any more."""
    state = state_of(window(100, entity="merchant").count())
    asked(state, event(1, "ada", "shoes"))
    state.dirty()
    state.advance(1_102)

    assert [None] == [piece for _, piece in state.dirty()]


# --- forgotten --------------------------------------------------------------------------------


def test_a_forgotten_card_is_named_nowhere_and_merchants_keep_their_numbers() -> None:
    """Its own windows go, and one it gave its name to; what others count stays as it is."""
    distinct = window("1h", entity="merchant").distinct("card").named("cards")
    total = window("1h", entity="merchant").sum("amount").named("total")
    pipeline = declare("shop", [window("1h").count().named("own"), distinct, total])
    erasures = Erasures(b"the key of the house", "shop", "log")
    stage = Predict(pipeline, Serving(pipeline, b""), erasures=erasures)
    for number, (card, merchant) in enumerate([("ada", "shoes"), ("bob", "shoes"), ("bob", "ada")]):
        stage.replay([_record(number, card, merchant)])
    pieces = dict(stage.dirty())
    stage.replay([at("events", 3, marker("ada"), erasures)])
    pieces.update(stage.dirty())
    held = {name: value for name, value in pieces.items() if value is not None}
    (given,) = stage.vectors([_record(4, "cid", "shoes")])
    again = Predict(pipeline, Serving(pipeline, b""), erasures=erasures)
    again.restore(held.items())
    (restored,) = again.vectors([_record(4, "cid", "shoes")])
    (later,) = stage.vectors([_record(3_600_002, "eve", "shoes")])

    windows_held = {name: value for name, value in held.items() if name.startswith("w")}
    assert windows_held
    assert [] == [name for name, value in windows_held.items() if b'"ada"' in name.encode() + value]
    assert {"own": 0.0, "cards": 2.0, "total": 20.0} == given[2]
    assert given == restored
    assert {"own": 0.0, "cards": 1.0, "total": 10.0} == later[2]  # cid's is left


def _record(number: int, card: str, merchant: str) -> Record:
    members = {
        "event_id": f"e{number}",
        "ts": 1_700_000_000_000 + number,
        "card": card,
        "merchant": merchant,
        "kind": "paid",
        "amount": 10.0,
    }
    return Record("events", 0, number, None, orjson.dumps(members), 2**42)


# --- declared ---------------------------------------------------------------------------------


def test_it_is_named_by_whose_it_is_in_features_and_in_words() -> None:
    """A plan says of whom a window is; features of a card and of a merchant have two names."""
    feature = window("1h", entity="merchant", by="card").mean("amount", fill=0.0)
    text = orjson.dumps([[feature.name], feature.describe()]).decode()

    assert "mean(amount) 1h of merchant by card" == feature.name
    assert "mean of amount over 1h of merchant by card, else 0.0" == feature_words(text)


@pytest.mark.parametrize(
    ("entity", "problem"),
    [
        ("shop", "features[0]: expected one of the fields card, merchant, amount, given"),
        ("amount", "features[0]: expected `entity` a field with categories"),
        ({"merchant"}, "features[0]: expected `entity` a field, or a list of fields"),
    ],
)
def test_an_entity_that_no_field_names_is_refused(entity: Any, problem: str) -> None:
    """The declaration says where, what was expected, and what was given."""
    with pytest.raises(DeclarationError) as refusal:
        FeatureSet([window("1h", entity=entity).count()], SCHEMA, 0)

    assert problem in str(refusal.value)


def test_a_log_of_several_partitions_is_refused_with_the_way_out() -> None:
    """There is no order between partitions that a window of all cards could go by."""
    with Driver(MARKET, partitions=2) as driver, pytest.raises(UsageError) as refusal:
        driver.run()

    assert (
        "features: expected all events in one partition, as windows of merchant hold events of all "
        "keys in the order of the log, given a log with 2 partitions of events; give the pipeline "
        "another name, for which `stream-ml topics apply` makes one, and publish there, or declare "
        "these windows with a `delay`, or with `by` in place of `entity`"
    ) == str(refusal.value)


def changed_in_flight(sent: list[dict[str, Any]], plain: Pipeline) -> list[dict[str, Any]]:
    """Predictions of a pipeline that gets its features of merchants half way."""
    with Driver(plain) as driver:
        driver.feed(sent[:200])
        driver.declare(MARKET, apply="merchants are refused in bursts")
        driver.feed(sent[200:])
        return [each for each in driver.read("predictions") if len(each["features"]) > 1]


def test_applied_in_flight_they_are_as_if_they_had_been_there_all_along() -> None:
    """Windows of merchants are filled from the events of before."""
    sent = payments(5, 400, cards=20, merchants=5)
    plain = declare(features=[sml.window("1h").count()])
    oracle = expected(sent)
    predictions = changed_in_flight(sent, plain)
    later = {each["event_id"]: oracle[each["event_id"]] for each in predictions}

    assert len(later) > 190
    assert [] == differences(later, predictions)


# --- every kind of window ---------------------------------------------------------------------


def kinds(**whose: str) -> list[Any]:
    """A feature of each kind of window."""
    return [
        sml.window("2s", ago="1s", **whose).sum("amount"),
        sml.tumbling("3s", **whose).count(),
        sml.hopping("4s", "2s", previous=True, **whose).mean("amount"),
        sml.session("1s", **whose).count(),
        sml.calendar("hour", **whose).max("amount"),
        sml.last_events(5, **whose).median("amount"),
        sml.window("5s", **whose).rate(),
        sml.window("5s", **whose).counts("merchant", categories=["m0", "m1"]),
        sml.lag("amount", "2s", tolerance="1s", **whose),
    ]


def test_every_kind_of_window_may_be_of_an_entity() -> None:
    """It says what it would say of a key, if the merchant were the key."""
    of_merchants, of_keys = state_of(*kinds(entity="merchant")), state_of(*kinds())
    stored = state_of(*kinds(entity="merchant"))
    for number in range(300):
        card, merchant, t = f"c{number % 7}", f"m{number * number % 3}", 130 * number
        paid = event(t - 500 if number % 9 == 0 else t, card, merchant, number % 11)
        as_key = Event(paid.event_id, paid.ts, merchant, paid.fields)
        if number == 150:
            stored.restore([(n, p) for n, p in of_merchants.dirty() if p is not None])
            of_merchants = stored
        for state in (of_merchants, of_keys):
            state.advance(t - 130)
        (given,), (expected_of,) = asked(of_merchants, paid), asked(of_keys, as_key)

        assert [*expected_of.values()] == [*given.values()], number
        of_merchants.forget(lambda name: name == "c0", "somebody")


# --- over several partitions ------------------------------------------------------------------


def test_what_a_delay_cannot_have_is_told_all_at_once() -> None:
    """An entity, exact aggregates, no functions of one's own, and one delay for all."""
    with pytest.raises(DeclarationError) as refused:
        state_of(
            window("1h", delay="10s").count(),
            window("1h", entity="merchant", delay="soon").count(),
            window("1h", entity="merchant", delay="10s").decayed_mean("amount", half_life="1m"),
            window("1h", entity="merchant", delay="10s").sum(sml.function(abs, "amount")),
            window("1h", entity="merchant", delay="10s").count(),
            window("1h", entity="merchant", delay="20s").count(),
        )

    assert [
        "`entity` beside `delay`: events of one key lie in one partition",
        "a duration such as '30s', '10m', '1h', '7d' or milliseconds",
        "an aggregate of the package's that is exact, where there is a `delay`",
        "no function of your own in a window with a `delay`",
        "one `delay` for all windows",
    ] == [problem.expected for problem in refused.value.problems]


def test_windows_with_a_delay_are_told_from_those_without() -> None:
    """By their names, and in the words of a declaration."""
    late = window("1h", entity="merchant", delay="10s").count(kind="refused")

    assert "count 1h of merchant delay 10s kind=refused" == late.name
    text = orjson.dumps([[late.name], late.describe()]).decode()
    assert "count over 1h of merchant, as of 10s before where kind is refused" == feature_words(
        text
    )
